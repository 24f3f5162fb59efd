//! Summaries of the windows of maps, for the verdict.

use std::io::{self, Write};

use influence::{Map, is_saturated};
use influence_report::statistics::quartiles;

use crate::folder::WindowsSummary;
use crate::job::Job;
use crate::table::bound;
use crate::terminal;
use crate::verdict::{self, Verdict};

/// The summary of a map.
pub(crate) fn of(map: &Map, odds: f64) -> WindowsSummary {
    let sorted = |values: &[f64]| {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        quartiles(&values)
    };
    let finite = |value: f64| value.is_finite().then_some(value);
    WindowsSummary {
        half_width: map.half_width,
        count: map.values.len(),
        saturated: map.reach.iter().filter(|reach| is_saturated(**reach)).count(),
        near: map.reach.iter().filter(|reach| **reach > verdict::NEAR).count(),
        log10: finite(sorted(&map.log10)[1]),
        reach: sorted(&map.reach).map(|reach| finite(reach).unwrap_or(0.0)),
        odds: finite(odds),
    }
}

/// Prints what the windows of each half-width add to the confidence. Images are ordered by the
/// median of their windows.
pub(crate) fn tell(out: &mut impl Write, job: &Job, images: &[Vec<WindowsSummary>]) -> io::Result<()> {
    let scales = images.first().map_or(0, Vec::len);
    for scale in 0..scales {
        let all: Vec<&WindowsSummary> = images.iter().filter_map(|windows| windows.get(scale)).collect();
        let said = verdict_of(&all).sentences(bound(job.target));
        let half_width = all.first().map_or(0, |windows| windows.half_width);
        terminal::hanging(out, 4, &format!("half-width {half_width}: {said}"))?;
    }
    Ok(())
}

/// The verdict on one half-width, over the images.
pub(crate) fn verdict_of(of: &[&WindowsSummary]) -> Verdict {
    let log10: Vec<f64> = of.iter().map(|windows| windows.log10.unwrap_or(f64::NEG_INFINITY)).collect();
    let odds: Vec<f64> = of.iter().map(|windows| windows.odds.unwrap_or(f64::INFINITY)).collect();
    let values = of.iter().map(|windows| windows.count).sum();
    Verdict {
        values,
        images: of.len(),
        saturated: of.iter().map(|windows| windows.saturated).sum(),
        near: of.iter().map(|windows| windows.near).sum(),
        reached: values,
        still: log10.iter().all(|log10| *log10 == f64::NEG_INFINITY),
        correlations: verdict::correlation(&log10, &odds).into_iter().collect(),
    }
}
