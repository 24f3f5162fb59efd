//! What influences add to the confidence: numbers, and a sentence that follows from them.
//!
//! An influence that equals its bound is a function of only the probability. If all values are near
//! their bounds, the same holds in effect, although none is saturated. Therefore the verdict
//! includes the fraction of values whose reach exceeds [`NEAR`], and the rank correlation with the
//! odds, which is 1 if the values order the images like the confidence.

use std::collections::BTreeMap;

use influence::is_saturated;
use influence_report::statistics::{quartiles, spearman};

use crate::record::CellValue;
use crate::row::ScoreRow;

/// A reach above this is near the bound.
pub(crate) const NEAR: f64 = 0.9;
/// With fewer images than this, a rank correlation is not computed: it would often be large by
/// chance.
const FEW: usize = 10;
/// Rank correlations from which two orders count as the same, nearly the same, and related.
const SAME: f64 = 0.99;
const NEARLY: f64 = 0.9;
const RELATED: f64 = 0.5;

/// What a verdict needs of one value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VerdictValue {
    /// log10 of the influence: -infinity for 0.
    pub(crate) log10: f64,
    /// Infinite beyond f64.
    pub(crate) odds: f64,
    /// `None` beyond f64.
    pub(crate) reach: Option<f64>,
    pub(crate) saturated: bool,
}

impl VerdictValue {
    pub(crate) fn of(row: &ScoreRow) -> Self {
        Self {
            log10: row.log10_influence.unwrap_or(f64::NEG_INFINITY),
            odds: row.odds.unwrap_or(f64::INFINITY),
            reach: row.reach,
            saturated: row.saturated,
        }
    }
}

/// Collects values by group, because only values of the same group can order images.
#[derive(Debug, Clone, Default)]
pub(crate) struct VerdictValues {
    groups: BTreeMap<String, GroupValues>,
    saturated: usize,
}

#[derive(Debug, Clone, Default)]
struct GroupValues {
    log10: Vec<f64>,
    odds: Vec<f64>,
    reach: Vec<f64>,
}

impl VerdictValues {
    /// Adds a value to a group.
    pub(crate) fn add(&mut self, group: &str, seen: VerdictValue) {
        self.saturated += usize::from(seen.saturated);
        if !self.groups.contains_key(group) {
            self.groups.insert(group.to_owned(), GroupValues::default());
        }
        if let Some(group) = self.groups.get_mut(group) {
            group.log10.push(seen.log10);
            group.odds.push(seen.odds);
            group.reach.extend(seen.reach);
        }
    }

    /// Adds a value from the cells of a kept row: group, log10_influence, reach and odds.
    pub(crate) fn add_kept(&mut self, cells: &[CellValue]) {
        let [CellValue::Text(group), log10, reach, odds] = cells else { return };
        let number = |cell: &CellValue| match cell {
            CellValue::Float(value) => Some(*value),
            _ => None,
        };
        let reach = number(reach);
        self.add(
            group,
            VerdictValue {
                log10: number(log10).unwrap_or(f64::NEG_INFINITY),
                odds: number(odds).unwrap_or(f64::INFINITY),
                reach,
                saturated: reach.is_some_and(is_saturated),
            },
        );
    }

    /// The verdict over all values.
    pub(crate) fn verdict(&self) -> Verdict {
        let reach = || self.groups.values().flat_map(|group| &group.reach);
        let images = self.groups.values().map(|group| group.log10.len()).max().unwrap_or(0);
        let mut correlations: Vec<f64> =
            self.groups.values().filter_map(|group| correlation(&group.log10, &group.odds)).collect();
        correlations.sort_by(f64::total_cmp);
        Verdict {
            values: self.groups.values().map(|group| group.log10.len()).sum(),
            images,
            saturated: self.saturated,
            near: reach().filter(|reach| **reach > NEAR).count(),
            reached: reach().count(),
            still: self
                .groups
                .values()
                .flat_map(|group| &group.log10)
                .all(|log10| *log10 == f64::NEG_INFINITY),
            correlations,
        }
    }

    /// Every known reach, in ascending order.
    pub(crate) fn reach(&self) -> Vec<f64> {
        let mut all: Vec<f64> = self.groups.values().flat_map(|group| group.reach.iter().copied()).collect();
        all.sort_by(f64::total_cmp);
        all
    }
}

/// The rank correlation of values with the odds, if there are enough images.
pub(crate) fn correlation(values: &[f64], odds: &[f64]) -> Option<f64> {
    if values.len() < FEW { None } else { spearman(values, odds) }
}

/// The numbers, and the sentence that they allow.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) values: usize,
    pub(crate) images: usize,
    pub(crate) saturated: usize,
    /// Number of values with a reach above [`NEAR`].
    pub(crate) near: usize,
    /// Number of values whose reach is known.
    pub(crate) reached: usize,
    /// Whether all values are 0.
    pub(crate) still: bool,
    /// Rank correlations with the odds, one per group, in ascending order.
    pub(crate) correlations: Vec<f64>,
}

impl Verdict {
    /// The fraction near the bound, in [0, 1].
    pub(crate) fn near_share(&self) -> f64 {
        self.near as f64 / self.reached.max(1) as f64
    }

    /// The rank correlation with the odds; for several groups the median.
    pub(crate) fn correlation(&self) -> Option<f64> {
        Some(quartiles(&self.correlations)[1]).filter(|rho| rho.is_finite())
    }

