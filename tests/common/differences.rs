//! Derivatives by finite differences of the caller's own forward pass. They share no code with an
//! engine.

/// Tolerance for logits of one engine against those of the other or of the caller, all in f64.
pub(crate) const SAME: f64 = 1e-9;

/// Tolerance for rows and Gram matrices against differences, relative to the largest entry.
pub(crate) const DIFFERENCES: f64 = 1e-6;

/// The steps that are tried in turn. The first has the least rounding noise, which suits smooth
/// functions; smaller ones avoid crossing a nearby kink.
pub(crate) const STEPS: [f64; 3] = [3e-4, 3e-5, 3e-6];

/// Allowance for rounding in a difference of values near 1, at the first step. It grows as the step
/// shrinks.
const FLOOR: f64 = 2e-9;

/// The largest difference, relative to the largest expected entry (at least `floor`); infinite
/// where an element is NaN or missing.
pub(crate) fn distance(found: &[f64], expected: &[f64], floor: f64) -> f64 {
    if found.len() != expected.len() {
        return f64::INFINITY;
    }
    let scale = expected.iter().fold(floor, |most, x| most.max(x.abs()));
    let worst = found.iter().zip(expected).fold(0.0_f64, |worst, (a, b)| {
        let apart = (a - b).abs();
        if apart.is_nan() { f64::INFINITY } else { worst.max(apart) }
    });
    worst / scale
}

/// Succeeds if the elements agree with the differences over one of the [`STEPS`]; otherwise
/// describes by how much they differ.
pub(crate) fn near(found: &[f64], expected: impl Fn(f64) -> Vec<f64>) -> Result<(), String> {
    if found.iter().any(|x| !x.is_finite()) {
        return Err(format!("not numbers: {found:?}"));
    }
    let mut difference = String::new();
    for step in STEPS {
        let expected = expected(step);
        let apart = distance(found, &expected, FLOOR / DIFFERENCES * (STEPS[0] / step));
        if apart <= DIFFERENCES {
            return Ok(());
        }
        difference = format!("{apart:e}: {found:?}, differences {expected:?}");
    }
    Err(difference)
}

/// Positions of the four values of a fourth-order central difference, in steps.
const OFFSETS: [f64; 4] = [-2.0, -1.0, 1.0, 2.0];

/// Slopes of z_k - z_K from the logits at the four positions.
fn slope(four: &[f64], classes: usize, step: f64) -> Vec<f64> {
    let at = |i: usize, k: usize| four[i * classes + k] - four[i * classes + classes - 1];
    let slope = |k| (8.0 * (at(2, k) - at(1, k)) - (at(3, k) - at(0, k))) / (12.0 * step);
    (0..classes - 1).map(slope).collect()
}

/// The rows d(z_k - z_K) / dx at one sample, `[K-1, p]`, in one call of `logits`, which takes any
/// number of samples.
pub(crate) fn rows(
    logits: impl Fn(&[f64]) -> Vec<f64>,
    sample: &[f64],
    classes: usize,
    step: f64,
) -> Vec<f64> {
    let mut all = Vec::with_capacity(4 * sample.len() * sample.len());
    for i in 0..sample.len() {
        for offset in OFFSETS {
            let start = all.len();
            all.extend_from_slice(sample);
            all[start + i] += offset * step;
        }
    }
    let logits = logits(&all);
    let columns: Vec<Vec<f64>> =
        logits.chunks_exact(4 * classes).map(|four| slope(four, classes, step)).collect();
    (0..classes - 1).flat_map(|k| columns.iter().map(move |column| column[k])).collect()
}

/// The Gram matrix of the gradients of z_k - z_K in one tensor, `[K-1, K-1]`. `logits(element, by)`
/// returns the logits of a sample after that element of the tensor is moved.
pub(crate) fn gram(
    logits: impl Fn(usize, f64) -> Vec<f64>,
    elements: usize,
    classes: usize,
    step: f64,
) -> Vec<f64> {
    let v = classes - 1;
    let mut gram = vec![0.0; v * v];
    for element in 0..elements {
        let four = OFFSETS.map(|offset| logits(element, offset * step)).concat();
        let column = slope(&four, classes, step);
        for (at, entry) in gram.iter_mut().enumerate() {
            *entry += column[at / v] * column[at % v];
        }
    }
    gram
}
