//! `influence layers`: how the influence of each layer is spread over the images.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;

use influence::{Parameter, Perturbation};
use influence_report::{Bar, Series, bars};

use crate::arguments::RunArguments;
use crate::failure::{Failure, Result};
use crate::job::Job;
use crate::layers_arguments::{LayersArguments, Sort};
use crate::layers_table;
use crate::output::{self, Target};
use crate::record::{Cell, Column, Kind, Record};
use crate::row::Row;
use crate::score::score_batch;
use crate::table::{function, quartiles};
use crate::terminal;

/// One layer over all images; its columns are those of the files.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LayerRow {
    pub(crate) network: String,
    pub(crate) group: String,
    /// Its place in the network, from 0.
    pub(crate) depth: usize,
    /// How many numbers it has.
    pub(crate) parameters: usize,
    pub(crate) images: usize,
    pub(crate) objective: String,
    pub(crate) filter: String,
    /// Empty beyond f64, as the next two.
    pub(crate) influence_q1: Option<f64>,
    pub(crate) influence_median: Option<f64>,
    pub(crate) influence_q3: Option<f64>,
    /// The share of the images whose influence is its bound.
    pub(crate) saturated: f64,
    pub(crate) reach_median: Option<f64>,
    pub(crate) rank_median: usize,
    /// Empty where the Jacobian was not needed.
    pub(crate) jacobian_norm_median: Option<f64>,
}

impl Record for LayerRow {
    const COLUMNS: &'static [Column] = &[
        ("network", Kind::Text),
        ("group", Kind::Text),
        ("depth", Kind::Integer),
        ("parameters", Kind::Integer),
        ("images", Kind::Integer),
        ("objective", Kind::Text),
        ("filter", Kind::Text),
        ("influence_q1", Kind::Float),
        ("influence_median", Kind::Float),
        ("influence_q3", Kind::Float),
        ("saturated", Kind::Float),
        ("reach_median", Kind::Float),
        ("rank_median", Kind::Integer),
        ("jacobian_norm_median", Kind::Float),
    ];

    fn cells(&self) -> Vec<Cell> {
        vec![
            (&self.network).into(),
            (&self.group).into(),
            self.depth.into(),
            self.parameters.into(),
            self.images.into(),
            (&self.objective).into(),
            (&self.filter).into(),
            self.influence_q1.into(),
            self.influence_median.into(),
            self.influence_q3.into(),
            self.saturated.into(),
            self.reach_median.into(),
            self.rank_median.into(),
            self.jacobian_norm_median.into(),
        ]
    }
}

/// A network with its layers.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) job: Job,
    pub(crate) rows: Vec<LayerRow>,
}

/// Understands the arguments and runs.
pub(crate) fn command(arguments: &LayersArguments) -> Result<()> {
    let sort = arguments.sort()?;
    let out = arguments.out.as_deref().map(output::check).transpose()?;
    let plot = arguments.plot.as_deref().map(|path| Target::new("--plot", path, "png")).transpose()?;
    let first = Job::new(&arguments.run, Perturbation::Layers)?;
    let second = arguments.against.as_ref().map(|path| {
        // The pool of threads is there already.
        let run = RunArguments {
            weights: Some(path.clone()),
            network: None,
            width: None,
            threads: None,
            ..arguments.run.clone()
        };
        Job::new(&run, Perturbation::Layers)
    });
    let mut jobs: Vec<Job> = std::iter::once(Ok(first)).chain(second).collect::<Result<_>>()?;
    for job in &jobs {
        for (flag, path) in [("--out", &arguments.out), ("--plot", &arguments.plot)] {
            path.as_deref().map_or(Ok(()), |path| job.inputs.spare(flag, path))?;
        }
    }
    tell_apart(&mut jobs, [arguments.run.weights.as_deref(), arguments.against.as_deref()]);
    let networks: Vec<Measured> = jobs.into_iter().map(measure).collect::<Result<_>>()?;
    if let Some(file) = plot {
        let series: Vec<Series> = networks.iter().map(series).collect();
        let title = title(&networks[0].job);
        let picture = bars(&title, &series).map_err(|error| Failure::new(error.to_string()))?;
        file.write(&picture)?.name()?;
    }
    let rows = sorted(&networks, sort);
    let file = out.as_ref().map(|(path, format)| output::write(path, *format, &rows)).transpose()?;
    match if networks[0].job.quiet { Ok(()) } else { tell(arguments, &networks, sort) } {
        Ok(()) | Err(Failure::BrokenPipe) => file.map_or(Ok(()), output::Finished::name),
        Err(failure) => Err(failure),
    }
}

