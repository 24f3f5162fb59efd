//! Weights packed for the kernels: column panels, so that a kernel reads them in one stream.

use crate::simd::Element;

/// Numbers behind the last row of weights: two vectors may be read from any channel on.
const PAD: usize = 32;

/// The narrowest and widest panels of a pullback: wide ones leave more neighbours to fill vectors with.
const WIDTHS: [usize; 2] = [64, 256];

/// What a panel should take at most, so that it stays in a core's second cache while rows pass by.
const PANEL_BYTES: usize = 600_000;

/// The weights of y(o) = sum over taps t and channels i of x(t, i) w(t, i, o), as `[panel][tap][input][column]`; the columns of a panel
/// are neighbouring outputs, and zeros where there are none.
#[derive(Debug, Clone)]
pub struct Panels<T> {
    /// Columns in a panel.
    pub(crate) width: usize,
    pub(crate) taps: usize,
    /// Channels that are read, of one tap.
    pub(crate) inputs: usize,
    /// Channels that are written.
    pub(crate) outputs: usize,
    weights: Vec<T>,
}

impl<T: Element> Panels<T> {
    /// Packs `weight(tap, input, output)` for a [`Product`](crate::Product).
    #[must_use]
    pub fn forward(
        taps: usize,
        inputs: usize,
        outputs: usize,
        weight: impl Fn(usize, usize, usize) -> f64,
    ) -> Self {
        Self::pack(32, taps, inputs, outputs, weight)
    }

    /// Packs `weight(tap, input, output)` for a [`Pullback`](crate::Pullback), which reads the inputs' cotangents: these are the outputs
    /// of the layer. Wide panels leave more neighbours to choose active channels from.
    #[must_use]
    pub fn reverse(
        taps: usize,
        inputs: usize,
        outputs: usize,
        weight: impl Fn(usize, usize, usize) -> f64,
    ) -> Self {
        let column = (taps * inputs * size_of::<T>()).max(1);
        let widest = (PANEL_BYTES / column).clamp(WIDTHS[0], WIDTHS[1]);
        let width = outputs.div_ceil(outputs.div_ceil(widest).max(1)).next_multiple_of(32).max(32);
        Self::pack(width, taps, inputs, outputs, weight)
    }

    fn pack(
        width: usize,
        taps: usize,
        inputs: usize,
        outputs: usize,
        weight: impl Fn(usize, usize, usize) -> f64,
    ) -> Self {
        let panels = outputs.div_ceil(width);
        let mut weights = Vec::with_capacity(panels * taps * inputs * width + PAD);
        for panel in 0..panels {
            for (tap, input) in (0..taps).flat_map(|tap| (0..inputs).map(move |input| (tap, input))) {
                let columns = (panel * width..(panel + 1) * width)
                    .map(|o| if o < outputs { T::from_f64(weight(tap, input, o)) } else { T::default() });
                weights.extend(columns);
            }
        }
        weights.resize(weights.len() + PAD, T::default());
        Self { width, taps, inputs, outputs, weights }
    }

    /// How many panels there are.
    #[inline(always)]
    pub(crate) fn count(&self) -> usize {
        self.outputs.div_ceil(self.width)
    }

    /// The weights of one tap of one panel, `[input][column]`, with at least [`PAD`] more numbers behind them.
    #[inline(always)]
    pub(crate) fn tap(&self, panel: usize, tap: usize) -> &[T] {
        let size = self.inputs * self.width;
        &self.weights[(panel * self.taps + tap) * size..][..size + PAD]
    }

    /// Bytes that the weights take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.weights.len() * size_of::<T>()
    }

    /// Into how many passes over the rows the panels fall: one when all stay in a core's cache, else one each.
    pub(crate) fn passes(&self) -> usize {
        if self.bytes() <= crate::rows::CACHED_WEIGHTS { 1 } else { self.count() }
    }
}
