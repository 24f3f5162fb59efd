//! `influence compare`: the same measure on two sets of images, or of two networks.

use std::io::Write;
use std::path::Path;

use influence::{Filter, Perturbation};
use influence_report::statistics::{
    Estimate, MannWhitney, Smirnov, mann_whitney, median_difference, percentile, smirnov, spearman,
};
use influence_report::{Manhattan, Skyline, manhattan};

use crate::arguments::RunArguments;
use crate::compare_arguments::CompareArguments;
use crate::compare_table::{self, influence_percentile};
use crate::drawn::PictureFile;
use crate::failure::{Failure, Result};
use crate::job::Job;
use crate::judged::{Judged, taken};
use crate::layers::tell_apart;
use crate::out::{Format, RowDestination, pipe_cells, write_cells};
use crate::pages;
use crate::record::{CellValue, ColumnKind, ColumnSpec};
use crate::report::ReportFile;
use crate::study::{self, Measure, measures};
use crate::table;
use crate::terminal;
use crate::verdict::{Verdict, VerdictValue, VerdictValues};

/// The percentile that the paper compares.
const MARKED: f64 = 75.0;

/// Two jobs, with what distinguishes them.
#[derive(Debug)]
pub(crate) struct SetComparison {
    pub(crate) jobs: [Job; 2],
    /// The names of the sets.
    pub(crate) names: [String; 2],
    /// Whether both have the same images.
    pub(crate) paired: bool,
    pub(crate) seed: u64,
    plot: Option<PictureFile>,
    report: Option<ReportFile>,
}

/// One measure on both sets.
#[derive(Debug)]
pub(crate) struct MeasureComparison {
    pub(crate) name: String,
    /// The values of each set, in ascending order.
    pub(crate) sorted: [Vec<f64>; 2],
    pub(crate) smirnov: Option<Smirnov>,
    /// The statistic of the second set against the first.
    pub(crate) whitney: Option<MannWhitney>,
    /// The median of the second set minus that of the first.
    pub(crate) median: Option<Estimate>,
    /// The rank correlation over the same images under both networks.
    pub(crate) correlation: Option<f64>,
}

/// Quality of a network on a set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quality {
    /// The fraction of images predicted as labelled.
    pub(crate) accuracy: f64,
    /// The mean of -ln P(label).
    pub(crate) loss: f64,
}

/// Interprets the arguments and runs.
pub(crate) fn command(arguments: &CompareArguments) -> Result<()> {
    let out = arguments.out.destination()?;
    if let Some(flag) = arguments.out.sort.as_ref().map(|_| "--sort").or(arguments.out.top.map(|_| "--top")) {
        return Err(Failure::new(format!("{flag}: the table has percentiles, not images; leave it out")));
    }
    if arguments.run.shard.is_some() {
        return Err(Failure::new("--shard: percentiles need all images; influence score takes parts"));
    }
    // Quiet and without a file, nothing would come of the run.
    let files = [&arguments.plot, &arguments.out.report];
    if arguments.run.quiet && out.is_table() && files.iter().all(|file| file.is_none()) {
        return Err(Failure::new("--quiet without a file does nothing: add --out, --plot or --report"));
    }
    let study = understood(arguments)?;
    // No result may overwrite a file that either job reads.
    for (flag, path) in
        [("--out", &arguments.out.out), ("--plot", &arguments.plot), ("--report", &arguments.out.report)]
    {
        for job in &study.jobs {
            path.as_deref().map_or(Ok(()), |path| job.inputs.spare(flag, path))?;
        }
    }
    // One journal covers both sets: the images of the second follow those of the first. Resuming
    // requires the same settings and files for both.
    let [first, second] = &study.jobs;
    let mut header = first.header("compare", &[]);
    header.units += second.images.len();
    for (name, hash) in second.header("compare", &[]).config {
        header.config.insert(format!("{name}, second set"), hash);
    }
    let write = |all: &[Judged], file: Option<(&Path, Format)>| study.write(all, file, &out);
    let score = |done: usize, add: study::AddImage<'_>| study.score(done, add);
    let Some(all) = study::gather(&out, header, arguments.out.resume, &score, &write)? else {
        return table::complete(first, &out);
    };
    if first.quiet || out.is_standard_output() {
        return Ok(());
    }
    let mut to = terminal::output();
    compare_table::print(&mut to, &study, &all)?;
    let [plot, report] = files.map(|path| path.as_deref());
    let files = [("Plot", plot), ("Report", report)];
    terminal::written(&mut to, &files, out.path().map(|path| (all.len(), path)))?;
    to.flush()?;
    Ok(())
}

