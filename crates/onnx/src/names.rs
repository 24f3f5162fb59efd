//! What the names in a file say: the layer of a tensor, and whether an exporter generated the name.

/// The layer of an initializer: its name without the last word, where names have dots (PyTorch) or
/// slashes (TensorFlow); the name itself where they have neither.
pub(crate) fn layer(name: &str) -> &str {
    let name = name.strip_suffix(":0").unwrap_or(name);
    // TensorFlow: sequential/dense/MatMul/ReadVariableOp and
    // sequential/dense/BiasAdd/ReadVariableOp.
    let name = name.strip_suffix("/ReadVariableOp").unwrap_or(name);
    name.rsplit_once(['.', '/']).map_or(name, |(stem, _)| stem)
}

/// Whether a domain of operators is ONNX's own, which has no name or this one.
pub(crate) fn is_own(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

/// Whether an exporter has generated the name, so that it says nothing about the network:
/// `onnx::MatMul_123` (PyTorch's older exporter), `val_12` (its newer one), `const_fold_opt__9`
/// (tf2onnx).
pub(crate) fn is_generated(name: &str) -> bool {
    let numbered = |stem: &str| {
        name.strip_prefix(stem)
            .is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_ascii_digit() || c == '_'))
    };
    name.starts_with("onnx::")
        || name.starts_with("const_fold_opt")
        || name.starts_with("scalar_tensor_default")
        || ["val_", "const_", "_val_", "constant", ""].iter().any(|stem| numbered(stem))
}

/// Whether a name matches a pattern, in which `*` stands for any letters.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    // The beginning must fit, the parts between stars follow in their order, each at its first
    // place, and the end must fit what is left.
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = name.find(part) else { return false };
        name = &name[at + part.len()..];
    }
    name.ends_with(end)
}

/// A few of the names that share the longest beginnings with a pattern.
pub(crate) fn alike<'a>(pattern: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    const FEW: usize = 3;
    let shared = |name: &str| pattern.chars().zip(name.chars()).take_while(|(a, b)| a == b).count();
    let mut names: Vec<_> = names.map(|name| (shared(name), name)).collect();
    names.sort_by_key(|(shared, _)| std::cmp::Reverse(*shared));
    names.into_iter().take(FEW).map(|(_, name)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_the_stems_of_names() {
        for (name, expected) in [
            ("features.0.0.weight", "features.0.0"),
            ("cls_token", "cls_token"),
            ("sequential/dense/MatMul/ReadVariableOp:0", "sequential/dense"),
            ("sequential/dense/BiasAdd/ReadVariableOp:0", "sequential/dense"),
            ("block/conv/kernel:0", "block/conv"),
            ("coefficient1", "coefficient1"),
        ] {
            assert_eq!(layer(name), expected);
        }
    }

    #[test]
    fn patterns_match_names() {
        for (pattern, name) in
            [("a.b", "a.b"), ("*", ""), ("pos*", "pos_embed"), ("*.bias", "a.b.bias"), ("a*b*c", "aXbYbc")]
        {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("a.b", "a.bc"), ("*.bias", "a.weight"), ("a*b*c", "acb"), ("aa*aa", "aaa")] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
        let names = ["head.bias", "pos_table", "position"];
        assert_eq!(alike("pos_embed", names.into_iter())[..2], ["pos_table", "position"]);
    }

    #[test]
    fn names_generated_by_exporters_are_recognised() {
        for name in ["onnx::Conv_321", "val_12", "const_fold_opt__23", "scalar_tensor_default_1", "17"] {
            assert!(is_generated(name), "{name}");
        }
        for name in ["conv1.weight", "logit_scale", "value_12", "val_bias", "w1"] {
            assert!(!is_generated(name), "{name}");
        }
    }
}
