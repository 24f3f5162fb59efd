//! What is kept of each layer and image until the quartiles can be computed: six values, on disk
//! while the run lasts and then in memory.

use influence::Parameter;
use influence_report::statistics::quartiles;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};
use crate::job::Job;
use crate::layers::LayerRow;
use crate::record::{CellValue, ColumnKind, ColumnSpec, Record};
use crate::row::ScoreRow;
use crate::verdict;

/// The values of one layer at one image.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LayerValues {
    /// `None` beyond f64.
    influence: Option<f64>,
    reach: Option<f64>,
    rank: usize,
    saturated: bool,
    /// `None` if the Jacobian was not computed.
    jacobian_norm: Option<f64>,
    /// `None` beyond f64.
    odds: Option<f64>,
}

impl Record for LayerValues {
    const COLUMNS: &'static [ColumnSpec] = &[
        ("influence", ColumnKind::Float),
        ("reach", ColumnKind::Float),
        ("rank", ColumnKind::Integer),
        ("saturated", ColumnKind::Flag),
        ("jacobian_norm", ColumnKind::Float),
        ("odds", ColumnKind::Float),
    ];

    fn cells(&self) -> Vec<CellValue> {
        vec![
            self.influence.into(),
            self.reach.into(),
            self.rank.into(),
            self.saturated.into(),
            self.jacobian_norm.into(),
            self.odds.into(),
        ]
    }
}

impl LayerValues {
    /// What the table of layers needs of a row.
    pub(crate) fn of(row: &ScoreRow) -> Self {
        let beyond = row.influence.is_none() && row.log10_influence.is_some_and(|log10| log10 > 0.0);
        Self {
            influence: if beyond { None } else { Some(row.influence.unwrap_or(0.0)) },
            reach: row.reach,
            rank: row.rank,
            saturated: row.saturated,
            jacobian_norm: row.jacobian_norm,
            odds: row.odds,
        }
    }

    fn read(cells: &[CellValue]) -> Option<Self> {
        let float = |cell: &CellValue| match cell {
            CellValue::Float(value) => Some(*value),
            _ => None,
        };
        match cells {
            [influence, reach, CellValue::Integer(rank), CellValue::Flag(saturated), norm, odds] => {
                Some(Self {
                    influence: float(influence),
                    reach: float(reach),
                    rank: *rank as usize,
                    saturated: *saturated,
                    jacobian_norm: float(norm),
                    odds: float(odds),
                })
            }
            _ => None,
        }
    }
}

/// The names of a network and its layers, which a table of layers needs in addition to the values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct NetworkNames {
    network: String,
    weights: String,
    dataset: String,
    split: String,
    precision: String,
    engine: String,
    objective: String,
    filter: String,
    /// Name and number of parameters of each layer.
    pub(crate) layers: Vec<(String, usize)>,
}

impl NetworkNames {
    pub(crate) fn of(job: &Job) -> Self {
        let graph = job.scorer.plan().graph();
        let size = |layer: &str| {
            let own = graph.parameters().iter().filter(|of| of.layer() == layer);
            own.map(Parameter::elements).sum()
        };
        let provenance = &job.provenance;
        Self {
            network: job.architecture.clone(),
            weights: provenance.weights.clone(),
            dataset: provenance.dataset.clone(),
            split: provenance.split.clone(),
            precision: provenance.precision.clone(),
            engine: provenance.engine.clone(),
            objective: job.target.to_string(),
            filter: job.filter_words(),
            layers: job.scorer.groups().map(|group| (group.to_owned(), size(group))).collect(),
        }
    }
}

/// All points of some networks, by network and layer.
#[derive(Debug)]
pub(crate) struct Gathered {
    subjects: Vec<NetworkNames>,
    points: Vec<Vec<Points>>,
    /// Number of points received so far.
    came: usize,
}

/// The points of a layer, one list per column.
#[derive(Debug, Clone, Default)]
struct Points {
    influence: Vec<f64>,
    reach: Vec<f64>,
    rank: Vec<f64>,
    norm: Vec<f64>,
    odds: Vec<f64>,
    saturated: usize,
}

impl Gathered {
    pub(crate) fn new(subjects: Vec<NetworkNames>) -> Self {
        let points = subjects.iter().map(|of| vec![Points::default(); of.layers.len()]).collect();
        Self { subjects, points, came: 0 }
    }

    /// Adds a point. Points are ordered by network, then by image (`images` per network), then by
    /// layer.
    pub(crate) fn add(&mut self, images: usize, cells: &[CellValue]) -> Result<()> {
        let point =
            LayerValues::read(cells).ok_or_else(|| Failure::new("the kept rows are not those of layers"))?;
        let mut at = self.came;
        self.came += 1;
        for (subject, points) in self.subjects.iter().zip(&mut self.points) {
            let layers = subject.layers.len();
            if at < layers * images {
                points[at % layers].push(&point);
                return Ok(());
            }
            at -= layers * images;
        }
        Err(Failure::new("the kept rows are more than the layers of the images"))
    }

    /// Starts again with the first network, for the points of the next part.
    pub(crate) fn rewind(&mut self) {
        self.came = 0;
    }

    /// The rows of each network, one per layer.
    pub(crate) fn rows(self) -> Vec<Vec<LayerRow>> {
        let of = |(subject, points): (NetworkNames, Vec<Points>)| {
            let layers = subject.layers.iter().zip(points).enumerate();
            layers
                .map(|(depth, ((group, size), points))| row(&subject, depth, group, *size, points))
                .collect()
        };
        self.subjects.into_iter().zip(self.points).map(of).collect()
    }
}

impl Points {
    fn push(&mut self, point: &LayerValues) {
        self.influence.push(point.influence.unwrap_or(f64::INFINITY));
        self.reach.push(point.reach.unwrap_or(f64::NAN));
        self.rank.push(point.rank as f64);
        self.norm.push(point.jacobian_norm.unwrap_or(f64::NAN));
        self.odds.push(point.odds.unwrap_or(f64::INFINITY));
        self.saturated += usize::from(point.saturated);
    }
}

/// The row of one layer: medians and quartiles over all images.
fn row(subject: &NetworkNames, depth: usize, group: &str, parameters: usize, points: Points) -> LayerRow {
    let sorted = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        quartiles(&values)
    };
    let finite = |value: f64| value.is_finite().then_some(value);
    // A single unknown value (NaN) makes the median unknown.
    let known =
        |values: Vec<f64>| values.iter().all(|x| !x.is_nan()).then(|| sorted(values)[1]).and_then(finite);
    let images = points.influence.len();
    let odds_correlation = verdict::correlation(&points.influence, &points.odds);
    let near = points.reach.iter().filter(|reach| **reach > verdict::NEAR).count();
    let influence = sorted(points.influence);
    LayerRow {
        network: subject.network.clone(),
        group: group.to_owned(),
        depth,
        parameters,
        images,
        objective: subject.objective.clone(),
        filter: subject.filter.clone(),
        influence_q1: finite(influence[0]),
        influence_median: finite(influence[1]),
        influence_q3: finite(influence[2]),
        saturated: points.saturated as f64 / images.max(1) as f64,
        reach_median: known(points.reach),
        rank_median: sorted(points.rank)[1] as usize,
        jacobian_norm_median: known(points.norm),
        weights: subject.weights.clone(),
        dataset: subject.dataset.clone(),
        split: subject.split.clone(),
        precision: subject.precision.clone(),
        engine: subject.engine.clone(),
        near_bound: near as f64 / images.max(1) as f64,
        odds_correlation,
    }
}
