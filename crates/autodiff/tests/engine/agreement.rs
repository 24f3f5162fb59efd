//! Models whose recording could be mistaken for another model's, against their own forward pass,
//! and the checks that find models that cannot be computed.

use burn::module::{Module, Param};
use burn::tensor::activation::{hard_sigmoid, leaky_relu, relu, sigmoid, softmax};
use burn::tensor::module::max_pool1d;
use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{Device, Tensor};
use influence_autodiff::{Check, Error, Graph, Options, Precision, Program};

use crate::layers::agrees;
use crate::models::{EMPTY, Empty, capture, load};

/// A matrix and a vector that the model itself holds.
#[derive(Module, Debug)]
struct Affine {
    matrix: Param<Tensor<2>>,
    vector: Param<Tensor<1>>,
}

impl Affine {
    fn new(rows: usize, columns: usize, vector: usize) -> Self {
        let device = Device::flex();
        Self {
            matrix: Param::from_tensor(Tensor::zeros([rows, columns], &device)),
            vector: Param::from_tensor(Tensor::zeros([vector], &device)),
        }
    }

    /// The product, plus the vector along one of its axes.
    fn along(&self, x: Tensor<3>, shape: [usize; 3]) -> Tensor<2> {
        let y = x.matmul(self.matrix.val().unsqueeze()) + self.vector.val().reshape(shape);
        y.flatten(1, 2)
    }
}

#[test]
fn a_vector_behind_a_product_is_a_bias_only_along_the_features() {
    let tokens = |model: &Affine, x: Tensor<3>| model.along(x, [1, 4, 1]);
    agrees("one number per token, as many features", Affine::new(3, 4, 4), tokens, &[4, 3]);
    agrees("one number per token, other features", Affine::new(3, 5, 4), tokens, &[4, 3]);
    agrees("one number", Affine::new(3, 4, 1), |model: &Affine, x| model.along(x, [1, 1, 1]), &[4, 3]);
    agrees("a bias", Affine::new(3, 4, 4), |model: &Affine, x| model.along(x, [1, 1, 4]), &[4, 3]);
    let rows = |model: &Affine, x: Tensor<3>| {
        let [n, s, i] = x.dims();
        let y = x.reshape([n * s, i]).matmul(model.matrix.val());
        (y.reshape([n, s, 4]) + model.vector.val().reshape([1, 4, 1])).flatten(1, 2)
    };
    agrees("rows of all samples, one number per token", Affine::new(3, 4, 4), rows, &[4, 3]);
}

#[test]
fn a_matrix_in_another_shape_is_no_weight() {
    let turned = |model: &Affine, x: Tensor<3>| {
        let matrix = model.matrix.val().reshape([1, 3, 4]);
        (x.matmul(matrix) + model.vector.val().unsqueeze()).flatten(1, 2)
    };
    agrees("read in another shape", Affine::new(4, 3, 4), turned, &[4, 3]);
    agrees(
        "square, transposed",
        Affine::new(3, 3, 3),
        |model: &Affine, x: Tensor<3>| {
            let matrix = model.matrix.val().transpose().unsqueeze();
            (x.matmul(matrix) + model.vector.val().unsqueeze()).flatten(1, 2)
        },
        &[4, 3],
    );
    agrees(
        "one per token",
        Affine::new(4, 3, 1),
        |model: &Affine, x: Tensor<3>| x.matmul(model.matrix.val().reshape([1, 3, 4])).flatten(1, 2),
        &[2, 3],
    );
}

type Function = fn(Tensor<2>) -> Tensor<2>;

