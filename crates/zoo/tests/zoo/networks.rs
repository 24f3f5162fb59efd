//! The networks' shapes, counts and names.

use std::collections::BTreeSet;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Distribution, Tensor};
use influence_zoo::names::{self, TensorRole, entries, torch_name};
use influence_zoo::weights::Checkpoint;
use influence_zoo::{Architecture, CnnConfig, DenseNet121Config, Error, Network, ResNet50Config};

use crate::common::{TRAINED, skip, values};

const NARROW: [Architecture; 3] = [
    Architecture::ResNet50 { width: 2 },
    Architecture::DenseNet121 { growth: 2 },
    Architecture::Cnn { width: 2 },
];

#[test]
fn parameters_and_layers_of_the_paper() {
    let device = Device::flex();
    let count = |network: &Network| (names::parameter_count(network), names::layers(network).len());
    let build = |name: &str, channels, size| {
        name.parse::<Architecture>().unwrap().init(channels, size, 10, &device).unwrap()
    };
    assert_eq!(count(&build("resnet50", 3, 32)), (23_608_842, 107));
    assert_eq!(count(&build("densenet121", 3, 32)), (6_966_666, 242));
    assert_eq!(count(&build("cnn", 3, 32)), (94_986, 7));
}

#[test]
fn buffers_are_not_counted() {
    let network = CnnConfig::new(1, 8, 3).with_width(1).init(&Device::flex()).unwrap();
    let buffers: usize = entries(&network)
        .iter()
        .filter(|entry| entry.role == TensorRole::Buffer)
        .map(|entry| entry.shape.iter().product::<usize>())
        .sum();
    assert_eq!(buffers, 2 * (1 + 2 + 4));
    // Burn counts them.
    assert_eq!(network.num_params(), names::parameter_count(&network) + buffers);
}

#[test]
fn logits_for_sizes_even_and_odd() {
    let device = Device::flex();
    for architecture in NARROW {
        for (channels, size) in [(1, 28), (3, 32), (2, 33), (1, 9), (1, 10), (1, 41)] {
            let network = architecture.init(channels, size, 7, &device).unwrap();
            assert_eq!((network.input(), network.classes()), ([channels, size, size], 7));
            for batch in [1, 3] {
                let images =
                    Tensor::random([batch, channels, size, size], Distribution::Uniform(0.0, 1.0), &device);
                let logits = network.forward(images);
                assert_eq!(logits.dims(), [batch, 7]);
                assert!(values(logits).iter().all(|value| value.is_finite()));
            }
        }
    }
}

#[test]
fn the_smallest_images() {
    let device = Device::flex();
    for (architecture, smallest) in NARROW.into_iter().zip([9, 8, 4]) {
        let network = architecture.init(1, smallest, 2, &device).unwrap();
        assert_eq!(network.forward(Tensor::zeros([1, 1, smallest, smallest], &device)).dims(), [1, 2]);
        let error = architecture.init(1, smallest - 1, 2, &device).unwrap_err();
        assert!(matches!(error, Error::Configuration { .. }), "{error}");
    }
}

#[test]
fn growth_and_width_scale_what_they_should() {
    let device = Device::flex();
    let shape = |network: &Network, name: &str| {
        entries(network).into_iter().find(|entry| entry.name == name).map(|entry| entry.shape)
    };
    let dense = Architecture::DenseNet121 { growth: 4 }.init(1, 28, 10, &device).unwrap();
    assert_eq!(shape(&dense, "conv1.weight"), Some(vec![64, 1, 3, 3]));
    assert_eq!(shape(&dense, "body.0.conv1.weight"), Some(vec![16, 64, 1, 1]));
    assert_eq!(shape(&dense, "body.0.conv2.weight"), Some(vec![4, 16, 3, 3]));
    assert_eq!(shape(&dense, "body.6.conv.weight"), Some(vec![44, 88, 1, 1]));
    let residual = Architecture::ResNet50 { width: 4 }.init(1, 28, 10, &device).unwrap();
    assert_eq!(shape(&residual, "conv1.weight"), Some(vec![4, 1, 3, 3]));
    assert_eq!(shape(&residual, "stages.3.0.short.0.weight"), Some(vec![128, 64, 1, 1]));
    assert_eq!(shape(&residual, "fc.weight"), Some(vec![10, 512]));
}

#[test]
fn names_are_those_of_the_trained_files() {
    let device = Device::flex();
    for trained in TRAINED {
        let Some(path) = trained.weights() else {
            skip(trained.name);
            continue;
        };
        let checkpoint = Checkpoint::open(&path).unwrap();
        let theirs: BTreeSet<(String, Vec<usize>)> =
            checkpoint.tensors().iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect();
        let ours = entries(&trained.network(&device)).into_iter().map(|entry| (entry.name, entry.shape));
        assert_eq!(ours.collect::<BTreeSet<_>>(), theirs, "{}", trained.name);
    }
}

