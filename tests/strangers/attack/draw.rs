//! Draws a model step by step. Each step is run at once on 2 and on 3 samples, which shows
//! whether Burn accepts it and how its shape depends on the number of samples.

use burn::tensor::{Device, TensorData};

use crate::attack::model::{DrawnModel, DrawnStep, StepInput};
use crate::attack::op::DrawnOp;
use crate::attack::quietly;
use crate::attack::rng::Rng;
use crate::attack::value::{AnyTensor, Dim};
use crate::attack::weights::{DrawnWeights, ParameterNumbers, Spec, numbers};

/// The most elements of a value per sample.
const LARGEST: usize = 72;

/// Bound on the elements of a value; larger ones would cost the differences digits.
const HIGHEST: f64 = 12.0;

/// The most classes.
pub(crate) const CLASSES: usize = 8;

/// A model while it is drawn.
#[derive(Debug)]
pub(crate) struct Drawer {
    pub(crate) rng: Rng,
    pub(crate) model: DrawnModel,
    /// Whether it is drawn only from the operations of convolutional networks.
    pub(crate) convolutional: bool,
    numbers: ParameterNumbers,
    /// The values at 2 and at 3 samples.
    values: [Vec<AnyTensor>; 2],
    shapes: Vec<Vec<Dim>>,
    device: Device,
}

/// Draws the shape of a sample: one, two or three axes, some of size 1.
fn sample(rng: &mut Rng) -> Vec<usize> {
    match rng.below(10) {
        0 | 1 => vec![rng.of(&[1, 2, 3, 4, 6, 8, 12, 16])],
        2..=5 => vec![rng.between(1, 4), rng.between(1, 6)],
        _ => vec![rng.between(1, 3), rng.between(1, 4), rng.between(1, 4)],
    }
}

/// Draws the model of a seed; none if no logits could be formed.
pub(crate) fn draw(seed: u64) -> Option<DrawnModel> {
    let mut rng = Rng::new(seed);
    let sample = sample(&mut rng);
    let (device, steps) = (Device::flex(), rng.between(1, 9));
    let model =
        DrawnModel { seed, sample: sample.clone(), parameters: vec![], constants: vec![], steps: vec![] };
    let input = |n: usize| {
        let shape = [&[n], &sample[..]].concat();
        AnyTensor::from_data(
            TensorData::new(numbers(&[n * sample.iter().product::<usize>()], seed), shape),
            &device,
        )
    };
    let values = [vec![input(2)], vec![input(3)]];
    let shape = std::iter::once(Dim::N).chain(sample.iter().map(|&size| Dim::fixed(size))).collect();
    let convolutional = seed.is_multiple_of(2);
    let mut drawer =
        Drawer { rng, model, convolutional, numbers: vec![], values, shapes: vec![shape], device };
    // Many attempts do not fit or are refused by Burn, so there are more of them than steps.
    for _ in 0..20 * steps {
        if drawer.model.steps.len() >= steps {
            break;
        }
        drawer.instruction();
    }
    drawer.head()?;
    Some(drawer.model.tidy())
}

impl Drawer {
    /// A value's shape.
    pub(crate) fn shape(&self, source: StepInput) -> Vec<Dim> {
        let fixed = |shape: &[usize]| shape.iter().map(|&size| Dim::fixed(size)).collect();
        match source {
            StepInput::Value(at) => self.shapes[at].clone(),
            StepInput::Parameter(at) => fixed(&self.model.parameters[at].shape),
            StepInput::Constant(at) => fixed(&self.model.constants[at]),
        }
    }

    /// A value that fits, most often the latest one.
    pub(crate) fn pick(&mut self, fits: impl Fn(&[Dim]) -> bool) -> Option<StepInput> {
        let fitting: Vec<usize> = (0..self.shapes.len()).filter(|&at| fits(&self.shapes[at])).collect();
        let last = fitting.len().checked_sub(1)?;
        let chosen = if self.rng.below(3) > 0 { last } else { self.rng.below(last + 1) };
        Some(StepInput::Value(fitting[chosen]))
    }

    /// Adds a step if Burn accepts it and its values are neither too many nor too large.
    pub(crate) fn push(&mut self, op: DrawnOp, inputs: Vec<StepInput>) -> Option<StepInput> {
        let step = DrawnStep { op, inputs };
        let weights = DrawnWeights::new(&self.model.parameters, &self.numbers, &self.device);
        let [two, three] =
            [0, 1].map(|at| quietly(|| self.model.step(&weights, &step, &self.values[at], at + 2)).ok());
        let (two, three) = (two?, three?);
        let shape = Dim::shape_through(&two.shape(), &three.shape())?;
        let good = |value: &AnyTensor| {
            let numbers = value.numbers();
            !numbers.is_empty() && numbers.iter().all(|x| x.abs() < HIGHEST)
        };
        if three.numbers().len() > 3 * LARGEST || !good(&two) || !good(&three) {
            return None;
        }
        self.values[0].push(two);
        self.values[1].push(three);
        self.shapes.push(shape);
        self.model.steps.push(step);
        Some(StepInput::Value(self.shapes.len() - 1))
    }