/// Networks of one architecture are named by their weights as well.
fn tell_apart(jobs: &mut [Job], weights: [Option<&Path>; 2]) {
    let [first, second] = jobs else { return };
    if first.architecture != second.architecture {
        return;
    }
    let same = weights[0].and_then(Path::file_name) == weights[1].and_then(Path::file_name);
    for (job, weights) in [first, second].into_iter().zip(weights) {
        let file = weights
            .map(|path| if same { path.as_os_str() } else { path.file_name().unwrap_or(path.as_os_str()) });
        let file = file.map_or_else(|| "embedded weights".into(), OsStr::to_string_lossy);
        job.architecture = format!("{}, {file}", job.architecture);
    }
}

/// What is drawn, in words.
pub(crate) fn title(job: &Job) -> String {
    let (images, filter) = (job.images.len(), job.filter_words());
    format!("Influence of each layer, f = {}, filter {filter}, {images} images", function(job.target))
}

/// Scores all images and gathers what belongs to each layer.
fn measure(job: Job) -> Result<Measured> {
    let mut bar = job.progress();
    let layers = job.scorer.groups().len();
    let mut found: Vec<Vec<Row>> = vec![Vec::new(); layers];
    for batch in job.images.chunks(job.at_a_time()) {
        let mut rows = Vec::new();
        score_batch(&job, batch, &mut bar, &mut rows)?;
        rows.into_iter().enumerate().for_each(|(at, row)| found[at % layers].push(row));
    }
    bar.finish();
    let rows = found.iter().enumerate().map(|(depth, rows)| LayerRow::new(&job, depth, rows)).collect();
    Ok(Measured { job, rows })
}

impl LayerRow {
    fn new(job: &Job, depth: usize, rows: &[Row]) -> Self {
        let sorted = |value: &dyn Fn(&Row) -> f64| {
            let mut values: Vec<f64> = rows.iter().map(value).collect();
            values.sort_by(f64::total_cmp);
            quartiles(&values)
        };
        let finite = |value: f64| value.is_finite().then_some(value);
        let influence = sorted(&|row| match (row.influence, row.log10_influence) {
            (None, Some(log10)) if log10 > 0.0 => f64::INFINITY,
            (value, _) => value.unwrap_or(0.0),
        });
        let median = |value: &dyn Fn(&Row) -> Option<f64>| {
            let known: Vec<f64> = rows.iter().filter_map(value).collect();
            (known.len() == rows.len()).then(|| sorted(&|row| value(row).unwrap_or(f64::NAN))[1])
        };
        let group = rows.first().map(|row| row.group.clone()).unwrap_or_default();
        let of = job.scorer.plan().graph().parameters().iter();
        let share = rows.iter().filter(|row| row.saturated).count() as f64 / rows.len().max(1) as f64;
        Self {
            network: job.architecture.clone(),
            depth,
            parameters: of.filter(|of| of.layer() == group).map(Parameter::elements).sum(),
            group,
            images: rows.len(),
            objective: job.target.to_string(),
            filter: job.filter_words(),
            influence_q1: finite(influence[0]),
            influence_median: finite(influence[1]),
            influence_q3: finite(influence[2]),
            saturated: share,
            reach_median: median(&|row| row.reach),
            rank_median: sorted(&|row| row.rank as f64)[1] as usize,
            jacobian_norm_median: median(&|row| row.jacobian_norm),
        }
    }

    /// What the layers are sorted by.
    fn size(&self) -> f64 {
        self.influence_median.unwrap_or(f64::INFINITY)
    }
}

/// All rows, each network's in the order asked for.
fn sorted(networks: &[Measured], sort: Sort) -> Vec<LayerRow> {
    networks.iter().flat_map(|network| in_order(&network.rows, sort)).cloned().collect()
}

/// The rows of one network in the order asked for.
pub(crate) fn in_order(rows: &[LayerRow], sort: Sort) -> Vec<&LayerRow> {
    let mut rows: Vec<&LayerRow> = rows.iter().collect();
    if sort == Sort::Influence {
        rows.sort_by(|a, b| b.size().total_cmp(&a.size()));
    }
    rows
}

fn series(network: &Measured) -> Series {
    let bar = |row: &LayerRow| Bar {
        name: row.group.clone(),
        low: row.influence_q1,
        middle: row.influence_median,
        high: row.influence_q3,
        full: row.saturated >= 0.5,
    };
    Series { title: network.job.architecture.clone(), bars: network.rows.iter().map(bar).collect() }
}

/// What a person is told on standard output.
fn tell(arguments: &LayersArguments, networks: &[Measured], sort: Sort) -> Result<()> {
    let mut out = terminal::output();
    layers_table::heading(&mut out, networks)?;
    if arguments.out.is_none() {
        layers_table::print(&mut out, networks, sort)?;
    }
    layers_table::summary(&mut out, networks)?;
    if let Some(path) = &arguments.plot {
        writeln!(out, "Plot in {}", path.display())?;
    }
    if let Some(path) = &arguments.out {
        let rows: usize = networks.iter().map(|network| network.rows.len()).sum();
        writeln!(out, "{rows} rows in {}", path.display())?;
    }
    out.flush()?;
    Ok(())
}
