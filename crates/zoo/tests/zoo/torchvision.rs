//! Networks of torchvision and timm, built from their weights, against PyTorch's logits.
//!
//! The files of `fixtures/torchvision.py` have images, logits and the names and shapes of a
//! `state_dict`; both sides compute the weights by the same rule.

use std::path::Path;

use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData, f16};
use influence_zoo::torchvision::{Published, TORCH_EPSILON, published};
use influence_zoo::weights::{self, Checkpoint, Source};
use influence_zoo::{Error, names};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// The contents of a fixture.
struct Fixture {
    images: (Vec<f32>, Vec<usize>),
    logits: (Vec<f64>, usize),
    tensors: Vec<(String, Vec<usize>)>,
    half: bool,
}

impl Fixture {
    fn open(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/{name}.safetensors"));
        let bytes = std::fs::read(path).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = header.metadata().clone().unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let (images, logits) = (file.tensor("images").unwrap(), file.tensor("logits").unwrap());
        let tensors = metadata["tensors"].lines().map(|line| {
            let mut words = line.split(' ');
            let name = words.next().unwrap().to_owned();
            (name, words.map(|word| word.parse().unwrap()).collect())
        });
        Self {
            images: (
                images.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
                images.shape().to_vec(),
            ),
            logits: (
                logits.data().as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
                logits.shape()[1],
            ),
            tensors: tensors.collect(),
            half: metadata["half"] == "true",
        }
    }

    fn shape(&self) -> [usize; 3] {
        self.images.1[1..].try_into().unwrap()
    }

    /// The weight file, with a prefix before every name.
    fn file(&self, prefix: &str) -> Vec<u8> {
        let made = self.tensors.iter().map(|(name, shape)| {
            let values = made(name, shape);
            let bytes: Vec<u8> = match self.half {
                true => values.iter().flat_map(|&x| f16::from_f64(x).to_le_bytes()).collect(),
                false => values.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect(),
            };
            (format!("{prefix}{name}"), shape.clone(), bytes)
        });
        let made: Vec<_> = made.collect();
        let dtype = if self.half { Dtype::F16 } else { Dtype::F32 };
        let views = made.iter().map(|(name, shape, bytes)| {
            (name.as_str(), TensorView::new(dtype, shape.clone(), bytes).unwrap())
        });
        safetensors::serialize(views, None).unwrap()
    }
}

/// The rule of `fixtures/torchvision.py`.
fn made(name: &str, shape: &[usize]) -> Vec<f64> {
    let seed: u64 = name.bytes().zip(1..).map(|(byte, position)| u64::from(byte) * position).sum();
    let fan: usize = shape.iter().skip(1).product();
    let count: usize = shape.iter().product();
    let hashed = (0..count as u64).map(|i| {
        let h = (i * 2_654_435_761 + seed * 40_503) % (1 << 32);
        ((h ^ (h >> 15)) % 1009) as f64 / 1008.0
    });
    let scaled = hashed.map(|u| match () {
        () if name.ends_with("running_var") => 0.5 + u,
        () if shape.len() > 1 => (u - 0.5) * (24.0 / fan as f64).sqrt(),
        () if name.ends_with("weight") => 0.75 + u / 2.0,
        () => (u - 0.5) / 5.0,
    });
    scaled.collect()
}

fn read(bytes: &[u8], image: [usize; 3]) -> Result<Option<Published>, Error> {
    let checkpoint = Checkpoint::open(Source::Bytes { name: "w", bytes }).unwrap();
    published(&checkpoint, image, TORCH_EPSILON, &Device::flex())
}

