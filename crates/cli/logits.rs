//! `influence check`: compares the logits with those that the user has saved from PyTorch.
//!
//! What a weight file does not contain (strides, pools, an epsilon, a normalisation) shows in the
//! logits. Without this check, a wrong assumption would only show as wrong scores.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use influence::Perturbation;
use influence_data::Matrix;

use crate::arguments::RunArguments;
use crate::failure::{Failure, Result};
use crate::job::{Job, in_split};
use crate::table::four_digits;
use crate::terminal;

pub(crate) const EXAMPLES: &str = "\
Examples:
  influence check --weights resnet18.pt --dataset arrays --data images.npz \\
      --logits logits.npy
      the logits of the file's network against those that PyTorch computed
  influence check --network net.onnx --dataset arrays --data images.npz \\
      --logits logits.npy --tolerance 1e-5
  influence check --weights w.safetensors --dataset folder --data val \\
      --resize 256 --crop 224 --mean 0.485,0.456,0.406 \\
      --std 0.229,0.224,0.225 --logits logits.npy

In Python, with the same images as a tensor:
  model.eval(); numpy.save(\"logits.npy\", model(images).detach().numpy())

The exit code is 2 if any logit differs by more than the tolerance.";

/// Largest accepted difference of logits, relative to the largest logit.
const TOLERANCE: f64 = 1e-3;

#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    #[command(flatten)]
    pub(crate) run: RunArguments,
    /// The logits to compare with: .npy, or .npz or .safetensors with `logits`
    ///
    /// [N, K] before any softmax, one row per image: of the chosen images in their order, or of all
    /// images of the split.
    #[arg(long, value_name = "FILE")]
    pub(crate) logits: PathBuf,
    /// Largest accepted difference, relative to the file's largest logit [default: 1e-3]
    #[arg(long, value_name = "X")]
    pub(crate) tolerance: Option<f64>,
}

/// The pair of logits with the largest difference.
#[derive(Debug, Clone, Copy)]
struct WorstLogit {
    difference: f64,
    image: usize,
    class: usize,
    here: f64,
    there: f64,
}

/// The comparison over all images.
#[derive(Debug, Default)]
struct LogitComparison {
    /// `None` before the first logit.
    worst: Option<WorstLogit>,
    /// The largest absolute logit of the file.
    largest: f64,
    images: usize,
    /// Number of images with the same predicted class.
    agreeing: usize,
}

/// Interprets the arguments and compares.
pub(crate) fn command(arguments: &CheckArguments) -> Result<()> {
    let tolerance = arguments.tolerance.unwrap_or(TOLERANCE);
    if !(tolerance > 0.0 && tolerance.is_finite()) {
        return Err(Failure::new(format!(
            "--tolerance {tolerance}: a number above 0 is needed, such as 1e-5"
        )));
    }
    let theirs = Matrix::open(&arguments.logits, "logits")?;
    refuse_probabilities(arguments, &theirs)?;
    // An objective without labels, so that arrays without labels are accepted.
    let mut run = arguments.run.clone();
    run.objective.get_or_insert_with(|| "predicted".to_owned());
    let job = Job::new(&run, Perturbation::Input)?;
    let rows = rows(&job, &theirs)?;
    let compared = compare(&job, &theirs, &rows)?;
    let Some(worst) = compared.worst else {
        return Err(Failure::new("no image was chosen, so no logits were compared"));
    };
    let relative = worst.difference / compared.largest.max(f64::MIN_POSITIVE);
    if !job.quiet {
        tell(&job, &compared, &worst, relative)?;
    }
    if relative <= tolerance {
        return Ok(());
    }
    Err(Failure::new(format!(
        "the logits differ by {} of the largest one, at image {} and class {}: more than the tolerance \
         {tolerance:e}; settings that a file of weights does not contain: --bn-eps, --mean and --std, the \
         resizing and the order of images, model.eval() before saving",
        four_digits(relative),
        worst.image,
        worst.class
    )))
}

/// Refuses rows that are probabilities.
fn refuse_probabilities(arguments: &CheckArguments, theirs: &Matrix) -> Result<()> {
    // Probabilities in any float type sum to 1 within this; logits do so only by chance.
    const SUM: f64 = 1e-3;
    let is_distribution =
        |row: &[f64]| row.iter().all(|&x| x >= 0.0) && (row.iter().sum::<f64>() - 1.0).abs() < SUM;
    match (0..theirs.rows()).all(|row| is_distribution(theirs.row(row))) {
        true => Err(Failure::new(format!(
            "--logits {}: its rows sum to 1: these are probabilities; save what comes before the softmax",
            arguments.logits.display()
        ))),
        false => Ok(()),
    }
}

