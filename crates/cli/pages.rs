//! The HTML report of each command.

use influence_report::statistics::percentile;
use influence_report::{HoverPoint, Page, PageCell};

use crate::compare::{MeasureComparison, SetComparison, quality};
use crate::compare_table::{PERCENTILES, chance, conclusions as compared, influence_percentile};
use crate::failure::Result;
use crate::folder::WindowsSummary;
use crate::job::Job;
use crate::judged::Judged;
use crate::layers::{LayerRow, MeasuredNetwork, plot, title};
use crate::layers_table::verdict;
use crate::outliers::{Outliers, TILES};
use crate::outliers_table::{conclusions as found_out, interval};
use crate::report::{AGAINST_ODDS, ImageDot, against_odds, briefly, facts, meaning, rows_table};
use crate::row::ScoreRow;
use crate::score::Scoring;
use crate::table::{bound, four_digits};
use crate::verdict::VerdictValues;
use crate::windows::verdict_of;

/// The most bytes of map pictures in a page.
const PICTURES: usize = 3_400_000;

/// The page of `influence score`.
pub(crate) fn score(scoring: &Scoring, rows: &[ScoreRow], spread: &VerdictValues) -> Result<Page> {
    let job = &scoring.job;
    let mut page = Page::new("Influence of each image");
    page.paragraph(&spread.verdict().sentences(bound(job.target)));
    page.heading("What was run");
    let mut run = facts(job);
    run.extend(scoring.family.iter().map(|(name, _)| ("family".to_owned(), name.clone())));
    page.facts(&run);
    page.heading("Influence against the odds");
    let shown =
        rows.iter().map(|row| ImageDot { job, row, group: usize::from(!row.is_as_labelled()) }).collect();
    let groups = ["predicted as labelled", "predicted otherwise"].map(str::to_owned).into();
    page.scatter(&against_odds("Influence of each image", groups, shown)?, AGAINST_ODDS);
    rows_table(&mut page, job, &rows.iter().collect::<Vec<_>>())?;
    meaning(&mut page, job);
    Ok(page)
}

/// The page of `influence layers`.
pub(crate) fn layers(networks: &[MeasuredNetwork]) -> Result<Page> {
    let mut page = Page::new("Influence of each layer");
    for MeasuredNetwork { job, rows } in networks {
        page.paragraph(&format!("{}: {}", job.architecture, verdict(rows).sentences(bound(job.target))));
    }
    page.heading("What was run");
    networks.iter().for_each(|network| page.facts(&facts(&network.job)));
    page.heading("Layers by depth");
    let caption = networks.first().map_or_else(String::new, |network| title(&network.job));
    page.figure(&plot(networks.iter().map(|of| (&of.job, &of.rows[..])))?, &caption);
    page.heading("Every layer");
    page.table(&LAYERS, &networks.iter().flat_map(|of| &of.rows).map(layer_cells).collect::<Vec<_>>());
    page.paragraph(
        "near: the share of the images whose reach exceeds 0.9; rho: the rank correlation with the odds over the images; \
         at 1 the layer orders the images as the confidence does.",
    );
    if let Some(network) = networks.first() {
        meaning(&mut page, &network.job);
    }
    Ok(page)
}

/// The headings of [`layer_cells`].
const LAYERS: [&str; 11] = [
    "network",
    "layer",
    "depth",
    "parameters",
    "quartile 1",
    "median",
    "quartile 3",
    "rank",
    "saturated",
    "near",
    "rho",
];

/// One row of the table of layers.
fn layer_cells(row: &LayerRow) -> Vec<PageCell> {
    let count = |value: usize| PageCell::number(value.to_string(), value as f64);
    let number = |value: Option<f64>| match value {
        Some(value) => PageCell::number(four_digits(value), value),
        None => PageCell::number("", f64::INFINITY),
    };
    vec![
        PageCell::text(row.network.clone()),
        PageCell::text(row.group.clone()),
        count(row.depth),
        count(row.parameters),
        number(row.influence_q1),
        number(row.influence_median),
        number(row.influence_q3),
        count(row.rank_median),
        number(Some(row.saturated)),
        number(Some(row.near_bound)),
        number(row.odds_correlation),
    ]
}

