//! `influence map`: for each image a file of maps and a picture of them.

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::Path;

use burn::tensor::TensorData;
use influence::{Channels, Direction, Filter, Linearization, Map, Perturbation, SampleObjective, Step};
use influence_report::statistics::quartiles;
use influence_report::{Colours, Labels, MapLayer, Picture, Sharing, picture, read_labels};
use rayon::prelude::*;
use safetensors::Dtype;

use crate::check;
use crate::drawn::png;
use crate::failure::{Failure, Result};
use crate::folder::{self, Drawn, Folder, WindowsSummary};
use crate::job::{Job, in_split};
use crate::logits::largest;
use crate::map_arguments::{MapArguments, check_scales};
use crate::pages;
use crate::provenance;
use crate::report::ReportFile;
use crate::table::{channels_word, four_digits, function, probability};
use crate::tensors::{self, Metadata, NamedTensor};
use crate::terminal;
use crate::windows::{self, tell as tell_windows};

/// Euclidean lengths of the steps along the most influential direction, for pixels in [0, 1].
const STEPS: [f64; 5] = [0.01, 0.03, 0.1, 0.3, 1.0];

/// What is mapped.
#[derive(Debug)]
pub(crate) struct Mapping {
    pub(crate) job: Job,
    pub(crate) scales: Vec<usize>,
    pub(crate) channels: Channels,
    labels: Option<Labels>,
    direction: bool,
    sharing: Sharing,
}

/// The results of one image.
#[derive(Debug)]
struct MappedImage {
    /// Name and contents of each file.
    files: Vec<(String, Vec<u8>)>,
    /// As in [`Drawn::steps`].
    steps: Vec<(f64, f64, f64, bool)>,
    windows: Vec<WindowsSummary>,
}

/// Interprets the arguments and runs.
pub(crate) fn command(arguments: &MapArguments) -> Result<()> {
    // Refusals that need only the arguments come first.
    let (scales, channels, fill) = (arguments.half_widths()?, arguments.channels()?, arguments.fill()?);
    let labels = arguments.windows.as_deref().map(labels).transpose()?;
    if arguments.check {
        if arguments.out.is_some() || labels.is_some() || arguments.direction {
            let message = "--check prints a table of windows and writes no files: leave out --out, --windows and --direction";
            return Err(Failure::new(message));
        }
    } else if arguments.fill.is_some() {
        return Err(Failure::new(
            "--fill says what --check fills windows with: add --check, or leave it out",
        ));
    }
    let report = ReportFile::new(arguments.report.as_deref())?;
    if report.is_some() && (arguments.check || arguments.run.shard.is_some()) {
        return Err(Failure::new("--report covers the maps of all images: leave out --check and --shard"));
    }
    match &arguments.out {
        Some(path) => folder::check(path)?,
        None if arguments.resume => {
            return Err(Failure::new("--resume continues a folder of maps: add --out DIR"));
        }
        None if !arguments.check => {
            return Err(Failure::new(
                "no output: add --out DIR, the folder for the files, or --check for a table",
            ));
        }
        None if arguments.run.quiet => {
            return Err(Failure::new("--quiet with --check prints nothing: leave one out"));
        }
        None => {}
    }
    // From here the data and the network are read. An output path that is also an input of the run
    // is refused before anything is written.
    let mut job = Job::new(&arguments.run, Perturbation::Input)?;
    if let Some(windows) = &arguments.windows {
        job.inputs.add(windows);
    }
    if let Some(path) = &arguments.report {
        job.inputs.spare("--report", path)?;
    }
    if let Some(folder) = &arguments.out {
        for name in job.images.iter().flat_map(|index| file_names(*index, arguments.direction)) {
            job.inputs.spare("--out", &folder.join(name))?;
        }
    }
    let [_, height, width] = job.data.shape();
    check_scales(&scales, job.data.shape())?;
    if let Some(Labels { shape, .. }) = labels.as_ref().filter(|labels| labels.shape != [height, width]) {
        let [high, wide] = shape;
        return Err(Failure::new(format!(
            "--windows: labels for {high} x {wide} pixels, but the images have {height} x {width}"
        )));
    }
    let (direction, sharing) = (arguments.direction, arguments.sharing()?);
    let mapping = Mapping { job, scales, channels, labels, direction, sharing };
    match &arguments.out {
        Some(path) => run(&mapping, path, arguments, report.as_ref()),
        None => check::run(&mapping, fill),
    }
}

