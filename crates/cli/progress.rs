//! Progress of a run: a bar on a terminal, an occasional line without one, nothing with --quiet.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::terminal;

/// Time before the first line without a terminal, so that a short run prints none.
const FIRST: Duration = Duration::from_secs(20);
/// Factor by which the time between lines grows, up to [`SELDOM`].
const LONGER: u32 = 2;
/// The longest time between lines.
const SELDOM: Duration = Duration::from_secs(600);

/// The progress of some images.
#[derive(Debug)]
pub(crate) struct Progress {
    shown: ProgressOutput,
    total: usize,
    before: usize,
    done: usize,
    began: Instant,
}

#[derive(Debug)]
enum ProgressOutput {
    Bar(ProgressBar),
    Lines { next: Duration, pause: Duration },
    Nothing,
}

impl Progress {
    /// The progress over `total` images, of which an earlier run has done `before`.
    pub(crate) fn new(total: usize, before: usize, quiet: bool) -> Self {
        let shown = if quiet {
            ProgressOutput::Nothing
        } else if stderr().is_terminal() {
            ProgressOutput::Bar(bar(total, before))
        } else {
            ProgressOutput::Lines { next: FIRST, pause: FIRST }
        };
        Self { shown, total, before, done: 0, began: Instant::now() }
    }

    /// Records that some more images are done.
    pub(crate) fn add(&mut self, images: usize) {
        self.done += images;
        let passed = self.began.elapsed();
        let line = line(self.before, self.done, self.total, passed);
        match &mut self.shown {
            ProgressOutput::Nothing => {}
            ProgressOutput::Bar(bar) => {
                bar.set_message(rest(self.done, self.total - self.before, passed));
                bar.inc(images as u64);
            }
            ProgressOutput::Lines { next, pause } if passed >= *next => {
                *pause = (*pause * LONGER).min(SELDOM);
                *next = passed + *pause;
                // A closed standard error is no reason to stop.
                let _ = writeln!(terminal::errors(), "{line}");
            }
            ProgressOutput::Lines { .. } => {}
        }
    }

    /// Removes the bar.
    pub(crate) fn finish(self) {
        if let ProgressOutput::Bar(bar) = self.shown {
            bar.finish_and_clear();
        }
    }
}

/// A bar over all images, of which `before` are done.
fn bar(total: usize, before: usize) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
    bar.set_position(before as u64);
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} images, {msg}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// "influence: 1200 of 10000 images in 2 min, 10.0 per second, 15 min left".
fn line(before: usize, done: usize, total: usize, passed: Duration) -> String {
    let rest = rest(done, total.saturating_sub(before), passed);
    format!("influence: {} of {total} images in {}, {rest}", before + done, span(passed))
}

/// The rate and the remaining time. All images take the same time, so the mean over the whole run
/// is the best estimate.
fn rest(done: usize, total: usize, passed: Duration) -> String {
    let seconds = passed.as_secs_f64();
    if done == 0 || seconds <= 0.0 {
        return "just begun".into();
    }
    let each = seconds / done as f64;
    let left = Duration::from_secs_f64(each * total.saturating_sub(done) as f64);
    let rate = match 1.0 / each {
        rate if rate >= 100.0 => format!("{rate:.0} per second"),
        rate if rate >= 1.0 => format!("{rate:.1} per second"),
        _ => format!("{each:.1} s each"),
    };
    format!("{rate}, {} left", span(left))
}

/// A time in the largest unit that gives at least 2.
fn span(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        _ if seconds >= 172_800.0 => format!("{:.1} days", seconds / 86_400.0),
        _ if seconds >= 7_200.0 => format!("{:.1} h", seconds / 3_600.0),
        _ if seconds >= 120.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{seconds:.0} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_rate_and_time_left() {
        let line = |done, seconds| line(0, done, 10_000, Duration::from_secs_f64(seconds));
        assert_eq!(
            line(1200, 120.0),
            "influence: 1200 of 10000 images in 2 min, 10.0 per second, 15 min left"
        );
        assert_eq!(line(10, 100.0), "influence: 10 of 10000 images in 100 s, 10.0 s each, 27.8 h left");
        assert_eq!(line(5000, 10.0), "influence: 5000 of 10000 images in 10 s, 500 per second, 10 s left");
        assert_eq!(line(0, 10.0), "influence: 0 of 10000 images in 10 s, just begun");
    }
}
