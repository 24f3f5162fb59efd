//! What kind of layer each module is, for the colours of a plot: by the operations that use its
//! tensors.

use std::collections::HashSet;

use influence::Graph;

/// The kinds, and the operations that make a layer one of them. The first kind with an operation of
/// the layer is taken: a convolution whose bias is added separately is a convolution.
const KINDS: [(&str, &[&str]); 7] = [
    ("transposed convolution", &["ConvTranspose1d", "ConvTranspose2d"]),
    ("convolution", &["Conv1d", "Conv2d", "Conv3d"]),
    ("embedding", &["Embedding"]),
    ("linear", &["Linear", "Matmul"]),
    ("normalisation", &["BatchNorm", "LayerNorm"]),
    ("activation", &["PRelu"]),
    (SCALE_OR_SHIFT, &["Add", "Sub", "Mul", "Div"]),
];

/// A tensor that is added or multiplied: a bias by itself, or a normalisation of plain operations.
const SCALE_OR_SHIFT: &str = "scale or shift";

/// The kind of a layer that no operation of the table uses.
const OTHER: &str = "tensor";

/// The kinds of a graph's layers.
#[derive(Debug)]
pub(crate) struct LayerKinds<'a> {
    graph: &'a Graph,
    /// For each node, whether all its operands are constants: a weight that is reshaped or
    /// multiplied by another one is still a weight.
    constant: Vec<bool>,
}

impl<'a> LayerKinds<'a> {
    pub(crate) fn new(graph: &'a Graph) -> Self {
        let mut known: HashSet<_> = graph.constants().map(|(value, _)| value).collect();
        let mut constant = Vec::with_capacity(graph.nodes().len());
        for node in graph.nodes() {
            let own = node.inputs.iter().all(|input| known.contains(input));
            if own {
                known.insert(node.output);
            }
            constant.push(own);
        }
        Self { graph, constant }
    }

    /// The kind of the layer of this name.
    pub(crate) fn of(&self, layer: &str) -> &'static str {
        let tensors = self.graph.parameters().iter().filter(|tensor| tensor.layer() == layer);
        let mut values: HashSet<_> = tensors.flat_map(|tensor| tensor.values.iter().copied()).collect();
        let mut operations = HashSet::new();
        for (node, constant) in self.graph.nodes().iter().zip(&self.constant) {
            if !node.inputs.iter().any(|input| values.contains(input)) {
                continue;
            }
            if *constant {
                values.insert(node.output);
            } else {
                operations.insert(node.op.name());
            }
        }
        kind(layer, &operations)
    }
}

/// The kind of a layer of this name whose tensors these operations use.
fn kind(layer: &str, operations: &HashSet<&'static str>) -> &'static str {
    let found = KINDS.iter().find(|(_, names)| names.iter().any(|name| operations.contains(name)));
    match found {
        // Group and instance normalisation are recorded as plain operations; the module's name
        // shows them.
        Some((SCALE_OR_SHIFT, _)) if is_norm(layer) => "normalisation",
        Some((kind, _)) => kind,
        None => OTHER,
    }
}

/// Whether the last part of a module's name is a normalisation's: "norm1", "bn2", "ln_f".
fn is_norm(layer: &str) -> bool {
    let name = layer.rsplit('.').next().unwrap_or(layer).to_ascii_lowercase();
    name.contains("norm") || ["bn", "gn", "ln"].iter().any(|short| name.starts_with(short))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_what_uses_its_tensors() {
        for (layer, operations, expected) in [
            ("conv1", &["Conv2d", "Add"][..], "convolution"),
            ("up", &["ConvTranspose2d"], "transposed convolution"),
            ("fc", &["Matmul", "Add"], "linear"),
            ("blocks.0.norm1", &["LayerNorm"], "normalisation"),
            ("stages.0.gn2", &["Mul", "Add"], "normalisation"),
            ("cls_token", &["Cat"], "tensor"),
            ("pos_embed", &["Add"], "scale or shift"),
            ("unused", &[], "tensor"),
        ] {
            assert_eq!(kind(layer, &operations.iter().copied().collect()), expected, "{layer}");
        }
    }
}
