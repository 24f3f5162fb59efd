//! `influence map --check`: does a map show where an image is vulnerable?
//!
//! The most vulnerable window of each image is filled with 0 or with the mean of each channel. The
//! change of the prediction is compared with that for the window of the largest Jacobian norm and
//! for random windows of the same half-width.

use std::io::{self, Write};

use burn::tensor::TensorData;
use influence::{Channels, Linearization, Map, Precision, Probabilities};
use influence_report::statistics::{Random, quartiles};

use crate::failure::{Failure, Result};
use crate::job::{Job, in_split};
use crate::map::{Mapping, each};
use crate::map_arguments::WindowFill;
use crate::table::{channels_word, four_digits, function};
use crate::terminal;

/// Random windows per image and scale; several reduce the noise of the average.
const RANDOM: usize = 4;
/// Windows within this relative distance of the largest value count as equally vulnerable.
const TIED: f64 = 1e-6;

/// The effect of filling one window.
#[derive(Debug, Clone, Copy)]
struct FillEffect {
    changed: bool,
    /// The decrease of the probability of the originally predicted class.
    fall: f64,
}

/// One image and half-width.
#[derive(Debug)]
struct Trial {
    influence: FillEffect,
    norm: FillEffect,
    random: Vec<FillEffect>,
    /// Fraction of windows that are as vulnerable as the chosen one.
    tied: f64,
}

/// Runs all images and prints the table.
pub(crate) fn run(mapping: &Mapping, fill: WindowFill) -> Result<()> {
    let job = &mapping.job;
    let mut bar = job.progress(0);
    let mut trials: Vec<Vec<Trial>> = Vec::new();
    for indices in job.images.chunks(rayon::current_num_threads()) {
        trials.extend(each(job, indices, |index, at| trial(mapping, fill, index, at))?);
        bar.add(indices.len());
    }
    bar.finish();
    if job.quiet {
        return Ok(());
    }
    let mut out = terminal::output();
    tell(&mut out, mapping, fill, &trials)?;
    out.flush()?;
    Ok(())
}

/// The trials of all half-widths for one image.
fn trial(mapping: &Mapping, fill: WindowFill, index: usize, at: &Linearization<'_>) -> Result<Vec<Trial>> {
    let job = &mapping.job;
    let maps = mapping.maps(index, at)?;
    let objective = job.objective(index);
    let image = job.data.batch::<f64>(&[index]);
    // Per half-width: the window with the largest influence, the one with the largest Jacobian
    // norm, and RANDOM random ones. The generator depends only on image and half-width, so the
    // result does not depend on threads or on which images are run.
    let mut windows = Vec::new();
    let mut shares = Vec::new();
    for map in &maps {
        let mut random = Random::new((index as u64) << 8 | map.half_width as u64);
        let norms = at.gradient_norms(&objective, map.half_width, mapping.channels);
        let norms = norms.map_err(|error| in_split(error, index))?;
        let (vulnerable, share) = largest(&map.values, &mut random);
        windows.push((map, vulnerable));
        windows.push((map, largest(&norms, &mut random).0));
        windows.extend((0..RANDOM).map(|_| (map, random.below(map.values.len()))));
        shares.push(share);
    }
    // All filled images of this image run as one batch; the outcomes come back in the same order,
    // 2 + RANDOM per half-width.
    let filled: Vec<f64> = windows
        .iter()
        .flat_map(|(map, window)| filled(job, &image, map, *window, mapping.channels, fill))
        .collect();
    let before = probabilities(at.logits(), index)?;
    let logits =
        job.scorer.logits(batch(job, filled, windows.len())).map_err(|error| in_split(error, index))?;
    let outcome = |logits: &Vec<f64>| {
        let after = probabilities(logits, index)?;
        let class = before.predicted();
        Ok(FillEffect {
            changed: after.predicted() != class,
            fall: before.logs()[class].exp() - after.logs()[class].exp(),
        })
    };
    let outcomes: Vec<FillEffect> = logits.iter().map(outcome).collect::<Result<_>>()?;
    let trials = outcomes.chunks_exact(2 + RANDOM).zip(shares);
    Ok(trials.map(|(o, tied)| Trial { influence: o[0], norm: o[1], random: o[2..].to_vec(), tied }).collect())
}

/// The probabilities of a sample's logits; errors name the image.
fn probabilities(logits: &[f64], index: usize) -> Result<Probabilities> {
    Probabilities::new(logits).map_err(|error| Failure::new(format!("image {index}: {error}")))
}