/// The largest difference of logits relative to the largest logit, and the description of the
/// network.
fn difference(reference: &Fixture, bytes: &[u8], precision: FloatDType) -> (f64, String) {
    let device = Device::flex();
    let Published { network, name, form } = read(bytes, reference.shape()).unwrap().unwrap();
    assert_eq!(network.classes(), reference.logits.1);
    let (network, report) = weights::load(network, bytes, precision, &device).unwrap();
    assert!(report.extra.is_empty(), "{report}");
    let data = TensorData::new(reference.images.0.clone(), reference.images.1.clone());
    let logits = network.forward(Tensor::from_data(data, (&device, DType::from(precision))));
    let logits: Vec<f64> = logits.into_data().iter::<f64>().collect();
    let pairs = || logits.iter().zip(&reference.logits.0);
    let largest = reference.logits.0.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    (pairs().map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / largest, format!("{name}: {form}; {report}"))
}

#[test]
fn logits_are_pytorchs() {
    for (name, prefix, words) in [
        (
            "torchvision-resnet18",
            "",
            &["resnet18: [2, 2, 2, 2] basic blocks", "7x7 stem", "without biases", "7 classes", "3x40x48"][..],
        ),
        (
            "torchvision-resnext",
            "module.",
            &["resnet: [1, 1, 1, 1] bottlenecks in 4 groups", "`module.` stripped"],
        ),
        ("torchvision-densenet", "model.", &["[2, 3, 2, 2] layers", "growth 4", "`model.` stripped"]),
        ("timm-resnet", "_orig_mod.module.", &["[1, 2, 1, 1]", "`module.` and `_orig_mod.`", "F16"]),
        ("timm-densenet", "", &["densenet", "growth 3"]),
        ("cifar-resnet", "", &["[2, 2, 1, 0] basic blocks", "3x3 stem", "no pool", "with biases", "1x14x14"]),
    ] {
        let reference = Fixture::open(name);
        let bytes = reference.file(prefix);
        let (double, said) = difference(&reference, &bytes, FloatDType::F64);
        assert!(double < 1e-12, "{name}: {double}");
        let (single, _) = difference(&reference, &bytes, FloatDType::F32);
        assert!(single < 1e-5, "{name}: {single}");
        for word in words {
            assert!(said.contains(word), "{name}: {word} in {said}");
        }
    }
}

#[test]
fn the_epsilon_is_the_callers() {
    let reference = Fixture::open("cifar-resnet");
    let bytes = reference.file("");
    let checkpoint = Checkpoint::open(&bytes[..]).unwrap();
    let found = published(&checkpoint, [1, 14, 14], 1e-1, &Device::flex()).unwrap().unwrap();
    let (network, _) = weights::load(found.network, &bytes[..], FloatDType::F64, &Device::flex()).unwrap();
    let data = TensorData::new(reference.images.0.clone(), reference.images.1.clone());
    let logits = network.forward(Tensor::from_data(data, (&Device::flex(), DType::F64)));
    let first = logits.into_data().iter::<f64>().next().unwrap();
    assert!((first - reference.logits.0[0]).abs() > 1e-3, "{first}");
}

#[test]
fn names_are_those_of_the_file() {
    for name in ["torchvision-densenet", "timm-resnet"] {
        let reference = Fixture::open(name);
        let network = read(&reference.file(""), reference.shape()).unwrap().unwrap().network;
        let ours: Vec<String> = names::entries(&network).into_iter().map(|entry| entry.name).collect();
        let theirs: Vec<&str> = reference.tensors.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(ours, theirs, "{name}");
    }
}

