#!/usr/bin/env python3
"""make.py > planted.csv: multi-precision reference values of the influence measure (needs mpmath;
about two minutes).

J = A B with A (K x r) and B (r x p) of small dyadic numbers, so that J is exact in float64 and has
rank exactly r; logits are dyadic too. With N = A^T (diag P - P P^T) A and g = A^T dh, dh = P - e_y,
    exact      g^T N^-1 g                               direction h = B^+ N^-1 g
    tikhonov   g^T (N + lambda (B B^T)^-1)^-1 g
    paper      sum over s_i > rank_eps of (df . v_i)^2 / s_i^2, T = diag(1/(sqrt P + eps)) (diag P - P P^T) J = sum s_i q_i v_i^T
in DIGITS digits, which exceed the largest exponent of P by eighty. For the objectives entropy
(dh_k = -P_k (ln P_k + H)), margin (of the predicted class: e_y - e_j, j the largest other),
margin_y (of class y) and cost (P_k (c_k - E c), c_k = ((7 k + 3) mod 11) / 4): NAME_bound,
NAME_exact, NAME_norm and NAME_tikhonov (lambda 1). Lines:
    matrix,NAME,K,p,r,J...              row-major
    case,NAME,POSITION,GAP,y,z...;KEY=VALUE...
"""
import random

from mpmath import mp, mpf, matrix, exp, log, log10, sqrt, cholesky, lu_solve, eigsy, nstr

DIGITS = 1200
PAPER_DIGITS = 320
SEED = 19071152
GAPS = [0, 1, 10, 40, 100, 300, 600]
LAMBDAS = ['1e-6', '1', '1e3']
PAPERS = [('1e-3', '1e-3'), ('1e-3', '0.255'), ('1e-8', '1e-8')]
rng = random.Random(SEED)


def dyadic(bits, size):
    """A multiple of 2^-bits within -size .. size."""
    return rng.randint(-int(size * 2 ** bits), int(size * 2 ** bits)) / 2 ** bits


def plant(classes, columns, rank):
    a = [[dyadic(6, 2) for _ in range(rank)] for _ in range(classes)]
    b = [[dyadic(6, 2) * 2.0 ** -i for _ in range(columns)] for i in range(rank)]
    j = [[sum(a[k][i] * b[i][c] for i in range(rank)) for c in range(columns)] for k in range(classes)]
    for k in range(classes):
        for c in range(columns):
            assert mpf(j[k][c]) == sum(mpf(a[k][i]) * mpf(b[i][c]) for i in range(rank))
    return a, b, j


def logits(classes, position, gap):
    """Logits whose class y lies `gap` above the others, in their middle, or `gap` below them all; y
    is 3 of 10, shifted after."""
    between = lambda low, high: -gap * rng.randint(int(low * 1024), int(high * 1024)) / 1024
    if position == 'top':
        rest = [-float(gap)] + [between(1, 1.2) for _ in range(classes - 2)]
        mine = 0.0
    elif position == 'middle':
        half = (classes - 2) // 2
        rest = [0.0] + [between(0, 1) for _ in range(half)] + [between(1, 1.5) for _ in range(classes - 2 - half)]
        mine = -float(gap)
    else:
        rest = [0.0] + [between(0, 1) for _ in range(classes - 2)]
        mine = -float(gap)
    rng.shuffle(rest)
    y = rng.randrange(classes)
    rest.insert(y, mine)
    shift = rng.randint(-64, 64) / 4
    return [z + shift for z in rest], y


def quadratic(n, g):
    # lu_solve divides by what may be zero: no gradient, no influence.
    return (g.T * lu_solve(n, g))[0] if any(g) else mpf(0)


def gradients(p, z, y):
    """dh of the objectives that are not -ln P."""
    classes = range(len(p))
    entropy = -sum(v * log(v) for v in p)
    costs = [mpf((7 * k + 3) % 11) / 4 for k in classes]
    mean = sum(v * c for v, c in zip(p, costs))
    first = max(classes, key=lambda k: (z[k], -k))

    def margin(of):
        rival = max((k for k in classes if k != of), key=lambda k: (z[k], -k))
        return matrix([(1 if k == of else 0) - (1 if k == rival else 0) for k in classes])

    return {
        'entropy': matrix([-p[k] * (log(p[k]) + entropy) for k in classes]),
        'margin': margin(first),
        'margin_y': margin(y),
        'cost': matrix([p[k] * (costs[k] - mean) for k in classes]),
    }


