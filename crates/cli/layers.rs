//! `influence layers`: the distribution of each layer's influence over the images.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;

use influence::Perturbation;
use influence_report::{Bar, Picture, Series, bars};

use crate::drawn::PictureFile;
use crate::failure::{Failure, Result};
use crate::gathered::{Gathered, LayerValues, NetworkNames};
use crate::job::Job;
use crate::layer_kinds::LayerKinds;
use crate::layers_arguments::{LayerOrder, LayersArguments};
use crate::layers_table;
use crate::out::{
    Format, Keeper, RowDestination, RunState, Unit, check_signals, hash_of, read_spool, write_rows,
    write_table,
};
use crate::pages;
use crate::record::{CellValue, ColumnKind, ColumnSpec, Record};
use crate::report::ReportFile;
use crate::row::ScoreRow;
use crate::score::score_batch;
use crate::table::{self, function};
use crate::terminal;

/// One layer over all images; the columns of the output files.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LayerRow {
    pub(crate) network: String,
    pub(crate) group: String,
    /// Its position in the network, from 0.
    pub(crate) depth: usize,
    /// Number of its parameters.
    pub(crate) parameters: usize,
    pub(crate) images: usize,
    pub(crate) objective: String,
    pub(crate) filter: String,
    /// The first quartile of its influence over the images; empty beyond f64, like the next two.
    pub(crate) influence_q1: Option<f64>,
    pub(crate) influence_median: Option<f64>,
    pub(crate) influence_q3: Option<f64>,
    /// The fraction of images whose influence equals the bound.
    pub(crate) saturated: f64,
    pub(crate) reach_median: Option<f64>,
    pub(crate) rank_median: usize,
    /// Empty if the Jacobian was not computed.
    pub(crate) jacobian_norm_median: Option<f64>,
    pub(crate) weights: String,
    pub(crate) dataset: String,
    pub(crate) split: String,
    pub(crate) precision: String,
    pub(crate) engine: String,
    /// The fraction of images whose reach exceeds 0.9.
    pub(crate) near_bound: f64,
    /// The rank correlation of its influence with the odds; empty for few images or constant
    /// values.
    pub(crate) odds_correlation: Option<f64>,
}

impl Record for LayerRow {
    const COLUMNS: &'static [ColumnSpec] = &[
        ("network", ColumnKind::Text),
        ("group", ColumnKind::Text),
        ("depth", ColumnKind::Integer),
        ("parameters", ColumnKind::Integer),
        ("images", ColumnKind::Integer),
        ("objective", ColumnKind::Text),
        ("filter", ColumnKind::Text),
        ("influence_q1", ColumnKind::Float),
        ("influence_median", ColumnKind::Float),
        ("influence_q3", ColumnKind::Float),
        ("saturated", ColumnKind::Float),
        ("reach_median", ColumnKind::Float),
        ("rank_median", ColumnKind::Integer),
        ("jacobian_norm_median", ColumnKind::Float),
        ("weights", ColumnKind::Text),
        ("dataset", ColumnKind::Text),
        ("split", ColumnKind::Text),
        ("precision", ColumnKind::Text),
        ("engine", ColumnKind::Text),
        ("near_bound", ColumnKind::Float),
        ("odds_correlation", ColumnKind::Float),
    ];

    fn cells(&self) -> Vec<CellValue> {
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
            (&self.weights).into(),
            (&self.dataset).into(),
            (&self.split).into(),
            (&self.precision).into(),
            (&self.engine).into(),
            self.near_bound.into(),
            self.odds_correlation.into(),
        ]
    }
}

/// A network with its layers.
#[derive(Debug)]
pub(crate) struct MeasuredNetwork {
    pub(crate) job: Job,
    pub(crate) rows: Vec<LayerRow>,
}

