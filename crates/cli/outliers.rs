//! `influence outliers`: the images whose labels the network doubts most, and how well each score
//! finds images that are known to be bad.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use influence::{Filter, Perturbation, Target};
use influence_report::statistics::{Areas, Ranking};
use influence_report::{Curve, Picture, SheetTile, curves, sheet};

use crate::drawn::PictureFile;
use crate::failure::{Failure, Result};
use crate::job::Job;
use crate::judged::{Judged, columns};
use crate::out::{Format, RowDestination, pipe_cells, write_cells};
use crate::outliers_arguments::OutliersArguments;
use crate::outliers_table;
use crate::record::CellValue;
use crate::report::ReportFile;
use crate::study::{self, Measure};
use crate::terminal;
use crate::{pages, plant, table, truth};

/// Number of images in the table on the terminal.
const SHOWN: usize = 20;

/// Number of images on a contact sheet.
pub(crate) const TILES: usize = 60;

/// What is studied.
#[derive(Debug)]
pub(crate) struct Outliers {
    pub(crate) job: Job,
    /// The filters, that of the run first.
    pub(crate) filters: Vec<Filter>,
    /// The images known to be bad; `None` if nothing is known.
    pub(crate) bad: Option<BTreeSet<usize>>,
    pub(crate) seed: u64,
    plot: Option<PictureFile>,
    sheet: Option<PictureFile>,
    report: Option<ReportFile>,
}

/// How well one score finds the bad images.
#[derive(Debug)]
pub(crate) struct MeasureQuality {
    pub(crate) measure: Measure,
    /// `None` unless there are both good and bad images.
    pub(crate) ranking: Option<(Ranking, Areas)>,
    /// The rank correlation with the odds.
    pub(crate) correlation: Option<f64>,
}

/// Interprets the arguments and runs.
pub(crate) fn command(arguments: &OutliersArguments) -> Result<()> {
    let out = arguments.out.destination()?;
    // Refusals that need only the arguments come before data and network are read.
    if arguments.out.sort.is_some() {
        return Err(Failure::new("--sort: outliers are ranked by their influence; see the column place"));
    }
    if arguments.run.shard.is_some() {
        return Err(Failure::new(
            "--shard: the rank of an image needs all images; influence score takes parts",
        ));
    }
    let files = [&arguments.sheet, &arguments.plot, &arguments.out.report];
    if arguments.run.quiet && out.is_table() && files.iter().all(|file| file.is_none()) {
        return Err(Failure::new(
            "--quiet without a file does nothing: add --out, --sheet, --plot or --report",
        ));
    }
    let (study, more) = understood(arguments)?;
    let job = &study.job;
    // No result may overwrite a file that the job reads.
    for (flag, path) in [
        ("--out", &arguments.out.out),
        ("--sheet", &arguments.sheet),
        ("--plot", &arguments.plot),
        ("--report", &arguments.out.report),
    ] {
        path.as_deref().map_or(Ok(()), |path| job.inputs.spare(flag, path))?;
    }
    // Images are scored one by one, under a journal if there is a file. Ranks, pictures and tables
    // need all of them, so `write` runs at the end.
    let header = job.header("outliers", &more);
    let score = |done: usize, add: study::AddImage<'_>| study::score(job, done, &study.filters, add);
    let write = |all: &[Judged], file: Option<(&Path, Format)>| study.write(all, file, &out);
    let Some(all) = study::gather(&out, header, arguments.out.resume, &score, &write)? else {
        return table::complete(job, &out);
    };
    if job.quiet || out.is_standard_output() {
        return Ok(());
    }
    let mut to = terminal::output();
    outliers_table::heading(&mut to, &study)?;
    if out.is_table() {
        outliers_table::ranking(&mut to, &study, &all, arguments.out.top.unwrap_or(SHOWN))?;
    }
    outliers_table::scores(&mut to, &study, &study.found(&all))?;
    let [sheet, plot, report] = files.map(|path| path.as_deref());
    let files = [("Sheet", sheet), ("Plot", plot), ("Report", report)];
    terminal::written(&mut to, &files, out.path().map(|path| (all.len(), path)))?;
    to.flush()?;
    Ok(())
}

