"""Reference values of tests/statistics.rs: python reference.py (numpy, scipy, scikit-learn)."""
import numpy as np
from scipy import special, stats
from sklearn import metrics

M = (1 << 64) - 1


def stream(seed):
    """SplitMix64, as crates/report has it."""
    while True:
        seed = (seed + 0x9E3779B97F4A7C15) & M
        z = seed
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & M
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & M
        yield z ^ (z >> 31)


def sample(seed, n, kinds):
    """n values of `kinds` different ones: ties are what goes wrong."""
    s = stream(seed)
    return np.array([next(s) % kinds for _ in range(n)], dtype=float)


for n, kinds in [(60, 12), (200, 1000)]:
    x, y = sample(1, n, kinds), sample(2, n, kinds)
    bad = sample(3, n, 5) == 0
    x = x + bad * kinds / 4
    print(f"n {n}, {kinds} kinds, {bad.sum()} bad")
    print("  auroc", repr(metrics.roc_auc_score(bad, x)), "ap", repr(metrics.average_precision_score(bad, x)))
    print("  spearman", repr(stats.spearmanr(x, y).statistic))
    half = n // 3
    a, b = x[:half], y[half:]
    ks = stats.ks_2samp(a, b)
    en = len(a) * len(b) / (len(a) + len(b))
    print("  D", repr(ks.statistic), "p", repr(special.kolmogorov(ks.statistic * en ** 0.5)))
    u = stats.mannwhitneyu(a, b, method="asymptotic")
    print("  U", repr(u.statistic), "p", repr(u.pvalue))
    print("  percentiles", [float(np.percentile(x, q)) for q in (2.5, 50, 90, 97.5, 99)])
    idx = np.random.default_rng(0)
    roc, ap, med = [], [], []
    p, q = np.flatnonzero(bad), np.flatnonzero(~bad)
    for _ in range(5000):
        r = np.concatenate([idx.choice(p, len(p)), idx.choice(q, len(q))])
        roc.append(metrics.roc_auc_score(bad[r], x[r]))
        ap.append(metrics.average_precision_score(bad[r], x[r]))
        med.append(np.median(idx.choice(a, len(a))) - np.median(idx.choice(b, len(b))))
    for name, values in [("auroc", roc), ("ap", ap), ("median difference", med)]:
        print("  interval of", name, np.percentile(values, [2.5, 97.5]).tolist())
print("norm", [float(stats.norm.sf(z)) for z in (0, 1, 1.959963984540054, 2.828, 2.829, 5, 20, -1)])
s = stream(1234567)
print("stream", [next(s) for _ in range(3)])
