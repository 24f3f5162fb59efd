//! `--mean` and `--std`: the normalisation with which a network was trained, as its first layer.
//!
//! y = (x - mean) / std, per channel. It belongs to the network and not to the samples, so that
//! pixels in [0, 1] are perturbed, whatever input the network expects.

use std::fmt;

use burn::tensor::{Tensor, TensorData};

use crate::failure::{Failure, Result};

/// One mean and one standard deviation per channel.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Normalisation {
    mean: Vec<f64>,
    std: Vec<f64>,
}

impl Normalisation {
    /// Parses both flags for samples with `channels` channels; `None` if neither is given.
    pub(crate) fn parse(mean: Option<&str>, std: Option<&str>, channels: usize) -> Result<Option<Self>> {
        if mean.is_none() && std.is_none() {
            return Ok(None);
        }
        let list = |flag: &str, text: Option<&str>, default: f64| match text {
            Some(text) => numbers(flag, text, channels),
            None => Ok(vec![default; channels]),
        };
        let (mean, std) = (list("--mean", mean, 0.0)?, list("--std", std, 1.0)?);
        match std.iter().find(|&&value| value <= 0.0) {
            Some(value) => Err(Failure::new(format!("--std {value}: numbers above 0 are needed"))),
            None => Ok(Some(Self { mean, std })),
        }
    }

    /// Means and deviations.
    pub(crate) fn numbers(&self) -> (&[f64], &[f64]) {
        (&self.mean, &self.std)
    }

    /// The first layer of a network of images `[N, C, H, W]`.
    pub(crate) fn forward(&self, images: Tensor<4>) -> Tensor<4> {
        let of = |numbers: &[f64]| {
            let data = TensorData::new(numbers.to_vec(), [1, numbers.len(), 1, 1]);
            Tensor::<4>::from_data(data, (&images.device(), images.dtype()))
        };
        let (mean, std) = (of(&self.mean), of(&self.std));
        (images - mean) / std
    }
}

impl fmt::Display for Normalisation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |numbers: &[f64]| numbers.iter().map(f64::to_string).collect::<Vec<_>>().join(",");
        write!(f, "mean {}, std {}", list(&self.mean), list(&self.std))
    }
}

/// Parses one value per channel, or one for all.
fn numbers(flag: &str, text: &str, channels: usize) -> Result<Vec<f64>> {
    let parsed: Option<Vec<f64>> = text
        .split(',')
        .map(|number| number.trim().parse().ok().filter(|number: &f64| number.is_finite()))
        .collect();
    let fail = |why: String| Err(Failure::new(format!("{flag} {text}: {why}")));
    match parsed {
        Some(numbers) if numbers.len() == channels => Ok(numbers),
        Some(numbers) if numbers.len() == 1 => Ok(vec![numbers[0]; channels]),
        Some(numbers) => fail(format!("{} numbers for images of {channels} channel(s)", numbers.len())),
        None => fail("numbers with commas between them are needed, in units of pixels in [0, 1]".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_fit_the_channels_or_are_refused() {
        let parse = |mean, std| Normalisation::parse(mean, std, 3);
        assert_eq!(parse(None, None).expect("nothing"), None);
        let one = parse(Some("0.5"), None).expect("one for all").expect("a normalisation");
        assert_eq!(one.numbers(), (&[0.5; 3][..], &[1.0; 3][..]));
        let three = parse(Some("0.485,0.456, 0.406"), Some("0.2,0.3,0.4")).expect("three").expect("one");
        assert_eq!(three.to_string(), "mean 0.485,0.456,0.406, std 0.2,0.3,0.4");
        for (mean, std, word) in [
            (Some("1,2"), None, "2 numbers"),
            (Some("a"), None, "commas"),
            (Some("nan"), None, "commas"),
            (None, Some("0"), "above 0"),
            (None, Some("1,-1,1"), "above 0"),
        ] {
            let message = parse(mean, std).expect_err(word).to_string();
            assert!(message.contains(word), "{message}");
        }
    }
}
