//! The memory that a run may take: sizes as people write them (`2GiB`), and the batch or the number
//! of parallel batches that they allow.
//!
//! A plan knows its bytes before anything runs ([`Plan::bytes`]): w for the weights, and d per
//! sample. A GPU runs one batch of n samples at a time, so w + n d must be within the limit; a CPU
//! runs single samples side by side on n threads that share the weights, which gives the same sum.
//! Temporaries inside the backend's kernels (unfolded convolutions, packed matrices) and the
//! backend's memory pools come on top.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::parameters::Leaves;
use crate::plan::Plan;
use crate::precision::Precision;

/// A number of bytes.
///
/// ```
/// use influence_autodiff::Memory;
///
/// # fn main() -> Result<(), influence_autodiff::Error> {
/// let memory: Memory = "1.5GiB".parse()?;
/// assert_eq!((memory.bytes(), memory.to_string()), (3 << 29, "1.5GiB".to_owned()));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Memory(usize);

/// The default limit for one batch on a GPU, and for the cotangents of one Gram matrix on any
/// device: as much as the smallest GPUs in use can give.
pub(crate) const DEFAULT_MEMORY: Memory = Memory(2 << 30);

/// Units and their bytes; sizes are shown in the first binary unit that is not larger than them.
const UNITS: [(&str, usize); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// The number of binary units at the start of [`UNITS`].
const BINARY: usize = 4;

impl Memory {
    /// A size of `bytes`.
    #[must_use]
    pub const fn new(bytes: usize) -> Self {
        Self(bytes)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        self.0
    }
}

impl FromStr for Memory {
    type Err = Error;

    /// Reads a number with a unit: `2GiB`, `1.5 GB`, `512M` (MiB), `1000000` (bytes); the case does
    /// not matter.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Error::InvalidArgument(format!(
                "'{text}' is not an amount of memory: {why}; give for example 2GiB or 512MiB"
            ))
        };
        let written = text.trim().to_ascii_lowercase();
        let digits = written.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(written.len());
        let (number, unit) = (&written[..digits], written[digits..].trim());
        let number: f64 = number.parse().map_err(|_| wrong("it does not begin with a number"))?;
        let named = |name: &str| {
            name.to_ascii_lowercase() == unit || unit.len() == 1 && unit_letter(name) == Some(unit)
        };
        let scale = if unit.is_empty() {
            1
        } else {
            let found = UNITS.iter().find(|(name, _)| named(name));
            found.ok_or_else(|| wrong("the units are B, KiB, MiB, GiB, TiB, KB, MB, GB, TB"))?.1
        };
        let bytes = number * scale as f64;
        if !(1.0..usize::MAX as f64).contains(&bytes) {
            return Err(wrong("it is less than a byte or more than this machine can count"));
        }
        Ok(Self(bytes as usize))
    }
}

/// The letter that stands for a binary unit.
fn unit_letter(name: &str) -> Option<&'static str> {
    [("TiB", "t"), ("GiB", "g"), ("MiB", "m"), ("KiB", "k")]
        .iter()
        .find(|(unit, _)| *unit == name)
        .map(|(_, letter)| *letter)
}

impl fmt::Display for Memory {
    /// In the largest binary unit that fits, rounded up to a tenth, so that the number shown is
    /// enough as a limit.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS[..BINARY].iter().find(|(_, scale)| self.0 >= *scale) {
            Some((unit, scale)) => {
                write!(f, "{}{unit}", (self.0 as f64 / *scale as f64 * 10.0).ceil() / 10.0)
            }
            None => write!(f, "{}B", self.0),
        }
    }
}

/// The plan for a device that runs one batch at a time, of as many samples as fit, at most `most`.
///
/// # Errors
/// [`Error::Memory`] when not even one sample fits; the errors of planning.
pub(crate) fn fitting_plan(
    graph: Arc<Graph>,
    most: usize,
    block: usize,
    precision: Precision,
    limit: Memory,
) -> Result<Plan> {
    let one = Plan::input(Arc::clone(&graph), 1, block, precision)?;
    let batch = samples_within(&one, limit)?.min(most);
    Plan::input(graph, batch, block, precision)
}

