//! Tensors that identify a variant of a network, which computes something that its plain form does
//! not.

/// What a tensor with this normalised name belongs to, if that is known.
pub(super) fn of(name: &str) -> Option<&'static str> {
    const PARTS: [(&str, &str); 9] = [
        (".se.", SQUEEZE),
        (".se_module.", SQUEEZE),
        (".eca.", "belongs to an attention over the channels (ECA)"),
        (".attn.", "belongs to an attention within the block"),
        (".aa.", "belongs to a blurred pooling instead of a stride"),
        (
            ".downsample.2.",
            "belongs to a shortcut with an average pool before its convolution (avg_down, timm's ..d)",
        ),
        (".conv_pool.", "belongs to a pooling by convolution"),
        ("_fc.", "belongs to a second head"),
        ("aux", "belongs to an auxiliary head, which evaluation does not use: delete it from the state_dict"),
    ];
    if name.starts_with("conv1.") && name != "conv1.weight" && name != "conv1.bias" {
        return Some(DEEP);
    }
    if ["features.conv1.", "features.norm1.", "features.conv2."].iter().any(|start| name.starts_with(start)) {
        return Some(DEEP);
    }
    PARTS.into_iter().find(|(part, _)| name.contains(part)).map(|(_, why)| why)
}

const SQUEEZE: &str = "belongs to a squeeze-and-excitation (SE) block";
const DEEP: &str = "belongs to a stem of several convolutions (timm's ..d, ..s and ..t)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_are_known_by_a_tensor() {
        for (name, word) in [
            ("conv1.3.weight", "several convolutions"),
            ("layer1.0.se.fc1.weight", "squeeze"),
            ("layer2.0.downsample.2.weight", "avg_down"),
            ("features.conv1.weight", "several convolutions"),
        ] {
            assert!(of(name).is_some_and(|why| why.contains(word)), "{name}");
        }
        for name in ["conv1.weight", "conv1.bias", "layer1.0.conv1.weight", "fc.weight", "bn1.weight"] {
            assert_eq!(of(name), None, "{name}");
        }
    }
}
