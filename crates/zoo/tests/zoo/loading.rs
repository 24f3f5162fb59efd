//! Valid files that match a network, and valid files that do not.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::tensor::{DType, Device, FloatDType, Tensor, bf16, f16};
use influence_zoo::names::entries;
use influence_zoo::weights::{self, Checkpoint, LoadReport, Source, Values};
use influence_zoo::{Architecture, Error, Network};
use safetensors::Dtype;

use crate::common::{Made, file, made, tiny, values};

/// Loads `tensors` into `network` in f32.
fn load(network: &Network, tensors: &BTreeMap<String, Made>) -> Result<(Network, LoadReport), Error> {
    let bytes = file(tensors);
    weights::load(network.clone(), &bytes[..], FloatDType::F32, &Device::flex())
}

/// The message that loading `tensors` into the tiny network gives.
fn refusal(tensors: &BTreeMap<String, Made>) -> String {
    load(&tiny(&Device::flex()), tensors).unwrap_err().to_string()
}

fn tiny_file() -> BTreeMap<String, Made> {
    made(&tiny(&Device::flex()))
}

fn rename(tensors: &mut BTreeMap<String, Made>, from: &str, to: &str) {
    let tensor = tensors.remove(from).unwrap();
    tensors.insert(to.to_owned(), tensor);
}

/// Sets one f32 of a made tensor.
fn poke(tensors: &mut BTreeMap<String, Made>, name: &str, index: usize, value: f32) {
    tensors.get_mut(name).unwrap().bytes[4 * index..4 * index + 4].copy_from_slice(&value.to_le_bytes());
}

fn convert<const S: usize>(made: &Made, dtype: Dtype, bytes: impl Fn(f32) -> [u8; S]) -> Made {
    let values = made.bytes.as_chunks::<4>().0.iter().map(|&value| f32::from_le_bytes(value));
    Made { dtype, shape: made.shape.clone(), bytes: values.flat_map(bytes).collect() }
}

#[test]
fn every_float_type_is_read_and_said() {
    let device = Device::flex();
    let network = tiny(&device);
    let tensors = tiny_file();
    let half = |x: f32| f16::from_f32(x).to_le_bytes();
    let brain = |x: f32| bf16::from_f32(x).to_le_bytes();
    let double = |x: f32| f64::from(x).to_le_bytes();
    let converted = |dtype: Dtype| {
        let convert = |made: &Made| match dtype {
            Dtype::F16 => convert(made, dtype, half),
            Dtype::BF16 => convert(made, dtype, brain),
            Dtype::F64 => convert(made, dtype, double),
            _ => made.clone(),
        };
        tensors.iter().map(|(name, made)| (name.clone(), convert(made))).collect::<BTreeMap<_, _>>()
    };
    for (dtype, name) in
        [(Dtype::F16, "F16"), (Dtype::BF16, "BF16"), (Dtype::F32, "F32"), (Dtype::F64, "F64")]
    {
        for precision in [FloatDType::F32, FloatDType::F64] {
            let bytes = file(&converted(dtype));
            let (loaded, report) = weights::load(network.clone(), &bytes[..], precision, &device).unwrap();
            assert_eq!(
                report.source.iter().map(|(dtype, n)| (dtype.name(), *n)).collect::<Vec<_>>(),
                [(name, 20)]
            );
            assert!(
                report
                    .to_string()
                    .contains(&format!("{name} in the file, {} here", DType::from(precision).name())),
                "{report}"
            );
            let logits = loaded.forward(Tensor::ones([1, 1, 8, 8], (&device, DType::from(precision))));
            assert_eq!(logits.dtype(), DType::from(precision));
            // 0.01 is the first element of the first tensor by the network's order.
            let mut checkpoint = Checkpoint::open(&bytes[..]).unwrap();
            let Values::F64(first) = checkpoint.read("conv1.weight", FloatDType::F64).unwrap() else {
                panic!()
            };
            let exact = match dtype {
                Dtype::F16 => f16::from_f32(0.01).to_f64(),
                Dtype::BF16 => bf16::from_f32(0.01).to_f64(),
                _ => f64::from(0.01f32),
            };
            assert_eq!(first[0], exact);
        }
    }
}

