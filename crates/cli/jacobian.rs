//! `influence jacobian`: writes what the measure is computed from, the rows of the logits' Jacobian
//! or Gram matrices.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use influence::{Combinations, Perturbation, Precision, Rows};
use safetensors::Dtype;

use crate::arguments::RunArguments;
use crate::failure::{Failure, Result};
use crate::job::Job;
use crate::out::OutputFile;
use crate::tensors::{self, NamedTensor};
use crate::terminal;

pub(crate) const EXAMPLES: &str = "\
Examples:
  influence jacobian --network net.onnx --dataset arrays --data samples.npz \\
      --out J.safetensors
      dz/dx of every sample: jacobian [N, K, ...], logits [N, K] and index [N]
  influence jacobian --gram --images 0..10 --out G.safetensors
      only J J^T: gram [N, K, K]
  influence jacobian --gram --perturb layers --images 0..10 --out G.safetensors
      J J^T of each layer's weights: gram.LAYER [N, K, K]";

#[derive(Debug, Args)]
pub(crate) struct JacobianArguments {
    #[command(flatten)]
    pub(crate) run: RunArguments,
    /// input, or with --gram also parameters, layers or tensors [default: input]
    ///
    /// The variables of differentiation; parameters are those of the whole network.
    #[arg(long, value_name = "WHAT")]
    pub(crate) perturb: Option<String>,
    /// Write the inner products of the rows instead of the rows
    #[arg(long)]
    pub(crate) gram: bool,
    /// Where to write: FILE.safetensors
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

/// The variables of differentiation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Input,
    Parameters,
    Layers,
    Tensors,
}

/// Interprets the arguments and runs.
pub(crate) fn command(arguments: &JacobianArguments) -> Result<()> {
    let of = match arguments.perturb.as_deref().unwrap_or("input") {
        "input" => Of::Input,
        "parameters" => Of::Parameters,
        "layers" => Of::Layers,
        "tensors" => Of::Tensors,
        other => {
            let message = format!("--perturb {other}: give input, parameters, layers or tensors");
            return Err(Failure::new(message));
        }
    };
    if of != Of::Input && !arguments.gram {
        return Err(Failure::new(
            "rows of all weights would take gigabytes per sample: add --gram for their inner products",
        ));
    }
    if arguments.run.shard.is_some() {
        return Err(Failure::new(
            "--shard: parts of a Jacobian cannot be merged; divide the images instead, as in --images 0..100",
        ));
    }
    if arguments.run.tail.is_some() {
        return Err(Failure::new("--tail: a Jacobian has a row for every class; leave it out"));
    }
    let file = OutputFile::new("--out", &arguments.out, "safetensors")?;
    // A Jacobian does not depend on labels, so data without labels are accepted.
    let run = RunArguments {
        objective: arguments.run.objective.clone().or_else(|| Some("predicted".into())),
        ..arguments.run.clone()
    };
    let perturbation = if of == Of::Input { Perturbation::Input } else { Perturbation::Parameters };
    let job = Job::new(&run, perturbation)?;
    job.inputs.spare("--out", &arguments.out)?;
    let mut found = match (of, arguments.gram) {
        (Of::Input, false) => rows(&job)?,
        (Of::Input, true) => input_grams(&job)?,
        _ => parameter_grams(&job, of)?,
    };
    let index = job.images.iter().flat_map(|&index| (index as i64).to_le_bytes()).collect();
    found.push(("index".into(), Dtype::I64, vec![job.images.len()], index));
    let metadata = tensors::metadata([("network", job.network.clone())]);
    let names: Vec<String> = found.iter().map(|(name, _, shape, _)| format!("{name} {shape:?}")).collect();
    file.write(&tensors::file("--out", &found, metadata)?)?.name()?;
    if !job.quiet {
        let mut out = terminal::output();
        let words = format!("Network: {}; engine {}, {}", job.network, job.scorer.engine(), job.precision);
        terminal::hanging(&mut out, 9, &words)?;
        writeln!(out, "{}: {}", arguments.out.display(), shortened(&names))?;
        out.flush()?;
    }
    Ok(())
}

/// The first few of many names, for a message.
fn shortened(names: &[String]) -> String {
    const MOST: usize = 5;
    match names.len() {
        0..=MOST => names.join(", "),
        count => format!("{}, ... ({count} tensors)", names[..MOST].join(", ")),
    }
}

/// Logits `[N, K]` as a tensor of the file.
fn logits(all: &[Vec<f64>]) -> NamedTensor {
    let shape = vec![all.len(), all.first().map_or(0, Vec::len)];
    ("logits".into(), Dtype::F64, shape, doubles(all.iter().flatten()))
}

/// Values as the bytes of an F64 tensor.
fn doubles<'a>(values: impl Iterator<Item = &'a f64>) -> Vec<u8> {
    values.flat_map(|value| value.to_le_bytes()).collect()
}