/// The row in the file for each of the job's images.
fn rows(job: &Job, theirs: &Matrix) -> Result<Vec<usize>> {
    let (found, classes) = (theirs.columns(), job.scorer.classes());
    if found != classes {
        return Err(Failure::new(format!(
            "the saved logits have {found} classes, the network here has {classes}: they come from another network"
        )));
    }
    let last = job.images.iter().max().copied().unwrap_or(0);
    // A row per chosen image, or a row per image of the split.
    if theirs.rows() == job.images.len() {
        Ok((0..theirs.rows()).collect())
    } else if theirs.rows() > last {
        Ok(job.images.clone())
    } else {
        Err(Failure::new(format!(
            "{} rows of saved logits for {} images, the last of which is {last}: select the images to which \
             they belong, as in --images 0..{}",
            theirs.rows(),
            job.images.len(),
            theirs.rows()
        )))
    }
}

/// Compares the logits of all images with their rows in the file.
fn compare(job: &Job, theirs: &Matrix, rows: &[usize]) -> Result<LogitComparison> {
    let mut compared = LogitComparison { images: rows.len(), ..LogitComparison::default() };
    let mut bar = job.progress(0);
    let mut rows = rows.iter();
    for indices in job.images.chunks(job.at_a_time()) {
        let first = indices.first().copied().unwrap_or(0);
        let logits = job.scorer.logits(job.pixels(indices)).map_err(|error| in_split(error, first))?;
        for ((&image, ours), &row) in indices.iter().zip(logits).zip(&mut rows) {
            compared.add(image, &ours, theirs.row(row));
        }
        bar.add(indices.len());
    }
    bar.finish();
    Ok(compared)
}

impl LogitComparison {
    fn add(&mut self, image: usize, ours: &[f64], theirs: &[f64]) {
        for (class, (&here, &there)) in ours.iter().zip(theirs).enumerate() {
            let difference = (here - there).abs();
            // NaN counts as the worst difference: `total_cmp` orders it above infinity.
            let is_worse = |worst: WorstLogit| difference.total_cmp(&worst.difference).is_gt();
            if self.worst.is_none_or(is_worse) {
                self.worst = Some(WorstLogit { difference, image, class, here, there });
            }
            self.largest = self.largest.max(there.abs());
        }
        self.agreeing += usize::from(largest(ours) == largest(theirs));
    }
}

/// The index of the largest value, the lowest on ties.
pub(crate) fn largest(row: &[f64]) -> Option<usize> {
    (0..row.len()).rev().max_by(|&a, &b| row[a].total_cmp(&row[b]))
}

/// Prints the largest difference and the agreement of the predictions.
fn tell(job: &Job, compared: &LogitComparison, worst: &WorstLogit, relative: f64) -> Result<()> {
    let LogitComparison { largest, images, agreeing, .. } = compared;
    let mut out = terminal::output();
    let mut say = |text: String| terminal::hanging(&mut out, 4, &text);
    say(format!("Logits of {images} of {}, against those saved", job.data.name()))?;
    say(format!("Network: {}; engine {}, {}", job.network, job.scorer.engine(), job.precision))?;
    let (name, number) = (job.data.class_name(worst.class), worst.class.to_string());
    let class = if name == number { number } else { format!("{number} ({name})") };
    say(format!(
        "Largest difference {} at image {}, class {class}: {} here, {} there",
        four_digits(worst.difference),
        worst.image,
        worst.here,
        worst.there
    ))?;
    say(format!(
        "That is {} of the largest logit, {}; the predicted class is the same at {agreeing} of {images}",
        four_digits(relative),
        four_digits(*largest)
    ))?;
    out.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_furthest_logit_is_found_and_nan_is_further() {
        let mut compared = LogitComparison::default();
        compared.add(4, &[1.0, 2.0], &[1.5, -8.0]);
        compared.add(5, &[1.0, 2.0], &[1.0, 2.5]);
        let WorstLogit { difference, image, class, .. } = compared.worst.expect("four logits");
        assert_eq!((difference, image, class, compared.largest), (10.0, 4, 1, 8.0));
        assert_eq!(compared.agreeing, 1);
        compared.add(6, &[f64::NAN, 0.0], &[0.0, 0.0]);
        compared.add(7, &[9.0, 0.0], &[0.0, 0.0]);
        assert_eq!(compared.worst.map(|worst| worst.image), Some(6));
        assert_eq!(largest(&[1.0, 3.0, 3.0]), Some(1));
    }
}
