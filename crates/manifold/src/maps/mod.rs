//! Where a sample is sensitive: the influence of every small part of an image, from the columns of
//! one Jacobian.
//!
//! A window of half-width s around a pixel contains the columns of (2 s + 1)^2 pixels, of all
//! channels together or of one; at the border it is clipped. Its measure is that of [`influence`]
//! on only these columns. [`PixelTangent::window`] computes exactly that and is the reference
//! route.
//!
//! [`PixelTangent::maps`] computes all windows of an image faster. Every fast route estimates the
//! error of each value, and a window whose error may be too large is recomputed by the reference
//! route. The routes:
//!
//! * `rank.rs` certifies full rank from the trace of the Gram matrix and of its inverse;
//! * exact, window of K-1 columns or more: full rank means that the value is the bound;
//! * exact, fewer columns: `exact.rs`, elimination on the columns of one window;
//! * Tikhonov: `tikhonov.rs`, Cholesky factors of `LANES` windows side by side;
//! * the authors' numerics: `paper.rs`, eigenvalues of T T^T per window.
//!
//! The Gram matrices of all windows are sums of outer products of columns (`grams.rs`, `sums.rs`).

mod eigen;
mod exact;
mod frame;
mod grams;
mod lanes;
mod paper;
mod rank;
mod regions;
mod sums;
mod tikhonov;

use exact::FewColumns;
use frame::Frame;
use grams::map_shape;
use rank::{Threshold, certified};

pub use regions::Region;

use crate::error::{check_finite, wrong_length};
use crate::influence::tolerance_of;
use crate::precision::{Carrier, Noise};
use crate::{Error, Filter, Influence, Probabilities, SampleObjective, Scalar, Tangent, influence};

/// Whether a window contains all channels of its pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Channels {
    /// All channels in one window: a map `[H, W]`.
    #[default]
    Joint,
    /// One window per channel: a map `[C, H, W]`.
    Separate,
}

/// The influence of every window of one half-width.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Map {
    /// s: windows are 2 s + 1 pixels wide and high, smaller at the border.
    pub half_width: usize,
    /// `[C, H, W]`, C = 1 where the channels are joint.
    pub shape: [usize; 3],
    /// FI of the window around each pixel, row-major: infinite on overflow of `f64`, 0 on
    /// underflow.
    pub values: Vec<f64>,
    /// log10 FI of each, also where `values` over- or underflows; -infinity where FI is exactly 0.
    pub log10: Vec<f64>,
    /// FI / bound of each.
    pub reach: Vec<f64>,
    /// The rank of each: how many directions it reaches.
    pub ranks: Vec<usize>,
    /// How much of |df|^2 of each lies along directions that leave the distribution unchanged: 0
    /// for functions of the probabilities, see [`Influence::outside`].
    pub outside: Vec<f64>,
    /// Whether rounding, or a slightly different tolerance, could give another value.
    pub ambiguous: Vec<bool>,
    /// |w|^2, the bound of every window: it depends only on the probabilities.
    pub bound: f64,
}

/// A sample's Jacobian with respect to the pixels of an image.
#[derive(Debug, Clone, Copy)]
pub struct PixelTangent<'a, T> {
    logits: &'a [f64],
    rows: &'a [T],
    shape: [usize; 3],
}

/// The shape of the image, and whether windows contain all channels.
#[derive(Debug, Clone, Copy)]
struct Layout {
    shape: [usize; 3],
    channels: Channels,
}

/// All windows of one half-width.
#[derive(Debug, Clone, Copy)]
struct Windows {
    layout: Layout,
    /// Shape of the map: C (1 if joint), H, W.
    map: [usize; 3],
    s: usize,
}

impl Windows {
    fn new(layout: Layout, s: usize) -> Self {
        Self { layout, map: map_shape(layout.shape, layout.channels), s }
    }

    /// How many windows there are.
    fn count(&self) -> usize {
        self.map.iter().product()
    }

    /// The channels, rows and columns of window `at`.
    fn ranges(&self, at: usize) -> [std::ops::Range<usize>; 3] {
        let [_, height, width] = self.map;
        let (x, y, channel) = (at % width, at / width % height, at / width / height);
        let around = |centre: usize, size: usize| {
            centre.saturating_sub(self.s)..centre.saturating_add(self.s + 1).min(size)
        };
        let channels = match self.layout.channels {
            Channels::Joint => 0..self.layout.shape[0],
            Channels::Separate => channel..channel + 1,
        };
        [channels, around(y, height), around(x, width)]
    }

    /// The number of columns of J in window `at`.
    fn columns(&self, at: usize) -> usize {
        self.ranges(at).iter().map(ExactSizeIterator::len).product()
    }

