//! The origin of a result: as columns for its readers, and as hashes for a resumed run.

use std::fs;
use std::path::Path;

use influence_data::sample;

use crate::data::Data;
use crate::failure::{Failure, Result};
use crate::job::Job;
use crate::out::{Config, JournalHeader};

/// The columns after the fixed ones, and hashes that only a resumed run needs.
#[derive(Debug, Clone)]
pub(crate) struct Provenance {
    pub(crate) filter: String,
    /// The largest total probability of merged classes.
    pub(crate) tail: Option<f64>,
    pub(crate) network: String,
    pub(crate) weights: String,
    pub(crate) dataset: String,
    pub(crate) split: String,
    pub(crate) precision: String,
    pub(crate) engine: String,
    /// The preprocessing of the images; empty if there was none.
    pub(crate) preparation: String,
    pub(crate) hashes: Vec<(&'static str, String)>,
}

impl Provenance {
    /// The columns by name.
    pub(crate) fn columns(&self) -> Vec<(String, String)> {
        let pairs = [
            ("filter", &self.filter),
            ("network", &self.network),
            ("weights", &self.weights),
            ("dataset", &self.dataset),
            ("split", &self.split),
            ("precision", &self.precision),
            ("engine", &self.engine),
        ];
        let prepared = Some(("preparation", &self.preparation)).filter(|(_, words)| !words.is_empty());
        let tail = self.tail.map(|epsilon| epsilon.to_string());
        let tail = tail.iter().map(|epsilon| ("tail", epsilon));
        let pairs = pairs.into_iter().chain(prepared).chain(tail);
        pairs.map(|(name, value)| (name.to_owned(), value.clone())).collect()
    }
}

impl Job {
    /// The journal header of this job: everything that determines the bytes of its result.
    pub(crate) fn header(&self, command: &str, more: &[(&str, String)]) -> JournalHeader {
        let mut config: Config = self.provenance.columns().into_iter().collect();
        let mut add = |name: &str, value: String| config.insert(name.to_owned(), value);
        add("objective", self.target.to_string());
        add("perturbation", self.scorer.perturbation().to_string());
        self.provenance.hashes.iter().for_each(|(name, hash)| {
            config.insert((*name).to_owned(), hash.clone());
        });
        config.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        JournalHeader::new(command, config, self.shard, self.images.len())
    }
}

/// Hashes of the weights (the embedded ones if there is no file), and of the images with their
/// labels.
pub(crate) fn hashes(
    weights: Option<&Path>,
    data: &Data,
    images: &[usize],
) -> Result<Vec<(&'static str, String)>> {
    let weights = match weights {
        Some(path) => file(path)?,
        None => blake3::hash(sample::RESNET50W8_MNIST).to_hex().to_string(),
    };
    Ok(vec![("hash of the weights", weights), (IMAGES, images_hash(data, images))])
}

/// The name of the images' hash.
const IMAGES: &str = "hash of the images";

/// The number of the images, and the hash of their indices, labels and elements.
fn images_hash(data: &Data, images: &[usize]) -> String {
    let mut hasher = blake3::Hasher::new();
    for &index in images {
        data.hash(index, hasher.update(&index.to_le_bytes()));
    }
    format!("{} images, {}", images.len(), hasher.finalize().to_hex())
}

impl Job {
    /// Takes other images than it was made for.
    pub(crate) fn take(&mut self, data: Data, images: Vec<usize>) {
        let hash = images_hash(&data, &images);
        self.provenance
            .hashes
            .iter_mut()
            .filter(|(name, _)| *name == IMAGES)
            .for_each(|of| of.1.clone_from(&hash));
        (self.data, self.images) = (data, images);
    }
}

/// The hash of a file's contents.
pub(crate) fn file(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    Ok(blake3::hash(&bytes).to_hex().to_string())
}
