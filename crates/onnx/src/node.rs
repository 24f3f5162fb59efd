//! A node's attributes.

use crate::error::Refusal;
use crate::known::KnownTensor;
use crate::proto::{AttributeProto, NodeProto};
use crate::tensor;

/// The attributes of a node, by their names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes<'a>(pub(crate) &'a NodeProto);

impl<'a> Attributes<'a> {
    pub(crate) fn get(self, name: &str) -> Option<&'a AttributeProto> {
        self.0.attribute.iter().find(|attribute| attribute.name == name)
    }

    pub(crate) fn int(self, name: &str, default: i64) -> i64 {
        self.get(name).and_then(|attribute| attribute.i).unwrap_or(default)
    }

    pub(crate) fn float(self, name: &str, default: f64) -> f64 {
        self.get(name).and_then(|attribute| attribute.f).map_or(default, shortest)
    }

    pub(crate) fn ints(self, name: &str) -> Option<Vec<i64>> {
        self.get(name).map(|attribute| attribute.ints.clone())
    }

    pub(crate) fn floats(self, name: &str) -> Option<Vec<f64>> {
        self.get(name).map(|attribute| attribute.floats.iter().map(|&x| f64::from(x)).collect())
    }

    /// A word; bytes that are not UTF-8 give "?", which no operator knows.
    pub(crate) fn word(self, name: &str, default: &'a str) -> &'a str {
        let bytes = self.get(name).and_then(|attribute| attribute.s.as_deref());
        bytes.map_or(default, |bytes| std::str::from_utf8(bytes).unwrap_or("?"))
    }

    /// A tensor.
    pub(crate) fn tensor(self, name: &str) -> Result<Option<KnownTensor>, Refusal> {
        self.get(name).and_then(|attribute| attribute.t.as_deref()).map(tensor::inline).transpose()
    }
}

/// An attribute as its author wrote it. Attributes are f32, in which 1e-5 is a slightly different
/// number; the shortest decimal that reads back as the same f32 is the number in the network's
/// code.
pub(crate) fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_the_decimals_that_were_written() {
        assert_eq!(shortest(1e-5), 1e-5);
        assert_eq!(shortest(0.01), 0.01);
        assert_eq!(shortest(-3.4028235e38), -3.4028235e38);
        assert_eq!(shortest(1.0 / 6.0), 0.16666667);
    }
}
