//! The weights of a product as the graph has them, and as the stages and steps take them.

use std::sync::Arc;

use super::constants::ConstantNumbers;
use super::geometry::Neighbours;
use super::program::KernelKind;
use crate::kernels::{FEW_CHANNELS, Panels, Patches, RowTable, SimdFloat};

/// The weights of a product, for packing them a second time.
#[derive(Debug, Clone)]
pub(crate) struct ProductWeights<'a> {
    pub(crate) numbers: ConstantNumbers<'a>,
    pub(crate) layout: WeightLayout,
    /// One factor for each output.
    pub(crate) scale: Option<Vec<f64>>,
    pub(crate) taps: usize,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// Groups of neighbouring channels, each of which reads only the inputs of its own group.
    pub(crate) groups: usize,
    /// Where the taps are, if they are an image's 3 x 3 neighbours.
    pub(crate) neighbours: Option<Neighbours>,
}

/// Limits within which weights are taken as frequencies. Those have more elements than the taps:
/// with few patches each of them is used too rarely, and many of them come from a slow cache or
/// memory.
struct Limits {
    /// The fewest patches per sample.
    patches: usize,
    /// The most weights as frequencies.
    weights: usize,
}

/// Limits of the forward pass, in which a patch is one line. With the limits of the reverse pass
/// ResNet50 takes 5 % longer: its layers of 4 x 4 positions have 17 MB of such weights in f32.
const FORWARD: Limits = Limits { patches: 16, weights: 1 << 20 };

/// Limits of the reverse pass, in which a patch is up to nine lines. With the limits of the forward
/// pass ResNet50 with SiLU takes 7 % longer: its layers of 8 x 8 positions are 4 patches and 9 MB
/// in f32.
const REVERSE: Limits = Limits { patches: 4, weights: 1 << 22 };

/// How weights are laid out in the graph.
#[derive(Debug, Clone)]
pub(crate) enum WeightLayout {
    /// `[output][input of its group][tap]`.
    Convolution,
    /// `[input][output of its group][tap]`.
    Transposed,
    /// A matrix with a row for each channel of each tap, in some order. (The features of a
    /// flattened image are ordered by channel and then position, the rows of our panels by tap and
    /// then channel.)
    Matrix {
        /// The row of each `[tap][input]`.
        index: Arc<[usize]>,
        /// Elements from one row to the next, and from one output to the next.
        strides: [usize; 2],
    },
}

impl ProductWeights<'_> {
    /// The weights without the scale that follows them.
    pub(crate) fn unscaled(&self) -> Self {
        Self { scale: None, ..self.clone() }
    }

    /// Multiplies each output by a factor.
    pub(crate) fn scale_by(&mut self, factors: &[f64]) {
        match &mut self.scale {
            Some(scale) => scale.iter_mut().zip(factors).for_each(|(scale, factor)| *scale *= factor),
            None => self.scale = Some(factors.to_vec()),
        }
    }

    /// The kernel that multiplies by them.
    pub(crate) fn kernel<T: SimdFloat>(&self, table: RowTable, bias: Vec<T>) -> KernelKind<T> {
        let Self { taps, inputs, outputs, groups, .. } = *self;
        if self.is_channelwise() {
            return KernelKind::Channelwise { table, weights: self.channelwise(), bias };
        }
        let panels = self.with(|at| Panels::forward(taps, inputs, outputs, groups, at));
        KernelKind::Product { table, patches: None, panels, bias }
    }

    /// The weights for patches of the forward pass, where these pay.
    pub(crate) fn patched<T: SimdFloat>(&self) -> Option<(Patches, Panels<T>)> {
        let patches = self.neighbours?.patches();
        let Self { inputs, outputs, .. } = *self;
        self.pays(&patches, &FORWARD).then(|| {
            let panels = self.with(|at| patches.panels(inputs, outputs, at));
            (patches, panels)
        })
    }

    /// The weights for patches of the reverse pass, where these pay.
    pub(crate) fn reversed<T: SimdFloat>(&self) -> Option<(Patches, Panels<T>)> {
        let patches = self.neighbours?.reversed();
        let Self { taps, inputs, outputs, .. } = *self;
        self.pays(&patches, &REVERSE).then(|| {
            let panels =
                self.with(|at| patches.panels(outputs, inputs, |tap, o, i| at(taps - 1 - tap, i, o)));
            (patches, panels)
        })
    }

    /// Whether Winograd's form of a convolution takes less time: where patches do not reach far
    /// across the image's edges (at most 1.4 results are computed for each that is wanted), are
    /// enough for weights that have more elements than the taps, and have channels that fill
    /// vectors.
    fn pays(&self, patches: &Patches, limits: &Limits) -> bool {
        let wide = self.groups == 1 && self.inputs.min(self.outputs) >= FEW_CHANNELS;
        let weights = patches.frequencies() * self.inputs * self.outputs;
        let waste = 10 * patches.results() <= 14 * patches.rows();
        wide && waste && patches.count() >= limits.patches && weights <= limits.weights
    }

    /// Whether each channel reads only itself.
    fn is_channelwise(&self) -> bool {
        self.groups > 1 && [self.inputs, self.outputs] == [self.groups; 2]
    }

    /// One value for each tap and channel of a depthwise convolution.
    pub(crate) fn channelwise<T: SimdFloat>(&self) -> Vec<T> {
        let pairs = (0..self.taps).flat_map(|tap| (0..self.inputs).map(move |channel| (tap, channel)));
        self.with(|at| pairs.map(|(tap, channel)| T::from_f64(at(tap, channel, channel))).collect())
    }

    /// Calls `pack` with a function of tap, input and output; between groups it is 0.
    pub(crate) fn with<R>(&self, pack: impl FnOnce(&dyn Fn(usize, usize, usize) -> f64) -> R) -> R {
        let Self { taps, outputs, groups, .. } = *self;
        let (inputs, of_group) = (self.inputs / groups, outputs / groups);
        let (look, scale) = (self.numbers.look(), self.scale.as_deref());
        pack(&|tap, input, output| {
            if input / inputs != output / of_group {
                return 0.0;
            }
            let at = match &self.layout {
                WeightLayout::Convolution => (output * inputs + input % inputs) * taps + tap,
                WeightLayout::Transposed => (input * of_group + output % of_group) * taps + tap,
                WeightLayout::Matrix { index, strides } => {
                    index[tap * inputs + input] * strides[0] + output * strides[1]
                }
            };
            look.at(at) * scale.map_or(1.0, |scale| scale[output])
        })
    }
}
