//! `--report`: an HTML page with what was run, the results, and what the numbers mean and do not
//! mean.

use std::path::Path;

use influence::Filter;
use influence_report::{Dot, Page, PageCell, Scatter, thumbnail};

use crate::data::Data;
use crate::failure::{Failure, Result};
use crate::job::Job;
use crate::out::OutputFile;
use crate::row::ScoreRow;
use crate::table::{at, four_digits, function, influence, probability};
use crate::terminal;

/// The most bytes of small images in a plot; a page of ten thousand images stays below 5 MB.
const THUMBNAILS: usize = 1_200_000;
/// The most dots in a plot.
const DOTS: usize = 12_000;
/// The most rows of a table with a small image.
const PICTURED: usize = 200;
/// The most rows of a table in a page.
const ROWS: usize = 500;

/// A file for a page. Its path is checked before anything is computed.
#[derive(Debug)]
pub(crate) struct ReportFile(OutputFile);

impl ReportFile {
    pub(crate) fn new(path: Option<&Path>) -> Result<Option<Self>> {
        path.map(|path| OutputFile::new("--report", path, "html").map(Self)).transpose()
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, page: Page) -> Result<()> {
        self.0.write(page.finish().as_bytes())?.name()
    }
}

/// What was run, for the top of a page.
pub(crate) fn facts(job: &Job) -> Vec<(String, String)> {
    let pixels = match &job.data {
        Data::Images(_) | Data::Pictures(_) => "byte / 255, in [0, 1]",
        Data::Arrays(_) => "values as they are in the file",
    };
    let version = format!("influence {}", env!("CARGO_PKG_VERSION"));
    let (images, data) = (job.images.len(), job.data.name());
    let mut facts = vec![
        ("program", version),
        ("network", job.network.clone()),
        ("weights", job.provenance.weights.clone()),
        ("images", format!("{images} of {data}")),
        ("pixels", pixels.to_owned()),
        ("f", function(job.target)),
        ("perturbation", job.scorer.perturbation().to_string()),
        ("filter", job.filter_words()),
        ("engine", format!("{}, {}", job.scorer.engine(), job.precision)),
    ];
    let preparation = Some(("preparation", job.provenance.preparation.clone()));
    facts.extend(preparation.filter(|(_, words)| !words.is_empty()));
    facts.extend(job.provenance.hashes.iter().map(|(name, hash)| (*name, hash.clone())));
    facts.into_iter().map(|(name, value)| (name.to_owned(), terminal::name(&value).into_owned())).collect()
}

/// The end of every page: what the numbers mean, and what they do not.
pub(crate) fn meaning(page: &mut Page, job: &Job) {
    page.heading("What the numbers mean, and what they do not");
    let mut said = vec![
        "Influence is the largest squared change of f for a small perturbation that changes the predicted distribution \
         by a unit of squared Fisher length. It has no unit."
            .to_owned(),
        "It has a bound, which is a function of only the predicted probabilities: (1 - P) / P for f = -log P. Reach is \
         influence / bound. A value at its bound (reach 1) is saturated, and says what the probability says and nothing \
         more."
            .to_owned(),
        "It is a first-order measure at these images: a small value is no proof of robustness, and a large one no proof of \
         a wrong label."
            .to_owned(),
    ];
    match job.filter {
        Filter::Paper { .. } => said.push(
            "The filter paper has the authors' absolute cuts: values depend on the scale of the pixels and may exceed the \
             bound."
                .into(),
        ),
        Filter::Tikhonov { .. } => said.push(
            "The filter tikhonov sets a budget on the size of the perturbation as well: values depend on the scale in \
             which it is measured, and lie below the exact ones."
                .into(),
        ),
        _ => said.push("With the exact filter the values do not depend on the scale of the pixels.".into()),
    }
    page.list(&said);
}

/// An image as a dot: its job, its row and its group.
pub(crate) struct ImageDot<'a> {
    pub(crate) job: &'a Job,
    pub(crate) row: &'a ScoreRow,
    pub(crate) group: usize,
}

/// The scatter plot of influence against odds. On the diagonal the influence is a function of the
/// confidence.
pub(crate) fn against_odds(
    title: &str,
    groups: Vec<String>,
    mut shown: Vec<ImageDot<'_>>,
) -> Result<Scatter> {
    let size = |row: &ScoreRow| row.log10_influence.unwrap_or(f64::NEG_INFINITY);
    shown.sort_by(|a, b| size(b.row).total_cmp(&size(a.row)));
    let step = shown.len().div_ceil(DOTS).max(1);
    let title =
        if step > 1 { format!("{title}: of these, by influence, every {step}th") } else { title.to_owned() };
    let mut room = THUMBNAILS;
    let mut dots = Vec::with_capacity(shown.len());
    for ImageDot { job, row, group } in shown.into_iter().step_by(step) {
        let image = image(job, row.index)?.filter(|address| address.len() <= room);
        room -= image.as_ref().map_or(0, String::len);
        let odds = row.odds.map_or(f64::INFINITY, f64::log10);
        dots.push(Dot { x: odds, y: size(row), group, words: words(job, row), image });
    }
    // Drawn last, the largest lie above the others.
    dots.reverse();
    let axes = ["odds (1 - P) / P, log scale", "influence, log scale"].map(str::to_owned);
    Ok(Scatter { title, axes, groups, equal: true, dots })
}