def number(x):
    return nstr(x, 18)


def reference(a, b, z, y, gap):
    mp.dps = DIGITS
    classes, rank = len(a), len(a[0])
    a, b = matrix(a), matrix(b)
    powers = [exp(mpf(v) - max(z)) for v in z]
    total = sum(powers)
    p = [v / total for v in powers]
    dh = matrix([p[k] - (1 if k == y else 0) for k in range(classes)])
    mean = [sum(p[k] * a[k, i] for k in range(classes)) for i in range(rank)]
    n = matrix(rank, rank)
    for i in range(rank):
        for j in range(rank):
            n[i, j] = sum(p[k] * (a[k, i] - mean[i]) * (a[k, j] - mean[j]) for k in range(classes))
    g = a.T * dh
    bb = b * b.T
    values = {'bound': (1 - p[y]) / p[y], 'exact': quadratic(n, g)}
    df = b.T * g
    values['norm'] = sqrt(sum(v * v for v in df))
    values['entropy'] = -sum(v * log(v) for v in p)
    values['cross_entropy'] = -log(p[y])
    for text in LAMBDAS:
        values['tikhonov:' + text] = quadratic(n + mpf(text) * bb ** -1, g)
    for name, dh in gradients(p, z, y).items():
        g_name = a.T * dh
        values[name + '_bound'] = sum(dh[k] ** 2 / p[k] for k in range(classes))
        values[name + '_exact'] = quadratic(n, g_name)
        values[name + '_norm'] = sqrt(sum(v * v for v in b.T * g_name))
        values[name + '_tikhonov'] = quadratic(n + bb ** -1, g_name)
    direction = b.T * lu_solve(bb, lu_solve(n, g))
    out = [f'{key}={number(value)}' for key, value in values.items()]
    out.append('log10=' + number(log10(values['exact'])))
    out.append('h=' + ' '.join(nstr(v, 17) for v in direction))
    if gap <= 100:
        out += papers(a, bb, p, mean, n, g, y)
    return out


def papers(a, bb, p, mean, n, g, y):
    """The authors' numerics, and the spectrum of Gamma, in the r coordinates in which J is A times
    a Cholesky factor."""
    mp.dps = PAPER_DIGITS
    classes, rank = a.rows, a.cols
    factor = cholesky(bb)
    gammas = eigsy(factor.T * n * factor, eigvals_only=True)
    out = [f'fisher_norm={number(max(gammas))}', f'fisher_trace={number(sum(gammas))}']
    deviations = matrix(classes, rank)
    for k in range(classes):
        for i in range(rank):
            deviations[k, i] = a[k, i] - mean[i]
    rows = deviations * factor
    for epsilon, rank_epsilon in PAPERS:
        e = mpf(epsilon)
        t = matrix(classes, rank)
        for k in range(classes):
            for i in range(rank):
                t[k, i] = p[k] / (sqrt(p[k]) + e) * rows[k, i]
        squares, v = eigsy(t.T * t)
        df = [-p[y] / (p[y] + e) * rows[y, i] for i in range(rank)]
        kept = [i for i in range(rank) if squares[i] > mpf(rank_epsilon) ** 2]
        value = sum(sum(df[j] * v[j, i] for j in range(rank)) ** 2 / squares[i] for i in kept)
        out.append(f'paper:{epsilon}:{rank_epsilon}={number(value)} {len(kept)}')
    return out


def main():
    mp.dps = DIGITS
    plans = [(f'r{rank}', 10, 12, rank) for rank in range(1, 10)]
    plans += [('k2', 2, 3, 1), ('k3', 3, 4, 1), ('k5', 5, 6, 3), ('k40', 40, 9, 6)]
    for name, classes, columns, rank in plans:
        a, b, j = plant(classes, columns, rank)
        print('matrix', name, classes, columns, rank, *(repr(v) for row in j for v in row), sep=',')
        for gap in GAPS if name.startswith('r') else [1, 40, 600]:
            for position in ['top', 'middle', 'least']:
                if classes < 3 and position == 'middle':
                    continue
                z, y = logits(classes, position, gap)
                values = reference(a, b, z, y, gap)
                print('case', name, position, gap, y, *(repr(v) for v in z), sep=',', end=';')
                print(';'.join(values), flush=True)


main()
