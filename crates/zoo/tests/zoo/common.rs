//! What the tests of this crate share: the trained weights and reference values, if the machine has
//! them, and small files made in the tests.

mod golden;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};
use influence_zoo::names::entries;
use influence_zoo::{Architecture, Network};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use golden::Golden;

/// A trained network of the shared folder.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TrainedNetwork {
    pub(crate) name: &'static str,
    pub(crate) architecture: Architecture,
    pub(crate) channels: usize,
    pub(crate) size: usize,
}

/// All of them, the smallest first.
pub(crate) const TRAINED: [TrainedNetwork; 5] = [
    TrainedNetwork {
        name: "resnet50w8-mnist",
        architecture: Architecture::ResNet50 { width: 8 },
        channels: 1,
        size: 28,
    },
    TrainedNetwork {
        name: "densenet121-mnist",
        architecture: Architecture::DenseNet121 { growth: 32 },
        channels: 1,
        size: 28,
    },
    TrainedNetwork {
        name: "densenet121-cifar10",
        architecture: Architecture::DenseNet121 { growth: 32 },
        channels: 3,
        size: 32,
    },
    TrainedNetwork {
        name: "resnet50-mnist",
        architecture: Architecture::ResNet50 { width: 64 },
        channels: 1,
        size: 28,
    },
    TrainedNetwork {
        name: "resnet50-cifar10",
        architecture: Architecture::ResNet50 { width: 64 },
        channels: 3,
        size: 32,
    },
];

impl TrainedNetwork {
    pub(crate) fn network(&self, device: &Device) -> Network {
        self.architecture.init(self.channels, self.size, 10, device).unwrap()
    }

    /// Its weights: from the shared folder, or the embedded sample.
    pub(crate) fn weights(&self) -> Option<PathBuf> {
        let file = format!("{}.safetensors", self.name);
        find(&[format!("../shared/models/{file}"), format!("crates/data/sample/{file}")])
    }

    /// Its reference values: from the shared folder, or the tests of the workspace.
    pub(crate) fn golden(&self) -> Option<PathBuf> {
        let file = format!("{}.safetensors", self.name);
        find(&[format!("../shared/golden/{file}"), format!("tests/golden/{file}")])
    }
}

/// The first of several files, relative to the root of the workspace, that exists.
fn find(candidates: &[String]) -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    candidates.iter().map(|file| root.join(file)).find(|path| path.is_file())
}

/// Prints that a test was skipped for lack of files.
#[expect(clippy::print_stdout, reason = "the test's own report")]
pub(crate) fn skip(what: &str) {
    println!("skipped: no {what} on this machine");
}

/// Images [N, C, H, W] as pixels in [0, 1], and reference logits [N, 10].
pub(crate) fn golden_batch(golden: &Path, precision: FloatDType, device: &Device) -> (Tensor<4>, Vec<f64>) {
    let golden = Golden::open(golden);
    let data = TensorData::new(golden.images(), golden.shape("images"));
    (Tensor::from_data(data, (device, DType::from(precision))), golden.floats("logits"))
}

/// The values of a tensor of any float type.
pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data_dtype(DType::F64).as_slice::<f64>().unwrap().to_vec()
}

/// A tensor for a file made in a test.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

/// Tensors by name, as f32, with distinct values; variances are positive.
pub(crate) fn made(network: &Network) -> BTreeMap<String, Made> {
    let tensors = entries(network).into_iter().enumerate().map(|(seed, entry)| {
        let count: usize = entry.shape.iter().product();
        let value = |index: usize| ((index * 7 + seed * 3) % 101) as f32 / 100.0 + 0.01;
        let bytes = (0..count).flat_map(|index| value(index).to_le_bytes()).collect();
        (entry.name, Made { dtype: Dtype::F32, shape: entry.shape, bytes })
    });
    tensors.collect()
}

/// The bytes of a file with `tensors`, written by the format's own library.
pub(crate) fn file(tensors: &BTreeMap<String, Made>) -> Vec<u8> {
    let views = tensors
        .iter()
        .map(|(name, made)| (name, TensorView::new(made.dtype, made.shape.clone(), &made.bytes).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

/// The smallest possible CNN, whose file has a few kilobytes.
pub(crate) fn tiny(device: &Device) -> Network {
    Architecture::Cnn { width: 1 }.init(1, 8, 3, device).unwrap()
}