#[test]
fn linear_weights_are_turned_and_others_are_not() {
    let device = Device::flex();
    let (network, _) = load(&tiny(&device), &tiny_file()).unwrap();
    let Network::Cnn(_) = &network else { panic!() };
    // With all feature maps equal, the logits show the row sums of fc.weight in PyTorch's layout.
    let mut tensors = tiny_file();
    let fc = tensors["fc.weight"].clone();
    assert_eq!(fc.shape, [3, 4]);
    for (name, tensor) in &mut tensors {
        let ones = name.ends_with("running_var") || name == "bn3.bias";
        let keep = name == "fc.weight";
        if !keep {
            let value: f32 = if ones { 1.0 } else { 0.0 };
            tensor.bytes = value.to_le_bytes().repeat(tensor.bytes.len() / 4);
        }
    }
    let (network, _) = load(&network, &tensors).unwrap();
    let logits = values(network.forward(Tensor::zeros([1, 1, 8, 8], &device)));
    let weights: Vec<f64> =
        fc.bytes.as_chunks::<4>().0.iter().map(|&x| f64::from(f32::from_le_bytes(x))).collect();
    for (logit, row) in logits.iter().zip(weights.chunks(4)) {
        assert!((logit - row.iter().sum::<f64>()).abs() < 1e-6, "{logits:?}");
    }
}

#[test]
fn all_problems_are_listed_with_the_nearest_names() {
    let mut tensors = tiny_file();
    rename(&mut tensors, "conv2.weight", "conv2.wieght");
    rename(&mut tensors, "bn1.running_mean", "bn1.runing_mean");
    tensors.remove("fc.bias");
    tensors.get_mut("conv3.bias").unwrap().shape = vec![2, 2];
    tensors.insert("bn2.bias".into(), Made { dtype: Dtype::I32, shape: vec![2], bytes: vec![0; 8] });
    let twin = tensors["bn3.weight"].clone();
    tensors.insert("module.bn3.weight".into(), twin);
    let message = refusal(&tensors);
    for part in [
        "missing: conv2.weight (did you mean `conv2.wieght`?)",
        "missing: bn1.running_mean (did you mean `bn1.runing_mean`?)",
        "missing: fc.bias\n",
        "shape: conv3.bias is [2, 2], must be [4]",
        "type: bn2.bias is I32",
        "collision: bn3.weight, module.bn3.weight all stand for bn3.weight",
    ] {
        assert!(message.contains(part), "{part} not in\n{message}");
    }
}

#[test]
fn extra_names_are_listed_and_counters_are_not() {
    let mut tensors = tiny_file();
    tensors.insert("fc2.weight".into(), tensors["fc.weight"].clone());
    let counter = Made { dtype: Dtype::I64, shape: vec![], bytes: vec![0; 8] };
    tensors.insert("bn1.num_batches_tracked".into(), counter);
    let (_, report) = load(&tiny(&Device::flex()), &tensors).unwrap();
    assert_eq!(report.extra, ["fc2.weight"]);
    assert!(report.to_string().ends_with("not used: fc2.weight"), "{report}");
}

#[test]
fn the_prefix_of_data_parallel_is_stripped_and_said() {
    let plain = tiny_file();
    let mut tensors: BTreeMap<String, Made> =
        plain.iter().map(|(name, made)| (format!("module.{name}"), made.clone())).collect();
    rename(&mut tensors, "module.bn1.weight", "module.bn1.gamma");
    rename(&mut tensors, "module.bn1.bias", "module.bn1.beta");
    let device = Device::flex();
    let (stripped, report) = load(&tiny(&device), &tensors).unwrap();
    assert_eq!(report.stripped, 20);
    assert!(report.to_string().contains("`module.` stripped from 20 names"), "{report}");
    let (loaded, _) = load(&tiny(&device), &plain).unwrap();
    let images = Tensor::ones([1, 1, 8, 8], &device);
    assert_eq!(values(stripped.forward(images.clone())), values(loaded.forward(images)));
}

