//! What a network's configuration may ask for, checked before anything is built.
//!
//! Burn's layers panic on a zero or an overflowing size; here every such wish is a typed error, and all of a
//! configuration's faults are told at once.

use crate::Error;

/// The largest number of channels, width, growth or classes.
const MOST: usize = 1 << 20;
/// The largest side of an image, in pixels.
const LARGEST_SIDE: usize = 1 << 14;
/// The most elements one tensor of a network may have (8 GiB in f32).
const MOST_ELEMENTS: u128 = 1 << 31;

/// Collects what is wrong with a configuration.
#[derive(Debug)]
pub(crate) struct Limits {
    network: &'static str,
    faults: Vec<String>,
}

impl Limits {
    pub(crate) fn of(network: &'static str) -> Self {
        Self { network, faults: Vec::new() }
    }

    /// `value` counts something: at least 1, at most 2^20.
    pub(crate) fn count(mut self, what: &str, value: usize) -> Self {
        if value == 0 || value > MOST {
            self.faults.push(format!("{what} is {value}: must be 1 to {MOST}"));
        }
        self
    }

    /// `size` is the side of the images: at least `smallest`, below which nothing is left behind the pools.
    pub(crate) fn side(mut self, size: usize, smallest: usize) -> Self {
        if size < smallest || size > LARGEST_SIDE {
            self.faults
                .push(format!("images of {size}x{size} pixels: must be {smallest} to {LARGEST_SIDE} a side"));
        }
        self
    }

    /// `value` is a probability below 1.
    pub(crate) fn probability(mut self, what: &str, value: f64) -> Self {
        if !(0.0..1.0).contains(&value) {
            self.faults.push(format!("{what} is {value}: must be at least 0 and below 1"));
        }
        self
    }

    /// The product of `factors` is the size of the network's largest tensor.
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
