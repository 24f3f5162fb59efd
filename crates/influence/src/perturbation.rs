//! What is perturbed: the input, as a whole, by families of image transformations, or by windows or
//! regions of an image; trainable tensors, individually or in groups; or both together.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use influence_autodiff::{Graph, Leaves};
use influence_manifold::Channels;

use crate::error::{Error, Result};
use crate::family::Family;

/// What is perturbed.
///
/// ```no_run
/// # use burn::module::Module;
/// # use burn::nn::{Linear, LinearConfig};
/// # use burn::tensor::{Device, Tensor};
/// # #[derive(Module, Debug)]
/// # struct Net { head: Linear }
/// # impl Net {
/// #     fn forward(&self, x: Tensor<4>) -> Tensor<2> { self.head.forward(x.flatten(1, 3)) }
/// # }
/// # fn main() -> Result<(), influence::Error> {
/// # let device = Device::default();
/// # let net = Net { head: LinearConfig::new(784, 10).init(&device) };
/// # let images = Tensor::<4>::zeros([2, 1, 28, 28], &device);
/// use influence::{Channels, Family, Objective, Perturbation, Scorer};
///
/// let families = Perturbation::Families(vec![Family::Rotation, Family::Brightness]);
/// // Windows of 3 x 3 pixels, all channels together.
/// let windows = Perturbation::Windows { half_width: 1, channels: Channels::Joint };
/// for perturbation in [families, windows] {
///     let builder = Scorer::builder().perturbation(perturbation);
///     let scorer = builder.compile(&net, Net::forward, &[1, 28, 28])?;
///     for score in scorer.score(images.clone(), &Objective::predicted())? {
///         // "rotation" with its most influential setting in degrees; "row 0, column 0".
///         println!("{}: reach {}, {:?}", score.group, score.reach, score.setting);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub enum Perturbation {
    /// Every element of the input, freely: x + omega.
    #[default]
    Input,
    /// Families of image transformations, at least one; one score per family, with its most
    /// influential setting in [`Score::setting`](crate::Score::setting). The budget of
    /// [`Filter::Tikhonov`](crate::Filter::Tikhonov) is on the setting, each knob in the unit of
    /// its member. Samples must be images `[C, H, W]`.
    Families(Vec<Family>),
    /// Every window of the image `[C, H, W]`; one score per window, in the order of a
    /// [`Map`](crate::Map). A window contains the (2 s + 1) x (2 s + 1) pixels around a pixel,
    /// fewer at the border. [`Linearization::maps`](crate::Linearization::maps) gives only the
    /// values, many times faster.
    Windows {
        /// s: windows are 2 s + 1 pixels wide and high, no more than the image's longer side.
        half_width: usize,
        /// Whether a window contains all channels of its pixels.
        channels: Channels,
    },
    /// Every region of the image `[C, H, W]`: all pixels with the same label, connected or not,
    /// such as superpixels, a segmentation or a mask. One score per region, ordered by channel,
    /// then by label. [`Linearization::regions`](crate::Linearization::regions) takes other labels
    /// for each image.
    Regions {
        /// The label of each pixel, `[H, W]`.
        labels: Vec<u32>,
        /// Whether a region contains all channels of its pixels.
        channels: Channels,
    },
    /// All elements of the network's trainable tensors, freely: theta + omega.
    Parameters,
    /// Each layer separately. A layer is the tensors of one module, e.g. weight and bias. One score
    /// per layer, in the model's order.
    Layers,
    /// Each trainable tensor separately.
    Tensors,
    /// User-defined named groups of tensors, one score per group.
    Groups(Vec<Group>),
    /// The input and all trainable tensors together.
    InputAndParameters,
}

impl Perturbation {
    /// Whether parameters are perturbed.
    #[must_use]
    pub fn has_parameters(&self) -> bool {
        !matches!(self, Self::Input | Self::Families(_) | Self::Windows { .. } | Self::Regions { .. })
    }