/// The caption of a plot of [`against_odds`].
pub(crate) const AGAINST_ODDS: &str = "One dot per image: point at it for its numbers and, among the most \
                                       influential ones, for the image itself. On the dashed line the \
                                       influence equals the odds. Values sixteen decades below the largest, \
                                       or more, are drawn at the edge.";

/// An image in a few lines, for the pointer.
fn words(job: &Job, row: &ScoreRow) -> String {
    let named = |class: usize| job.data.class_name(class);
    let label = row.label.map_or_else(String::new, |label| format!("label {}, ", named(label)));
    let of = if row.group.is_empty() { String::new() } else { format!("{}\n", group(row)) };
    let reach = row.reach.map_or_else(|| "beyond f64".into(), four_digits);
    format!(
        "image {}\n{of}{label}predicted {}\nP {}\ninfluence {}\nreach {reach}, rank {}",
        row.index,
        named(row.predicted),
        probability(row.probability),
        influence(row),
        row.rank
    )
}

/// What is perturbed; for a family, with its most influential setting.
fn group(row: &ScoreRow) -> String {
    match at(row) {
        Some(at) => format!("{} {at}", row.group),
        None => row.group.clone(),
    }
}

/// An image in two short lines, for plots of tens of thousands.
pub(crate) fn briefly(job: &Job, row: &ScoreRow) -> String {
    let label = row.label.map_or_else(String::new, |label| format!(", {}", job.data.class_name(label)));
    format!("image {}{label}\ninfluence {}", row.index, influence(row))
}

/// A small picture of an image; `None` for arrays, which may not be images.
fn image(job: &Job, index: usize) -> Result<Option<String>> {
    if !job.data.are_images() {
        return Ok(None);
    }
    let small = thumbnail(&job.data.batch::<f64>(&[index]), job.data.shape());
    small.map(Some).map_err(|error| Failure::new(error.to_string()))
}

/// The headings of [`cells`].
const HEADINGS: [&str; 11] =
    ["index", "label", "predicted", "P", "group", "influence", "rank", "reach", "|df|", "odds", "entropy"];

/// One row of a table.
fn cells(job: &Job, row: &ScoreRow, pictured: bool) -> Result<Vec<PageCell>> {
    let class = |class: Option<usize>| class.map_or_else(String::new, |class| job.data.class_name(class));
    let number = |value: Option<f64>| match value {
        Some(value) => PageCell::number(four_digits(value), value),
        None => PageCell::number("", f64::NEG_INFINITY),
    };
    let size = row.log10_influence.unwrap_or(f64::NEG_INFINITY);
    let index = PageCell {
        image: if pictured { image(job, row.index)? } else { None },
        ..PageCell::number(row.index.to_string(), row.index as f64)
    };
    Ok(vec![
        index,
        PageCell::text(class(row.label)),
        PageCell::text(class(Some(row.predicted))),
        PageCell::number(probability(row.probability), row.probability),
        PageCell::text(group(row)),
        PageCell::number(influence(row), size),
        PageCell::number(row.rank.to_string(), row.rank as f64),
        number(row.reach),
        number(row.jacobian_norm),
        number(row.odds),
        number(row.entropy),
    ])
}

/// The most influential rows as a table.
pub(crate) fn rows_table(page: &mut Page, job: &Job, rows: &[&ScoreRow]) -> Result<()> {
    let mut rows = rows.to_vec();
    let size = |row: &ScoreRow| row.log10_influence.unwrap_or(f64::NEG_INFINITY);
    rows.sort_by(|a, b| size(b).total_cmp(&size(a)));
    page.heading("Most influential");
    if rows.len() > ROWS {
        page.paragraph(&format!("The first {ROWS} of {}; --out FILE.csv writes all.", rows.len()));
    }
    let cells = rows.iter().take(ROWS).enumerate().map(|(index, row)| cells(job, row, index < PICTURED));
    let mut cells = cells.collect::<Result<Vec<_>>>()?;
    let mut headings = HEADINGS.to_vec();
    // A whole input has no groups.
    if let (true, Some(at)) =
        (rows.iter().all(|row| row.group.is_empty()), headings.iter().position(|name| *name == "group"))
    {
        headings.remove(at);
        cells.iter_mut().for_each(|row| drop(row.remove(at)));
    }
    page.table(&headings, &cells);
    Ok(())
}
