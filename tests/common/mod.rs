//! Reference values and networks for the tests of the root package.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::print_stdout, reason = "a skipped test says so")]

mod golden;

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use influence::Precision;
use influence_zoo::{Architecture, Network, weights};

pub(crate) use golden::Golden;

/// The root folder of the project.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the larger reference data, which may be in a folder next to the project. If it is
/// missing, prints a line and returns none.
pub(crate) fn shared(path: &str) -> Option<PathBuf> {
    let file = root().join("../shared").join(path);
    if file.exists() {
        return Some(file);
    }
    println!("skipped: {path} is not there (it belongs in ../shared, next to the project)");
    None
}

/// One network with trained weights and float64 reference values.
#[derive(Clone)]
pub(crate) struct GoldenCase {
    pub(crate) name: &'static str,
    pub(crate) architecture: Architecture,
    pub(crate) weights: PathBuf,
    pub(crate) golden: Golden,
}

/// Every case whose files exist: always the embedded network, the others if their files are next to
/// the project.
pub(crate) fn cases() -> Vec<GoldenCase> {
    let embedded = GoldenCase {
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
        Some(GoldenCase { name, architecture, weights, golden })
    });
    std::iter::once(embedded).chain(larger).collect()
}

impl GoldenCase {
    pub(crate) fn network(&self, precision: Precision) -> Network {
        let device = Device::flex();
        let [channels, size, _] = self.golden.image_shape();
        let network = self.architecture.init(channels, size, 10, &device).unwrap();
        weights::load(network, self.weights.as_path(), precision.dtype(), &device).unwrap().0
    }
}
