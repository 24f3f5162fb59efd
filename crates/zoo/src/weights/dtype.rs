//! Element types: those of safetensors headers.

use std::fmt;

use burn::tensor::{bf16, f16};

/// An element type of safetensors headers, or a kind of tensor that only PyTorch has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dtype {
    name: &'static str,
    bits: u8,
}

impl Dtype {
    /// 16-bit floats (IEEE 754 half).
    pub const F16: Self = Self { name: "F16", bits: 16 };
    /// 16-bit floats with the exponent of F32.
    pub const BF16: Self = Self { name: "BF16", bits: 16 };
    /// 32-bit floats.
    pub const F32: Self = Self { name: "F32", bits: 32 };
    /// 64-bit floats.
    pub const F64: Self = Self { name: "F64", bits: 64 };

    /// Pairs of F64; only in PyTorch.
    pub(super) const C128: Self = Self { name: "C128", bits: 128 };
    /// PyTorch's quantised tensors; `bits` is not used.
    pub(super) const QUANTISED: Self = Self { name: "quantised", bits: 8 };
    /// PyTorch's sparse tensors; `bits` is not used.
    pub(super) const SPARSE: Self = Self { name: "sparse", bits: 8 };
    /// PyTorch's tensors without values.
    pub(super) const META: Self = Self { name: "without values (on the device meta)", bits: 8 };

    /// Every type of the format (safetensors 0.8).
    const ALL: [Self; 22] = [
        Self::F16,
        Self::BF16,
        Self::F32,
        Self::F64,
        Self { name: "BOOL", bits: 8 },
        Self { name: "U8", bits: 8 },
        Self { name: "I8", bits: 8 },
        Self { name: "I16", bits: 16 },
        Self { name: "U16", bits: 16 },
        Self { name: "I32", bits: 32 },
        Self { name: "U32", bits: 32 },
        Self { name: "I64", bits: 64 },
        Self { name: "U64", bits: 64 },
        Self { name: "C64", bits: 64 },
        Self { name: "F8_E5M2", bits: 8 },
        Self { name: "F8_E4M3", bits: 8 },
        Self { name: "F8_E8M0", bits: 8 },
        Self { name: "F8_E4M3FNUZ", bits: 8 },
        Self { name: "F8_E5M2FNUZ", bits: 8 },
        Self { name: "F6_E2M3", bits: 6 },
        Self { name: "F6_E3M2", bits: 6 },
        Self { name: "F4", bits: 4 },
    ];

    /// The type that a header calls `name`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name == name)
    }

    /// The name in the header.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// Bits of one element.
    pub fn bits(self) -> u64 {
        u64::from(self.bits)
    }

    /// Whether weights of this type can be read.
    pub fn is_float(self) -> bool {
        [Self::F16, Self::BF16, Self::F32, Self::F64].contains(&self)
    }

    /// Reads little-endian elements exactly; empty for a type that is not
    /// [`is_float`](Self::is_float).
    pub(crate) fn decode(self, bytes: &[u8]) -> Box<dyn Iterator<Item = f64> + '_> {
        match self {
            Self::F16 => Box::new(chunks(bytes).map(|x| f64::from(f16::from_le_bytes(x)))),
            Self::BF16 => Box::new(chunks(bytes).map(|x| f64::from(bf16::from_le_bytes(x)))),
            Self::F32 => Box::new(chunks(bytes).map(|x| f64::from(f32::from_le_bytes(x)))),
            Self::F64 => Box::new(chunks(bytes).map(f64::from_le_bytes)),
            _ => Box::new(std::iter::empty()),
        }
    }
}

/// Consecutive arrays of S bytes; a shorter remainder is dropped.
fn chunks<const S: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; S]> + '_ {
    bytes.as_chunks::<S>().0.iter().copied()
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_parses_to_itself() {
        for dtype in Dtype::ALL {
            assert_eq!(Dtype::parse(dtype.name()), Some(dtype));
        }
        assert_eq!(Dtype::parse("f32"), None);
        assert_eq!(Dtype::parse(""), None);
    }

    #[test]
    fn elements_are_read_exactly() {
        let half: Vec<f64> = Dtype::F16.decode(&[0x01, 0x00, 0x00, 0xbc, 0x00, 0x7c]).collect();
        assert_eq!(half, [2f64.powi(-24), -1.0, f64::INFINITY]);
        let brain: Vec<f64> = Dtype::BF16.decode(&[0x80, 0x3f, 0x01, 0x00]).collect();
        assert_eq!(brain, [1.0, 2f64.powi(-133)]);
        let single: Vec<f64> = Dtype::F32.decode(&0.1f32.to_le_bytes()).collect();
        assert_eq!(single, [f64::from(0.1f32)]);
        let double: Vec<f64> = Dtype::F64.decode(&(-0.1f64).to_le_bytes()).collect();
        assert_eq!(double, [-0.1]);
        assert_eq!(Dtype::parse("I64").unwrap().decode(&[0; 8]).count(), 0);
    }
}