    /// The indices of the columns of J in window `at`.
    fn indices(&self, at: usize, indices: &mut Vec<usize>) {
        let [_, height, width] = self.map;
        let [channels, rows, columns] = self.ranges(at);
        indices.clear();
        for channel in channels {
            for y in rows.clone() {
                indices.extend(columns.clone().map(|x| (channel * height + y) * width + x));
            }
        }
    }
}

impl<'a, T: Scalar> PixelTangent<'a, T> {
    /// The tangent of an image with these rows of J: all K, or the K-1 differences z_k - z_K. The
    /// length decides which.
    ///
    /// # Shapes
    ///
    /// `logits`: `[K]`; `rows`: [K or K-1, C, H, W], `shape` being [C, H, W].
    ///
    /// # Errors
    ///
    /// Fewer than two classes, no pixels, another length, NaN or infinity.
    pub fn new(logits: &'a [f64], rows: &'a [T], shape: [usize; 3]) -> Result<Self, Error> {
        let classes = logits.len();
        if classes < 2 {
            return Err(Error::TooFewClasses { classes });
        }
        let columns: usize = shape.iter().product();
        if columns == 0 {
            return Err(Error::NoColumns);
        }
        if rows.len() != classes * columns && rows.len() != (classes - 1) * columns {
            let expected = format!("{classes} or {} rows of {columns}", classes - 1);
            return Err(wrong_length("the Jacobian", expected, rows.len()));
        }
        check_finite("the logits", logits.iter().copied())?;
        check_finite("the Jacobian", rows.iter().map(|x| x.to_f64()))?;
        Ok(Self { logits, rows, shape })
    }

    /// The influence of every window of each half-width, clipped at the border.
    ///
    /// A half-width s is refused where the window, 2 s + 1 pixels wide and high, is larger than the
    /// image.
    ///
    /// # Errors
    ///
    /// No half-widths, or one repeated or too large; [`SampleObjective::Row`], which has no
    /// windows; as [`influence`] for objective and filter.
    pub fn maps(
        &self,
        objective: &SampleObjective,
        filter: &Filter,
        half_widths: &[usize],
        channels: Channels,
    ) -> Result<Vec<Map>, Error> {
        self.check_half_widths(half_widths)?;
        let filter = filter.validated()?;
        let probabilities = self.checked(objective, &filter)?;
        let gradient = objective.logit_gradient(&probabilities)?;
        let frame = gradient
            .as_ref()
            .and_then(|gradient| Frame::new(self.rows, self.columns(), &probabilities, gradient));
        let layout = Layout { shape: self.shape, channels };
        let map = |&s: &usize| {
            let found = match &frame {
                Some(frame) => self.quick(frame, &probabilities, layout, s, objective, &filter)?,
                None => vec![None; Windows::new(layout, s).count()],
            };
            self.completed(found, layout, s, objective, &filter)
        };
        half_widths.iter().map(map).collect()
    }

    /// The influence of one window by the reference route: [`influence`] on its own columns.
    ///
    /// `centre` is `[channel, y, x]`, a position in the map; the channel is 0 where channels are
    /// joint.
    ///
    /// # Errors
    ///
    /// As [`PixelTangent::maps`]; a position outside the map.
    pub fn window(
        &self,
        objective: &SampleObjective,
        filter: &Filter,
        half_width: usize,
        channels: Channels,
        centre: [usize; 3],
    ) -> Result<Influence, Error> {
        self.check_half_widths(&[half_width])?;
        self.checked(objective, filter)?;
        let indices = self.columns_of(half_width, channels, centre)?;
        self.of_columns(&indices, objective, filter)
    }

    /// The tangent of the perturbations of one window, from only its own columns of J: (2 s + 1)^2
    /// for each channel in the window, fewer at the border.
    ///
    /// `centre` is `[channel, y, x]`, a position in the map; the channel is 0 where channels are
    /// joint.
    ///
    /// # Errors
    ///
    /// A half-width that is too large, as [`PixelTangent::maps`]; a position outside the map.
    pub fn window_tangent(
        &self,
        half_width: usize,
        channels: Channels,
        centre: [usize; 3],
    ) -> Result<Tangent, Error> {
        self.check_half_widths(&[half_width])?;
        self.tangent_of(&self.columns_of(half_width, channels, centre)?)
    }

