//! The printed graph of a small residual network: a change of its structure shows as a difference
//! in text.

use burn::tensor::activation::{gelu, relu};
use burn::tensor::{Device, Tensor};
use influence_autodiff::{Bytes, Graph, Plan, Precision};

use crate::models::{Net, SAMPLE, capture};

#[test]
fn the_printed_graph_is_the_committed_one() {
    let device = Device::flex();
    let graph = Graph::capture(&Net::new(&device), Net::forward, &SAMPLE, &device).expect("it is captured");
    let expected = include_str!("residual.txt");
    let found = graph.to_string();
    assert!(found == expected, "expected:\n{expected}\nfound:\n{found}");
}

#[test]
fn the_printed_plan_tells_what_is_kept_and_dropped() {
    let device = Device::flex();
    let graph = Graph::capture(&Net::new(&device), Net::forward, &SAMPLE, &device).expect("it is captured");
    let plan = Plan::input(graph.into(), 2, 3, Precision::F64).expect("it is planned");
    let text = plan.to_string();
    assert!(text.starts_with("batch 2, 3 cotangents per pass, f64\n"), "{text}");
    assert!(text.contains("(Relu) near norm keeps [Mask], drops ["), "{text}");
    // The reshaped bias of the head does not depend on the input: it is computed once, when the
    // plan is loaded.
    assert_eq!(text.lines().count(), 2 + plan.graph().nodes().len() - 1, "{text}");
}

#[test]
fn bytes_are_counted_before_anything_runs() {
    let weights = |x: &Tensor<2>| Tensor::<2>::from_floats([[1.0, 2.0, 3.0, 4.0, 5.0]], &x.device());
    let graph = capture(&[5], |x: Tensor<2>| relu(gelu(x.clone() * weights(&x)) + 1.0));
    let plan =
        Plan::input(graph.expect("it is captured").into(), 2, 3, Precision::F64).expect("it is planned");
    // A value at this batch size: 2 samples of 5 elements of 8 bytes.
    let value = 2 * 5 * 8;
    let expected = Bytes {
        weights: 5 * 8,
        // The operand of GELU, the result, and a mask of one byte per element.
        kept: 2 * value + 2 * 5,
        // The operand of GELU, the sum and its successor, and the mask.
        forward: 3 * value + 2 * 5,
        // The cotangents of a result and of its operand, three of each.
        reverse: 2 * 3 * value,
    };
    assert_eq!(plan.bytes(), expected, "{plan}");
    assert_eq!(plan.bytes().peak(), expected.weights + expected.kept + expected.reverse);
}
