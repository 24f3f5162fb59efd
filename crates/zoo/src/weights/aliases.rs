//! Other names of the same tensors.
//!
//! - [`PREFIXES`] before every name;
//! - `gamma` and `beta`, Burn's and Keras' names of BatchNorm's weight and bias;
//! - `shortcut` for `downsample`, and `linear`, `classifier` or `head.fc` for `fc`;
//! - torchvision's DenseNet, current (`norm1`) and in old files (`norm.1`). Its layers correspond
//!   to those of [`DenseNet121`](crate::DenseNet121) if it was built with a 3x3 stem and biases;
//!   otherwise shapes or names do not match, and loading reports it.

use std::borrow::Cow;

use crate::densenet::LAYERS;
use crate::names::torch_name;

/// The prefixes that PyTorch's `DataParallel`, trainers (Lightning and many scripts) and
/// `torch.compile` add to every name.
pub(crate) const PREFIXES: [&str; 3] = ["module.", "model.", "_orig_mod."];

/// The name without any of [`PREFIXES`]; several may follow one another.
pub(crate) fn bare(mut key: &str) -> &str {
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| key.strip_prefix(prefix)) {
        key = rest;
    }
    key
}

/// The normalised name: one for all spellings of a tensor of torchvision's networks. Names of a
/// file and of a network are both normalised before they are compared.
pub(crate) fn normal(key: &str) -> Cow<'_, str> {
    const HEADS: [&str; 3] = ["linear.", "classifier.", "head.fc."];
    const PARTS: [(&str, &str); 8] = [
        (".shortcut.", ".downsample."),
        (".norm.1.", ".norm1."),
        (".norm.2.", ".norm2."),
        (".conv.1.", ".conv1."),
        (".conv.2.", ".conv2."),
        ("features.norm_final.", "features.norm5."),
        (".gamma", ".weight"),
        (".beta", ".bias"),
    ];
    let bare = bare(key);
    if let Some(rest) = HEADS.iter().find_map(|head| bare.strip_prefix(head)) {
        return Cow::Owned(format!("fc.{rest}"));
    }
    match PARTS.into_iter().find(|(theirs, _)| bare.contains(theirs)) {
        Some((theirs, ours)) => Cow::Owned(bare.replace(theirs, ours)),
        None => Cow::Borrowed(bare),
    }
}

/// The name in this crate's networks for the tensor that a file calls `key`.
pub(crate) fn canonical(key: &str) -> Cow<'_, str> {
    let bare = bare(key);
    if let Some(name) = torchvision_densenet(bare) {
        return Cow::Owned(name);
    }
    if bare.ends_with(".gamma") || bare.ends_with(".beta") {
        return Cow::Owned(torch_name(bare));
    }
    Cow::Borrowed(bare)
}

/// Whether `key` is a name of torchvision's DenseNet.
pub(crate) fn is_torchvision_densenet(key: &str) -> bool {
    torchvision_densenet(bare(key)).is_some()
}

fn torchvision_densenet(key: &str) -> Option<String> {
    if let Some(rest) = key.strip_prefix("classifier.") {
        return Some(format!("fc.{rest}"));
    }
    let key = key.strip_prefix("features.")?;
    let (module, rest) = key.split_once('.')?;
    match module {
        "conv0" => Some(format!("conv1.{rest}")),
        "norm0" => Some(format!("bn1.{rest}")),
        "norm5" => Some(format!("bn.{rest}")),
        _ => section(module, rest),
    }
}

