//! Saving writes files that `load` and other programs can read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{DType, Device, Distribution, FloatDType, Tensor};
use influence_zoo::names::entries;
use influence_zoo::weights::{self, Checkpoint};
use influence_zoo::{Architecture, Error, Network};
use safetensors::SafeTensors;

use crate::common::{file, made, tiny, values};

/// A separate folder for each test, removed at its end.
struct TestFolder(PathBuf);

impl TestFolder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("influence-zoo-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for TestFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Name to type, shape and bytes, as the format's own library reads them.
fn contents(path: &Path) -> BTreeMap<String, (String, Vec<usize>, Vec<u8>)> {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.tensors().into_iter();
    tensors
        .map(|(name, view)| (name, (view.dtype().to_string(), view.shape().to_vec(), view.data().to_vec())))
        .collect()
}

#[test]
fn a_round_trip_keeps_every_bit() {
    let folder = TestFolder::new("trip");
    let device = Device::flex();
    for architecture in [
        Architecture::ResNet50 { width: 1 },
        Architecture::DenseNet121 { growth: 1 },
        Architecture::Cnn { width: 3 },
    ] {
        for precision in [FloatDType::F32, FloatDType::F64] {
            let network = architecture.init(1, 28, 10, &device).unwrap();
            let bytes = file(&made(&network));
            let (network, _) = weights::load(network, &bytes[..], precision, &device).unwrap();
            let (first, second) = (folder.join("first"), folder.join("second"));
            weights::save(&network, &first).unwrap();
            let empty = architecture.init(1, 28, 10, &device).unwrap();
            let (again, report) = weights::load(empty, &first, precision, &device).unwrap();
            weights::save(&again, &second).unwrap();
            assert_eq!(std::fs::read(&first).unwrap(), std::fs::read(&second).unwrap());
            assert_eq!(report.tensors, entries(&network).len());
            let images =
                Tensor::random([2, 1, 28, 28], Distribution::Default, (&device, DType::from(precision)));
            assert_eq!(values(network.forward(images.clone())), values(again.forward(images)));
        }
    }
}

#[test]
fn the_file_has_pytorchs_names_layouts_and_bytes() {
    let folder = TestFolder::new("layout");
    let device = Device::flex();
    let original = made(&tiny(&device));
    let bytes = file(&original);
    let (network, _) = weights::load(tiny(&device), &bytes[..], FloatDType::F32, &device).unwrap();
    let path = folder.join("tiny.safetensors");
    weights::save(&network, &path).unwrap();
    let saved = contents(&path);
    assert_eq!(saved.len(), original.len());
    for (name, made) in &original {
        assert_eq!(saved[name], ("F32".to_owned(), made.shape.clone(), made.bytes.clone()), "{name}");
    }
    let start = 8 + u64::from_le_bytes(std::fs::read(&path).unwrap()[..8].try_into().unwrap());
    assert_eq!(start % 8, 0, "tensors are aligned");
    assert_eq!(folder.names(), ["tiny.safetensors"]);
}

#[test]
fn metadata_name_the_network_and_take_more() {
    let folder = TestFolder::new("metadata");
    let network = Architecture::ResNet50 { width: 2 }.init(3, 32, 10, &Device::flex()).unwrap();
    let path = folder.join("net");
    let more = BTreeMap::from([("data".to_owned(), "my \"set\"\n".to_owned())]);
    weights::save_with(&network, &path, &more).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let metadata = checkpoint.metadata();
    assert_eq!(metadata["format"], "pt");
    assert_eq!(metadata["network"], "resnet50, width 2, 3 channel(s), 10 classes");
    assert!(metadata["program"].starts_with("influence-zoo "));
    assert_eq!(metadata["data"], "my \"set\"\n");
}

#[test]
fn a_file_that_cannot_be_written_leaves_nothing() {
    let folder = TestFolder::new("refused");
    let network = tiny(&Device::flex());
    let error = weights::save(&network, &folder.join("no/such/folder")).unwrap_err();
    assert!(matches!(error, Error::Io { action: "write", .. }), "{error}");
    // Renaming over a folder fails: the temporary file next to it must be removed.
    std::fs::create_dir(folder.join("taken")).unwrap();
    std::fs::write(folder.join("taken/file"), "x").unwrap();
    assert!(weights::save(&network, &folder.join("taken")).is_err());
    assert_eq!(folder.names(), ["taken"]);
    assert!(weights::save(&network, Path::new("/")).is_err());
}

#[test]
fn an_older_file_is_replaced() {
    let folder = TestFolder::new("replaced");
    let path = folder.join("net");
    std::fs::write(&path, "something else").unwrap();
    weights::save(&tiny(&Device::flex()), &path).unwrap();
    assert_eq!(contents(&path).len(), 20);
}

#[test]
fn running_statistics_of_the_last_step_are_saved() {
    let folder = TestFolder::new("running");
    let device = Device::flex().autodiff();
    let network = tiny(&device);
    let images = Tensor::<4>::random([8, 1, 8, 8], Distribution::Uniform(2.0, 3.0), &device);
    // Burn delays the statistics of a step until the next one needs them.
    let _ = network.forward(images);
    let path = folder.join("net");
    weights::save(&network, &path).unwrap();
    let (_, shape, bytes) = &contents(&path)["bn1.running_mean"];
    assert_eq!((shape.as_slice(), bytes.len()), (&[1][..], 4));
    assert_ne!(bytes, &[0; 4]);
    let plain = Device::flex();
    let (loaded, _) = weights::load(tiny(&plain), &path, FloatDType::F32, &plain).unwrap();
    let images = Tensor::<4>::ones([1, 1, 8, 8], &plain);
    assert_eq!(values(loaded.forward(images.clone())), values(network.valid().forward(images)));
}

#[test]
fn lazy_parameters_are_saved_as_they_will_be() {
    let folder = TestFolder::new("lazy");
    let device = Device::flex();
    let network: Network = tiny(&device);
    let path = folder.join("net");
    weights::save(&network, &path).unwrap();
    let (loaded, _) = weights::load(tiny(&device), &path, FloatDType::F32, &device).unwrap();
    let images = Tensor::<4>::ones([1, 1, 8, 8], &device);
    assert_eq!(values(loaded.forward(images.clone())), values(network.forward(images)));
}