    /// The indices of the columns of the window around `[channel, y, x]`; the channel is 0 where
    /// channels are joint.
    fn columns_of(
        &self,
        half_width: usize,
        channels: Channels,
        [channel, y, x]: [usize; 3],
    ) -> Result<Vec<usize>, Error> {
        let windows = Windows::new(Layout { shape: self.shape, channels }, half_width);
        let [most, height, width] = windows.map;
        if channel >= most || y >= height || x >= width {
            let (centre, map) = ([channel, y, x], windows.map);
            return Err(Error::NoSuchWindow { centre, map });
        }
        let mut indices = Vec::new();
        windows.indices((channel * height + y) * width + x, &mut indices);
        Ok(indices)
    }

    /// The gradient df of the objective at every pixel, `[C, H, W]`.
    ///
    /// # Errors
    ///
    /// As [`influence`] for the objective, which must be a function of the probabilities.
    pub fn gradient(&self, objective: &SampleObjective) -> Result<Vec<f64>, Error> {
        let probabilities = self.checked(objective, &Filter::exact())?;
        let gradient = objective.logit_gradient(&probabilities)?;
        let gradient = gradient.ok_or_else(|| Error::NoWindows { objective: objective.to_string() })?;
        let (columns, top) = (self.columns(), probabilities.predicted());
        let row = |k: usize| self.rows.get(k * columns..(k + 1) * columns);
        let mut df = vec![0.0; columns];
        // df = sum_k dh_k (J_k - J_top), the largest dh left out. Where only differences z_k - z_K
        // were given, the K-th row is zero.
        for k in (0..self.logits.len()).filter(|k| *k != top) {
            let dh = gradient.signs[k] * gradient.log_abs[k].exp();
            if let Some(row) = row(k) {
                df.iter_mut().zip(row).for_each(|(sum, x)| *sum += dh * x.to_f64());
            }
            if let Some(row) = row(top) {
                df.iter_mut().zip(row).for_each(|(sum, x)| *sum -= dh * x.to_f64());
            }
        }
        Ok(df)
    }

    /// The Jacobian norm |df| of every window, `[H, W]` or `[C, H, W]`: a baseline for
    /// [`PixelTangent::maps`].
    ///
    /// # Errors
    ///
    /// As [`PixelTangent::maps`] and [`PixelTangent::gradient`].
    pub fn gradient_norms(
        &self,
        objective: &SampleObjective,
        half_width: usize,
        channels: Channels,
    ) -> Result<Vec<f64>, Error> {
        self.check_half_widths(&[half_width])?;
        let squares: Vec<f64> = self.gradient(objective)?.iter().map(|x| x * x).collect();
        let mut sums = vec![0.0; map_shape(self.shape, channels).iter().product()];
        grams::window_sums(&squares, self.shape, channels, half_width, &mut sums);
        Ok(sums.into_iter().map(f64::sqrt).collect())
    }

    /// The number of columns of J, p.
    fn columns(&self) -> usize {
        self.shape.iter().product()
    }

    /// The noise of the rows as given.
    fn noise() -> Noise {
        Noise { precision: T::PRECISION, carrier: Carrier::Rows }
    }

    /// Checks logits, objective and filter, independently of the window.
    fn checked(&self, objective: &SampleObjective, filter: &Filter) -> Result<Probabilities, Error> {
        filter.check_objective(objective)?;
        if matches!(objective, SampleObjective::Row(_)) {
            return Err(Error::NoWindows { objective: objective.to_string() });
        }
        let probabilities = Probabilities::new(self.logits)?;
        objective.class_of(&probabilities)?;
        Ok(probabilities)
    }

    fn check_half_widths(&self, half_widths: &[usize]) -> Result<(), Error> {
        let [_, height, width] = self.shape;
        if half_widths.is_empty() {
            return Err(Error::NoHalfWidths);
        }
        for (place, &half_width) in half_widths.iter().enumerate() {
            if half_widths[..place].contains(&half_width) {
                return Err(Error::RepeatedHalfWidth { half_width });
            }
            if half_width > (height.max(width) - 1) / 2 {
                return Err(Error::WindowTooLarge { half_width, height, width });
            }
        }
        Ok(())
    }

    /// [`influence`] on some columns of J.
    fn of_columns(
        &self,
        indices: &[usize],
        objective: &SampleObjective,
        filter: &Filter,
    ) -> Result<Influence, Error> {
        influence(self.logits, &self.tangent_of(indices)?, objective, filter)
    }

    /// The tangent of some columns of J.
    fn tangent_of(&self, indices: &[usize]) -> Result<Tangent, Error> {
        let rows = self.rows.chunks_exact(self.columns());
        let columns: Vec<T> = rows.flat_map(|row| indices.iter().map(|&i| row[i])).collect();
        Tangent::from_rows(&columns, self.logits.len(), indices.len())
    }

