//! Recognises the network, and its size, to which a list of tensors belongs, only from names and
//! shapes.

use std::collections::HashMap;
use std::fmt;
use std::ops::RangeInclusive;

use super::aliases::canonical;
use crate::{Architecture, NetworkFamily};

/// What names and shapes show about a network. A value is `None` if the tensor that shows it is
/// missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The kind of network.
    pub family: NetworkFamily,
    /// Its width, or growth.
    pub scale: Option<usize>,
    /// Channels of its input images.
    pub channels: Option<usize>,
    /// Number of classes.
    pub classes: Option<usize>,
    /// The sides of images that it accepts, in pixels, if its head depends on them.
    pub sides: Option<RangeInclusive<usize>>,
}

impl Description {
    /// Kind and scale, if the scale is known.
    pub fn architecture(&self) -> Option<Architecture> {
        self.scale.map(|scale| self.family.at(scale))
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.family)?;
        if let Some(scale) = self.scale {
            write!(f, ", {} {scale}", self.family.scale_name())?;
        }
        if let Some(channels) = self.channels {
            write!(f, ", {channels} channel(s)")?;
        }
        if let Some(classes) = self.classes {
            write!(f, ", {classes} classes")?;
        }
        Ok(())
    }
}

/// Recognises a network of this crate by the names and shapes of its tensors, from a file or from
/// [`names::entries`](crate::names::entries). `None` if the names belong to no network of this
/// crate.
pub fn describe<'a>(tensors: impl IntoIterator<Item = (&'a str, &'a [usize])>) -> Option<Description> {
    let shapes: HashMap<String, &[usize]> =
        tensors.into_iter().map(|(name, shape)| (canonical(name).into_owned(), shape)).collect();
    let family = family(&shapes)?;
    let axis = |name: &str, axis: usize| shapes.get(name).and_then(|shape| shape.get(axis)).copied();
    let scale = match family {
        NetworkFamily::DenseNet121 => axis("body.0.conv2.weight", 0),
        NetworkFamily::ResNet50 | NetworkFamily::Cnn => axis("conv1.weight", 0),
    };
    let features = axis("fc.weight", 1);
    Some(Description {
        family,
        scale,
        channels: axis("conv1.weight", 1),
        classes: axis("fc.weight", 0),
        sides: match (family, scale, features) {
            (NetworkFamily::ResNet50, Some(width), Some(features)) => resnet_sides(width, features),
            _ => None,
        },
    })
}

fn family(shapes: &HashMap<String, &[usize]>) -> Option<NetworkFamily> {
    const CNN: [&str; 6] =
        ["conv1.weight", "conv2.weight", "conv3.weight", "bn2.weight", "bn3.weight", "fc.weight"];
    // A few matching names are enough, so that one misspelt name does not hide a network.
    let starting = |prefix: &str| shapes.keys().filter(|name| name.starts_with(prefix)).count();
    let (stages, body) = (starting("stages."), starting("body."));
    if stages > 8 && stages > body {
        Some(NetworkFamily::ResNet50)
    } else if body > 8 {
        Some(NetworkFamily::DenseNet121)
    } else if CNN.iter().filter(|&&name| shapes.contains_key(name)).count() + 1 >= CNN.len() {
        Some(NetworkFamily::Cnn)
    } else {
        None
    }
}

/// The sides of images for which the head has this many features: 32 width f^2, where f is
/// ceil(side / 8) / 2 rounded down.
fn resnet_sides(width: usize, features: usize) -> Option<RangeInclusive<usize>> {
    let area = features.checked_div(width.checked_mul(32)?)?;
    let side = area.isqrt();
    // Checked arithmetic, because the shapes in a file can be anything.
    let sound = side > 0 && side.checked_mul(side)?.checked_mul(32 * width) == Some(features);
    sound.then(|| 16 * side - 7..=16 * side + 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_that_a_head_can_read() {
        assert_eq!(resnet_sides(8, 1024), Some(25..=40));
        assert_eq!(resnet_sides(64, 2048), Some(9..=24));
        assert_eq!(resnet_sides(64, 2049), None);
        assert_eq!(resnet_sides(0, 1), None);
        assert_eq!(resnet_sides(usize::MAX, usize::MAX), None);
    }
}