/// Interprets the arguments and runs.
pub(crate) fn command(arguments: &LayersArguments) -> Result<()> {
    let sort = arguments.sort()?;
    let out = arguments.out.destination()?;
    let plot = PictureFile::new("--plot", arguments.plot.as_deref())?;
    let report = ReportFile::new(arguments.out.report.as_deref())?;
    // Refusals that need only the arguments come before data and network are read.
    if arguments.run.quiet && out.is_table() && plot.is_none() && report.is_none() {
        return Err(Failure::new(
            "--quiet without --out or --plot does nothing: add one, or leave out --quiet",
        ));
    }
    if arguments.run.shard.is_some() && !matches!(out, RowDestination::File(_, Format::Csv)) {
        return Err(Failure::new(
            "--shard of layers writes one row per image and layer, for influence merge: add --out FILE.csv",
        ));
    }
    if report.is_some() && arguments.run.shard.is_some() {
        return Err(Failure::new("--report covers all images: leave out --shard"));
    }
    let mut jobs = jobs(arguments)?;
    // No result may overwrite a file that either job reads.
    for job in &jobs {
        for (flag, path) in
            [("--out", &arguments.out.out), ("--plot", &arguments.plot), ("--report", &arguments.out.report)]
        {
            path.as_deref().map_or(Ok(()), |path| job.inputs.spare(flag, path))?;
        }
    }
    tell_apart(&mut jobs, [arguments.run.network_file(), arguments.against.as_deref()]);
    // Only a file is kept under a journal. A pipe or the terminal gets everything at the end, since
    // the rows are sorted over all images.
    let study = Study { jobs, sort, plot };
    let rows = match &out {
        RowDestination::File(path, format) => match study.kept(path, *format, arguments.out.resume)? {
            Some(rows) => rows,
            None => return table::complete(&study.jobs[0], &out),
        },
        _ => study.at_once()?,
    };
    let networks: Vec<MeasuredNetwork> =
        study.jobs.into_iter().zip(rows).map(|(job, rows)| MeasuredNetwork { job, rows }).collect();
    // A file and the plot are complete by now. The report and a pipe follow, then the terminal.
    if let Some(file) = report {
        file.write(pages::layers(&networks)?)?;
    }
    if let RowDestination::Pipe(path, format) = &out {
        write_rows(
            path.as_deref(),
            *format,
            &sorted(networks.iter().map(|network| &network.rows[..]), sort),
        )?;
    }
    let silent = networks[0].job.quiet || networks[0].job.shard.is_some() || out.is_standard_output();
    if silent { Ok(()) } else { tell(arguments, &out, &networks, sort) }
}

/// The jobs of one or two networks.
fn jobs(arguments: &LayersArguments) -> Result<Vec<Job>> {
    let first = Job::new(&arguments.run, Perturbation::Layers)?;
    let second =
        arguments.against.as_ref().map(|path| Job::new(&arguments.run.against(path), Perturbation::Layers));
    std::iter::once(Ok(first)).chain(second).collect()
}

/// What is computed, and what is made of it.
struct Study {
    jobs: Vec<Job>,
    sort: LayerOrder,
    plot: Option<PictureFile>,
}

/// The rows of each network.
type Tables = Vec<Vec<LayerRow>>;

impl Study {
    /// What the rows say about each network.
    fn subjects(&self) -> Vec<NetworkNames> {
        self.jobs.iter().map(NetworkNames::of).collect()
    }

    /// Number of images per network.
    fn images(&self) -> usize {
        self.jobs[0].images.len()
    }

    /// Computes everything in memory, for the terminal or a pipe.
    fn at_once(&self) -> Result<Tables> {
        let mut gathered = Gathered::new(self.subjects());
        self.all(0, &mut |points| {
            points.iter().try_for_each(|point| gathered.add(self.images(), &point.cells()))?;
            check_signals()
        })?;
        let rows = gathered.rows();
        self.draw(&rows)?;
        Ok(rows)
    }

    /// Computes everything under a journal. `None` if the run is already complete.
    fn kept(&self, path: &Path, format: Format, resume: bool) -> Result<Option<Tables>> {
        // Everything that determines the bytes of the result is part of the header, so that another
        // run does not resume this one: the sort order, the layers, and the files of the second
        // network.
        let spool = Format::KEPT;
        let mut header = self.jobs[0].header("layers", &[("format", format!("{format:?}"))]);
        header.units = self.images() * self.jobs.len();
        header.config.insert("sort".into(), format!("{:?}", self.sort));
        let subjects =
            serde_json::to_string(&self.subjects()).map_err(|error| Failure::new(error.to_string()))?;
        header.config.insert("layers".into(), subjects);
        for (name, hash) in self.jobs.iter().skip(1).flat_map(|job| &job.provenance.hashes) {
            header.config.insert(format!("{name}, second network"), hash.clone());
        }
        let head = spool.head(LayerValues::COLUMNS, &[]);
        let mut keeper = match Keeper::open(path, header, &head, resume)? {
            RunState::Open(keeper) => keeper,
            RunState::Complete => return Ok(None),
        };
        let done = keeper.done();
        let outcome = self.all(done, &mut |points| {
            let bytes = points
                .iter()
                .flat_map(|point| spool.line(LayerValues::COLUMNS, &point.cells(), &[]))
                .collect();
            keeper.add(Unit { bytes, note: serde_json::Value::Null })?;
            check_signals()
        });
        if let Err(failure) = outcome {
            return Err(keeper.end(failure));
        }
        // The spool has one row per image and layer in the order of computation; the table is made
        // from it at the end. A shard keeps the spool itself as its file, for `influence merge`.
        let mut tables = Vec::new();
        keeper.finish(|spooled, path| {
            let mut gathered = Gathered::new(self.subjects());
            read_spool(spooled, LayerValues::COLUMNS, &mut |cells| gathered.add(self.images(), &cells))?;
            tables = gathered.rows();
            self.draw(&tables)?;
            if self.jobs[0].shard.is_some() {
                return Ok(None);
            }
            let rows = sorted(tables.iter().map(Vec::as_slice), self.sort);
            write_table(path, format, &rows, &[])?.name()?;
            hash_of(path).map(Some)
        })?;
        Ok(Some(tables))
    }

