//! What is perturbed: the input, trainable tensors by themselves or in groups, or both together.

use std::fmt;
use std::sync::Arc;

use influence_autodiff::{Graph, Leaves};

use crate::error::{Error, Result};

/// What is perturbed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Perturbation {
    /// Every element of the input, freely: x + omega.
    #[default]
    Input,
    /// Every trainable number of the network, freely: theta + omega.
    Parameters,
    /// Each layer by itself, a layer being what one module holds: its weight and bias together. One score a layer, in the order in which
    /// the model holds them.
    Layers,
    /// Each trainable tensor by itself.
    Tensors,
    /// Groups of tensors with names of one's own, one score each.
    Groups(Vec<Group>),
    /// The input and every trainable number together.
    InputAndParameters,
}

impl Perturbation {
    /// Whether parameters are perturbed.
    #[must_use]
    pub fn has_parameters(&self) -> bool {
        *self != Self::Input
    }
}

/// As the command line has it where it has it: `input`, `parameters`, `layers`, `tensors`, `groups`, `both`.
impl fmt::Display for Perturbation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Input => "input",
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
    /// A group of tensors by their names in PyTorch's terms ("fc.weight"), or of all tensors below a path of modules ("stages.0").
    pub fn new(name: impl Into<String>, members: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { name: name.into(), members: members.into_iter().map(Into::into).collect() }
    }

    /// What it is called in results.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// What the size of a perturbation is measured in, for a filter with a budget: [`Filter::Tikhonov`](crate::Filter::Tikhonov).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Budget {
    /// Its Euclidean length.
    #[default]
    Absolute,
    /// Its Euclidean length by that of what is perturbed, |omega| / |theta|, of each group by itself: what makes layers comparable whose
    /// numbers are of different sizes. The Gram matrix of a group is multiplied by |theta|^2; that of the input by |x|^2.
    Relative,
}

/// A group as the scorer has it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Block {
    /// Empty for the whole network.
    pub(crate) name: Arc<str>,
    /// Its tensors, by their places among the perturbed ones.
    pub(crate) tensors: Vec<usize>,
    /// Whether the input belongs to it.
    pub(crate) input: bool,
    /// What its Gram matrix is multiplied by: |theta|^2 for a relative budget, else 1.
    pub(crate) scale: f64,
}

impl Block {
    /// Whether its parameters count: not where they are all zero and the budget is relative, for no
    /// perturbation of them is then small enough.
    pub(crate) fn moves(&self) -> bool {
        self.scale > 0.0
    }
}

/// The groups of a perturbation, and all that they perturb.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Blocks {
    pub(crate) blocks: Vec<Block>,
    pub(crate) leaves: Leaves,
}

impl Blocks {
    /// Those of a network.
    pub(crate) fn new(perturbation: &Perturbation, budget: Budget, graph: &Graph) -> Result<Self> {
        let all = || (0..graph.parameters().len()).collect::<Vec<_>>();
        let input = matches!(perturbation, Perturbation::Input | Perturbation::InputAndParameters);
        let groups: Vec<(String, Vec<usize>)> = match perturbation {
            Perturbation::Input => vec![(String::new(), vec![])],
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
        let leaves = Leaves::tensors(groups.iter().flat_map(|(_, tensors)| tensors.iter().copied()));
        let leaves = if input { leaves.and_input() } else { leaves };
        let block = |(name, tensors): (String, Vec<usize>)| Block {
            name: name.into(),
            scale: match budget {
                Budget::Absolute => 1.0,
                Budget::Relative => tensors.iter().map(|&tensor| square_norm(graph, tensor)).sum(),
            },
            tensors: tensors.iter().filter_map(|tensor| leaves.places().binary_search(tensor).ok()).collect(),
            input,
        };
        Ok(Self { blocks: groups.into_iter().map(block).collect(), leaves })
    }
}

/// The trainable tensors of each name, the names in the order of their first tensors.
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
    /// Its name and its tensors.
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

/// A perturbation that cannot be measured.
pub(crate) fn refused(reason: String) -> Error {
    Error::Perturbation { reason }
}