    /// The name of each part of the input that has a score of its own: the families, the
    /// windows by their centre, or the regions by their label; one empty name for the whole input.
    fn parts(&self, graph: &Graph) -> Result<Vec<String>> {
        match self {
            Self::Families(families) if families.is_empty() => {
                Err(refused("there are no families: give at least one".into()))
            }
            Self::Families(families) => {
                image_shape(graph)?;
                Ok(families.iter().map(ToString::to_string).collect())
            }
            Self::Windows { half_width, channels } => {
                let [count, height, width] = image_shape(graph)?;
                let largest = (height.max(width) - 1) / 2;
                if *half_width > largest {
                    return Err(refused(format!(
                        "windows of half-width {half_width} are larger than the image of {height} x {width}: take at most {largest}"
                    )));
                }
                let centres = centres([count, height, width], *channels);
                Ok(centres.map(|centre| named(centre, *channels)).collect())
            }
            Self::Regions { labels, channels } => {
                let [count, height, width] = image_shape(graph)?;
                if labels.len() != height * width {
                    return Err(refused(format!(
                        "there are {} labels of regions for images of {height} x {width} pixels: give one per pixel",
                        labels.len()
                    )));
                }
                let labels: BTreeSet<u32> = labels.iter().copied().collect();
                Ok(match channels {
                    Channels::Joint => labels.iter().map(|label| format!("label {label}")).collect(),
                    Channels::Separate => (0..count)
                        .flat_map(|channel| {
                            labels.iter().map(move |label| format!("channel {channel}, label {label}"))
                        })
                        .collect(),
                })
            }
            _ => Ok(vec![String::new()]),
        }
    }
}

/// Channels, height and width of the network's samples.
pub(crate) fn image_shape(graph: &Graph) -> Result<[usize; 3]> {
    let shape = graph.sample_shape();
    shape.as_slice().try_into().map_err(|_| Error::NotAnImage { shape: shape.clone() })
}

/// The centres `[channel, row, column]` of all windows of an image, in the order of a
/// [`Map`](crate::Map); the channel is 0 where channels are joint.
pub(crate) fn centres(
    [count, height, width]: [usize; 3],
    channels: Channels,
) -> impl Iterator<Item = [usize; 3]> {
    let count = if channels == Channels::Joint { 1 } else { count };
    (0..count * height * width).map(move |at| [at / width / height, at / width % height, at % width])
}

/// The name of a window in results.
fn named([channel, row, column]: [usize; 3], channels: Channels) -> String {
    match channels {
        Channels::Joint => format!("row {row}, column {column}"),
        Channels::Separate => format!("channel {channel}, row {row}, column {column}"),
    }
}

/// One word each: `input`, `families`, `windows`, `regions`, `parameters`, `layers`, `tensors`,
/// `groups`, `both`.
impl fmt::Display for Perturbation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Input => "input",
            Self::Families(_) => "families",
            Self::Windows { .. } => "windows",
            Self::Regions { .. } => "regions",
            Self::Parameters => "parameters",
            Self::Layers => "layers",
            Self::Tensors => "tensors",
            Self::Groups(_) => "groups",
            Self::InputAndParameters => "both",
        })
    }
}

/// A named group of trainable tensors, perturbed together.
///
/// ```
/// use influence::{Group, Perturbation};
///
/// let early = Group::new("early", ["conv1", "bn1", "stages.0"]);
/// let late = Group::new("late", ["stages.3", "fc.weight"]);
/// let perturbation = Perturbation::Groups(vec![early, late]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    name: String,
    members: Vec<String>,
}

impl Group {
    /// A group of tensors by their names in PyTorch's terms ("fc.weight"), or of all tensors below
    /// a path of modules ("stages.0").
    pub fn new(name: impl Into<String>, members: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { name: name.into(), members: members.into_iter().map(Into::into).collect() }
    }

    /// The group's name in results.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The unit of the size of a perturbation, for a filter with a budget:
/// [`Filter::Tikhonov`](crate::Filter::Tikhonov).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Budget {
    /// Its Euclidean length.
    #[default]
    Absolute,
    /// Its Euclidean length relative to that of what is perturbed, |omega| / |theta|, for each
    /// group separately. This makes layers comparable whose weights differ in size. The Gram matrix
    /// of a group is multiplied by |theta|^2, that of the input by |x|^2. Refused where only the
    /// input is perturbed.
    Relative,
}

/// A group, resolved for one network.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ResolvedGroup {
    /// Empty for the whole network.
    pub(crate) name: Arc<str>,
    /// Its tensors, by index among the perturbed ones.
    pub(crate) tensors: Vec<usize>,
    /// Whether the input belongs to it.
    pub(crate) input: bool,
    /// The factor of its Gram matrix: |theta|^2 for a relative budget, else 1.
    pub(crate) scale: f64,
}

impl ResolvedGroup {
    /// Whether its parameters count. They do not if all are zero and the budget is relative,
    /// because then no perturbation of them is within any budget.
    pub(crate) fn moves(&self) -> bool {
        self.scale > 0.0
    }
}