/// torchvision's name for one of ours; `dot` is what old files have before the number.
fn torchvision(name: &str, dot: &str) -> String {
    let Some((head, rest)) = name.split_once('.') else { panic!("{name}") };
    match head {
        "conv1" => format!("features.conv0.{rest}"),
        "bn1" => format!("features.norm0.{rest}"),
        "bn" => format!("features.norm5.{rest}"),
        "fc" => format!("classifier.{rest}"),
        _ => {
            let (index, rest) = rest.split_once('.').unwrap();
            let (layer, rest) = rest.split_once('.').unwrap();
            let index: usize = index.parse().unwrap();
            // The first section of each dense block.
            let starts = [0, 7, 20, 45];
            let block = starts.iter().rposition(|&start| start <= index).unwrap();
            let layer =
                layer.replace("bn", "norm").replace('1', &format!("{dot}1")).replace('2', &format!("{dot}2"));
            if layer == "norm" || layer == "conv" {
                format!("features.transition{}.{layer}.{rest}", block + 1)
            } else {
                let number = index - starts[block] + 1;
                format!("features.denseblock{}.denselayer{number}.{layer}.{rest}", block + 1)
            }
        }
    }
}

#[test]
fn torchvisions_names_old_and_new() {
    let device = Device::flex();
    let network = Architecture::DenseNet121 { growth: 1 }.init(1, 8, 3, &device).unwrap();
    let plain = made(&network);
    let images = Tensor::ones([1, 1, 8, 8], &device);
    let expected = values(load(&network, &plain).unwrap().0.forward(images.clone()));
    for dot in ["", "."] {
        let tensors = plain.iter().map(|(name, made)| (torchvision(name, dot), made.clone())).collect();
        let (loaded, report) = load(&network, &tensors).unwrap();
        assert_eq!(report.torchvision, entries(&network).len());
        assert!(report.to_string().contains("torchvision"), "{report}");
        assert_eq!(values(loaded.forward(images.clone())), expected);
    }
}

#[test]
fn nan_and_infinity_are_named() {
    let mut tensors = tiny_file();
    poke(&mut tensors, "conv2.weight", 5, f32::NAN);
    poke(&mut tensors, "conv2.weight", 7, f32::INFINITY);
    let message = refusal(&tensors);
    assert!(message.ends_with("tensor `conv2.weight` holds NaN at 5"), "{message}");
    poke(&mut tensors, "bn3.running_var", 0, f32::NEG_INFINITY);
    let message = refusal(&tensors);
    assert!(message.ends_with("holds NaN at 5 (1 more tensors hold such values)"), "{message}");
}

#[test]
fn a_double_beyond_f32_is_refused_in_f32_alone() {
    let device = Device::flex();
    let mut tensors = tiny_file();
    let large = 1e39f64.to_le_bytes().repeat(3);
    tensors.insert("fc.bias".into(), Made { dtype: Dtype::F64, shape: vec![3], bytes: large });
    let message = refusal(&tensors);
    assert!(message.contains("`fc.bias`") && message.contains("infinite in f32: ask for f64"), "{message}");
    let bytes = file(&tensors);
    let (network, report) = weights::load(tiny(&device), &bytes[..], FloatDType::F64, &device).unwrap();
    assert_eq!(report.source.len(), 2);
    let logits = network.forward(Tensor::ones([1, 1, 8, 8], (&device, DType::F64)));
    assert!(values(logits).iter().all(|&logit| logit > 9e38));
}