/// The names of the files of one image.
fn file_names(index: usize, direction: bool) -> impl Iterator<Item = String> {
    let names = [format!("map-{index}.png"), format!("map-{index}.safetensors")];
    names.into_iter().chain(direction.then(|| format!("direction-{index}.png")))
}

/// Reads the plane of labels from a PNG.
fn labels(path: &Path) -> Result<Labels> {
    let fail = |why: String| Failure::new(format!("--windows {}: {why}", path.display()));
    let bytes = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
    read_labels(&bytes).map_err(|error| fail(error.to_string()))
}

/// Maps all images, as many at a time as there are threads.
fn run(mapping: &Mapping, path: &Path, arguments: &MapArguments, report: Option<&ReportFile>) -> Result<()> {
    let job = &mapping.job;
    let windows = arguments.windows.as_deref().map(provenance::file).transpose()?;
    let header = job.header(
        "map",
        &[
            ("scales", format!("{:?}", mapping.scales)),
            ("channels", channels_word(mapping.channels).to_owned()),
            ("direction", mapping.direction.to_string()),
            ("scale of the colours", format!("{:?}", mapping.sharing)),
            ("hash of the windows", windows.unwrap_or_else(|| "none".into())),
        ],
    );
    // The names of all files that this run writes. A folder without a journal is refused if it
    // holds maps; with --resume, only if it holds maps of other names.
    let names = job.images.iter().flat_map(|index| file_names(*index, mapping.direction));
    let names: HashSet<String> = names.collect();
    let own = |name: &str| names.contains(name);
    let Some(mut folder) = Folder::open(path, header, arguments.resume, own)? else {
        if !job.quiet {
            writeln!(terminal::output(), "{} is complete", path.display())?;
        }
        return Ok(());
    };
    if let Err(failure) = all(mapping, &mut folder) {
        return Err(folder.end(failure));
    }
    // The report is made from what the folder has recorded, so a resumed run reports all images.
    let drawn = folder.finish(job.shard.is_some())?;
    let windows: Vec<Vec<WindowsSummary>> = drawn.iter().map(|drawn| drawn.windows.clone()).collect();
    if let Some(file) = report {
        file.write(pages::map(job, &windows, pictures(path, &drawn))?)?;
    }
    if job.quiet {
        return Ok(());
    }
    let mut out = terminal::output();
    let said = format!("Maps of f = {}, filter {}; {}", function(job.target), job.filter, job.network);
    terminal::paragraph(&mut out, 0, &said)?;
    if mapping.direction {
        tell_steps(&mut out, &drawn)?;
    }
    tell_windows(&mut out, job, &windows)?;
    terminal::written(&mut out, &[("Report", report.map(ReportFile::path))], None)?;
    let files: usize = drawn.iter().map(|drawn| drawn.files.len()).sum();
    writeln!(out, "{files} files in {}", path.display())?;
    out.flush()?;
    Ok(())
}

/// The pictures of every image, read from the folder.
fn pictures<'a>(
    folder: &'a Path,
    drawn: &'a [Drawn],
) -> impl Iterator<Item = Result<(String, Vec<u8>)>> + 'a {
    let names = drawn.iter().flat_map(|drawn| &drawn.files).map(|file| &file.name);
    names.filter(|name| name.ends_with(".png")).map(move |name| {
        let path = folder.join(name);
        let bytes =
            std::fs::read(&path).map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
        Ok((name.clone(), bytes))
    })
}

