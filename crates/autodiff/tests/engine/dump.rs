//! The printed graph of a small residual network: a change of form or of meaning shows as a difference in text.

use burn::tensor::Device;
use influence_autodiff::{Graph, Plan, Precision};

use crate::models::{Net, SAMPLE};

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
    assert!(text.starts_with("batch 2, 3 cotangents a pass, f64\n"), "{text}");
    assert!(text.contains("(Relu) near norm keeps [Mask], drops ["), "{text}");
    // The reshaped bias of the head hangs on no input: it is computed once, when the plan is loaded.
    assert_eq!(text.lines().count(), 2 + plan.graph().nodes.len() - 1, "{text}");
}