#[test]
fn a_negative_variance_is_refused() {
    let mut tensors = tiny_file();
    poke(&mut tensors, "bn2.running_var", 1, -0.5);
    let message = refusal(&tensors);
    assert!(
        message.ends_with("tensor `bn2.running_var` is a variance, and its value 1 is -0.5"),
        "{message}"
    );
}

#[test]
fn weights_of_another_network_are_recognised() {
    let device = Device::flex();
    let residual = Architecture::ResNet50 { width: 1 }.init(1, 28, 10, &device).unwrap();
    let dense = Architecture::DenseNet121 { growth: 1 }.init(1, 28, 10, &device).unwrap();
    let error = load(&residual, &made(&dense)).unwrap_err();
    let Error::WrongNetwork { strangers, .. } = &error else { panic!("{error}") };
    assert_eq!(
        (strangers.expected.as_str(), strangers.found, strangers.total),
        ("resnet50", Some("densenet121"), 320)
    );
    let message = error.to_string();
    assert!(message.contains("this looks like the weights of densenet121, not of resnet50"), "{message}");
    assert!(message.len() < 400 && !message.contains('\n'), "{message}");
    let message = load(&dense, &made(&residual)).unwrap_err().to_string();
    assert!(message.contains("this looks like the weights of resnet50, not of densenet121"), "{message}");
    // Most of the CNN's names are also names of ResNet50.
    let message = load(&tiny(&device), &made(&residual)).unwrap_err().to_string();
    assert!(message.contains("this looks like the weights of resnet50, not of cnn"), "{message}");
}

#[test]
fn strangers_and_parts_are_distinguished() {
    let device = Device::flex();
    let residual = Architecture::ResNet50 { width: 1 }.init(1, 28, 10, &device).unwrap();
    let stranger = BTreeMap::from([("w\u{1b}[31m".to_owned(), tiny_file()["fc.bias"].clone())]);
    let message = load(&residual, &stranger).unwrap_err().to_string();
    assert!(message.contains("these are not the weights of resnet50: 320 of its 320 tensors"), "{message}");
    assert!(message.contains("w\\u{1b}[31m"), "{message}");
    let part = made(&residual).into_iter().filter(|(name, _)| name.starts_with("stages.0")).collect();
    let message = load(&residual, &part).unwrap_err().to_string();
    assert!(message.contains("only a part of the weights of resnet50"), "{message}");
    let message = load(&residual, &BTreeMap::new()).unwrap_err().to_string();
    assert!(message.contains("these are not the weights of resnet50"), "{message}");
}

#[test]
fn another_size_of_the_network_is_said_with_the_remedy() {
    let device = Device::flex();
    let build = |width, channels, size, classes| {
        Architecture::ResNet50 { width }.init(channels, size, classes, &device).unwrap()
    };
    let tensors = made(&build(2, 1, 28, 10));
    let refused = |network: &Network| {
        let error = load(network, &tensors).unwrap_err();
        assert!(matches!(error, Error::WrongSize { .. }), "{error}");
        error.to_string()
    };
    let message = refused(&build(3, 1, 28, 10));
    assert!(message.contains("the file has width 2, not 3: pass --width 2"), "{message}");
    assert!(!message.contains('\n'), "{message}");
    assert!(refused(&build(2, 3, 28, 10)).contains("images of 1 channel(s), not 3"));
    assert!(refused(&build(2, 1, 28, 12)).contains("the file has 10 classes, not 12"));
    assert!(refused(&build(2, 1, 64, 10)).contains("images of 25 to 40 pixels per side"));
    let message = refused(&build(3, 3, 64, 12));
    for part in ["width 2", "1 channel(s)", "10 classes", "25 to 40"] {
        assert!(message.contains(part), "{message}");
    }
    // Images of 32 pixels give the same final map as images of 28.
    load(&build(2, 1, 32, 10), &tensors).unwrap();
}