/// The groups of a perturbation, and all leaves that they perturb.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ResolvedGroups {
    pub(crate) resolved_groups: Vec<ResolvedGroup>,
    pub(crate) leaves: Leaves,
}

impl ResolvedGroups {
    /// Resolves a perturbation for one network.
    pub(crate) fn new(perturbation: &Perturbation, budget: Budget, graph: &Graph) -> Result<Self> {
        let all = || (0..graph.parameters().len()).collect::<Vec<_>>();
        let input = !perturbation.has_parameters() || *perturbation == Perturbation::InputAndParameters;
        // Names, and tensors by their index among all of the graph's. Parts of the input have no
        // tensors: their place in the list says which they are.
        let groups: Vec<(String, Vec<usize>)> = match perturbation {
            Perturbation::Input
            | Perturbation::Families(_)
            | Perturbation::Windows { .. }
            | Perturbation::Regions { .. } => {
                perturbation.parts(graph)?.into_iter().map(|name| (name, vec![])).collect()
            }
            Perturbation::Parameters | Perturbation::InputAndParameters => vec![(String::new(), all())],
            Perturbation::Layers => by_name(graph, |at| graph.parameters()[at].layer()),
            Perturbation::Tensors => by_name(graph, |at| &graph.parameters()[at].name),
            Perturbation::Groups(groups) => {
                groups.iter().map(|group| group.members(graph)).collect::<Result<_>>()?
            }
        };
        if perturbation.has_parameters() && (groups.is_empty() || graph.parameters().is_empty()) {
            return Err(refused("there are no trainable tensors, or no groups of them".into()));
        }
        // What has to be pulled back: each perturbed tensor once, ascending, however many groups it
        // is in. From here on a group counts its tensors among these.
        let leaves = Leaves::tensors(groups.iter().flat_map(|(_, tensors)| tensors.iter().copied()));
        let leaves = if input { leaves.and_input() } else { leaves };
        let resolved = |(name, tensors): (String, Vec<usize>)| ResolvedGroup {
            name: name.into(),
            scale: match budget {
                Budget::Absolute => 1.0,
                Budget::Relative => tensors.iter().map(|&tensor| square_norm(graph, tensor)).sum(),
            },
            tensors: tensors
                .iter()
                .filter_map(|tensor| leaves.indices().binary_search(tensor).ok())
                .collect(),
            input,
        };
        Ok(Self { resolved_groups: groups.into_iter().map(resolved).collect(), leaves })
    }
}

/// Groups the trainable tensors by `name`, in the order of each name's first tensor.
fn by_name<'a>(graph: &Graph, name: impl Fn(usize) -> &'a str) -> Vec<(String, Vec<usize>)> {
    let mut groups: Vec<(String, Vec<usize>)> = Vec::new();
    for tensor in 0..graph.parameters().len() {
        let own = name(tensor);
        match groups.iter_mut().find(|(other, _)| other == own) {
            Some((_, tensors)) => tensors.push(tensor),
            None => groups.push((own.to_owned(), vec![tensor])),
        }
    }
    groups
}

impl Group {
    /// The name and the tensors of the group: those named by a member, or below it.
    fn members(&self, graph: &Graph) -> Result<(String, Vec<usize>)> {
        let below = |name: &str, member: &str| {
            name.strip_prefix(member).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let mut tensors = Vec::new();
        for member in &self.members {
            let named = graph.parameters().iter().enumerate().filter(|(_, of)| below(&of.name, member));
            let before = tensors.len();
            tensors.extend(named.map(|(at, _)| at));
            if tensors.len() == before {
                let known: Vec<&str> = graph.parameters().iter().map(|of| of.layer()).collect();
                let some = known.iter().take(3).copied().collect::<Vec<_>>().join(", ");
                return Err(refused(format!(
                    "group {}: no trainable tensor on which the logits depend is called {member} or lies below it; layers are {some}, ...",
                    self.name
                )));
            }
        }
        if tensors.is_empty() {
            return Err(refused(format!("group {} has no members", self.name)));
        }
        tensors.sort_unstable();
        tensors.dedup();
        Ok((self.name.clone(), tensors))
    }
}

/// The sum of the squares of a trainable tensor.
fn square_norm(graph: &Graph, tensor: usize) -> f64 {
    graph.data(tensor).iter::<f64>().map(|x| x * x).sum()
}

/// The error for a perturbation that cannot be measured.
pub(crate) fn refused(reason: String) -> Error {
    Error::Perturbation { reason }
}