/// The two jobs that the arguments ask for. They differ in the network (--against), in the data
/// (--against-data), or else in the split.
fn understood(arguments: &CompareArguments) -> Result<SetComparison> {
    let objective = arguments.run.objective.clone().or_else(|| Some("predicted".into()));
    let run = RunArguments { objective, ..arguments.run.clone() };
    // The thread pool has been created by the first job.
    let again = RunArguments { threads: None, ..run.clone() };
    let seed = arguments.seed.unwrap_or(0);
    let plot = PictureFile::new("--plot", arguments.plot.as_deref())?;
    let report = ReportFile::new(arguments.out.report.as_deref())?;
    // Two networks on the same images.
    if let Some(path) = &arguments.against {
        let second = again.against(path);
        let mut jobs = [Job::new(&run, Perturbation::Input)?, Job::new(&second, Perturbation::Input)?];
        tell_apart(&mut jobs, [run.network_file(), Some(path)]);
        let names = [0, 1].map(|at| jobs[at].architecture.clone());
        return Ok(SetComparison { jobs, names, paired: true, seed, plot, report });
    }
    // Two sets of images under the same network.
    if let Some(path) = &arguments.against_data {
        let mut second = again;
        second.source.data = Some(path.clone());
        let jobs = [Job::new(&run, Perturbation::Input)?, Job::new(&second, Perturbation::Input)?];
        let name = |path: Option<&Path>| {
            path.and_then(Path::file_name)
                .map_or_else(|| "embedded".into(), |name| name.to_string_lossy().into_owned())
        };
        let names = [name(run.source.data.as_deref()), name(Some(path))];
        let names = if names[0] == names[1] { ["first", "second"].map(str::to_owned) } else { names };
        return Ok(SetComparison { jobs, names, paired: false, seed, plot, report });
    }
    // Two splits of one data set, which must have both.
    if let Some(one @ ("arrays" | "folder" | "parquet")) = run.source.dataset.as_deref() {
        return Err(Failure::new(format!(
            "compare: --dataset {one} is one set of images; add --against-data PATH, the other set, or --against \
             FILE, another network"
        )));
    }
    if run.source.dataset.is_none() {
        return Err(Failure::new(
            "compare: the embedded sample has no training images; add --dataset and --data, or --against FILE",
        ));
    }
    if let Some(split) = &run.split {
        return Err(Failure::new(format!(
            "--split {split}: without --against, the training set is compared with the test set; leave \
             --split out"
        )));
    }
    let of = |split: &str, run: RunArguments| {
        Job::new(&RunArguments { split: Some(split.into()), ..run }, Perturbation::Input)
    };
    let jobs = [of("train", run)?, of("test", again)?];
    Ok(SetComparison {
        jobs,
        names: ["training", "test"].map(str::to_owned),
        paired: false,
        seed,
        plot,
        report,
    })
}