#[test]
fn a_size_and_a_misspelt_name_are_reported_together() {
    let device = Device::flex();
    let mut tensors = made(&Architecture::DenseNet121 { growth: 1 }.init(1, 28, 10, &device).unwrap());
    rename(&mut tensors, "body.3.conv2.bias", "body.3.conv2.bais");
    let network = Architecture::DenseNet121 { growth: 2 }.init(1, 28, 10, &device).unwrap();
    let message = load(&network, &tensors).unwrap_err().to_string();
    assert!(message.contains("growth 1, not 2: pass --width 1"), "{message}");
    assert!(message.contains("missing: body.3.conv2.bias (did you mean `body.3.conv2.bais`?)"), "{message}");
    assert!(!message.contains("shape:"), "{message}");
}

#[test]
fn clones_keep_their_weights_and_buffers() {
    let device = Device::flex();
    let network = tiny(&device);
    let images = Tensor::ones([1, 1, 8, 8], &device);
    let before = values(network.forward(images.clone()));
    let (first, _) = load(&network, &tiny_file()).unwrap();
    let first_logits = values(first.forward(images.clone()));
    assert_ne!(before, first_logits);
    assert_eq!(before, values(network.forward(images.clone())));
    // Loading again into the loaded network does not change the first, including its buffers.
    let mut other = tiny_file();
    poke(&mut other, "bn1.running_mean", 0, 3.0);
    let (second, _) = load(&first, &other).unwrap();
    assert_ne!(first_logits, values(second.forward(images.clone())));
    assert_eq!(first_logits, values(first.forward(images)));
}

#[test]
fn on_an_autodiff_device_the_network_is_ready_to_train() {
    let device = Device::flex().autodiff();
    let bytes = file(&tiny_file());
    let (network, _) = weights::load(tiny(&Device::flex()), &bytes[..], FloatDType::F32, &device).unwrap();
    let images = Tensor::<4>::random([4, 1, 8, 8], burn::tensor::Distribution::Default, &device);
    let loss = network.forward(images).powi_scalar(2).mean();
    assert!(loss.is_require_grad() || loss.is_autodiff());
    let _ = loss.backward();
    // In evaluation it gives the same as when loaded on the plain device.
    let (plain, _) = load(&tiny(&Device::flex()), &tiny_file()).unwrap();
    let images = Tensor::ones([1, 1, 8, 8], &Device::flex());
    let (fresh, _) = weights::load(tiny(&device), &bytes[..], FloatDType::F32, &device).unwrap();
    assert_eq!(values(fresh.valid().forward(images.clone())), values(plain.forward(images)));
}

