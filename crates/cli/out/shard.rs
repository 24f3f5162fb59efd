//! Parts of a run: `I/N`, from 1.
//!
//! Of n requested images, part I of N has those from (I - 1) n / N up to, but not including, I n /
//! N, rounded down. The concatenation of the parts is the whole, and their sizes differ by at most
//! one.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};

/// Part `number` of `of`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shard {
    /// The number of the part, from 1.
    pub(crate) number: usize,
    pub(crate) of: usize,
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

/// Reads an environment variable.
type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Shard {
    /// Parses `I/N`, `auto/N` and `auto`, where `auto` takes numbers from the environment.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        Self::with(text, &|name| std::env::var(name).ok())
    }

    /// Parses with `variables` for the environment.
    fn with(text: &str, variables: Variables<'_>) -> Result<Self> {
        let fail = |why: String| Failure::new(format!("--shard {text}: {why}"));
        let number = |part: &str| part.parse::<usize>().ok().filter(|number| *number > 0);
        let (part, of) = match text.split_once('/') {
            Some((part, of)) => (part, number(of)),
            None if text == "auto" => (text, Some(array_size(variables).map_err(fail)?)),
            None => (text, None),
        };
        let part = if part == "auto" { Some(own_number(variables).map_err(fail)?) } else { number(part) };
        match (part, of) {
            (Some(number), Some(of)) if number <= of => Ok(Self { number, of }),
            (Some(number), Some(of)) => {
                Err(fail(format!("there is no part {number} of {of}: they count from 1")))
            }
            _ => Err(fail(
                "give I/N, part I of N from 1, as in 2/8; or auto/N, which takes I from the environment"
                    .into(),
            )),
        }
    }

    /// The range of this part among `whole` images.
    pub(crate) fn range(self, whole: usize) -> Range<usize> {
        let at = |part: usize| (part as u128 * whole as u128 / self.of as u128) as usize;
        at(self.number - 1)..at(self.number)
    }
}

/// The number of this task. Slurm's array tasks can have any numbers, but must start from 1 here;
/// Kubernetes counts from 0.
fn own_number(variables: Variables<'_>) -> std::result::Result<usize, String> {
    let read = |name: &str| {
        let text = variables(name)?;
        Some(text.trim().parse::<usize>().map_err(|_| format!("{name} is {text}, not a number")))
    };
    match (read("SLURM_ARRAY_TASK_ID"), read("JOB_COMPLETION_INDEX")) {
        (Some(Ok(0)), _) => {
            Err("SLURM_ARRAY_TASK_ID is 0: number the tasks from 1, as in --array=1-8".into())
        }
        (Some(number), _) => number,
        (None, Some(index)) => index.map(|index| index + 1),
        (None, None) => Err("neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX is set".into()),
    }
}

/// The number of tasks of a Slurm array, if it is 1 to N without gaps. If only some tasks of an
/// array are run again, their count is not the number of parts.
fn array_size(variables: Variables<'_>) -> std::result::Result<usize, String> {
    let read = |name: &str| variables(name)?.trim().parse::<usize>().ok();
    let [count, first, last] = ["COUNT", "MIN", "MAX"].map(|end| read(&format!("SLURM_ARRAY_TASK_{end}")));
    match (count, first, last) {
        (Some(count), Some(1), Some(last)) if count == last => Ok(count),
        _ => Err("how many parts are there? Give auto/N".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_the_whole_in_order() {
        for (whole, of) in [(10, 3), (8, 8), (100, 7), (1_280_000, 1000)] {
            let parts: Vec<Range<usize>> = (1..=of).map(|number| Shard { number, of }.range(whole)).collect();
            assert_eq!((parts[0].start, parts[of - 1].end), (0, whole));
            assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
            let sizes: Vec<usize> = parts.iter().map(Range::len).collect();
            assert!(sizes.iter().max().unwrap_or(&0) - sizes.iter().min().unwrap_or(&0) <= 1);
        }
    }

    #[test]
    fn words_and_the_environment() {
        let slurm = |name: &str| {
            let known = [("ID", "3"), ("COUNT", "8"), ("MIN", "1"), ("MAX", "8")];
            let end = name.strip_prefix("SLURM_ARRAY_TASK_")?;
            known.iter().find(|(key, _)| *key == end).map(|(_, value)| (*value).to_owned())
        };
        let again = |name: &str| match name {
            "SLURM_ARRAY_TASK_COUNT" => Some("1".into()),
            "SLURM_ARRAY_TASK_MIN" | "SLURM_ARRAY_TASK_MAX" => Some("3".into()),
            _ => slurm(name),
        };
        let kubernetes = |name: &str| (name == "JOB_COMPLETION_INDEX").then(|| "0".to_owned());
        let none = |_: &str| None;
        let cases: [(&str, Variables<'_>, &str); 8] = [
            ("2/8", &none, "2/8"),
            ("auto/8", &slurm, "3/8"),
            ("auto", &slurm, "3/8"),
            ("auto", &again, "Give auto/N"),
            ("auto/4", &kubernetes, "1/4"),
            ("auto/4", &none, "neither"),
            ("9/8", &none, "no part 9 of 8"),
            ("0/8", &none, "from 1"),
        ];
        for (text, variables, expected) in cases {
            let found = match Shard::with(text, variables) {
                Ok(shard) => shard.to_string(),
                Err(error) => error.to_string(),
            };
            assert!(found.contains(expected), "{text}: {found}");
        }
    }
}