/// Converts `denseblockB.denselayerL.norm1.weight` and `transitionB.norm.weight`, counted from 1,
/// to entries of our `body`, which numbers layers and transitions together from 0.
fn section(module: &str, rest: &str) -> Option<String> {
    // The index in `body` of the first layer of a block: all layers and transitions before it.
    let before =
        |block: usize| LAYERS.get(..block - 1).map(|blocks| blocks.iter().sum::<usize>() + block - 1);
    if let Some(block) = number(module, "transition") {
        let index = before(block + 1)? - 1;
        let (layer, rest) = rest.split_once('.')?;
        let layer = match layer {
            "norm" => "bn",
            "conv" => "conv",
            _ => return None,
        };
        return Some(format!("body.{index}.{layer}.{rest}"));
    }
    let block = number(module, "denseblock")?;
    let (layer, rest) = rest.split_once('.')?;
    let layer =
        number(layer, "denselayer").filter(|layer| LAYERS.get(block - 1).is_some_and(|n| layer <= n))?;
    let index = before(block)? + layer - 1;
    let parts = [("norm1.", "bn1"), ("norm.1.", "bn1"), ("conv1.", "conv1"), ("conv.1.", "conv1")];
    let more = [("norm2.", "bn2"), ("norm.2.", "bn2"), ("conv2.", "conv2"), ("conv.2.", "conv2")];
    let (theirs, ours) = parts.into_iter().chain(more).find(|(theirs, _)| rest.starts_with(theirs))?;
    Some(format!("body.{index}.{ours}.{}", &rest[theirs.len()..]))
}

/// The number from 1 to 99 that follows `prefix`.
fn number(text: &str, prefix: &str) -> Option<usize> {
    text.strip_prefix(prefix)?.parse().ok().filter(|number| (1..100).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_and_keras_names() {
        assert_eq!(canonical("module.stages.0.0.bn1.gamma"), "stages.0.0.bn1.weight");
        assert_eq!(canonical("_orig_mod.module.model.fc.bias"), "fc.bias");
        assert_eq!(canonical("bn1.beta"), "bn1.bias");
        assert_eq!(canonical("fc.weight"), "fc.weight");
        assert_eq!(canonical("body.6.conv.weight"), "body.6.conv.weight");
    }

    #[test]
    fn all_spellings_have_one_normal_name() {
        for (theirs, ours) in [
            ("_orig_mod.module.layer1.0.shortcut.0.weight", "layer1.0.downsample.0.weight"),
            ("linear.bias", "fc.bias"),
            ("model.classifier.weight", "fc.weight"),
            ("head.fc.weight", "fc.weight"),
            ("features.denseblock1.denselayer1.norm.1.bias", "features.denseblock1.denselayer1.norm1.bias"),
            ("layer4.2.bn3.running_var", "layer4.2.bn3.running_var"),
            ("layer1.0.linear.weight", "layer1.0.linear.weight"),
        ] {
            assert_eq!(normal(theirs), ours);
        }
    }

    #[test]
    fn torchvision_names_old_and_new() {
        for (theirs, ours) in [
            ("features.conv0.weight", "conv1.weight"),
            ("features.norm0.running_mean", "bn1.running_mean"),
            ("features.norm5.bias", "bn.bias"),
            ("classifier.weight", "fc.weight"),
            ("features.denseblock1.denselayer1.norm.1.weight", "body.0.bn1.weight"),
            ("features.denseblock1.denselayer1.norm1.weight", "body.0.bn1.weight"),
            ("features.denseblock1.denselayer6.conv.2.weight", "body.5.conv2.weight"),
            ("features.transition1.norm.running_var", "body.6.bn.running_var"),
            ("features.transition1.conv.weight", "body.6.conv.weight"),
            ("features.denseblock2.denselayer1.norm.2.bias", "body.7.bn2.bias"),
            ("features.transition3.conv.weight", "body.44.conv.weight"),
            ("features.denseblock4.denselayer16.conv2.weight", "body.60.conv2.weight"),
            ("module.features.denseblock4.denselayer16.conv2.weight", "body.60.conv2.weight"),
        ] {
            assert_eq!(canonical(theirs), ours);
            assert!(is_torchvision_densenet(theirs));
        }
    }

    #[test]
    fn names_that_map_nowhere_stay() {
        for name in [
            "features.denseblock5.denselayer1.norm1.weight",
            "features.denseblock1.denselayer7.norm1.weight",
            "features.denseblock0.denselayer1.norm1.weight",
            "features.transition0.norm.weight",
            "features.transition9.norm.weight",
            "features.denseblock1.denselayer1.norm3.weight",
            "features.",
            "features.denseblock99999999999999999999.x",
        ] {
            assert_eq!(canonical(name), name);
        }
    }
}
