//! A random model: its steps and their operands, how it runs as the forward pass of a Burn
//! module, and how it is printed.

use std::fmt;

use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::attack::op::DrawnOp;
use crate::attack::value::{AnyTensor, Dim};
use crate::attack::weights::{DrawnWeights, ParameterNumbers, Spec, numbers};

/// Where an operand comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StepInput {
    /// The input is value 0; the result of step i is value i + 1.
    Value(usize),
    Parameter(usize),
    Constant(usize),
}

/// One instruction.
#[derive(Debug, Clone)]
pub(crate) struct DrawnStep {
    pub(crate) op: DrawnOp,
    pub(crate) inputs: Vec<StepInput>,
}

/// A model: the shape of its samples, its parameters and constants, and its instructions, the last
/// of which returns the logits.
#[derive(Debug, Clone)]
pub(crate) struct DrawnModel {
    pub(crate) seed: u64,
    pub(crate) sample: Vec<usize>,
    pub(crate) parameters: Vec<Spec>,
    pub(crate) constants: Vec<Vec<usize>>,
    pub(crate) steps: Vec<DrawnStep>,
}

impl DrawnModel {
    /// The elements of its parameters; tied ones have the same.
    pub(crate) fn numbers(&self) -> ParameterNumbers {
        let own = |at: usize, spec: &Spec| {
            let first = spec.tied.unwrap_or(at);
            numbers(&spec.shape, self.seed.wrapping_mul(31).wrapping_add(first as u64))
        };
        self.parameters.iter().enumerate().map(|(at, spec)| own(at, spec)).collect()
    }

    /// A constant, created in the forward pass like a literal in a model's code.
    pub(crate) fn constant(&self, at: usize, device: &Device, dtype: DType) -> AnyTensor {
        let shape = &self.constants[at];
        let values = numbers(shape, self.seed.wrapping_mul(37).wrapping_add(1000 + at as u64));
        AnyTensor::from_data(TensorData::new(values, shape.clone()).convert_dtype(dtype), device)
    }

    /// The values of the input and of all steps.
    pub(crate) fn values(&self, weights: &DrawnWeights, x: AnyTensor, n: usize) -> Vec<AnyTensor> {
        let mut values = vec![x];
        for step in &self.steps {
            let value = self.step(weights, step, &values, n);
            values.push(value);
        }
        values
    }

    /// One step's value.
    pub(crate) fn step(
        &self,
        weights: &DrawnWeights,
        step: &DrawnStep,
        values: &[AnyTensor],
        n: usize,
    ) -> AnyTensor {
        let device = crate::attack::value::with!(&values[0], x => x.device());
        let operand = |source: &StepInput| match *source {
            StepInput::Value(at) => values[at].clone(),
            StepInput::Parameter(at) => weights.get(&self.parameters, at),
            StepInput::Constant(at) => self.constant(at, &device, DType::F64),
        };
        step.op.apply(step.inputs.iter().map(operand).collect(), n)
    }

    /// The forward function.
    pub(crate) fn forward<const D: usize>(&self, weights: &DrawnWeights, x: Tensor<D>) -> Tensor<2>
    where
        AnyTensor: From<Tensor<D>>,
    {
        let n = x.dims()[0];
        self.values(weights, x.into(), n).pop().expect("at least the input").two()
    }

    /// The shapes of the input and of all steps, if they are linear in the number of samples.
    pub(crate) fn shapes(&self) -> Option<Vec<Vec<Dim>>> {
        let device = Device::flex();
        let weights = DrawnWeights::new(&self.parameters, &self.numbers(), &device);
        let [two, three] = [2, 3].map(|n| {
            let shape = [&[n], &self.sample[..]].concat();
            let zeros = TensorData::zeros::<f64, _>(shape);
            self.values(&weights, AnyTensor::from_data(zeros, &device), n)
        });
        two.iter().zip(&three).map(|(two, three)| Dim::shape_through(&two.shape(), &three.shape())).collect()
    }
}

impl fmt::Display for DrawnModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shapes = crate::attack::quietly(|| self.shapes()).ok().flatten();
        let shape =
            |at: usize| shapes.as_ref().map_or_else(String::new, |shapes| format!("{:?}", shapes[at]));
        writeln!(f, "model {} on samples {:?}", self.seed, self.sample)?;
        for (at, spec) in self.parameters.iter().enumerate() {
            let tied = spec.tied.map_or_else(String::new, |first| format!(", the same as p{first}"));
            writeln!(f, "  p{at}: parameter {:?}{tied}", spec.shape)?;
        }
        for (at, constant) in self.constants.iter().enumerate() {
            writeln!(f, "  c{at}: constant {constant:?}")?;
        }
        for (at, step) in self.steps.iter().enumerate() {
            let operand = |source: &StepInput| match source {
                StepInput::Value(0) => "x".to_owned(),
                StepInput::Value(at) => format!("v{at}"),
                StepInput::Parameter(at) => format!("p{at}"),
                StepInput::Constant(at) => format!("c{at}"),
            };
            let inputs: Vec<String> = step.inputs.iter().map(operand).collect();
            writeln!(f, "  v{}: {} = {:?}({})", at + 1, shape(at + 1), step.op, inputs.join(", "))?;
        }
        Ok(())
    }
}