    /// What the values add to the confidence, as a sentence.
    pub(crate) fn conclusion(&self) -> String {
        if self.saturated == self.values {
            return "they say what the confidence says and nothing more".into();
        }
        if self.still {
            return "they are all 0, and say nothing".into();
        }
        let near = self.near_share() > 0.5;
        let Some(rho) = self.correlation() else {
            let little = if near { "most are all but the bound, which is the confidence; " } else { "" };
            return if self.images < FEW {
                format!(
                    "{little}{} images are too few to compare their order with the confidence's",
                    self.images
                )
            } else {
                format!("{little}equal values have no order to compare with that of the confidence")
            };
        };
        match (rho.abs(), near) {
            (rho, true) if rho >= SAME => "in effect they are functions of the probability".into(),
            (rho, false) if rho >= SAME => {
                "they order the images as the confidence does; only their reach says more".into()
            }
            (rho, _) if rho >= NEARLY => "they order the images nearly as the confidence does".into(),
            (rho, _) if rho >= RELATED => "they go with the confidence, and say more than it".into(),
            _ => "they say something other than the confidence".into(),
        }
    }

    /// The correlation in words; for several groups its distribution.
    fn correlation_words(&self) -> String {
        let shown = |rho: f64| format!("{rho:.4}");
        match self.correlations[..] {
            [] if self.images < FEW => {
                format!("rank correlation with the odds not computed: fewer than {FEW} images")
            }
            [] => "rank correlation with the odds not defined: all images have the same value".into(),
            [rho] => format!("rank correlation with the odds {}", shown(rho)),
            [least, .., most] => {
                let middle = shown(quartiles(&self.correlations)[1]);
                let ends = [least, most].map(shown);
                format!("rank correlation with the odds {middle} (median; {} to {})", ends[0], ends[1])
            }
        }
    }
}

impl Verdict {
    /// The numbers and what follows from them; `bound` is the bound in words.
    pub(crate) fn sentences(&self, bound: &str) -> String {
        let Self { values, saturated, .. } = self;
        // Three parts: how many are saturated, how near the others are and how they order the
        // images, and what follows.
        let first = match saturated {
            0 => format!("None of {values} values is saturated."),
            _ => {
                format!("{saturated} of {values} values are saturated: influence = {bound} and nothing more.")
            }
        };
        let (share, words) = (percent(self.near_share()), self.correlation_words());
        let last = if saturated == values { String::new() } else { format!(": {}", self.conclusion()) };
        format!("{first} {share} have a reach above {NEAR}; {words}{last}.")
    }
}

/// A fraction in per cent, shown as 0 or 100 only if it is exactly that.
pub(crate) fn percent(share: f64) -> String {
    let rounded = (100.0 * share).round();
    match rounded {
        0.0 if share > 0.0 => "< 1 %".into(),
        100.0 if share < 1.0 => "> 99 %".into(),
        _ => format!("{rounded:.0} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verdict on images with growing odds, with a given value and reach for each.
    fn verdict(images: usize, seen: impl Fn(f64) -> (f64, f64)) -> Verdict {
        let mut spread = VerdictValues::default();
        for image in 0..images {
            let odds = 1.0 + image as f64;
            let (influence, reach) = seen(odds);
            let (log10, saturated) = (influence.log10(), (reach - 1.0_f64).abs() < 1e-6);
            spread.add("", VerdictValue { log10, odds, reach: Some(reach), saturated });
        }
        spread.verdict()
    }

    #[test]
    fn values_that_are_not_saturated_and_yet_the_confidence_are_called_so() {
        let channels = verdict(100, |odds| (0.95 * odds, 0.95));
        assert_eq!((channels.saturated, channels.near), (0, 100));
        assert_eq!(
            channels.sentences("odds"),
            "None of 100 values is saturated. 100 % have a reach above 0.9; rank correlation with the odds 1.0000: in \
             effect they are functions of the probability."
        );
    }

    #[test]
    fn the_sentence_follows_from_the_numbers() {
        for (found, said) in [
            (verdict(100, |odds| (odds, 1.0)), "saturated: influence = odds and nothing more. 100 %"),
            (verdict(100, |odds| (0.1 * odds, 0.1)), "only their reach says more"),
            (verdict(100, |odds| (odds * (1.0 + (odds * 0.9).sin() / 4.0), 0.5)), "nearly as the confidence"),
            (verdict(100, |odds| (odds * (1.0 + (odds * 0.9).sin() / 2.0), 0.5)), "and say more than it"),
            (verdict(100, |odds| (2.0 + odds.sin(), 0.1)), "they say something other"),
            (verdict(9, |odds| (odds, 0.1)), "9 images are too few"),
            (verdict(9, |odds| (odds, 0.99)), "most are all but the bound"),
            (verdict(100, |_| (0.0, 0.0)), "all 0, and say nothing"),
            (verdict(100, |_| (2.0, 0.3)), "equal values have no order"),
        ] {
            let found = found.sentences("odds");
            assert!(found.contains(said), "{found} is not {said}");
        }
    }

    #[test]
    fn groups_are_compared_within_themselves() {
        let mut spread = VerdictValues::default();
        for image in 0..20_u32 {
            let odds = f64::from(image);
            for (group, log10) in [("a", odds), ("b", -odds), ("c", 100.0 + odds)] {
                spread.add(group, VerdictValue { log10, odds, reach: None, saturated: false });
            }
        }
        let found = spread.verdict();
        assert_eq!((found.correlations.clone(), found.near_share()), (vec![-1.0, 1.0, 1.0], 0.0));
        let found = found.sentences("odds");
        assert!(found.contains("1.0000 (median; -1.0000 to 1.0000)"), "{found}");
    }

    #[test]
    fn no_share_is_rounded_to_all_or_nothing() {
        assert_eq!([0.0, 0.004, 0.5, 0.999, 1.0].map(percent), ["0 %", "< 1 %", "50 %", "> 99 %", "100 %"]);
    }
}