#[test]
fn files_and_bytes_are_read_alike() {
    let device = Device::flex();
    let bytes = file(&tiny_file());
    let folder = std::env::temp_dir().join(format!("influence-zoo-alike-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("tiny.safetensors");
    std::fs::write(&path, &bytes).unwrap();
    let images = Tensor::ones([1, 1, 8, 8], &device);
    let named = Source::Bytes { name: "the sample", bytes: &bytes };
    let (from_bytes, report) = weights::load(tiny(&device), named, FloatDType::F32, &device).unwrap();
    assert_eq!(report.file, "the sample");
    let (from_file, report) = weights::load(tiny(&device), &path, FloatDType::F32, &device).unwrap();
    assert!(report.file.ends_with("tiny.safetensors"));
    assert_eq!(values(from_bytes.forward(images.clone())), values(from_file.forward(images)));
    let error = Checkpoint::open(&folder).unwrap_err();
    assert!(error.to_string().contains("a folder"), "{error}");
    std::fs::remove_dir_all(&folder).unwrap();
    let error = weights::load(tiny(&device), &path, FloatDType::F32, &device).unwrap_err();
    assert!(matches!(error, Error::Io { action: "open", .. }), "{error}");
}

#[test]
fn a_checkpoint_describes_itself() {
    let device = Device::flex();
    let network = Architecture::DenseNet121 { growth: 3 }.init(2, 28, 7, &device).unwrap();
    let bytes = file(&made(&network));
    let mut checkpoint = Checkpoint::open(&bytes[..]).unwrap();
    let description = checkpoint.describe().unwrap();
    assert_eq!(description.architecture(), Some(Architecture::DenseNet121 { growth: 3 }));
    assert_eq!(
        (description.channels, description.classes, description.sides.clone()),
        (Some(2), Some(7), None)
    );
    assert_eq!(description.to_string(), "densenet121, growth 3, 2 channel(s), 7 classes");
    let error = checkpoint.read("fc.wieght", FloatDType::F32).unwrap_err();
    assert!(error.to_string().contains("did you mean `fc.weight`?"), "{error}");
    assert!(
        matches!(checkpoint.read("fc.bias", FloatDType::F32), Ok(Values::F32(values)) if values.len() == 7)
    );
}

/// A foreign module with a tuple in a list.
#[derive(Module, Debug)]
struct Theirs {
    layers: Vec<(Linear, BatchNorm)>,
    head: Linear,
}

#[test]
fn any_module_with_pytorchs_paths_is_loaded() {
    let device = Device::flex();
    let theirs = || Theirs {
        layers: vec![(LinearConfig::new(2, 3).init(&device), BatchNormConfig::new(3).init(&device))],
        head: LinearConfig::new(3, 1).with_bias(false).init(&device),
    };
    let f32s = |shape: &[usize], values: &[f32]| Made {
        dtype: Dtype::F32,
        shape: shape.to_vec(),
        bytes: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
    };
    let mut tensors = BTreeMap::from([
        ("layers.0.0.weight".to_owned(), f32s(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])),
        ("layers.0.0.bias".to_owned(), f32s(&[3], &[0.5; 3])),
        ("layers.0.1.weight".to_owned(), f32s(&[3], &[2.0; 3])),
        ("layers.0.1.bias".to_owned(), f32s(&[3], &[1.0; 3])),
        ("layers.0.1.running_mean".to_owned(), f32s(&[3], &[1.0; 3])),
        ("layers.0.1.running_var".to_owned(), f32s(&[3], &[4.0; 3])),
        ("head.weight".to_owned(), f32s(&[1, 3], &[1.0, 10.0, 100.0])),
    ]);
    let bytes = file(&tensors);
    let (loaded, report) = weights::load(theirs(), &bytes[..], FloatDType::F64, &device).unwrap();
    assert_eq!((report.tensors, report.parameters), (7, 18));
    let x = Tensor::<2>::from_data([[1.0, -1.0]], (&device, DType::F64));
    let (linear, bn) = &loaded.layers[0];
    let y = values(loaded.head.forward(bn.forward(linear.forward(x))));
    // Every row gives -1 + 0.5; less 1, over sqrt(4 + 1e-5), times 2, plus 1.
    let normal = 1.0 - 2.0 * 1.5 / (4.0f64 + 1e-5).sqrt();
    assert!((y[0] - 111.0 * normal).abs() < 1e-12, "{y:?}");
    tensors.remove("head.weight");
    let bytes = file(&tensors);
    let error = weights::load(theirs(), &bytes[..], FloatDType::F64, &device).unwrap_err();
    assert!(error.to_string().contains("missing: head.weight"), "{error}");
}

#[test]
fn other_precisions_are_refused() {
    let device = Device::flex();
    let bytes = file(&made(&tiny(&device)));
    for precision in [FloatDType::F16, FloatDType::BF16, FloatDType::Flex32] {
        let said = format!("weights are loaded as f32 or f64, not as {}", DType::from(precision).name());
        let error = weights::load(tiny(&device), &bytes[..], precision, &device).unwrap_err();
        assert_eq!(error.to_string(), said);
        let mut checkpoint = Checkpoint::open(&bytes[..]).unwrap();
        assert_eq!(checkpoint.read("fc.bias", precision).unwrap_err().to_string(), said);
    }
}