/// The page of `influence map`: pictures are added in order as long as there is room.
pub(crate) fn map(
    job: &Job,
    windows: &[Vec<WindowsSummary>],
    pictures: impl Iterator<Item = Result<(String, Vec<u8>)>>,
) -> Result<Page> {
    let mut page = Page::new("Where images are sensitive");
    let scales = windows.first().map_or(0, Vec::len);
    let said = (0..scales).filter_map(|scale| {
        let of: Vec<&WindowsSummary> = windows.iter().filter_map(|windows| windows.get(scale)).collect();
        let half_width = of.first()?.half_width;
        Some(format!("half-width {half_width}: {}", verdict_of(&of).sentences(bound(job.target))))
    });
    page.list(&said.collect::<Vec<_>>());
    page.heading("What was run");
    page.facts(&facts(job));
    page.heading("Maps");
    let mut left_out = 0;
    for picture in pictures {
        let (name, png) = picture?;
        if page.size() + png.len() / 3 * 4 > PICTURES {
            left_out += 1;
            continue;
        }
        page.image(&png, &name);
    }
    if left_out > 0 {
        page.paragraph(&format!("{left_out} further pictures are only in the folder."));
    }
    meaning(&mut page, job);
    Ok(page)
}

/// The page of `influence outliers`.
pub(crate) fn outliers(study: &Outliers, all: &[Judged]) -> Result<Page> {
    let job = &study.job;
    let mut page = Page::new("Images that do not match their label");
    let found = study.found(all);
    page.list(&found_out(study, &found));
    page.heading("What was run");
    let mut run = facts(job);
    if let Some(bad) = &study.bad {
        let among = all.iter().filter(|judged| study.is_bad(judged) == Some(true)).count();
        run.push(("known to be bad".into(), format!("{among} of these images ({} in all)", bad.len())));
        run.push(("seed of resamples and planted images".into(), study.seed.to_string()));
    }
    page.facts(&run);
    page.heading("What each score finds");
    if let Some(picture) = study.curves(all) {
        page.figure(&picture, "Grey lines: chance. Each step is a threshold; equal scores share one.");
    }
    let rows = found.iter().map(|found| {
        let rho = found.correlation.map_or_else(String::new, |rho| format!("{rho:.4}"));
        let mut cells = vec![PageCell::text(found.measure.name.clone())];
        if let Some((_, areas)) = &found.ranking {
            cells.push(PageCell::number(interval(areas.roc), areas.roc.value));
            cells.push(PageCell::number(interval(areas.precision), areas.precision.value));
        }
        cells.push(PageCell::number(rho, found.correlation.unwrap_or(f64::NEG_INFINITY)));
        cells
    });
    let rows: Vec<Vec<PageCell>> = rows.collect();
    let known = rows.iter().all(|row| row.len() == 4);
    let headings = ["score", "AUROC", "average precision", "rho with the odds"];
    let shown: &[&str] = if known { &headings } else { &["score", "rho with the odds"] };
    page.table(shown, &rows);
    page.heading("The most influential images");
    // Arrays may not be images.
    if job.data.are_images() {
        page.figure(&study.contact_sheet(all, TILES)?, "In the order of influence, the largest first.");
    }
    // Two groups of dots: by whether an image is known to be bad, or else by whether it is
    // predicted as labelled.
    let group = |judged: &Judged| match study.is_bad(judged) {
        Some(bad) => usize::from(bad),
        None => usize::from(!judged.row.is_as_labelled()),
    };
    let shown = all.iter().map(|judged| ImageDot { job, row: &judged.row, group: group(judged) }).collect();
    let groups = if study.bad.is_some() {
        ["others", "known to be bad"]
    } else {
        ["predicted as labelled", "predicted otherwise"]
    };
    page.scatter(
        &against_odds("Influence of each image", groups.map(str::to_owned).into(), shown)?,
        AGAINST_ODDS,
    );
    rows_table(&mut page, job, &all.iter().map(|judged| &judged.row).collect::<Vec<_>>())?;
    meaning(&mut page, job);
    Ok(page)
}

