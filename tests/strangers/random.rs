//! A few random models; `cargo bench --bench strangers` runs as many as you ask for.

use influence_autodiff::ops::Op;

use crate::attack::tally::run;

/// How many models.
const MODELS: u64 = 2500;

#[test]
fn random_models_are_computed_as_their_own_forward_passes_say() {
    let tally = run(1..1 + MODELS, 8, 2);
    let failures: Vec<String> = tally.failures.iter().map(ToString::to_string).collect();
    assert!(tally.wrong.is_empty(), "{tally}\n{}", failures.join("\n"));
    assert!(tally.agree * 10 > MODELS as usize * 9, "{tally}");
    // Casts are not required: they round in the model's own forward pass, and the engine omits
    // them.
    let needed = Op::NAMES.iter().filter(|name| **name != "Cast");
    let missing: Vec<_> = needed.filter(|name| !tally.nodes.contains_key(**name)).collect();
    assert!(missing.is_empty(), "no model has {missing:?}");
}