/// The plan for Gram matrices: with all K - 1 cotangents at once where they fit, else with as many
/// as do, at least two.
///
/// # Errors
/// [`Error::Memory`] when not even two cotangents of one sample fit; the errors of planning.
pub(crate) fn gram_plan(
    graph: Arc<Graph>,
    leaves: Leaves,
    precision: Precision,
    limit: Memory,
) -> Result<Plan> {
    // At least two: where there are more cotangents than a pass takes, pairs of blocks are
    // computed.
    let all = (graph.classes() - 1).max(2);
    let plan = |block| Plan::new(Arc::clone(&graph), leaves.clone(), 1, block, precision);
    let whole = plan(all)?;
    if whole.bytes().peak() <= limit.0 || all == 2 {
        samples_within(&whole, limit)?;
        return Ok(whole);
    }
    // By bisection: more cotangents take more bytes.
    let (mut fits, mut exceeds) = (2, all);
    while exceeds - fits > 1 {
        let middle = usize::midpoint(fits, exceeds);
        if plan(middle)?.bytes().peak() <= limit.0 { fits = middle } else { exceeds = middle }
    }
    let fitting = plan(fits)?;
    samples_within(&fitting, limit)?;
    Ok(fitting)
}

/// The number of samples that fit together with the weights, from the plan for one sample.
///
/// # Errors
/// [`Error::Memory`] when not even one does.
pub(crate) fn samples_within(one: &Plan, limit: Memory) -> Result<usize> {
    let (peak, weights) = (one.bytes().peak(), one.bytes().weights);
    within(weights, peak - weights, limit)
}

/// The number of samples of `sample` bytes that fit together with `fixed` bytes.
///
/// # Errors
/// [`Error::Memory`] when not even one does.
pub(crate) fn within(fixed: usize, sample: usize, limit: Memory) -> Result<usize> {
    match limit.0.saturating_sub(fixed) / sample.max(1) {
        0 => Err(Error::Memory { needed: Memory(fixed + sample), limit }),
        fitting => Ok(fitting),
    }
}

#[cfg(test)]
mod tests {
    //! Reading and showing sizes, and batches exactly at a limit.

    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::activation::tanh;
    use burn::tensor::{Device, Tensor};

    use super::*;

    fn parsed(text: &str) -> usize {
        text.parse::<Memory>().expect("a size").bytes()
    }

    #[test]
    fn sizes_are_read_in_every_unit() {
        assert_eq!(parsed("2GiB"), 2 << 30);
        assert_eq!((parsed("2 gib"), parsed("2G"), parsed(" 2g ")), (2 << 30, 2 << 30, 2 << 30));
        assert_eq!((parsed("1.5KiB"), parsed("1.5KB"), parsed("7"), parsed("7B")), (1_536, 1_500, 7, 7));
        for text in
            ["", "GiB", "2XB", "-1GiB", "0", "0.5B", "1e3", "nan", "99999999999999TiB", "2GiBs", "1..2MB"]
        {
            let error = text.parse::<Memory>().expect_err(text).to_string();
            assert!(error.contains(&format!("'{text}'")) && error.contains("2GiB"), "{error}");
        }
    }

    #[test]
    fn what_is_shown_is_enough() {
        for (bytes, shown) in
            [(1, "1B"), (1_023, "1023B"), (1_024, "1KiB"), (1_025, "1.1KiB"), (3 << 29, "1.5GiB")]
        {
            assert_eq!(Memory(bytes).to_string(), shown);
            assert!(parsed(shown) >= bytes);
        }
    }

    fn graph() -> Graph {
        let device = Device::flex();
        let layer = LinearConfig::new(64, 3).init(&device);
        let forward = |layer: &Linear, x: Tensor<2>| tanh(layer.forward(x));
        Graph::capture(&layer, forward, &[64], &device).expect("it is captured")
    }

    #[test]
    fn a_batch_is_as_large_as_fits_and_no_larger() {
        let plan = |most: usize, limit: usize| {
            fitting_plan(Arc::new(graph()), most, 2, Precision::F32, Memory(limit))
        };
        let peak = |batch: usize| {
            Plan::input(Arc::new(graph()), batch, 2, Precision::F32).expect("a plan").bytes().peak()
        };
        for batch in [1, 2, 7, 100] {
            assert_eq!(plan(1_000, peak(batch)).expect("it fits").batch(), batch);
            assert_eq!(plan(1_000, peak(batch + 1) - 1).expect("it fits").batch(), batch);
            assert_eq!(plan(3, peak(batch)).expect("it fits").batch(), batch.min(3));
        }
        let refused = plan(1, peak(1) - 1).expect_err("one byte too few");
        assert_eq!(refused, Error::Memory { needed: Memory(peak(1)), limit: Memory(peak(1) - 1) });
        assert!(refused.to_string().contains("give at least"), "{refused}");
    }
}