/// The study, and those of its settings that determine the bytes of the result.
fn understood(arguments: &OutliersArguments) -> Result<(Outliers, Vec<(&'static str, String)>)> {
    let mut job = Job::new(&arguments.run, Perturbation::Input)?;
    if job.target != Target::Label {
        return Err(Failure::new(
            "--objective: outliers are images that do not match their label: leave it out",
        ));
    }
    if let Some(index) = job.images.iter().find(|index| job.data.label(**index).is_none()) {
        return Err(Failure::new(format!("image {index} has no label, so it cannot have a wrong one")));
    }
    let filters = arguments.filters(job.filter)?;
    let seed = arguments.seed.unwrap_or(0);
    // Lists of known bad images are keyed by data set and split, e.g. "mnist_test"; the embedded
    // images are the first of MNIST's test split.
    let (name, split) = (&job.provenance.dataset, &job.provenance.split);
    let name = if name == "embedded" { "mnist" } else { name.as_str() };
    let mut bad = match &arguments.truth {
        Some(path) => Some(truth::read(path, &format!("{name}_{split}"))?),
        None => None,
    };
    if let Some(path) = &arguments.truth {
        job.inputs.add(path);
    }
    match arguments.plant {
        Some(0) => return Err(Failure::new("--plant 0: at least 1 is needed")),
        Some(count) => bad = Some(plant::plant(&mut job, count, seed)?),
        None => {}
    }
    let words: Vec<String> = filters.iter().map(Filter::to_string).collect();
    let more = vec![
        ("filters", words.join(",")),
        ("bad images", format!("{bad:?}")),
        ("planted", format!("{:?}, seed {seed}", arguments.plant)),
    ];
    let plot = PictureFile::new("--plot", arguments.plot.as_deref())?;
    let sheet = PictureFile::new("--sheet", arguments.sheet.as_deref())?;
    if plot.is_some() && bad.is_none() {
        return Err(Failure::new(
            "--plot draws how well bad images are found: add --truth FILE or --plant N",
        ));
    }
    let report = ReportFile::new(arguments.out.report.as_deref())?;
    Ok((Outliers { job, filters, bad, seed, plot, sheet, report }, more))
}

impl Outliers {
    /// The filters as text.
    pub(crate) fn filter_names(&self) -> Vec<String> {
        self.filters.iter().map(Filter::to_string).collect()
    }

    /// The images from the most to the least influential, as indices into `all`.
    pub(crate) fn order(all: &[Judged]) -> Vec<usize> {
        let size = |at: &usize| {
            all.get(*at).and_then(|judged| judged.row.log10_influence).unwrap_or(f64::NEG_INFINITY)
        };
        let mut order: Vec<usize> = (0..all.len()).collect();
        order.sort_by(|a, b| size(b).total_cmp(&size(a)));
        order
    }

    /// Whether an image is known to be bad; `None` if nothing is known.
    pub(crate) fn is_bad(&self, judged: &Judged) -> Option<bool> {
        self.bad.as_ref().map(|bad| bad.contains(&judged.row.index))
    }

    /// Every score with what it finds.
    pub(crate) fn found(&self, all: &[Judged]) -> Vec<MeasureQuality> {
        let bad: Vec<bool> = all.iter().map(|judged| self.is_bad(judged) == Some(true)).collect();
        let odds = study::odds(all);
        let of = |measure: Measure| {
            let ranking = Ranking::new(&measure.values, &bad);
            MeasureQuality {
                ranking: ranking.map(|ranking| (ranking.clone(), ranking.areas(self.seed))),
                correlation: measure.correlation(&odds),
                measure,
            }
        };
        study::measures(all, &self.filter_names()).into_iter().map(of).collect()
    }

    /// ROC and precision-recall curves; `None` without both good and bad images.
    pub(crate) fn curves(&self, all: &[Judged]) -> Option<Picture> {
        let known = |found: MeasureQuality| {
            let (ranking, areas) = found.ranking?;
            let (name, points) = (found.measure.name, ranking.points());
            Some(Curve { dashed: !name.starts_with("influence"), name, points, areas })
        };
        let found: Vec<Curve> = self.found(all).into_iter().filter_map(known).collect();
        let bad = all.iter().filter(|judged| self.is_bad(judged) == Some(true)).count();
        let (count, data) = (all.len(), self.job.data.name());
        let title = format!("{bad} bad among {count} images of {data}, {}", self.job.architecture);
        (!found.is_empty()).then(|| curves(&title, &found, bad as f64 / count.max(1) as f64))
    }

    /// The contact sheet of the most influential images.
    pub(crate) fn contact_sheet(&self, all: &[Judged], most: usize) -> Result<Picture> {
        let tile = |(place, judged): (usize, &Judged)| {
            let (row, data) = (&judged.row, &self.job.data);
            let named = |class: Option<usize>| class.map_or_else(String::new, |class| data.class_name(class));
            let p = table::four_digits(row.probability);
            SheetTile {
                image: data.batch::<f64>(&[row.index]),
                lines: [
                    format!("{}. #{}", place + 1, row.index),
                    format!("{}: {p} > {}", named(row.label), named(Some(row.predicted))),
                ],
                marked: self.is_bad(judged) == Some(true),
            }
        };
        let order = Self::order(all);
        let first = order.iter().take(most).filter_map(|at| all.get(*at)).enumerate();
        let tiles: Vec<SheetTile> = first.map(tile).collect();
        let marked = if self.bad.is_some() { "; red: known to be bad" } else { "" };
        let title = format!("{}: label: P(label) > predicted class{marked}", self.job.data.name());
        sheet(&title, self.job.data.shape(), &tiles).map_err(|error| Failure::new(error.to_string()))
    }

    /// Writes the pictures, and the table to its destination.
    fn write(&self, all: &[Judged], file: Option<(&Path, Format)>, out: &RowDestination) -> Result<()> {
        if let Some(file) = &self.sheet {
            file.write(&self.contact_sheet(all, TILES)?)?;
        }
        if let (Some(file), Some(picture)) = (&self.plot, self.curves(all)) {
            file.write(&picture)?;
        }
        if let Some(file) = &self.report {
            file.write(pages::outliers(self, all)?)?;
        }
        let columns = columns(&self.filter_names(), self.job.scorer.classes());
        let mut places = vec![0; all.len()];
        for (place, at) in Self::order(all).into_iter().enumerate() {
            places[at] = place + 1;
        }
        let rows = all.iter().zip(places).map(|(judged, place)| judged.table(place, self.is_bad(judged)));
        let rows: Vec<Vec<CellValue>> = rows.collect();
        let constants = self.job.provenance.columns();
        match (file, out) {
            (Some((path, format)), _) => {
                write_cells(path, format, columns, rows.into_iter(), &constants)?.name()
            }
            (None, RowDestination::Pipe(path, format)) => {
                pipe_cells(path.as_deref(), *format, columns, rows.into_iter(), &constants)
            }
            (None, _) => Ok(()),
        }
    }
}
