//! `influence score --direction`: writes the most influential change of the weights to a file,
//! under the network's names.

use std::io::Write;
use std::path::{Path, PathBuf};

use influence::{DirectionTensor, Perturbation, Precision};
use safetensors::Dtype;

use crate::failure::{Failure, Result};
use crate::job::{Job, in_split};
use crate::out::OutputFile;
use crate::table::{four_digits, function};
use crate::tensors::{self, NamedTensor};
use crate::terminal;

/// Checks that a direction can be computed for these arguments, and that the file can be written.
pub(crate) fn check(path: &Path, perturbation: &Perturbation, out: Option<&Path>) -> Result<OutputFile> {
    if *perturbation != Perturbation::Parameters {
        return Err(Failure::new("--direction is a direction in the parameters: add --perturb parameters"));
    }
    if out.is_some() {
        return Err(Failure::new(
            "--direction computes no scores: leave out --out, and run once without --direction",
        ));
    }
    OutputFile::new("--direction", path, "safetensors")
}

/// Computes and writes the direction of the job's one image.
pub(crate) fn run(job: &Job, file: OutputFile) -> Result<()> {
    let [index] = job.images[..] else {
        let message =
            format!("--direction: there are {} images; name one, as in --images 7", job.images.len());
        return Err(Failure::new(message));
    };
    let objective = job.objective(index);
    let found = job.scorer.parameter_direction(job.pixels(&[index]), &objective, 0);
    let found = found.map_err(|error| in_split(error, index))?;
    let metadata = tensors::metadata([
        ("index", index.to_string()),
        ("label", job.data.label(index).map_or_else(String::new, |label| label.to_string())),
        ("objective", job.target.to_string()),
        ("filter", job.filter_words()),
        ("network", job.network.clone()),
        ("fisher", found.rates.fisher.to_string()),
    ]);
    let path: PathBuf = file.path().to_owned();
    let laid: Vec<NamedTensor> = found.tensors.iter().map(|tensor| laid(tensor, job)).collect();
    file.write(&tensors::file("--direction", &laid, metadata)?)?.name()?;
    if job.quiet {
        return Ok(());
    }
    let mut out = terminal::output();
    let (f, filter, fisher) = (function(job.target), job.filter_words(), four_digits(found.rates.fisher));
    let said = format!(
        "Most influential direction of all parameters for f = {f}, image {index}, filter {filter}: length 1, \
         Fisher length {fisher}"
    );
    terminal::paragraph(&mut out, 0, &said)?;
    terminal::hanging(&mut out, 9, &format!("Network: {}", job.network))?;
    writeln!(out, "{} tensors in {}", found.tensors.len(), path.display())?;
    out.flush()?;
    Ok(())
}

/// A tensor in the layout of the weight file, where matrices may be transposed.
fn laid(tensor: &DirectionTensor, job: &Job) -> NamedTensor {
    let precision = job.precision;
    let bytes = |values: &mut dyn Iterator<Item = f64>| match precision {
        Precision::F32 => values.flat_map(|x| (x as f32).to_le_bytes()).collect(),
        Precision::F64 => values.flat_map(f64::to_le_bytes).collect(),
    };
    let dtype = match precision {
        Precision::F32 => Dtype::F32,
        Precision::F64 => Dtype::F64,
    };
    let DirectionTensor { name, shape, values, .. } = tensor;
    match shape[..] {
        [inputs, outputs] if job.transposed.holds(name) => {
            let mut turned = (0..outputs).flat_map(|o| (0..inputs).map(move |i| values[i * outputs + o]));
            (name.clone(), dtype, vec![outputs, inputs], bytes(&mut turned))
        }
        _ => (name.clone(), dtype, shape.clone(), bytes(&mut values.iter().copied())),
    }
}
