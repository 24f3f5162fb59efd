//! `--perturb`: the whole input, parameters, or a family of perturbations, by name or from a file
//! of directions.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use influence::{Basis, Family, Perturbation};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::failure::{Failure, Result};

/// A family as given on the command line; its file, if it has one, has been read.
#[derive(Debug)]
pub(crate) enum Words {
    Named(Family),
    File { path: String, bytes: Vec<u8> },
}

/// Parses `--perturb` into what the network is differentiated in, and the family if there is one.
pub(crate) fn words(text: Option<&str>) -> Result<(Perturbation, Option<Words>)> {
    let name = match text {
        None | Some("input") => return Ok((Perturbation::Input, None)),
        Some("parameters") => return Ok((Perturbation::Parameters, None)),
        Some("layers") => return Ok((Perturbation::Layers, None)),
        Some("tensors") => return Ok((Perturbation::Tensors, None)),
        Some("both") => return Ok((Perturbation::InputAndParameters, None)),
        Some(text) => text.strip_prefix("family:").ok_or_else(|| {
            Failure::new(format!(
                "--perturb {text}: give input, parameters, layers, tensors, both, family:NAME or family:FILE.safetensors"
            ))
        })?,
    };
    family(name).map(|words| (Perturbation::Input, Some(words)))
}

/// A family by its name, or by the name of a file.
fn family(name: &str) -> Result<Words> {
    if Path::new(name).extension().is_some_and(|end| end.eq_ignore_ascii_case("safetensors")) {
        let bytes =
            fs::read(name).map_err(|error| Failure::new(format!("--perturb family:{name}: {error}")))?;
        return Ok(Words::File { path: name.to_owned(), bytes });
    }
    Ok(Words::Named(name.parse()?))
}

impl Words {
    /// The hash of the file's contents, for a family from a file.
    pub(crate) fn hash(&self) -> Option<String> {
        match self {
            Self::Named(_) => None,
            Self::File { bytes, .. } => Some(blake3::hash(bytes).to_hex().to_string()),
        }
    }

    /// The family with its name, for samples of this shape.
    pub(crate) fn family(self, sample: &[usize]) -> Result<(String, Family)> {
        let shape = <[usize; 3]>::try_from(sample).map_err(|_| {
            let name = match &self {
                Self::Named(family) => family.to_string(),
                Self::File { path, .. } => path.clone(),
            };
            Failure::new(format!(
                "--perturb family:{name}: families change images [channels, height, width], and the samples have the \
                 shape {sample:?}: take --perturb input"
            ))
        })?;
        match self {
            Self::Named(family) => Ok((family.to_string(), family)),
            Self::File { path, bytes } => {
                let fail = |why: String| Failure::new(format!("--perturb family:{path}: {why}"));
                let basis = basis(&bytes, shape).map_err(fail)?;
                let stem = Path::new(&path).file_stem().unwrap_or_default();
                Ok((stem.to_string_lossy().into_owned(), Family::Own(Arc::new(basis))))
            }
        }
    }
}

/// Reads a basis: every tensor [C, H, W] is a direction with its name, every [q, C, H, W] is q
/// directions; in the order of the names.
fn basis(bytes: &[u8], shape: [usize; 3]) -> std::result::Result<Basis, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| format!("not a safetensors file: {error}"))?;
    let mut tensors = file.tensors();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let (mut names, mut values) = (Vec::new(), Vec::new());
    for (name, view) in tensors {
        match view.shape() {
            found if *found == shape => names.push(name.clone()),
            [q, found @ ..] if *found == shape => names.extend((0..*q).map(|at| format!("{name} {at}"))),
            found => {
                return Err(format!(
                    "{name} has the shape {found:?}; directions have the shape of the images, {shape:?}, or [q, ...] for q of them"
                ));
            }
        }
        values.extend(floats(&view).ok_or_else(|| {
            format!("{name} has the type {:?}: give directions in F32 or F64", view.dtype())
        })?);
    }
    Basis::new(names, values, shape).map_err(|error| error.to_string())
}

/// The elements of a tensor in F32 or F64; `None` for other types.
fn floats(view: &TensorView<'_>) -> Option<Vec<f64>> {
    let data = view.data();
    match view.dtype() {
        Dtype::F32 => {
            Some(data.as_chunks::<4>().0.iter().map(|x| f64::from(f32::from_le_bytes(*x))).collect())
        }
        Dtype::F64 => Some(data.as_chunks::<8>().0.iter().map(|x| f64::from_le_bytes(*x)).collect()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_of_images() {
        let (name, _) = Words::Named(Family::Rotation).family(&[1, 4, 4]).expect("an image");
        assert_eq!(name, "rotation");
        let error = Words::Named(Family::Rotation).family(&[6]).expect_err("a list").to_string();
        assert!(error.contains("family:rotation") && error.contains("[6]"), "{error}");
    }
}