/// Functions with a branch that is switched off and whose cotangent would be infinite.
const SWITCHED: &[(&str, Function)] = &[
    ("relu", |x| relu(x).sqrt()),
    ("relu, power", |x| relu(x).powf_scalar(0.3)),
    ("leaky relu with slope 0", |x| leaky_relu(x, 0.0).sqrt()),
    ("clamp", |x| x.clamp_min(0.0).sqrt()),
    ("clamp on both sides", |x| (x.clamp(-0.25, 0.25) + 0.25).sqrt()),
    ("hard sigmoid", |x| hard_sigmoid(x * 9.0, 0.2, 0.5).sqrt()),
    ("mask fill", |x| x.clone().abs().mask_fill(x.lower_scalar(0.1), 0.0).sqrt()),
    ("mask where", |x| {
        let zeros = x.zeros_like();
        x.clone().abs().mask_where(x.lower_scalar(0.1), zeros).sqrt()
    }),
    ("threshold", |x| burn::tensor::activation::threshold(x, 0.1, 0.0).sqrt()),
    ("hard shrink", |x| burn::tensor::activation::hard_shrink(x.abs(), 0.3).sqrt()),
    ("max pool", |x| {
        let x = relu(x).unsqueeze_dim::<3>(1);
        max_pool1d(x, MaxPoolOptions::new([2]).with_stride([1])).squeeze_dim::<2>(1).sqrt()
    }),
    ("maximum", |x| {
        let x = relu(x);
        x.clone() + x.min_dim(1).sqrt()
    }),
];

#[test]
fn what_is_switched_off_stays_so_behind_infinite_slopes() {
    for (name, function) in SWITCHED {
        agrees(name, EMPTY, |_: &Empty, x: Tensor<2>| function(x), &[7]);
    }
}

fn problem(forward: Function) -> String {
    match capture(&[3], forward) {
        Err(Error::Unsupported(problems)) => problems[0].why.clone(),
        other => panic!("expected Unsupported, found {other:?}"),
    }
}

#[test]
fn control_flow_that_two_and_three_samples_do_not_show_is_refused() {
    let half: Function = |x| {
        let half = (x.dims()[0] / 2) as f64;
        x / half
    };
    assert!(problem(half).contains("for 5 samples"));
    assert!(problem(|x| if x.dims()[0] > 3 { relu(x) } else { x * 2.0 }).contains("for 5 samples"));
    assert!(problem(|x| if x.dims()[0] > 3 { relu(x) * 2.0 } else { relu(x) }).contains("for 5 samples"));
    let alone: [Function; 3] = [
        |x| if x.dims()[0] == 1 { relu(x) } else { x },
        |x| if x.dims()[0] == 1 { x * 2.0 } else { x },
        |x| {
            let count = x.dims()[0].min(2) as f64;
            x / count
        },
    ];
    for forward in alone {
        let refused = load(&[3], forward).expect_err("it is refused");
        assert!(matches!(refused, Error::BatchDependent { samples: 5, .. }), "{refused}");
        assert!(refused.to_string().contains("when the sample comes alone"), "{refused}");
    }
}

#[test]
fn samples_that_meet_are_found_whatever_the_numbers_are() {
    let coupled: [(Function, &str); 6] = [
        (|x| x.clone() + (x.abs().clamp_min(5.0) - 5.0).sum_dim(0), "Sum"),
        (|x| x.clone() + relu(x - 1e6).max_dim(0), "Extremum"),
        (|x| x.clone() + x.narrow(0, 0, 1) * 0.0, "Slice"),
        (|x| x.clone() * Tensor::ones(x.dims(), &x.device()).sum_dim(0), "Sum"),
        (
            |x| {
                let [n, k] = x.dims();
                x.clone().reshape([k, n]).swap_dims(0, 1) + x
            },
            "Reshape",
        ),
        (
            |x| {
                let [n, k] = x.dims();
                let wide = x.clone().reshape([1, n * k]);
                x + wide.cumulative(n, k)
            },
            "Softmax",
        ),
    ];
    for (forward, node) in coupled {
        match load(&[3], forward) {
            Err(Error::BatchCoupled { node: found }) => assert!(found.contains(node), "{found}, not {node}"),
            other => panic!("{node}: {other:?}"),
        }
    }
}

/// A softmax over all samples, between reshapes that keep the shape.
trait Cumulative {
    fn cumulative(self, n: usize, k: usize) -> Self;
}

