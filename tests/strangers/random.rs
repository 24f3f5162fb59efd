//! Some random models; `cargo bench --bench strangers` runs as many as one likes.

use influence_autodiff::ops::Op;

use crate::attack::tally::run;

/// How many.
const MODELS: u64 = 2500;

#[test]
fn random_models_are_computed_as_their_own_forward_passes_say() {
    let tally = run(1..1 + MODELS, 8, 2);
    let failures: Vec<String> = tally.failures.iter().map(ToString::to_string).collect();
    assert!(tally.wrong.is_empty(), "{tally}\n{}", failures.join("\n"));
    assert!(tally.agree * 10 > MODELS as usize * 9, "{tally}");
    // A cast loses digits in the model's own forward pass, and the engine leaves it out.
    let needed = Op::NAMES.iter().filter(|name| **name != "Cast");
    let missing: Vec<_> = needed.filter(|name| !tally.nodes.contains_key(**name)).collect();
    assert!(missing.is_empty(), "no model has {missing:?}");
}
