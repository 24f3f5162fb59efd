//! Files of reference values in float64, computed with PyTorch. Tests of other crates include this
//! file with `#[path]`.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::path::Path;

use safetensors::{Dtype, SafeTensors};

/// A file of reference values.
#[derive(Clone)]
pub(crate) struct Golden(Vec<u8>);

impl Golden {
    pub(crate) fn open(path: &Path) -> Self {
        Self(std::fs::read(path).unwrap())
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).unwrap()
    }

    pub(crate) fn shape(&self, name: &str) -> Vec<usize> {
        self.tensors().tensor(name).unwrap().shape().to_vec()
    }

    /// The names of the layers, in order.
    pub(crate) fn layers(&self) -> Vec<String> {
        let (_, metadata) = SafeTensors::read_metadata(&self.0).unwrap();
        metadata.metadata().as_ref().unwrap()["layers"].split('|').map(str::to_owned).collect()
    }

    /// Float64 values, row-major.
    pub(crate) fn floats(&self, name: &str) -> Vec<f64> {
        let tensors = self.tensors();
        let view = tensors.tensor(name).unwrap();
        assert_eq!(view.dtype(), Dtype::F64, "{name}");
        view.data().chunks_exact(8).map(|bytes| f64::from_le_bytes(bytes.try_into().unwrap())).collect()
    }

    pub(crate) fn integers(&self, name: &str) -> Vec<usize> {
        let tensors = self.tensors();
        let view = tensors.tensor(name).unwrap();
        let wide = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().unwrap());
        match view.dtype() {
            Dtype::I64 => view.data().chunks_exact(8).map(|bytes| wide(bytes) as usize).collect(),
            other => panic!("{name} has type {other:?}"),
        }
    }

    /// Ranks: integers that the files store as floats.
    pub(crate) fn ranks(&self, name: &str) -> Vec<usize> {
        self.floats(name).into_iter().map(|rank| rank as usize).collect()
    }

    /// Images `[N, C, H, W]`, pixels in [0, 1].
    pub(crate) fn images(&self) -> Vec<f64> {
        self.tensors()
            .tensor("images")
            .unwrap()
            .data()
            .iter()
            .map(|&pixel| f64::from(pixel) / 255.0)
            .collect()
    }

    pub(crate) fn image_shape(&self) -> [usize; 3] {
        self.shape("images")[1..].try_into().unwrap()
    }

    pub(crate) fn count(&self) -> usize {
        self.shape("images")[0]
    }
}