impl Cumulative for Tensor<2> {
    fn cumulative(self, n: usize, k: usize) -> Self {
        softmax(self, 1).reshape([n, k])
    }
}

#[test]
fn samples_that_lie_elsewhere_stay_apart() {
    let tokens: fn(Tensor<3>) -> Tensor<2> = |x| {
        let [n, t, d] = x.dims();
        // Time first, all rows merged, and back again.
        let y = relu(x.swap_dims(0, 1).reshape([t * n, d])).reshape([t, n, d]);
        y.narrow(0, 0, 2).swap_dims(0, 1).reshape([n, 2 * d])
    };
    assert!(load(&[3, 4], tokens).is_ok());
    let views: fn(Tensor<2>) -> Tensor<2> = |x| {
        let [n, k] = x.dims();
        let both = Tensor::cat(vec![x.clone(), x.flip([1])], 0).sin();
        both.reshape([2, n, k]).mean_dim(0).squeeze_dim(0)
    };
    assert!(load(&[3], views).is_ok());
    let windows: fn(Tensor<3>) -> Tensor<2> = |x| {
        let [n, h, w] = x.dims();
        let parts = x.reshape([n, 2, h / 2, 2, w / 2]).permute([0, 1, 3, 2, 4]).reshape([n * 4, h * w / 4]);
        (softmax(parts.clone(), 1) + parts).reshape([n, h * w])
    };
    assert!(load(&[4, 6], windows).is_ok());
}

#[test]
fn outputs_that_are_bounded_by_their_last_operation_are_refused() {
    let bounded: [(Function, &str); 4] = [
        (|x| sigmoid(x), "Sigmoid"),
        (|x| sigmoid(x).unsqueeze_dim::<3>(2).flatten(1, 2), "Sigmoid"),
        (|x| x.clamp(0.0, 1.0), "Clamp"),
        (|x| hard_sigmoid(x, 0.2, 0.5).flip([1]), "HardSigmoid"),
    ];
    for (forward, name) in bounded {
        match load(&[3], forward) {
            Err(Error::Bounded { node }) => assert!(node.contains(name), "{node}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    assert!(load(&[3], |x: Tensor<2>| sigmoid(x) + 0.0).is_ok(), "they are meant as logits");
    assert!(load(&[3], |x: Tensor<2>| sigmoid(x) * 4.0).is_ok());
    assert!(load(&[3], |x: Tensor<2>| x.clamp(-1.0, 1.0)).is_ok());
}

#[test]
fn what_is_not_compared_says_why() {
    let device = Device::flex();
    let forward = |_: &Empty, x: Tensor<2>| if x.dims()[0] == 1 { x * 2.0 } else { x };
    let options = |check| Options { precision: Precision::F64, check, ..Options::default() };
    let graph = Graph::capture(&EMPTY, forward, &[3], &device).expect("it is captured");
    assert!(Program::new(graph.clone(), &device, &options(Check::On)).is_err());
    let off = options(Check::Off("one at a time is never asked for".into()));
    let program = Program::new(graph, &device, &off).expect("it loads");
    let engine = program.engine();
    assert!(engine.contains("(not compared with the model: one at a time"), "{engine}");
    let graph = Graph::record(&EMPTY, forward, &[3], &device).expect("it is recorded");
    assert!(Program::new(graph, &device, &options(Check::On)).is_ok(), "there is nothing to compare it with");
}

#[test]
fn a_model_that_fails_on_its_own_device_is_reported() {
    let forward = |_: &Empty, x: Tensor<2>| {
        assert!(x.dims()[0] > 1, "one sample is not enough");
        x * 2.0
    };
    let refused = Graph::capture(&EMPTY, forward, &[3], &Device::flex()).expect_err("it is refused");
    assert!(matches!(refused, Error::ForwardFailed { .. }), "{refused}");
    assert!(refused.to_string().contains("one sample is not enough"), "{refused}");
}