    /// Scores the images that are not done, one network after the other.
    fn all(&self, done: usize, add: &mut dyn FnMut(Vec<LayerValues>) -> Result<()>) -> Result<()> {
        for (at, job) in self.jobs.iter().enumerate() {
            // The images of this network that are done: `done` counts over all networks.
            let before = done.saturating_sub(at * self.images()).min(self.images());
            let mut progress = job.progress(before);
            for batch in job.images[before..].chunks(job.at_a_time()) {
                score_batch(job, batch, &mut |rows: Vec<ScoreRow>| {
                    add(rows.iter().map(LayerValues::of).collect())?;
                    progress.add(1);
                    Ok(())
                })?;
            }
            progress.finish();
        }
        Ok(())
    }

    /// Draws the requested plot.
    fn draw(&self, tables: &Tables) -> Result<()> {
        let networks = || self.jobs.iter().zip(tables.iter().map(Vec::as_slice));
        self.plot.as_ref().map_or(Ok(()), |file| file.write(&plot(networks())?))
    }
}

/// The plot of each network's layers by depth.
pub(crate) fn plot<'a>(networks: impl Iterator<Item = (&'a Job, &'a [LayerRow])> + Clone) -> Result<Picture> {
    let title = networks.clone().next().map_or_else(String::new, |(job, _)| title(job));
    let series: Vec<Series> = networks.map(|(job, rows)| series(job, rows)).collect();
    bars(&title, &series).map_err(|error| Failure::new(error.to_string()))
}

/// Adds the names of the weights to two networks of the same architecture, to distinguish them.
pub(crate) fn tell_apart(jobs: &mut [Job], weights: [Option<&Path>; 2]) {
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

/// The title of the plot.
pub(crate) fn title(job: &Job) -> String {
    let (images, filter) = (job.images.len(), job.filter_words());
    format!("Influence of each layer, f = {}, filter {filter}, {images} images", function(job.target))
}

impl LayerRow {
    /// The key by which layers are sorted.
    fn size(&self) -> f64 {
        self.influence_median.unwrap_or(f64::INFINITY)
    }
}

/// All rows, those of each network in the requested order.
pub(crate) fn sorted<'a>(
    tables: impl IntoIterator<Item = &'a [LayerRow]>,
    sort: LayerOrder,
) -> Vec<LayerRow> {
    tables.into_iter().flat_map(|rows| in_order(rows, sort)).cloned().collect()
}

/// The rows of one network in the requested order.
pub(crate) fn in_order(rows: &[LayerRow], sort: LayerOrder) -> Vec<&LayerRow> {
    let mut rows: Vec<&LayerRow> = rows.iter().collect();
    if sort == LayerOrder::Influence {
        rows.sort_by(|a, b| b.size().total_cmp(&a.size()));
    }
    rows
}

/// The bars of one network, by depth. A layer that is saturated in at least half of the images is
/// marked as full.
fn series(job: &Job, rows: &[LayerRow]) -> Series {
    let kinds = LayerKinds::new(job.scorer.plan().graph());
    let bar = |row: &LayerRow| Bar {
        name: row.group.clone(),
        kind: kinds.of(&row.group).to_owned(),
        low: row.influence_q1,
        middle: row.influence_median,
        high: row.influence_q3,
        full: row.saturated >= 0.5,
    };
    Series { title: job.architecture.clone(), bars: rows.iter().map(bar).collect() }
}

/// Prints the text output.
fn tell(
    arguments: &LayersArguments,
    to: &RowDestination,
    networks: &[MeasuredNetwork],
    sort: LayerOrder,
) -> Result<()> {
    let mut out = terminal::output();
    layers_table::heading(&mut out, networks)?;
    if to.is_table() {
        layers_table::print(&mut out, networks, sort, arguments.out.top)?;
    }
    layers_table::summary(&mut out, networks)?;
    let files = [("Plot", arguments.plot.as_deref()), ("Report", arguments.out.report.as_deref())];
    let rows: usize = networks.iter().map(|network| network.rows.len()).sum();
    terminal::written(&mut out, &files, to.path().map(|path| (rows, path)))?;
    out.flush()?;
    Ok(())
}