/// Maps the images that are not done.
fn all(mapping: &Mapping, folder: &mut Folder) -> Result<()> {
    let job = &mapping.job;
    let mut progress = job.progress(folder.done());
    for indices in job.images[folder.done()..].chunks(rayon::current_num_threads()) {
        let found = each(job, indices, |index, at| mapping.image(index, at))?;
        for (index, found) in indices.iter().zip(found) {
            folder.add(*index, &found.files, found.steps, found.windows)?;
            progress.add(1);
        }
    }
    progress.finish();
    Ok(())
}

/// Linearises some images and calls `work` on each, in parallel.
pub(crate) fn each<R: Send>(
    job: &Job,
    indices: &[usize],
    work: impl Fn(usize, &Linearization<'_>) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let fault = |(at, index): (influence::Result<_>, &usize)| at.map_err(|error| in_split(error, *index));
    let found = job.scorer.linearize_for(job.pixels(indices), &job.objectives(indices))?;
    let found = found.zip(indices).map(fault);
    let found: Vec<Linearization<'_>> = found.collect::<Result<_>>()?;
    indices.par_iter().zip(&found).map(|(index, at)| work(*index, at)).collect()
}

impl Mapping {
    /// The maps of one image.
    pub(crate) fn maps(&self, index: usize, at: &Linearization<'_>) -> Result<Vec<Map>> {
        if self.scales.is_empty() {
            return Ok(Vec::new());
        }
        let objective = self.job.objective(index);
        let maps = at.maps(&objective, &self.job.filter, &self.scales, self.channels);
        maps.map_err(|error| in_split(error, index))
    }

    /// The files of one image.
    fn image(&self, index: usize, at: &Linearization<'_>) -> Result<MappedImage> {
        let maps = self.maps(index, at)?;
        let mut tensors = Tensors::new(&self.job, index, at);
        tensors.say("channels", channels_word(self.channels));
        // Four tensors per half-width.
        for map in &maps {
            let shape = map_shape(map, self.channels);
            tensors.floats(format!("scale{}", map.half_width), shape.clone(), &map.values);
            tensors.floats(format!("reach{}", map.half_width), shape.clone(), &map.reach);
            tensors.integers(format!("rank{}", map.half_width), shape.clone(), &map.ranks);
            tensors.floats(format!("log10_scale{}", map.half_width), shape, &map.log10);
        }
        let regions = self.regions(index, at, &mut tensors)?;
        // The picture of all maps, then with --direction another one of the direction.
        let image = self.job.data.batch::<f64>(&[index]);
        let shape = self.job.data.shape();
        let drawn = self.drawing(index, at, &maps, regions.as_deref())?;
        let mut files = vec![(format!("map-{index}.png"), png(&drawn)?)];
        let mut steps = Vec::new();
        if self.direction {
            let (direction, found) = self.direction(index, at, &image)?;
            tensors.floats("direction".into(), shape.to_vec(), &direction.values);
            tensors.say("slope", direction.rates.slope);
            tensors.say("fisher", direction.rates.fisher);
            let colours = Colours::Diverging;
            let layer = MapLayer { title: "direction", values: &direction.values, colours, window: None };
            let words =
                [self.caption(index, at)?, format!("most influential direction for {}", self.job.target)];
            let drawn = picture(&words, &image, shape, &[layer], self.sharing).map_err(fault)?;
            files.push((format!("direction-{index}.png"), png(&drawn)?));
            let class = largest(at.logits());
            let record = |step: &Step| (step.fisher, step.found, step.predicted, Some(step.class) != class);
            steps = found.iter().map(record).collect();
        }
        files.push((format!("map-{index}.safetensors"), tensors.bytes()?));
        let odds = self.odds(index, at)?;
        Ok(MappedImage { files, steps, windows: maps.iter().map(|map| windows::of(map, odds)).collect() })
    }

    /// The picture of the image and its maps.
    pub(crate) fn drawing(
        &self,
        index: usize,
        at: &Linearization<'_>,
        maps: &[Map],
        regions: Option<&[f64]>,
    ) -> Result<Picture> {
        let named: Vec<String> = maps
            .iter()
            .map(|map| format!("half-width {0}: {1} x {1} pixels", map.half_width, 2 * map.half_width + 1))
            .collect();
        let colours = Colours::Logarithms;
        let mut layers: Vec<MapLayer<'_>> = maps
            .iter()
            .zip(&named)
            .map(|(map, title)| MapLayer { title, values: &map.log10, colours, window: Some(map.half_width) })
            .collect();
        layers.extend(regions.map(|values| MapLayer { title: "regions", values, colours, window: None }));
        let (target, filter) = (function(self.job.target), self.job.filter_words());
        let channels = channels_word(self.channels);
        let words = [
            self.caption(index, at)?,
            format!(
                "Influence of windows, f = {target}, filter {filter}, channels {channels}; the window with \
                 the largest influence is framed"
            ),
        ];
        let image = self.job.data.batch::<f64>(&[index]);
        picture(&words, &image, self.job.data.shape(), &layers, self.sharing).map_err(fault)
    }

    /// "image 7: label 9, predicted 4, P(predicted) = 0.930".
    pub(crate) fn caption(&self, index: usize, at: &Linearization<'_>) -> Result<String> {
        let score = at.score(&SampleObjective::Predicted, &Filter::default());
        let score = score.map_err(|error| in_split(error, index))?;
        let named = |class: usize| self.job.data.class_name(class);
        let label = self.job.data.label(index).map(|label| format!("label {}, ", named(label)));
        let (label, predicted) = (label.unwrap_or_default(), named(score.predicted));
        let p = probability(score.probability);
        Ok(format!("image {index}: {label}predicted {predicted}, P(predicted) = {p}"))
    }

    /// The odds against the objective's class, from the score of the whole input.
    fn odds(&self, index: usize, at: &Linearization<'_>) -> Result<f64> {
        let score = at.score(&self.job.objective(index), &self.job.filter);
        score.map(|score| score.baselines.odds).map_err(|error| in_split(error, index))
    }

    /// The map of the regions: every pixel has the log10 influence of its region.
    fn regions(
        &self,
        index: usize,
        at: &Linearization<'_>,
        tensors: &mut Tensors,
    ) -> Result<Option<Vec<f64>>> {
        let Some(labels) = &self.labels else { return Ok(None) };
        let objective = self.job.objective(index);
        let regions = at.regions(&objective, &self.job.filter, &labels.labels, self.channels);
        let regions = regions.map_err(|error| in_split(error, index))?;
        let [channels, height, width] = self.job.data.shape();
        let planes = if self.channels == Channels::Joint { 1 } else { channels };
        // Influence, reach, rank and log10 influence, each painted over the pixels of its region.
        let mut painted = [(); 4].map(|()| vec![0.0; planes * labels.labels.len()]);
        for region in &regions {
            let start = region.channel.unwrap_or(0) * labels.labels.len();
            let found = &region.influence;
            for at in (0..labels.labels.len()).filter(|at| labels.labels[*at] == region.label) {
                painted[0][start + at] = found.value;
                painted[1][start + at] = found.reach;
                painted[2][start + at] = found.rank as f64;
                painted[3][start + at] = found.log10.unwrap_or(f64::NEG_INFINITY);
            }
        }
        let shape =
            if self.channels == Channels::Joint { vec![height, width] } else { vec![planes, height, width] };
        let [values, reach, ranks, log10] = painted;
        tensors.floats("windows".into(), shape.clone(), &values);
        tensors.floats("reach_windows".into(), shape.clone(), &reach);
        tensors.floats("rank_windows".into(), shape.clone(), &ranks);
        tensors.floats("log10_windows".into(), shape, &log10);
        Ok(Some(log10))
    }

    /// The most influential direction, and steps along it.
    fn direction(
        &self,
        index: usize,
        at: &Linearization<'_>,
        image: &[f64],
    ) -> Result<(Direction, Vec<Step>)> {
        let objective = self.job.objective(index);
        let fault = |error| in_split(error, index);
        let direction = at.direction(&objective, &self.job.filter).map_err(fault)?;
        if direction.rates.log10_fisher.is_none() {
            return Ok((direction, Vec::new()));
        }
        let sample = TensorData::new(image.to_vec(), [&[1], self.job.data.shape().as_slice()].concat());
        let steps = self.job.scorer.along(sample, &direction, &objective, &STEPS).map_err(fault)?;
        Ok((direction, steps))
    }
}

/// The shape of a map's tensor: `[H, W]` with joint channels, else `[C, H, W]`.
fn map_shape(map: &Map, channels: Channels) -> Vec<usize> {
    match channels {
        Channels::Joint => map.shape[1..].to_vec(),
        Channels::Separate => map.shape.to_vec(),
    }
}

fn fault(error: influence_report::Error) -> Failure {
    Failure::new(error.to_string())
}

/// Prints the predicted and the actual change along the direction, as quartiles over the images.
fn tell_steps(out: &mut impl Write, images: &[Drawn]) -> io::Result<()> {
    let without = images.iter().filter(|drawn| drawn.steps.is_empty()).count();
    if without > 0 {
        let all = images.len();
        let said =
            format!("\n{without} of {all} images have no direction: df is 0, or nothing passes the filter.");
        terminal::paragraph(out, 0, &said)?;
    }
    if without == images.len() {
        return Ok(());
    }
    writeln!(
        out,
        "\nAlong the most influential direction: change of f found / predicted by the first\norder"
    )?;
    writeln!(
        out,
        "{:>8} {:>14} {:>28} {:>20}",
        "|step|", "Fisher length", "quartiles of the ratio", "prediction changed"
    )?;
    for (at, step) in STEPS.iter().enumerate() {
        // This step of every image that has a direction.
        let steps: Vec<_> = images.iter().filter_map(|drawn| drawn.steps.get(at)).collect();
        let sorted = |mut values: Vec<f64>| {
            values.sort_by(f64::total_cmp);
            quartiles(&values)
        };
        let lengths = sorted(steps.iter().map(|(fisher, ..)| *fisher).collect());
        let ratios = sorted(steps.iter().map(|(_, found, predicted, _)| found / predicted).collect());
        let changed = steps.iter().filter(|(.., changed)| *changed).count();
        writeln!(
            out,
            "{step:>8} {:>14} {:>28} {:>20}",
            four_digits(lengths[1]),
            ratios.map(|ratio| format!("{ratio:.3}")).join(", "),
            format!("{changed} of {}", steps.len())
        )?;
    }
    writeln!(out)
}

/// The tensors of one file, in the order in which they were added.
#[derive(Debug)]
struct Tensors {
    index: usize,
    metadata: Metadata,
    tensors: Vec<NamedTensor>,
}

impl Tensors {
    fn new(job: &Job, index: usize, at: &Linearization<'_>) -> Self {
        let logits = at.logits();
        let predicted = (0..logits.len()).fold(0, |best, k| if logits[k] > logits[best] { k } else { best });
        let metadata = tensors::metadata([
            ("index", index.to_string()),
            ("split", job.data.name().to_owned()),
            ("label", job.data.label(index).map_or_else(String::new, |label| label.to_string())),
            ("predicted", predicted.to_string()),
            ("objective", job.target.to_string()),
            ("filter", job.filter.to_string()),
            ("network", job.network.clone()),
            ("precision", job.precision.to_string()),
            ("engine", job.scorer.engine().to_owned()),
        ]);
        Self { index, metadata, tensors: Vec::new() }
    }

    fn floats(&mut self, name: String, shape: Vec<usize>, values: &[f64]) {
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.tensors.push((name, Dtype::F64, shape, bytes));
    }

    fn integers(&mut self, name: String, shape: Vec<usize>, values: &[usize]) {
        let bytes = values.iter().flat_map(|x| (*x as i64).to_le_bytes()).collect();
        self.tensors.push((name, Dtype::I64, shape, bytes));
    }

    /// Adds an entry to the metadata.
    fn say(&mut self, key: &str, value: impl ToString) {
        self.metadata.insert(key.to_owned(), value.to_string());
    }

    fn bytes(self) -> Result<Vec<u8>> {
        tensors::file(&format!("image {}: the maps", self.index), &self.tensors, self.metadata)
    }
}