/// The index of the largest value, chosen at random among equals, and the fraction of equals.
fn largest(values: &[f64], random: &mut Random) -> (usize, f64) {
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let tied: Vec<usize> = (0..values.len()).filter(|at| values[*at] >= most - TIED * most.abs()).collect();
    let window = tied.get(random.below(tied.len().max(1))).copied().unwrap_or(0);
    (window, tied.len() as f64 / values.len() as f64)
}

/// The image with one window filled.
fn filled(
    job: &Job,
    image: &[f64],
    map: &Map,
    window: usize,
    channels: Channels,
    fill: WindowFill,
) -> Vec<f64> {
    let [count, height, width] = job.data.shape();
    let plane = height * width;
    let (x, y, channel) = (window % width, window / width % height, window / plane);
    let members = match channels {
        Channels::Joint => 0..count,
        Channels::Separate => channel..channel + 1,
    };
    let around = |centre: usize, size: usize| {
        centre.saturating_sub(map.half_width)..(centre + map.half_width + 1).min(size)
    };
    let mut filled = image.to_vec();
    for channel in members {
        let values = &mut filled[channel * plane..][..plane];
        let value = match fill {
            WindowFill::Zero => 0.0,
            WindowFill::Mean => values.iter().sum::<f64>() / plane as f64,
        };
        for y in around(y, height) {
            values[y * width..][around(x, width)].fill(value);
        }
    }
    filled
}

/// `count` images in the precision of the run, for the scorer.
fn batch(job: &Job, values: Vec<f64>, count: usize) -> TensorData {
    let [c, h, w] = job.data.shape();
    match job.precision {
        Precision::F64 => TensorData::new(values, [count, c, h, w]),
        Precision::F32 => {
            TensorData::new(values.into_iter().map(|x| x as f32).collect::<Vec<_>>(), [count, c, h, w])
        }
    }
}

/// Prints the line of one kind of window, over all images.
fn line(out: &mut impl Write, name: &str, outcomes: &[FillEffect]) -> io::Result<()> {
    let mut falls: Vec<f64> = outcomes.iter().map(|outcome| outcome.fall).collect();
    falls.sort_by(f64::total_cmp);
    let mean = falls.iter().sum::<f64>() / falls.len() as f64;
    let changed = outcomes.iter().filter(|outcome| outcome.changed).count() as f64 / outcomes.len() as f64;
    let [_, median, upper] = quartiles(&falls);
    writeln!(
        out,
        "  {name:<24} {:>9.1} % {:>13} {:>13} {:>13}",
        100.0 * changed,
        four_digits(mean),
        four_digits(median),
        four_digits(upper)
    )
}

/// Prints what was run, then three lines per half-width: the window of the largest influence, that
/// of the largest Jacobian norm, and random windows.
fn tell(out: &mut impl Write, mapping: &Mapping, fill: WindowFill, trials: &[Vec<Trial>]) -> io::Result<()> {
    let job = &mapping.job;
    let what = match fill {
        WindowFill::Zero => "0",
        WindowFill::Mean => "the mean of their channel",
    };
    let mut say = |text: String| terminal::hanging(out, 4, &text);
    say(format!("Windows filled with {what}: {} of {}", trials.len(), job.data.name()))?;
    let (channels, filter) = (channels_word(mapping.channels), job.filter);
    say(format!(
        "Maps of f = {}, filter {filter}, channels {channels}; P is the probability of the predicted class",
        function(job.target)
    ))?;
    say(format!("Network: {}; engine {}, {}", job.network, job.scorer.engine(), job.precision))?;
    writeln!(out)?;
    writeln!(
        out,
        "  {:<24} {:>11} {:>13} {:>13} {:>13}",
        "window", "prediction", "mean fall", "median fall", "3rd quartile"
    )?;
    writeln!(out, "  {:<24} {:>11} {:>13} {:>13} {:>13}", "", "changed", "of P", "of P", "of the fall")?;
    // The outcomes of all images for this half-width, one list per kind of window.
    for (at, scale) in mapping.scales.iter().enumerate() {
        let of = |part: &dyn Fn(&Trial) -> Vec<FillEffect>| -> Vec<FillEffect> {
            trials.iter().filter_map(|trials| trials.get(at)).flat_map(part).collect()
        };
        let mut tied: Vec<f64> = trials.iter().filter_map(|trials| Some(trials.get(at)?.tied)).collect();
        tied.sort_by(f64::total_cmp);
        let share = 100.0 * quartiles(&tied)[1];
        writeln!(
            out,
            "half-width {scale}; as vulnerable as the chosen one: median {share:.1} % of the windows"
        )?;
        line(out, "largest influence", &of(&|trial| vec![trial.influence]))?;
        line(out, "largest Jacobian norm", &of(&|trial| vec![trial.norm]))?;
        line(out, "random", &of(&|trial| trial.random.clone()))?;
    }
    Ok(())
}
