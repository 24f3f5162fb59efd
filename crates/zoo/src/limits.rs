//! Limits of a network's configuration, checked before anything is built.
//!
//! Burn's layers panic on a zero or overflowing size. Here every such value is a typed error, and
//! all faults of a configuration are reported at once.

use crate::Error;

/// The largest number of channels or classes, and the largest width or growth. More is taken for a
/// mistake.
const MOST: usize = 1 << 20;
/// The largest side of an image, in pixels. More is taken for a mistake.
const LARGEST_SIDE: usize = 1 << 14;
/// The most elements that one tensor of a network may have (8 GiB in f32).
const MOST_ELEMENTS: u128 = 1 << 31;

/// Collects the faults of a configuration.
#[derive(Debug)]
pub(crate) struct Limits {
    network: &'static str,
    faults: Vec<String>,
}

impl Limits {
    pub(crate) fn of(network: &'static str) -> Self {
        Self { network, faults: Vec::new() }
    }

    /// Checks a count: 1 to 2^20.
    pub(crate) fn count(mut self, what: &str, value: usize) -> Self {
        if value == 0 || value > MOST {
            self.faults.push(format!("{what} is {value}: must be 1 to {MOST}"));
        }
        self
    }

    /// Checks the side of the images: at least `smallest`, below which nothing is left after the
    /// pools.
    pub(crate) fn side(mut self, size: usize, smallest: usize) -> Self {
        if size < smallest || size > LARGEST_SIDE {
            self.faults.push(format!(
                "images of {size}x{size} pixels: must be {smallest} to {LARGEST_SIDE} per side"
            ));
        }
        self
    }

    /// Checks a probability: at least 0, below 1.
    pub(crate) fn probability(mut self, what: &str, value: f64) -> Self {
        if !(0.0..1.0).contains(&value) {
            self.faults.push(format!("{what} is {value}: must be at least 0 and below 1"));
        }
        self
    }

    /// Checks the size of a tensor, the product of `factors`.
    pub(crate) fn elements(mut self, what: &str, factors: &[usize]) -> Self {
        let product = factors.iter().fold(1u128, |product, &factor| product.saturating_mul(factor as u128));
        if product > MOST_ELEMENTS {
            self.faults.push(format!("{what} would have {product} elements: at most {MOST_ELEMENTS}"));
        }
        self
    }

    /// # Errors
    ///
    /// [`Error::Configuration`] with every fault found.
    pub(crate) fn check(self) -> Result<(), Error> {
        if self.faults.is_empty() {
            return Ok(());
        }
        Err(Error::Configuration { network: self.network, faults: self.faults })
    }
}