    /// Value and rank of every window for which a fast route is accurate enough, `None` for the
    /// others.
    fn quick(
        &self,
        frame: &Frame,
        probabilities: &Probabilities,
        layout: Layout,
        s: usize,
        objective: &SampleObjective,
        filter: &Filter,
    ) -> Result<Vec<Option<(f64, usize)>>, Error> {
        if let Filter::Paper { epsilon, rank_epsilon } = *filter {
            let y = objective.class_of(probabilities)?;
            let epsilons = (epsilon, rank_epsilon);
            return Ok(paper::paper(frame, probabilities, layout, s, y, epsilons, T::PRECISION));
        }
        // Exact and Tikhonov count the same directions: both need the certificate that all of a
        // window's do.
        let tolerance = tolerance_of(filter).unwrap_or_else(|| Self::noise().tolerance());
        let certified = certified(frame, layout, s, Threshold::new(tolerance, Self::noise()));
        let windows = Windows::new(layout, s);
        let rank = |at: usize| windows.columns(at).min(frame.size());
        let values = match *filter {
            Filter::Tikhonov { lambda } => tikhonov::tikhonov(frame, layout, s, lambda, T::PRECISION),
            _ => exact(frame, windows, &certified, &mut FewColumns::new(frame, T::PRECISION)),
        };
        let pair = |(at, (value, certified)): (usize, (Option<f64>, bool))| {
            value.filter(|_| certified).map(|value| (value, rank(at)))
        };
        Ok(values.into_iter().zip(certified).enumerate().map(pair).collect())
    }

    /// The complete map: missing windows are computed by the reference route.
    fn completed(
        &self,
        found: Vec<Option<(f64, usize)>>,
        layout: Layout,
        s: usize,
        objective: &SampleObjective,
        filter: &Filter,
    ) -> Result<Map, Error> {
        let windows = Windows::new(layout, s);
        let bound = self.bound(objective)?;
        let mut map = Map {
            half_width: s,
            shape: windows.map,
            values: Vec::with_capacity(found.len()),
            log10: Vec::with_capacity(found.len()),
            reach: Vec::with_capacity(found.len()),
            ranks: Vec::with_capacity(found.len()),
            outside: Vec::with_capacity(found.len()),
            ambiguous: Vec::with_capacity(found.len()),
            bound,
        };
        let mut indices = Vec::new();
        for (at, found) in found.into_iter().enumerate() {
            let window = match found {
                Some((value, rank)) if value > 0.0 => {
                    Window { value, log10: value.log10(), reach: value / bound, rank, ..Window::NONE }
                }
                // Window::NONE has the value +0.0; a sum without terms may be -0.0.
                Some((_, rank)) => Window { rank, ..Window::NONE },
                None => {
                    windows.indices(at, &mut indices);
                    Window::of(&self.of_columns(&indices, objective, filter)?)
                }
            };
            map.push(window);
        }
        Ok(map)
    }

    /// The bound |w|^2.
    fn bound(&self, objective: &SampleObjective) -> Result<f64, Error> {
        let gradient = objective.logit_gradient(&Probabilities::new(self.logits)?)?;
        Ok(gradient.map_or(f64::INFINITY, |gradient| gradient.log_bound.exp()))
    }
}

/// The entries of a map for one window.
struct Window {
    value: f64,
    log10: f64,
    reach: f64,
    rank: usize,
    outside: f64,
    ambiguous: bool,
}

impl Window {
    /// A window without influence.
    const NONE: Self =
        Self { value: 0.0, log10: f64::NEG_INFINITY, reach: 0.0, rank: 0, outside: 0.0, ambiguous: false };

    fn of(found: &Influence) -> Self {
        let Influence { value, log10, reach, rank, outside, ambiguous, .. } = *found;
        Self { value, log10: log10.unwrap_or(f64::NEG_INFINITY), reach, rank, outside, ambiguous }
    }
}

impl Map {
    /// Appends the next window.
    fn push(&mut self, window: Window) {
        let Window { value, log10, reach, rank, outside, ambiguous } = window;
        self.values.push(value);
        self.log10.push(log10);
        self.reach.push(reach);
        self.ranks.push(rank);
        self.outside.push(outside);
        self.ambiguous.push(ambiguous);
    }
}

/// The exact influence of the windows that are certified to have full rank.
fn exact(frame: &Frame, windows: Windows, certified: &[bool], few: &mut FewColumns<'_>) -> Vec<Option<f64>> {
    let mut indices = Vec::new();
    let mut value = |at: usize| {
        if windows.columns(at) >= frame.size() {
            return Some(frame.bound);
        }
        windows.indices(at, &mut indices);
        few.value(&indices)
    };
    certified.iter().enumerate().map(|(at, certified)| certified.then(|| value(at)).flatten()).collect()
}
