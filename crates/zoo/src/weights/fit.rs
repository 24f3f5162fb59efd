//! Assigns a file's tensors to a network's, and reports every reason why they do not match.

use std::collections::{HashMap, HashSet};

use burn::tensor::Device;

use super::aliases::{PREFIXES, bare, canonical, is_torchvision_densenet, normal};
use super::checkpoint::TensorInfo;
use super::describe::{Description, describe};
use crate::names::{Entry, entries};
use crate::nearest::nearest;
use crate::{Error, Mismatch, Misshaped, Missing, Resized, Strangers};

/// Number of names that an error gives as examples.
const EXAMPLES: usize = 3;

/// A file's tensors assigned to a network's.
#[derive(Debug)]
pub(super) struct Fit {
    /// The index of a tensor in the file, by its name in PyTorch.
    pub(super) slots: HashMap<String, usize>,
    /// The file's tensors that the network lacks, without BatchNorm's `num_batches_tracked`.
    pub(super) extra: Vec<String>,
    /// Number of names from which a prefix was removed.
    pub(super) stripped: usize,
    /// The prefixes that were removed.
    pub(super) prefixes: Vec<&'static str>,
    /// Number of torchvision's names among tensors loaded into the paper's DenseNet121.
    pub(super) torchvision: usize,
}

/// Assigns a file's tensors to `wanted`, or reports all problems.
///
/// The most helpful error is chosen: another network (another family, or most tensors missing);
/// otherwise the same network in another size, if that explains every wrong shape; otherwise a list
/// of all mismatches.
pub(super) fn fit(
    file: &str,
    tensors: &[TensorInfo],
    wanted: &[Entry],
    device: &Device,
) -> Result<Fit, Error> {
    let claims = Claims::new(tensors, wanted);
    let missing: Vec<&Entry> =
        wanted.iter().filter(|entry| !claims.by_name.contains_key(&entry.name)).collect();
    let expected = describe(wanted.iter().map(|entry| (entry.name.as_str(), &entry.shape[..])));
    let found = describe(tensors.iter().map(|tensor| (tensor.name.as_str(), &tensor.shape[..])));
    let foreign = match (&expected, &found) {
        (Some(expected), Some(found)) => expected.family != found.family,
        _ => false,
    };
    // Names of another family, or most tensors missing: a list of all of them would hide the
    // reason.
    if !missing.is_empty() && (foreign || missing.len() * 2 > wanted.len()) {
        return Err(wrong_network(file, &claims, &missing, wanted.len(), expected.as_ref(), found.as_ref()));
    }
    let mut problems = claims.problems(tensors, wanted, &missing);
    if !problems.misshaped.is_empty()
        && let (Some(expected), Some(found)) = (expected, found)
        && explains(&found, &claims, tensors, device)
    {
        problems.misshaped.clear();
        let resized = Resized { expected, found, others: problems };
        return Err(Error::WrongSize { file: file.to_owned(), resized: Box::new(resized) });
    }
    if !problems.is_empty() {
        return Err(Error::Mismatch { file: file.to_owned(), problems: Box::new(problems) });
    }
    Ok(claims.settle(tensors))
}

/// The tensors of the file that correspond to each name of the network, and the names of the
/// others.
struct Claims<'a> {
    by_name: HashMap<String, Vec<usize>>,
    strangers: Vec<&'a str>,
}

impl<'a> Claims<'a> {
    fn new(tensors: &'a [TensorInfo], wanted: &[Entry]) -> Self {
        let names: HashSet<&str> = wanted.iter().map(|entry| entry.name.as_str()).collect();
        let spelled: HashMap<_, &str> =
            wanted.iter().map(|entry| (normal(&entry.name), entry.name.as_str())).collect();
        let mut claims = Self { by_name: HashMap::new(), strangers: Vec::new() };
        for (index, tensor) in tensors.iter().enumerate() {
            let key = tensor.name.as_str();
            // First the file's own name, then this crate's alias of it, then any spelling with the
            // same normalised name.
            let name = if names.contains(key) { key.into() } else { canonical(key) };
            let name = match spelled.get(&normal(key)) {
                Some(&name_here) if !names.contains(name.as_ref()) => name_here.into(),
                _ => name,
            };
            if names.contains(name.as_ref()) {
                claims.by_name.entry(name.into_owned()).or_default().push(index);
            } else if !key.ends_with("num_batches_tracked") {
                // num_batches_tracked is PyTorch's count of training steps, which evaluation does
                // not use.
                claims.strangers.push(key);
            }
        }
        claims
    }