#[test]
fn what_does_not_fit_is_named_by_its_tensor() {
    let refusal = |name: &str, change: &dyn Fn(&mut Fixture), words: &[&str]| {
        let mut reference = Fixture::open(name);
        change(&mut reference);
        let message = read(&reference.file(""), reference.shape()).unwrap_err().to_string();
        for word in words.iter().chain(&["ONNX"]) {
            assert!(message.contains(word), "{word} in {message}");
        }
    };
    // Faults of a fixture's tensors: one added, one taken away, one of another shape.
    let add = |name: &'static str, shape: &'static [usize]| {
        move |reference: &mut Fixture| reference.tensors.push((name.to_owned(), shape.to_vec()))
    };
    let take = |name: &'static str| {
        move |reference: &mut Fixture| reference.tensors.retain(|(known, _)| known != name)
    };
    let shape = |name: &'static str, shape: &'static [usize]| {
        move |reference: &mut Fixture| {
            let found = reference.tensors.iter_mut().find(|(known, _)| known == name).unwrap();
            found.1 = shape.to_vec();
        }
    };
    refusal(
        "timm-resnet",
        &add("layer1.0.se.fc1.weight", &[1, 16, 1, 1]),
        &["layer1.0.se.fc1.weight", "squeeze"],
    );
    refusal(
        "timm-resnet",
        &add("conv1.0.weight", &[8, 3, 3, 3]),
        &["conv1.0.weight", "several convolutions"],
    );
    refusal("timm-resnet", &add("odd.weight", &[1]), &["`odd.weight`", "computes something else"]);
    refusal(
        "timm-resnet",
        &take("layer2.1.conv2.weight"),
        &["layer2.1.conv2.weight", "missing", "nearest is"],
    );
    refusal("timm-resnet", &take("layer2.0.downsample.0.weight"), &["downsample.0.weight", "option A"]);
    refusal("timm-resnet", &shape("conv1.weight", &[64, 3, 5, 5]), &["`conv1.weight`", "5x5"]);
    refusal(
        "timm-resnet",
        &shape("layer2.0.conv1.weight", &[8, 15, 1, 1]),
        &["[8, 15, 1, 1]", "16 channels"],
    );
    refusal("timm-resnet", &shape("fc.weight", &[5, 63]), &["`fc.weight`", "64 features"]);
    refusal("cifar-resnet", &shape("bn1.weight", &[5]), &["`bn1.weight`", "4 channels"]);
    refusal(
        "torchvision-densenet",
        &add("features.conv1.weight", &[8, 8, 3, 3]),
        &["features.conv1", "timm's ..d"],
    );
}

#[test]
fn images_of_another_shape_are_refused_with_both() {
    let reference = Fixture::open("torchvision-densenet");
    for (image, found) in [([1, 40, 40], "1x40x40"), ([3, 28, 40], "3x28x40")] {
        let message = read(&reference.file(""), image).unwrap_err().to_string();
        assert!(message.contains(found) && message.contains("3 channel(s) and at least 29x29"), "{message}");
    }
    assert!(read(&reference.file(""), [3, 29, 29]).is_ok());
}

/// Marsaglia's xorshift64*: the same changes in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound.max(1)
    }
}

/// One fault in a list of tensors: a size changed, an axis added or taken, a tensor taken or
/// renamed.
fn broken(tensors: &mut Vec<(String, Vec<usize>)>, random: &mut Random) {
    let at = random.below(tensors.len());
    let axis = random.below(tensors[at].1.len());
    match random.below(6) {
        0 => tensors[at].1[axis] = random.below(20),
        1 => tensors[at].1[axis] += 1,
        2 => drop(tensors[at].1.remove(axis)),
        3 => tensors[at].1.push(1 + random.below(3)),
        4 => drop(tensors.remove(at)),
        _ => tensors[at].0 = format!("{}{at}", tensors[at].0),
    }
}

#[test]
fn no_file_of_any_shapes_is_more_than_refused() {
    let device = Device::flex();
    let (mut random, mut refused) = (Random(20), 0);
    for round in 0..400 {
        let name = ["cifar-resnet", "timm-resnet", "timm-densenet"][round % 3];
        let mut reference = Fixture::open(name);
        (0..=random.below(2)).for_each(|_| broken(&mut reference.tensors, &mut random));
        let bytes = reference.file("");
        let loaded = read(&bytes, reference.shape()).and_then(|found| {
            found.map(|found| weights::load(found.network, &bytes[..], FloatDType::F32, &device)).transpose()
        });
        match loaded {
            Ok(Some((network, _))) => {
                let data = TensorData::new(reference.images.0.clone(), reference.images.1.clone());
                let logits = network.forward(Tensor::from_data(data, &device));
                assert_eq!(logits.dims(), [2, network.classes()]);
            }
            Ok(None) | Err(_) => refused += 1,
        }
    }
    assert!(refused > 300, "{refused}");
}
