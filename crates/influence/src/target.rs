//! The objectives of the command line, before any labels are known:
//! `label|predicted|class:N|entropy|margin`.

use std::fmt;
use std::str::FromStr;

use influence_manifold::SampleObjective;

use crate::error::Error;
use crate::objective::Objective;

/// An objective by its name on the command line.
///
/// ```
/// use influence::{Objective, Target};
///
/// # fn main() -> Result<(), influence::Error> {
/// let target: Target = "class:3".parse()?;
/// assert_eq!(target.objective([7, 2]), Objective::class(3));
/// assert_eq!("entropy".parse::<Target>()?.to_string(), "entropy");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Target {
    /// -log P of each sample's own label.
    #[default]
    Label,
    /// -log P of the predicted class.
    Predicted,
    /// -log P of one class for all samples.
    Class(usize),
    /// The entropy of the prediction.
    Entropy,
    /// The largest logit minus the second.
    Margin,
}

impl Target {
    /// The objective of one sample with this label.
    #[must_use]
    pub fn of(self, label: usize) -> SampleObjective {
        match self {
            Self::Label => SampleObjective::class(label),
            Self::Predicted => SampleObjective::Predicted,
            Self::Class(class) => SampleObjective::class(class),
            Self::Entropy => SampleObjective::Entropy,
            Self::Margin => SampleObjective::Margin,
        }
    }

    /// The objective of samples with these labels.
    #[must_use]
    pub fn objective(self, labels: impl IntoIterator<Item = usize>) -> Objective {
        match self {
            Self::Label => Objective::label(labels),
            Self::Predicted => Objective::predicted(),
            Self::Class(class) => Objective::class(class),
            Self::Entropy => Objective::entropy(),
            Self::Margin => Objective::margin(),
        }
    }
}

impl FromStr for Target {
    type Err = Error;

    /// Reads `label`, `predicted`, `class:N`, `entropy` or `margin`.
    fn from_str(text: &str) -> Result<Self, Error> {
        match text.split_once(':') {
            None => match text {
                "label" => Ok(Self::Label),
                "predicted" => Ok(Self::Predicted),
                "entropy" => Ok(Self::Entropy),
                "margin" => Ok(Self::Margin),
                _ => Err(syntax(text, "no such objective")),
            },
            Some(("class", number)) => number
                .parse()
                .map(Self::Class)
                .map_err(|_| syntax(text, "the class is a number from 0, as in class:3")),
            Some(_) => Err(syntax(text, "no such objective")),
        }
    }
}

fn syntax(text: &str, reason: &'static str) -> Error {
    Error::ObjectiveSyntax { text: text.to_owned(), reason }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label => f.write_str("label"),
            Self::Predicted => f.write_str("predicted"),
            Self::Class(class) => write!(f, "class:{class}"),
            Self::Entropy => f.write_str("entropy"),
            Self::Margin => f.write_str("margin"),
        }
    }
}