impl SetComparison {
    /// Splits the kept images into the two sets.
    pub(crate) fn sets<'a>(&self, all: &'a [Judged]) -> [&'a [Judged]; 2] {
        let (first, second) = all.split_at(self.jobs[0].images.len().min(all.len()));
        [first, second]
    }

    /// The filter of the first job, as the list that studies of several filters take.
    fn filters(&self) -> [Filter; 1] {
        [self.jobs[0].filter]
    }

    /// Scores the images that are not done, one set after the other.
    fn score(&self, done: usize, add: study::AddImage<'_>) -> Result<()> {
        let mut done = done;
        for job in &self.jobs {
            study::score(job, done.min(job.images.len()), &self.filters(), add)?;
            done = done.saturating_sub(job.images.len());
        }
        Ok(())
    }

    /// Every measure on both sets, in the same order.
    pub(crate) fn beside(&self, all: &[Judged]) -> Vec<MeasureComparison> {
        let names = self.filters().map(|filter| filter.to_string());
        let [first, second] = self.sets(all).map(|set| measures(set, &names));
        first.into_iter().zip(second).map(|(first, second)| self.one(first, second)).collect()
    }

    /// One measure on both sets. Mann and Whitney's U and the medians take the second set against
    /// the first.
    fn one(&self, first: Measure, second: Measure) -> MeasureComparison {
        let sorted = [&first, &second].map(|measure| {
            let mut values = measure.values.clone();
            values.sort_by(f64::total_cmp);
            values
        });
        MeasureComparison {
            smirnov: smirnov(&first.values, &second.values),
            whitney: mann_whitney(&second.values, &first.values),
            median: median_difference(&second.values, &first.values, self.seed),
            correlation: self.paired.then(|| spearman(&first.values, &second.values)).flatten(),
            name: first.name,
            sorted,
        }
    }

    /// What the influences of one set add to the confidence.
    pub(crate) fn verdict(set: &[Judged]) -> Verdict {
        let mut spread = VerdictValues::default();
        set.iter().for_each(|judged| spread.add("", VerdictValue::of(&judged.row)));
        spread.verdict()
    }

    /// The influence of every image by class, with the 75th percentile of each set.
    pub(crate) fn skyline(&self, all: &[Judged]) -> Manhattan {
        let first = &self.jobs[0];
        let classes: Vec<String> =
            (0..first.scorer.classes()).map(|class| first.data.class_name(class)).collect();
        let skyline = |(set, name): (&[Judged], &String)| {
            let log10 = |judged: &Judged| judged.row.log10_influence.unwrap_or(f64::NEG_INFINITY);
            let mut logs: Vec<f64> = set.iter().map(log10).collect();
            logs.sort_by(f64::total_cmp);
            let mark = percentile(&logs, MARKED);
            Skyline {
                title: format!("{name}: {} images by class", set.len()),
                images: set.iter().map(|of| (of.row.label.unwrap_or(of.row.predicted), log10(of))).collect(),
                mark: Some((mark, format!("{MARKED}th percentile: {}", influence_percentile(&logs, MARKED)))),
            }
        };
        let skylines: Vec<Skyline> = self.sets(all).into_iter().zip(&self.names).map(skyline).collect();
        let title = format!(
            "Influence of each image, f = {}, filter {}",
            table::function(first.target),
            first.filter_words()
        );
        manhattan(&title, "influence, log scale", &skylines, &classes)
    }

    /// Writes the plot, and the rows of both sets to their destination.
    fn write(&self, all: &[Judged], file: Option<(&Path, Format)>, out: &RowDestination) -> Result<()> {
        if let Some(file) = &self.plot {
            file.write(&self.skyline(all).picture)?;
        }
        if let Some(file) = &self.report {
            file.write(pages::compare(self, all)?)?;
        }
        let mut columns: Vec<ColumnSpec> = taken();
        columns.extend([("set", ColumnKind::Text), ("objective", ColumnKind::Text)]);
        columns.extend(SETTINGS.map(|name| (name, ColumnKind::Text)));
        let sets = self.sets(all);
        let mut rows = Vec::with_capacity(all.len());
        for ((job, name), set) in self.jobs.iter().zip(&self.names).zip(sets) {
            let provenance = job.provenance.columns();
            let of = |column: &str| provenance.iter().find(|(name, _)| name == column).map(|(_, text)| text);
            let mut words = vec![CellValue::from(name), CellValue::Text(job.target.to_string())];
            words.extend(SETTINGS.iter().map(|column| CellValue::from(of(column))));
            rows.extend(set.iter().map(|judged| [judged.taken(), words.clone()].concat()));
        }
        match (file, out) {
            (Some((path, format)), _) => {
                write_cells(path, format, columns.leak(), rows.into_iter(), &[])?.name()
            }
            (None, RowDestination::Pipe(path, format)) => {
                pipe_cells(path.as_deref(), *format, &columns, rows.into_iter(), &[])
            }
            (None, _) => Ok(()),
        }
    }
}

/// The columns that describe how the rows of a set were made.
pub(crate) const SETTINGS: [&str; 7] =
    ["filter", "network", "weights", "dataset", "split", "precision", "engine"];

/// Accuracy and cross-entropy of one set; `None` without labels.
pub(crate) fn quality(set: &[Judged]) -> Option<Quality> {
    let losses: Vec<f64> = set.iter().map(Judged::loss).collect::<Option<_>>()?;
    let right = set.iter().filter(|judged| judged.row.is_as_labelled()).count();
    let count = set.len().max(1) as f64;
    Some(Quality { accuracy: right as f64 / count, loss: losses.iter().sum::<f64>() / count })
}
