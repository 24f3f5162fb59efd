//! What the CPU executor makes of a graph: its kernels and steps as they are printed, and its
//! operations, counted by hand.

use std::sync::Arc;

use burn::tensor::activation::relu;
use burn::tensor::module::{conv2d, linear};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor, TensorData};
use influence_autodiff::Precision;
use influence_cpu::CpuExecutor;

use crate::common::{capture_one, weights};
use crate::layers::means;

#[test]
fn kernels_and_steps_are_printed() {
    let graph = capture_one(|x| {
        let device = x.device();
        linear(relu(x).flatten::<2>(1, 3), weights([60, 3], 1, &device), None)
    });
    let executor = CpuExecutor::new(Arc::new(graph), Precision::F32, None, &Device::flex());
    let text = executor.expect("supported").to_string();
    assert!(text.contains("relu with mask r0") && text.contains("through r0"), "{text}");
}

#[test]
fn a_mean_comes_first_unless_it_counts_its_padding() {
    for choice in [0, 1, 3] {
        let graph = capture_one(|x| {
            let (device, options) = (x.device(), ConvOptions::new([1, 1], [0, 0], [1, 1], 1));
            let x = conv2d(x, weights([3, 2, 1, 1], 1, &device), None, options);
            linear(
                means(x, choice).mean_dim(2).mean_dim(3).flatten::<2>(1, 3),
                weights([3, 3], 1, &device),
                None,
            )
        });
        let executor = CpuExecutor::new(Arc::new(graph), Precision::F32, None, &Device::flex());
        let text = executor.expect("supported").to_string();
        let is_first = text.find("AvgPool2d").expect("a mean") < text.find("Conv2d").expect("a product");
        assert_eq!(is_first, choice != 3, "{text}");
    }
}

#[test]
fn work_of_masked_products() {
    // Two convolutions of single pixels around a ReLU, and a layer of the flattened image: 2 -> 3
    // -> 1 channels, 30 positions, 4 classes.
    let signs = |x: Tensor<4>, to: usize| {
        let (from, device) = (x.dims()[1], x.device());
        let weights: Vec<f32> = (0..to * from).map(|at| [1.0, -1.0][at / from % 2]).collect();
        let weights = Tensor::<4>::from_data(TensorData::new(weights, [to, from, 1, 1]), &device);
        conv2d(x, weights, None, ConvOptions::new([1, 1], [0, 0], [1, 1], 1))
    };
    let graph = capture_one(|x| {
        let device = x.device();
        let flat = signs(relu(signs(x, 3)), 1).flatten::<2>(1, 3);
        linear(flat, weights([30, 4], 1, &device), None)
    });
    let executor =
        CpuExecutor::new(Arc::new(graph), Precision::F32, None, &Device::flex()).expect("supported");
    // Of three channels a positive image turns on the first and the last, a negative one only the
    // second.
    for (value, on) in [(1.0, 2), (-1.0, 1)] {
        let work = executor.reverse_work(TensorData::new(vec![value; 60], [1, 2, 6, 5])).expect("it fits");
        let last = 4 * 30;
        assert_eq!((work.dense, work.read), (last + 30 * (3 + 6), last + 30 * (3 + 2 * on)), "{work:?}");
        assert_eq!(work.done, last + 30 * (on + 2 * on), "{work:?}");
    }
}

#[test]
fn work_of_grouped_and_depthwise_products() {
    // 2 -> 4 channels of single pixels, a ReLU, each channel over nine taps by itself, a ReLU, and
    // 4 -> 2 channels in two groups.
    let signs = |x: Tensor<4>, outputs: usize, kernel: usize, groups: usize| {
        let (inputs, device) = (x.dims()[1] / groups, x.device());
        let size = inputs * kernel * kernel;
        let each = (0..outputs * size).map(|at| if groups == 1 { [1.0, -1.0][at / size % 2] } else { 1.0 });
        let weights = TensorData::new(each.collect::<Vec<f32>>(), [outputs, inputs, kernel, kernel]);
        let options = ConvOptions::new([1, 1], [kernel / 2, kernel / 2], [1, 1], groups);
        conv2d(x, Tensor::from_data(weights, &device), None, options)
    };
    let graph = capture_one(|x| {
        let device = x.device();
        let inner = relu(signs(relu(signs(x, 4, 1, 1)), 4, 3, 4));
        linear(signs(inner, 2, 1, 2).flatten::<2>(1, 3), weights([60, 4], 1, &device), None)
    });
    let executor =
        CpuExecutor::new(Arc::new(graph), Precision::F32, None, &Device::flex()).expect("supported");
    let work = executor.reverse_work(TensorData::new(vec![1.0; 60], [1, 2, 6, 5])).expect("it fits");
    // Of a positive image two of four channels are on. Of nine taps those that fall into the image;
    // channels by themselves whether on or not. Two groups share a panel with its zeros.
    let (last, taps) = (4 * 60, (6 * 3 - 2) * (5 * 3 - 2));
    assert_eq!(work.dense, last + 30 * (2 * 2) + taps * 4 + 30 * (2 * 4), "{work:?}");
    assert_eq!(work.read, last + 30 * (2 * 4) + taps * 4 + 30 * (2 * 2), "{work:?}");
    assert_eq!(work.done, last + 30 * (2 * 2) + taps * 4 + 30 * (2 * 2), "{work:?}");
}
