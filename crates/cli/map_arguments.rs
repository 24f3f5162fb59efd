//! The grammar of `influence map`.

use std::path::PathBuf;

use clap::Args;
use influence::Channels;
use influence_report::Sharing;

use crate::arguments::RunArguments;
use crate::failure::{Failure, Result};

pub(crate) const EXAMPLES: &str = "\
Examples:
  influence map --images 0..4 --objective predicted --out maps
      maps/map-0.png and maps/map-0.safetensors (scale0, scale1, ..., float64)
      for each image
  influence map --images 7 --filter tikhonov:100 --channels separate \\
      --scales 0,1 --direction --out maps
      one map per channel, and the most influential direction
  influence map --images 7 --windows regions.png --out maps
      the influence of each region of a PNG of labels
  influence map --check --images 0..100 --scales 1,3
      whether setting the most vulnerable window to 0 changes the prediction

A window of half-width s is 2 s + 1 pixels wide and high, clipped at the
border; one that is larger than the image is an error. Along with scaleN the
files hold reachN (influence / bound), rankN and log10_scaleN (scaleN is
infinite for values beyond float64; the logarithm of 0 is -inf). --windows adds
windows, reach_windows, rank_windows and log10_windows; --direction adds
direction. In the pictures each square has a dot of the image's own colour, all
panels share one log scale of at most 6 decades, and the most influential
window is framed unless several are equal.

Exact maps of colour images are nearly flat, because a few pixels already reach
every direction: use tikhonov:LAMBDA or --channels separate.

A folder holds the maps of one run. Until it is complete it also holds
maps.csv.partial and maps.csv.journal, from which --resume continues.";

/// The half-widths of the paper.
const SCALES: [usize; 4] = [0, 1, 2, 3];

#[derive(Debug, Args)]
pub(crate) struct MapArguments {
    #[command(flatten)]
    pub(crate) run: RunArguments,
    /// Half-widths of the windows [default: 0,1,2,3; none with --windows]
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    pub(crate) scales: Option<String>,
    /// One window for all channels, or one per channel [default: joint]
    #[arg(long, value_name = "HOW", value_parser = ["joint", "separate"])]
    pub(crate) channels: Option<String>,
    /// One colour scale for all panels of a picture, or one per panel [default: shared]
    #[arg(long, value_name = "HOW", value_parser = ["shared", "own"])]
    pub(crate) scale: Option<String>,
    /// Regions instead of windows: a PNG of the images' size, with one grey value or colour per
    /// region
    #[arg(long, value_name = "FILE")]
    pub(crate) windows: Option<PathBuf>,
    /// Also write the most influential direction, and print how far the first order holds along it
    #[arg(long)]
    pub(crate) direction: bool,
    /// No files: set the most vulnerable window to 0, and count how often the prediction changes
    #[arg(long)]
    pub(crate) check: bool,
    /// What --check fills windows with [default: zero]
    ///
    /// The mean is that of each channel of the image.
    #[arg(long, value_name = "HOW", value_parser = ["zero", "mean"])]
    pub(crate) fill: Option<String>,
    /// Folder for the files; created if its parent exists
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Write an HTML page: what was run, the pictures, and what the numbers mean
    #[arg(long, value_name = "FILE.html")]
    pub(crate) report: Option<PathBuf>,
    /// Resume this run where it was stopped
    ///
    /// Resumes the stopped run that was writing into this folder. Starts from the beginning if
    /// there is no stopped run.
    #[arg(long)]
    pub(crate) resume: bool,
}

/// The content with which a window is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WindowFill {
    Zero,
    Mean,
}

impl MapArguments {
    /// The half-widths.
    pub(crate) fn half_widths(&self) -> Result<Vec<usize>> {
        let Some(text) = &self.scales else {
            return Ok(if self.windows.is_some() { Vec::new() } else { SCALES.to_vec() });
        };
        let number = |part: &str| {
            part.trim().parse().map_err(|_| {
                Failure::new(format!(
                    "--scales {text}: '{part}' is not a half-width; give numbers from 0, as in 0,1,3"
                ))
            })
        };
        let scales: Vec<usize> = text.split(',').map(number).collect::<Result<_>>()?;
        match scales.iter().enumerate().find(|(at, scale)| scales[..*at].contains(scale)) {
            Some((_, scale)) => Err(Failure::new(format!("--scales {text}: {scale} is listed twice"))),
            None => Ok(scales),
        }
    }

    /// Whether the channels of a window are perturbed jointly.
    pub(crate) fn channels(&self) -> Result<Channels> {
        match self.channels.as_deref() {
            None | Some("joint") => Ok(Channels::Joint),
            Some("separate") => Ok(Channels::Separate),
            Some(other) => Err(Failure::new(format!("--channels {other}: give joint or separate"))),
        }
    }

    /// Whether the panels of a picture share a colour scale.
    pub(crate) fn sharing(&self) -> Result<Sharing> {
        match self.scale.as_deref() {
            None | Some("shared") => Ok(Sharing::Shared),
            Some("own") => Ok(Sharing::Own),
            Some(other) => Err(Failure::new(format!("--scale {other}: give shared or own"))),
        }
    }

    /// What `--check` fills windows with.
    pub(crate) fn fill(&self) -> Result<WindowFill> {
        match self.fill.as_deref() {
            None | Some("zero") => Ok(WindowFill::Zero),
            Some("mean") => Ok(WindowFill::Mean),
            Some(other) => Err(Failure::new(format!("--fill {other}: give zero or mean"))),
        }
    }
}

/// Refuses windows larger than the images.
pub(crate) fn check_scales(scales: &[usize], [_, height, width]: [usize; 3]) -> Result<()> {
    let most = (height.max(width) - 1) / 2;
    match scales.iter().find(|scale| **scale > most) {
        Some(scale) => Err(Failure::new(format!(
            "--scales {scale}: a window of {0} x {0} pixels is larger than the images of {height} x {width}; \
             give half-widths up to {most}",
            scale.saturating_mul(2).saturating_add(1)
        ))),
        None => Ok(()),
    }
}