/// The page of `influence compare`.
pub(crate) fn compare(study: &SetComparison, all: &[Judged]) -> Result<Page> {
    let [first, second] = &study.names;
    let mut page = Page::new(&format!("{first} and {second}"));
    let beside = study.beside(all);
    page.list(&compared(study, all, &beside));
    page.heading("What was run");
    study.jobs.iter().for_each(|job| page.facts(&facts(job)));
    page.heading("Every image by class");
    // The plot gives the position of every image, set by set; each gets its words for the pointer.
    let plot = study.skyline(all);
    let sets = study.sets(all).into_iter().zip(&study.jobs).zip(plot.positions);
    let points = sets.flat_map(|((set, job), positions)| {
        set.iter().zip(positions).map(|(judged, position)| HoverPoint {
            position,
            words: briefly(job, &judged.row),
            image: None,
        })
    });
    let caption = "One dot per image: point at it for its numbers. Colours alternate between classes.";
    page.pointed(&plot.picture, &points.collect::<Vec<_>>(), caption);
    page.heading("Percentiles");
    // Four columns per percentile: the influence and the odds, each of both sets.
    let odds = beside.iter().find(|beside| beside.name == "odds");
    let row = |q: &f64| {
        let mut cells = vec![PageCell::number(q.to_string(), *q)];
        for of in beside.first().into_iter().flat_map(|of| &of.sorted) {
            cells.push(PageCell::number(influence_percentile(of, *q), percentile(of, *q)));
        }
        for of in odds.into_iter().flat_map(|of| &of.sorted) {
            cells.push(PageCell::number(four_digits(percentile(of, *q)), percentile(of, *q)));
        }
        cells
    };
    let headings = [first, second, first, second];
    let kinds = ["influence", "influence", "odds", "odds"];
    let headings: Vec<String> =
        kinds.iter().zip(headings).map(|(kind, name)| format!("{kind}, {name}")).collect();
    let headings: Vec<&str> =
        std::iter::once("percentile").chain(headings.iter().map(String::as_str)).collect();
    page.table(&headings, &PERCENTILES.iter().map(row).collect::<Vec<_>>());
    // Two-sample statistics, one row per measure that has them, then the quality of each network
    // and set.
    page.heading("What distinguishes the two sets");
    let row = |of: &MeasureComparison| {
        let (smirnov, whitney) = of.smirnov.zip(of.whitney)?;
        Some(vec![
            PageCell::text(of.name.clone()),
            PageCell::number(format!("{:.4}", smirnov.distance), smirnov.distance),
            PageCell::number(chance(smirnov.p), smirnov.p),
            PageCell::number(format!("{:.4}", whitney.area), whitney.area),
            PageCell::number(chance(whitney.p), whitney.p),
        ])
    };
    page.table(
        &["measure", "D", "p of D", "AUROC", "p of AUROC"],
        &beside.iter().filter_map(row).collect::<Vec<_>>(),
    );
    let qualities = study.sets(all).into_iter().zip(&study.names).filter_map(|(set, name)| {
        let found = quality(set)?;
        let (accuracy, loss) = (100.0 * found.accuracy, four_digits(found.loss));
        Some(format!("{name}: accuracy {accuracy:.2} %, mean cross-entropy {loss}"))
    });
    page.list(&qualities.collect::<Vec<_>>());
    // At the end both sets in one plot, as two groups of dots.
    let sets = study.sets(all).into_iter().zip(&study.jobs).enumerate();
    let shown = sets.flat_map(|(group, (set, job))| {
        set.iter().map(move |judged| ImageDot { job, row: &judged.row, group })
    });
    let scatter = against_odds("Influence of each image", study.names.clone().into(), shown.collect())?;
    page.scatter(&scatter, AGAINST_ODDS);
    meaning(&mut page, &study.jobs[0]);
    Ok(page)
}
