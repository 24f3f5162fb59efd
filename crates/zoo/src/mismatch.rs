//! The differences between a file's tensors and a network, as data and as messages.

use std::fmt;

use crate::error::{offer, quoted};
use crate::weights::Description;

/// Every difference between a file's tensors and a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mismatch {
    /// Tensors that the file lacks.
    pub missing: Vec<Missing>,
    /// Tensors of the wrong shape.
    pub misshaped: Vec<Misshaped>,
    /// Tensors that are not floating-point numbers: name in the file and type.
    pub not_float: Vec<(String, &'static str)>,
    /// Names of the network to which several of the file's tensors correspond.
    pub colliding: Vec<(String, Vec<String>)>,
}

impl Mismatch {
    pub(crate) fn is_empty(&self) -> bool {
        self.missing.is_empty()
            && self.misshaped.is_empty()
            && self.not_float.is_empty()
            && self.colliding.is_empty()
    }
}

/// A tensor that a file lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// PyTorch's name.
    pub name: String,
    /// The most similar name among the file's unused ones, if one is similar.
    pub nearest: Option<String>,
}

/// A tensor whose shape is not the network's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misshaped {
    /// Its name in the file.
    pub name: String,
    /// Its shape in the file.
    pub found: Vec<usize>,
    /// The network's shape, in PyTorch's layout.
    pub expected: Vec<usize>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Missing { name, nearest } in &self.missing {
            write!(f, "\n  missing: {name}{}", offer(nearest.as_deref()))?;
        }
        for Misshaped { name, found, expected } in &self.misshaped {
            write!(f, "\n  shape: {} is {found:?}, must be {expected:?}", quoted(name))?;
        }
        for (name, dtype) in &self.not_float {
            write!(
                f,
                "\n  type: {} is {dtype}, must be F16, BF16, F32 or F64 (in Python: dequantize(), to_dense(), float())",
                quoted(name)
            )?;
        }
        for (name, keys) in &self.colliding {
            let keys: Vec<String> = keys.iter().map(|key| quoted(key)).collect();
            write!(f, "\n  collision: {} all stand for {name}", keys.join(", "))?;
        }
        Ok(())
    }
}

/// A file with the tensors of another network.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Strangers {
    /// The network to load into, as far as it is recognised.
    pub expected: String,
    /// The network to which the file's names belong, if it is one of this crate.
    pub found: Option<&'static str>,
    /// Number of the network's tensors that the file lacks.
    pub missing: usize,
    /// Number of tensors of the network.
    pub total: usize,
    /// A few names that the file lacks.
    pub missing_examples: Vec<String>,
    /// Number of the file's tensors that the network lacks.
    pub unknown: usize,
    /// A few of their names.
    pub unknown_examples: Vec<String>,
}

impl fmt::Display for Strangers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expected = &self.expected;
        match self.found {
            Some(found) if found == expected => {
                write!(f, "these are only a part of the weights of {expected}")?;
            }
            Some(found) => write!(f, "this looks like the weights of {found}, not of {expected}")?,
            None => write!(f, "these are not the weights of {expected}")?,
        }
        let (missing, total) = (self.missing, self.total);
        write!(f, ": {missing} of its {total} tensors are missing{}", examples(&self.missing_examples))?;
        if self.unknown > 0 {
            write!(f, ", {} unknown ones are there{}", self.unknown, examples(&self.unknown_examples))?;
        }
        Ok(())
    }
}

fn examples(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
    if names.is_empty() { String::new() } else { format!(" ({}, ...)", names.join(", ")) }
}

/// A file with the tensors of the same network in another size.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resized {
    /// The network to load into.
    pub expected: Description,
    /// The network that the file's shapes imply.
    pub found: Description,
    /// All other differences; `misshaped` is empty, because the size explains those.
    pub others: Mismatch,
}

impl fmt::Display for Resized {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { expected, found, others } = self;
        write!(f, "these are the weights of another {}", found.family)?;
        if let Some((is, asked)) = differing(&found.scale, &expected.scale) {
            let scale = found.family.scale_name();
            write!(f, ": the file has {scale} {is}, not {asked}: pass --width {is}")?;
        }
        if let Some((is, asked)) = differing(&found.channels, &expected.channels) {
            write!(
                f,
                ": the file's network reads images of {is} channel(s), not {asked}: choose the data that it was trained on"
            )?;
        }
        if let Some((is, asked)) = differing(&found.classes, &expected.classes) {
            write!(f, ": the file has {is} classes, not {asked}: choose the data that it was trained on")?;
        }
        if let Some((is, _)) = differing(&found.sides, &expected.sides) {
            write!(f, ": the file's network reads images of {} to {} pixels per side", is.start(), is.end())?;
        }
        write!(f, "{others}")
    }
}

/// Both values, if both are known and differ.
fn differing<'a, T: PartialEq>(found: &'a Option<T>, expected: &'a Option<T>) -> Option<(&'a T, &'a T)> {
    found.as_ref().zip(expected.as_ref()).filter(|(found, expected)| found != expected)
}