#[test]
fn layers_come_in_pytorchs_order() {
    let device = Device::flex();
    for trained in TRAINED {
        let Some(path) = trained.golden() else {
            skip(trained.name);
            continue;
        };
        let golden = Checkpoint::open(&path).unwrap();
        let theirs: Vec<&str> = golden.metadata()["layers"].split('|').collect();
        assert_eq!(names::layers(&trained.network(&device)), theirs, "{}", trained.name);
    }
}

/// Burn's own paths, as a visitor of another crate sees them.
#[derive(Default)]
struct Paths {
    segments: Vec<String>,
    paths: Vec<String>,
}

impl ModuleVisitor for Paths {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.segments.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.segments.pop();
    }
    fn visit_float<const D: usize>(&mut self, _param: &Param<Tensor<D>>) {
        self.paths.push(self.segments.join("."));
    }
}

#[test]
fn burns_own_paths_need_nothing_but_gamma_and_beta() {
    let device = Device::flex();
    for architecture in NARROW {
        let network = architecture.init(1, 28, 10, &device).unwrap();
        let mut visitor = Paths::default();
        network.visit(&mut visitor);
        let named: Vec<String> = visitor.paths.iter().map(|path| torch_name(path)).collect();
        assert_eq!(named, entries(&network).into_iter().map(|entry| entry.name).collect::<Vec<_>>());
        let (path, name) = match architecture {
            Architecture::ResNet50 { .. } => ("stages.0.0.short.1.gamma", "stages.0.0.short.1.weight"),
            Architecture::DenseNet121 { .. } => ("body.6.bn.beta", "body.6.bn.bias"),
            Architecture::Cnn { .. } => ("bn3.running_var", "bn3.running_var"),
        };
        let index = visitor.paths.iter().position(|other| other == path).unwrap();
        assert_eq!(named[index], name);
    }
}

#[test]
fn all_faults_of_a_configuration_are_reported_at_once() {
    let device = Device::flex();
    let error = ResNet50Config::new(0, 4, 0).with_width(0).with_dropout(1.0).init(&device).unwrap_err();
    let message = error.to_string();
    for part in ["resnet50", "channels is 0", "4x4 pixels", "classes is 0", "width is 0", "dropout is 1"] {
        assert!(message.contains(part), "{message}");
    }
    let error = DenseNet121Config::new(1, 28, 10).with_growth(0).init(&device).unwrap_err();
    assert!(error.to_string().contains("growth is 0"), "{error}");
    let error = CnnConfig::new(1, 28, 10).with_width(0).init(&device).unwrap_err();
    assert!(error.to_string().contains("width is 0"), "{error}");
    let error = ResNet50Config::new(1, 28, 10).with_dropout(f64::NAN).init(&device).unwrap_err();
    assert!(error.to_string().contains("dropout is NaN"), "{error}");
}

#[test]
fn absurd_sizes_are_errors_and_cost_nothing() {
    let device = Device::flex();
    for architecture in NARROW {
        for most in [usize::MAX, usize::MAX / 2, 1 << 40, 1 << 20] {
            for error in [
                architecture.init(most, most, most, &device).unwrap_err(),
                architecture.with_width(most).init(1, 28, 10, &device).unwrap_err(),
                architecture.init(1, most, 10, &device).unwrap_err(),
            ] {
                assert!(matches!(error, Error::Configuration { .. }), "{error}");
            }
        }
    }
}

#[test]
fn dropout_acts_in_training_alone() {
    let device = Device::flex().autodiff();
    let network = Architecture::DenseNet121 { growth: 2 }.init(1, 16, 10, &device).unwrap();
    let images = || Tensor::<4>::ones([2, 1, 16, 16], &device);
    let twice = |network: &Network, images: &dyn Fn() -> Tensor<4>| {
        values(network.forward(images())) == values(network.forward(images()))
    };
    assert!(!twice(&network, &images));
    let plain = Device::flex();
    assert!(twice(&network.valid(), &|| Tensor::ones([2, 1, 16, 16], &plain)));
}

#[test]
fn a_network_shows_its_layers() {
    let network = Architecture::DenseNet121 { growth: 2 }.init(1, 28, 10, &Device::flex()).unwrap();
    let text = network.to_string();
    assert!(
        text.contains("DenseNet121") && text.contains("Transition") && text.contains("prob: 0.2"),
        "{text}"
    );
}
