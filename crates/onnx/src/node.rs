//! A node's settings.

use crate::error::Refusal;
use crate::proto::{AttributeProto, NodeProto};
use crate::table::Table;
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

    /// A word; what is no UTF-8 becomes one that nobody knows.
    pub(crate) fn word(self, name: &str, default: &'a str) -> &'a str {
        let bytes = self.get(name).and_then(|attribute| attribute.s.as_deref());
        bytes.map_or(default, |bytes| std::str::from_utf8(bytes).unwrap_or("?"))
    }

    /// A tensor of numbers.
    pub(crate) fn table(self, name: &str) -> Result<Option<Table>, Refusal> {
        self.get(name).and_then(|attribute| attribute.t.as_deref()).map(tensor::inline).transpose()
    }
}

/// A setting as its author wrote it: attributes are f32, and 1e-5 is not 1e-5 there. The shortest
/// decimal that reads back as the same f32 is what stood in the network's code.
pub(crate) fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_they_were_written() {
        assert_eq!(shortest(1e-5), 1e-5);
        assert_eq!(shortest(0.01), 0.01);
        assert_eq!(shortest(-3.4028235e38), -3.4028235e38);
        assert_eq!(shortest(1.0 / 6.0), 0.16666667);
    }
}