    /// Every difference between the file and the network, in the network's order.
    fn problems(&self, tensors: &[TensorInfo], wanted: &[Entry], missing: &[&Entry]) -> Mismatch {
        let mut problems = Mismatch::default();
        for entry in missing {
            let offered = nearest(&entry.name, self.strangers.iter().copied());
            let nearest = offered.map(str::to_owned);
            problems.missing.push(Missing { name: entry.name.clone(), nearest });
        }
        for entry in wanted {
            let Some(claims) = self.by_name.get(&entry.name) else { continue };
            if claims.len() > 1 {
                let keys = claims.iter().map(|&index| tensors[index].name.clone()).collect();
                problems.colliding.push((entry.name.clone(), keys));
            }
            for &index in claims {
                let TensorInfo { name, dtype, shape, .. } = &tensors[index];
                if !dtype.is_float() {
                    problems.not_float.push((name.clone(), dtype.name()));
                }
                if *shape != entry.shape {
                    let (found, expected) = (shape.clone(), entry.shape.clone());
                    problems.misshaped.push(Misshaped { name: name.clone(), found, expected });
                }
            }
        }
        problems
    }

    /// The assignment, and what was done to names, for the report. Every name has one claim.
    fn settle(self, tensors: &[TensorInfo]) -> Fit {
        let slots: HashMap<String, usize> =
            self.by_name.into_iter().filter_map(|(name, claims)| Some((name, *claims.first()?))).collect();
        let renamed = || slots.iter().filter(|&(name, &index)| *name != tensors[index].name);
        let lost = |index: usize| {
            let key = tensors[index].name.as_str();
            &key[..key.len() - bare(key).len()]
        };
        let shortened = || renamed().map(|(_, &index)| lost(index)).filter(|lost| !lost.is_empty());
        let is_of_paper = |name: &str| name == canonical(name);
        Fit {
            stripped: shortened().count(),
            prefixes: PREFIXES.into_iter().filter(|prefix| shortened().any(|l| l.contains(prefix))).collect(),
            torchvision: renamed()
                .filter(|&(name, &index)| is_of_paper(name) && is_torchvision_densenet(&tensors[index].name))
                .count(),
            extra: self.strangers.into_iter().map(str::to_owned).collect(),
            slots,
        }
    }
}

/// Whether the network that the file's shapes imply has all of these shapes: then only the size is
/// wrong.
fn explains(found: &Description, claims: &Claims<'_>, tensors: &[TensorInfo], device: &Device) -> bool {
    let (Some(architecture), Some(channels), Some(classes)) =
        (found.architecture(), found.channels, found.classes)
    else {
        return false;
    };
    // If the head does not depend on the side of the images, any side will do.
    let side = found.sides.as_ref().map_or(32, |sides| *sides.start());
    let Ok(network) = architecture.init(channels, side, classes, device) else { return false };
    entries(&network).iter().all(|entry| {
        let claims = claims.by_name.get(&entry.name).map_or(&[][..], Vec::as_slice);
        claims.iter().all(|&index| tensors[index].shape == entry.shape)
    })
}

fn wrong_network(
    file: &str,
    claims: &Claims<'_>,
    missing: &[&Entry],
    total: usize,
    expected: Option<&Description>,
    found: Option<&Description>,
) -> Error {
    let strangers = Strangers {
        expected: expected.map_or("this network", |expected| expected.family.name()).to_owned(),
        found: found.map(|found| found.family.name()),
        missing: missing.len(),
        total,
        missing_examples: missing.iter().take(EXAMPLES).map(|entry| entry.name.clone()).collect(),
        unknown: claims.strangers.len(),
        unknown_examples: claims.strangers.iter().take(EXAMPLES).map(|&name| name.to_owned()).collect(),
    };
    Error::WrongNetwork { file: file.to_owned(), strangers: Box::new(strangers) }
}