/// The rows dz_k / dx, `[N, K, ...sample]`, in the precision of the run.
fn rows(job: &Job) -> Result<Vec<NamedTensor>> {
    let (mut all, mut bytes) = (Vec::new(), Vec::new());
    each(job, |_, logits, rows| {
        all.push(logits);
        match rows {
            Rows::F64(rows) => bytes.extend(rows.iter().flat_map(|x| x.to_le_bytes())),
            Rows::F32(rows) => bytes.extend(rows.iter().flat_map(|x| x.to_le_bytes())),
        }
    })?;
    let mut shape = vec![job.images.len(), job.scorer.classes()];
    shape.extend(job.data.sample());
    let dtype = if job.precision == Precision::F64 { Dtype::F64 } else { Dtype::F32 };
    Ok(vec![("jacobian".into(), dtype, shape, bytes), logits(&all)])
}

/// The Gram matrices J J^T of the input, `[N, K, K]`, summed in f64.
fn input_grams(job: &Job) -> Result<Vec<NamedTensor>> {
    let (mut all, mut grams) = (Vec::new(), Vec::new());
    let classes = job.scorer.classes();
    each(job, |_, logits, rows| {
        all.push(logits);
        match rows {
            Rows::F64(rows) => gram(&rows, classes, |x| *x, &mut grams),
            Rows::F32(rows) => gram(&rows, classes, |x| f64::from(*x), &mut grams),
        }
    })?;
    let shape = vec![job.images.len(), classes, classes];
    Ok(vec![("gram".into(), Dtype::F64, shape, doubles(grams.iter())), logits(&all)])
}

/// Appends the `[K, K]` inner products of one image's K rows.
fn gram<T>(rows: &[T], classes: usize, number: impl Fn(&T) -> f64, grams: &mut Vec<f64>) {
    let row = |k: usize| rows[k * rows.len() / classes..(k + 1) * rows.len() / classes].iter();
    for (a, b) in (0..classes).flat_map(|a| (0..classes).map(move |b| (a, b))) {
        grams.push(row(a).zip(row(b)).map(|(a, b)| number(a) * number(b)).sum());
    }
}

/// Passes the logits and the K rows of every image to `take`, in order.
fn each(job: &Job, mut take: impl FnMut(usize, Vec<f64>, Rows)) -> Result<()> {
    let mut progress = job.progress(0);
    for indices in job.images.chunks(job.at_a_time()) {
        let found = job.scorer.program().jacobians(job.pixels(indices)).map_err(influence::Error::from)?;
        for (sample, jacobian) in found.combining(|_, _| Combinations::Logits).enumerate() {
            let jacobian = jacobian.map_err(influence::Error::from)?;
            take(indices[sample], jacobian.logits, jacobian.rows);
            progress.add(1);
        }
    }
    progress.finish();
    Ok(())
}

/// The Gram matrices J J^T of the parameters, `[N, K, K]`: one of all together, or one of each
/// layer or tensor.
fn parameter_grams(job: &Job, of: Of) -> Result<Vec<NamedTensor>> {
    let (graph, classes) = (job.scorer.plan().graph(), job.scorer.classes());
    let perturbed = job.scorer.plan().leaves().indices();
    let group = |parameter: &usize| {
        let parameter = &graph.parameters()[*parameter];
        match of {
            Of::Layers => format!("gram.{}", parameter.layer()),
            Of::Tensors => format!("gram.{}", parameter.name),
            Of::Input | Of::Parameters => "gram".to_owned(),
        }
    };
    // The Gram matrix of a group is the sum of those of its tensors, since J J^T adds over disjoint
    // sets of columns. `owners` holds the group of each tensor; `groups` keeps them in the order of
    // the network.
    let owners: Vec<String> = perturbed.iter().map(group).collect();
    let mut groups: Vec<(String, Vec<f64>)> = Vec::new();
    for owner in &owners {
        if !groups.iter().any(|(name, _)| name == owner) {
            groups.push((owner.clone(), Vec::new()));
        }
    }
    let (mut progress, mut all) = (job.progress(0), Vec::new());
    for indices in job.images.chunks(job.at_a_time()) {
        let found = job.scorer.program().grams(job.pixels(indices)).map_err(influence::Error::from)?;
        for grams in found.combining(|_, _| Combinations::Logits) {
            let grams = grams.map_err(influence::Error::from)?;
            for (name, values) in &mut groups {
                let mut sum = vec![0.0; classes * classes];
                let own = owners.iter().zip(&grams.tensors).filter(|(owner, _)| *owner == name);
                own.for_each(|(_, gram)| sum.iter_mut().zip(gram).for_each(|(sum, x)| *sum += x));
                values.extend(sum);
            }
            all.push(grams.logits);
            progress.add(1);
        }
    }
    progress.finish();
    let shape = vec![job.images.len(), classes, classes];
    let named =
        |(name, values): (String, Vec<f64>)| (name, Dtype::F64, shape.clone(), doubles(values.iter()));
    Ok(groups.into_iter().map(named).chain([logits(&all)]).collect())
}