    /// A parameter: most often a new one, sometimes an earlier one of this shape, or a second field
    /// that shares the tensor of an earlier one.
    pub(crate) fn parameter(&mut self, shape: &[usize]) -> StepInput {
        let same = self.model.parameters.iter().position(|spec| spec.shape == shape && spec.tied.is_none());
        let tied = match same {
            Some(first) if self.rng.once_in(3) => return StepInput::Parameter(first),
            Some(first) if self.rng.once_in(3) => Some(first),
            _ => None,
        };
        self.model.parameters.push(Spec { shape: shape.to_vec(), tied });
        self.numbers = self.model.numbers();
        StepInput::Parameter(self.model.parameters.len() - 1)
    }

    /// Adds a constant.
    pub(crate) fn constant(&mut self, shape: &[usize]) -> StepInput {
        self.model.constants.push(shape.to_vec());
        StepInput::Constant(self.model.constants.len() - 1)
    }

    /// A parameter or a constant.
    pub(crate) fn given(&mut self, shape: &[usize]) -> StepInput {
        if self.rng.once_in(3) { self.constant(shape) } else { self.parameter(shape) }
    }

    /// Adds steps that turn one of the values into logits.
    fn head(&mut self) -> Option<()> {
        for _ in 0..30 {
            let at = self.pick(batched)?;
            if self.close(at).is_some() {
                return Some(());
            }
        }
        None
    }

    /// Turns a value into `[n, K]` in one of the usual ways: optionally a concatenation and a mean
    /// over positions, then a flatten and a last layer.
    fn close(&mut self, source: StepInput) -> Option<()> {
        let mut at = source;
        if self.rng.once_in(4) {
            at = self.joined(at)?;
        }
        if self.rng.once_in(3) && self.shape(at).len() > 2 {
            at = self.mean_of_positions(at)?;
        }
        at = self.flat(at)?;
        let features = self.shape(at)[1].fixed;
        let linear = self.rng.below(3) > 0;
        if linear || !(2..=CLASSES).contains(&features) {
            // Some with so many that rows of cotangents are laid out in lanes, where their
            // operations have kernels for those.
            let many = self.convolutional && self.rng.once_in(4);
            let classes = if many { self.rng.between(28, 40) } else { self.rng.between(2, 4) };
            at = self.last_layer(at, features, classes)?;
        }
        if self.rng.once_in(8) {
            at = self.push(DrawnOp::LogSoftmax { axis: 1 }, vec![at])?;
        }
        // The logits must be the result of the last step.
        (at == StepInput::Value(self.model.steps.len()) && self.shape(at)[0] == Dim::N).then_some(())
    }

    /// A linear layer, a plain product with a weight, or a slice of the features.
    fn last_layer(&mut self, at: StepInput, features: usize, classes: usize) -> Option<StepInput> {
        if features > classes && self.rng.once_in(5) {
            let start = self.rng.below(features - classes);
            return self.push(DrawnOp::Slice { axis: 1, start, end: start + classes, step: 1 }, vec![at]);
        }
        if self.rng.once_in(5) {
            let weight = self.parameter(&[features, classes]);
            return self.push(DrawnOp::Matmul, vec![at, weight]);
        }
        let mut inputs = vec![at, self.parameter(&[features, classes])];
        if self.rng.below(3) > 0 {
            inputs.push(self.given(&[classes]));
        }
        self.push(DrawnOp::Linear, inputs)
    }

    /// Concatenates two flattened values.
    fn joined(&mut self, at: StepInput) -> Option<StepInput> {
        let other = self.pick(batched)?;
        let (a, b) = (self.flat(at)?, self.flat(other)?);
        self.push(DrawnOp::Cat { axis: 1 }, vec![a, b])
    }

    /// The mean over all axes after the channels.
    fn mean_of_positions(&mut self, at: StepInput) -> Option<StepInput> {
        let axes: Vec<usize> = (2..self.shape(at).len()).collect();
        let squeeze = self.rng.once_in(2);
        self.push(DrawnOp::Fold { fold: crate::attack::op::Fold::Mean, axes, squeeze }, vec![at])
    }

    /// The value as `[n, everything else]`, by a flatten or a reshape if it is not so already.
    fn flat(&mut self, at: StepInput) -> Option<StepInput> {
        let shape = self.shape(at);
        if shape.len() == 2 && shape[0] == Dim::N {
            return Some(at);
        }
        let all = shape.iter().fold(1, |all, dim| all * dim.at(1));
        if shape[0] == Dim::N && shape.len() > 2 && self.rng.once_in(2) {
            return self.push(DrawnOp::Flatten { from: 1, to: shape.len() - 1 }, vec![at]);
        }
        self.push(DrawnOp::Reshape { shape: vec![Dim::N, Dim::fixed(all)] }, vec![at])
    }
}

/// Whether the leading axis is that of the samples, possibly merged with another axis, and no other
/// axis depends on their number.
pub(crate) fn batched(shape: &[Dim]) -> bool {
    shape[0].per_sample > 0 && shape[0].fixed == 0 && shape[1..].iter().all(|dim| dim.per_sample == 0)
}

/// Whether the leading axis is only that of the samples.
pub(crate) fn plain(shape: &[Dim]) -> bool {
    shape[0] == Dim::N && batched(shape)
}

/// Whether a reshape keeps the samples separate: only axes of size 1 precede theirs.
pub(crate) fn in_order(shape: &[Dim]) -> bool {
    let rest: Vec<Dim> = shape.iter().copied().skip_while(|dim| *dim == Dim::fixed(1)).collect();
    rest.iter().all(|dim| dim.per_sample == 0) || batched(&rest)
}
