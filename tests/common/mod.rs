//! Reference values and networks for the tests of the root package.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::print_stdout, reason = "a skipped test says so")]

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use influence::Precision;
use influence_zoo::{Architecture, Network, weights};
use safetensors::{Dtype, SafeTensors};

/// The root folder of the project.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the larger reference data, which may lie in a folder beside the project. If it is
/// missing, prints a line and returns none.
pub(crate) fn shared(path: &str) -> Option<PathBuf> {
    let file = root().join("../shared").join(path);
    if file.exists() {
        return Some(file);
    }
    println!("skipped: {path} is not there (it lies in ../shared, beside the project)");
    None
}

/// One network with trained weights and float64 reference values.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) architecture: Architecture,
    pub(crate) weights: PathBuf,
    pub(crate) golden: Golden,
}

/// Every case whose files exist: always the embedded network, the others if their files lie beside
/// the project.
pub(crate) fn cases() -> Vec<Case> {
    let embedded = Case {
        name: "resnet50w8-mnist",
        architecture: Architecture::ResNet50 { width: 8 },
        weights: root().join("crates/data/sample/resnet50w8-mnist.safetensors"),
        golden: Golden::open(&root().join("tests/golden/resnet50w8-mnist.safetensors")),
    };
    let larger = [
        ("resnet50-mnist", Architecture::ResNet50 { width: 64 }),
        ("resnet50-cifar10", Architecture::ResNet50 { width: 64 }),
        ("densenet121-mnist", Architecture::DenseNet121 { growth: 32 }),
        ("densenet121-cifar10", Architecture::DenseNet121 { growth: 32 }),
    ];
    let larger = larger.into_iter().filter_map(|(name, architecture)| {
        let golden = Golden::open(&shared(&format!("golden/{name}.safetensors"))?);
        let weights = shared(&format!("models/{name}.safetensors"))?;
        Some(Case { name, architecture, weights, golden })
    });
    std::iter::once(embedded).chain(larger).collect()
}

impl Case {
    pub(crate) fn network(&self, precision: Precision) -> Network {
        let device = Device::flex();
        let [channels, size, _] = self.golden.image_shape();
        let network = self.architecture.init(channels, size, 10, &device).unwrap();
        weights::load(network, self.weights.as_path(), precision.dtype(), &device).unwrap().0
    }
}

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
