//! The known data sets and their splits.

use crate::{Error, names};
use std::fmt;
use std::str::FromStr;

/// The names of all [`DatasetKind`]s, for messages.
const KNOWN: &str = "mnist, cifar10, cifar100, cifar100-coarse, fashion-mnist";

/// A data set whose official files can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DatasetKind {
    /// Handwritten digits: IDX files, `[1, 28, 28]`, 10 classes. Other sets with the same file
    /// names, sizes and number of classes (KMNIST) can be read too, but with the digits as class
    /// names.
    Mnist,
    /// Small colour photographs: CIFAR-10's binary version, `[3, 32, 32]`, 10 classes.
    Cifar10,
    /// CIFAR-100's binary version with its fine labels, 100 classes.
    Cifar100,
    /// CIFAR-100 with its coarse labels: 20 classes of five fine ones each.
    Cifar100Coarse,
    /// Pictures of clothing, in files with MNIST's names, `[1, 28, 28]`, 10 classes.
    FashionMnist,
}

impl DatasetKind {
    /// Every kind.
    pub const ALL: [Self; 5] =
        [Self::Mnist, Self::Cifar10, Self::Cifar100, Self::Cifar100Coarse, Self::FashionMnist];

    /// The name by which the command line knows it; [`FromStr`] reads it back.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::Mnist => "mnist",
            Self::Cifar10 => "cifar10",
            Self::Cifar100 => "cifar100",
            Self::Cifar100Coarse => "cifar100-coarse",
            Self::FashionMnist => "fashion-mnist",
        }
    }

    /// Its usual name.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Mnist => "MNIST",
            Self::Cifar10 => "CIFAR-10",
            Self::Cifar100 => "CIFAR-100",
            Self::Cifar100Coarse => "CIFAR-100 (coarse)",
            Self::FashionMnist => "Fashion-MNIST",
        }
    }

    /// The names of its classes, in the order of the labels.
    pub(crate) const fn class_names(self) -> &'static [&'static str] {
        match self {
            Self::Mnist => &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
            Self::Cifar10 => {
                &["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
            }
            Self::Cifar100 => &names::FINE,
            Self::Cifar100Coarse => &names::COARSE,
            Self::FashionMnist => &names::FASHION,
        }
    }

    /// The names of its classes as owned strings.
    pub(crate) fn own_class_names(self) -> Vec<String> {
        self.class_names().iter().map(|&name| name.to_owned()).collect()
    }
}

impl fmt::Display for DatasetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.id())
    }
}

impl FromStr for DatasetKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let unknown = || Error::Unknown { what: "data set", given: text.to_owned(), known: KNOWN };
        Self::ALL.into_iter().find(|kind| kind.id() == text).ok_or_else(unknown)
    }
}

/// The training or the test part of a data set, as published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Split {
    /// The images to train on.
    Train,
    /// The images held out for testing.
    Test,
}

impl Split {
    /// Both splits.
    pub const ALL: [Self; 2] = [Self::Train, Self::Test];

    /// The name by which the command line knows it; [`FromStr`] reads it back.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Test => "test",
        }
    }

    /// The adjective in messages: "the MNIST training images".
    pub(crate) const fn adjective(self) -> &'static str {
        match self {
            Self::Train => "training",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.id())
    }
}

impl FromStr for Split {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let unknown = || Error::Unknown { what: "split", given: text.to_owned(), known: "train, test" };
        Self::ALL.into_iter().find(|split| split.id() == text).ok_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_round() -> Result<(), Error> {
        for kind in DatasetKind::ALL {
            assert_eq!(kind.to_string().parse::<DatasetKind>()?, kind);
        }
        for split in Split::ALL {
            assert_eq!(split.to_string().parse::<Split>()?, split);
        }
        Ok(())
    }

    #[test]
    fn unknown_names_are_reported_with_the_known_ones() {
        let message = |error: Error| error.to_string();
        let kind = "cifar".parse::<DatasetKind>().map_err(message);
        assert_eq!(kind, Err("no such data set: \"cifar\"; known are mnist, cifar10, cifar100, cifar100-coarse, fashion-mnist".to_owned()));
        let split = "valid".parse::<Split>().map_err(message);
        assert_eq!(split, Err("no such split: \"valid\"; known are train, test".to_owned()));
    }
}
