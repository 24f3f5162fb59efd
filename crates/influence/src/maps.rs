//! Where an image is sensitive: maps over windows and regions, from the same Jacobian as the score.

use influence_autodiff::Rows;
use influence_manifold::{
    Channels, Error as MeasureError, Filter, Map, PixelTangent, Region, SampleObjective, Scalar, Tangent,
};

use crate::error::Result;
use crate::linearization::Linearization;
use crate::perturbation::{ResolvedGroup, centres, image_shape};
use crate::score::Score;

/// Calls a method of [`PixelTangent`] in the precision of the rows.
macro_rules! of_pixels {
    ($at:expr, $shape:expr, |$pixels:ident| $run:expr) => {
        match $at.rows() {
            Rows::F32(rows) => pixels($at.classes().measured(), rows, $shape).and_then(|$pixels| $run),
            Rows::F64(rows) => pixels($at.classes().measured(), rows, $shape).and_then(|$pixels| $run),
        }
        .map_err(|source| $at.classes().fault(source))
    };
}

/// The columns of the Jacobian, pixel by pixel.
fn pixels<'a, T: Scalar>(
    logits: &'a [f64],
    rows: &'a [T],
    shape: [usize; 3],
) -> Result<PixelTangent<'a, T>, MeasureError> {
    PixelTangent::new(logits, rows, shape)
}

impl Linearization<'_> {
    /// Channels, height and width of the sample.
    ///
    /// # Errors
    /// [`Error::NotAnImage`](crate::Error::NotAnImage) for samples with other axes.
    pub fn image_shape(&self) -> Result<[usize; 3]> {
        image_shape(self.scorer().plan().graph())
    }

    /// The influence of every window: (2 s + 1)^2 pixels around each pixel, fewer at the border.
    /// One [`Map`] for each half-width s in `half_widths`.
    ///
    /// ```no_run
    /// # use influence::{Channels, Filter, Linearization, SampleObjective};
    /// # fn of(at: &Linearization<'_>) -> Result<(), influence::Error> {
    /// let maps = at.maps(&SampleObjective::Predicted, &Filter::exact(), &[0, 1], Channels::Joint)?;
    /// let [_, height, width] = maps[1].shape;
    /// println!("the middle: {} of at most {}", maps[1].values[height / 2 * width + width / 2], maps[1].bound);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::NotAnImage`](crate::Error::NotAnImage); [`Error::Measure`](crate::Error::Measure)
    /// for no half-widths, a repeated one, or one whose window is larger than the image, and as
    /// [`Linearization::score`].
    pub fn maps(
        &self,
        objective: &SampleObjective,
        filter: &Filter,
        half_widths: &[usize],
        channels: Channels,
    ) -> Result<Vec<Map>> {
        let (shape, objective) = (self.image_shape()?, self.classes().objective(objective)?);
        of_pixels!(self, shape, |pixels| pixels.maps(&objective, filter, half_widths, channels))
    }

    /// The score of every window of one half-width, each from only its own columns.
    pub(crate) fn windows(
        &self,
        half_width: usize,
        channels: Channels,
        objective: &SampleObjective,
        filter: &Filter,
    ) -> Result<Vec<Score>> {
        let shape = self.image_shape()?;
        let score = |(centre, resolved): ([usize; 3], &ResolvedGroup)| {
            let tangent =
                of_pixels!(self, shape, |pixels| pixels.window_tangent(half_width, channels, centre))?;
            Ok(self.score_of(&tangent, objective, filter)?.0.of_group(&resolved.name))
        };
        centres(shape, channels).zip(self.scorer().resolved_groups()).map(score).collect()
    }

    /// The score of every region, each from only its own columns.
    pub(crate) fn region_scores(
        &self,
        labels: &[u32],
        channels: Channels,
        objective: &SampleObjective,
        filter: &Filter,
    ) -> Result<Vec<Score>> {
        let shape = self.image_shape()?;
        let score = |tangent: Tangent| Ok(self.score_of(&tangent, objective, filter)?.0);
        let scores = of_pixels!(self, shape, |pixels| pixels.region_tangents(labels, channels, score))?;
        let named = |(score, resolved): (Result<Score>, &ResolvedGroup)| {
            score.map(|score| score.of_group(&resolved.name))
        };
        scores.into_iter().zip(self.scorer().resolved_groups()).map(named).collect()
    }

    /// The influence of every region, where `labels` `[H, W]` gives the region of each pixel:
    /// superpixels, a segmentation, a mask.
    ///
    /// # Errors
    /// [`Error::NotAnImage`](crate::Error::NotAnImage); [`Error::Measure`](crate::Error::Measure)
    /// for a number of labels that differs from the number of pixels, and as
    /// [`Linearization::score`].
    pub fn regions(
        &self,
        objective: &SampleObjective,
        filter: &Filter,
        labels: &[u32],
        channels: Channels,
    ) -> Result<Vec<Region>> {
        let (shape, objective) = (self.image_shape()?, self.classes().objective(objective)?);
        of_pixels!(self, shape, |pixels| pixels.regions(&objective, filter, labels, channels))
    }

    /// The Jacobian norm |df| of every window, `[H, W]` or `[C, H, W]`: a baseline for
    /// [`Linearization::maps`].
    ///
    /// # Errors
    /// As [`Linearization::maps`].
    pub fn gradient_norms(
        &self,
        objective: &SampleObjective,
        half_width: usize,
        channels: Channels,
    ) -> Result<Vec<f64>> {
        let (shape, objective) = (self.image_shape()?, self.classes().objective(objective)?);
        of_pixels!(self, shape, |pixels| pixels.gradient_norms(&objective, half_width, channels))
    }

    /// The gradient df of the objective, one derivative per element of the sample.
    ///
    /// # Errors
    /// [`Error::Measure`](crate::Error::Measure) for an objective that is not a function of the
    /// probabilities.
    pub fn gradient(&self, objective: &SampleObjective) -> Result<Vec<f64>> {
        let (elements, objective) = (self.shape().iter().product(), self.classes().objective(objective)?);
        of_pixels!(self, [1, 1, elements], |pixels| pixels.gradient(&objective))
    }
}
