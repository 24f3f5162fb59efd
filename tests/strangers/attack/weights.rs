//! The Burn module that holds the parameters of a random model: tensors of every rank, some of
//! them shared by two fields.

use burn::module::{Module, Param, ParamId};
use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::attack::rng::Rng;
use crate::attack::value::AnyTensor;

/// A parameter of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) shape: Vec<usize>,
    /// The earlier parameter whose tensor this field shares, as with tied weights of two layers.
    pub(crate) tied: Option<usize>,
}

/// A module whose parameters are given by a list.
#[derive(Module, Debug)]
pub(crate) struct DrawnWeights {
    /// Makes the module an f64 one even if a model has no parameters.
    anchor: Param<Tensor<1>>,
    one: Vec<Param<Tensor<1>>>,
    two: Vec<Param<Tensor<2>>>,
    three: Vec<Param<Tensor<3>>>,
    four: Vec<Param<Tensor<4>>>,
    five: Vec<Param<Tensor<5>>>,
}

/// The elements of all parameters, one list per parameter.
pub(crate) type ParameterNumbers = Vec<Vec<f64>>;

/// Synthetic elements for a tensor, small enough that sums over its axes stay near 1.
pub(crate) fn numbers(shape: &[usize], seed: u64) -> Vec<f64> {
    let mut rng = Rng::new(seed);
    let count = shape.iter().product::<usize>();
    let scale = if shape.len() > 1 { 1.3 / (count as f64).powf(0.25) } else { 1.0 };
    (0..count).map(|_| scale * rng.weight()).collect()
}

impl DrawnWeights {
    /// The module with these parameters.
    pub(crate) fn new(specs: &[Spec], numbers: &ParameterNumbers, device: &Device) -> Self {
        let anchor =
            Param::from_tensor(Tensor::from_data(TensorData::new(vec![0.0_f64], [1]), (device, DType::F64)));
        let mut weights =
            Self { anchor, one: vec![], two: vec![], three: vec![], four: vec![], five: vec![] };
        let mut ids: Vec<ParamId> = Vec::new();
        for (spec, numbers) in specs.iter().zip(numbers) {
            let id = spec.tied.map_or_else(ParamId::new, |first| ids[first]);
            ids.push(id);
            let data = TensorData::new(numbers.clone(), spec.shape.clone());
            match AnyTensor::from_data(data, device) {
                AnyTensor::One(x) => weights.one.push(Param::initialized(id, x)),
                AnyTensor::Two(x) => weights.two.push(Param::initialized(id, x)),
                AnyTensor::Three(x) => weights.three.push(Param::initialized(id, x)),
                AnyTensor::Four(x) => weights.four.push(Param::initialized(id, x)),
                AnyTensor::Five(x) => weights.five.push(Param::initialized(id, x)),
            }
        }
        weights
    }

    /// The tensor of one parameter.
    pub(crate) fn get(&self, specs: &[Spec], at: usize) -> AnyTensor {
        let index = Self::index_in_rank(specs, at);
        match specs[at].shape.len() {
            1 => self.one[index].val().into(),
            2 => self.two[index].val().into(),
            3 => self.three[index].val().into(),
            4 => self.four[index].val().into(),
            _ => self.five[index].val().into(),
        }
    }

    /// The name of a parameter in the engine.
    pub(crate) fn name(specs: &[Spec], at: usize) -> String {
        let field = ["one", "two", "three", "four", "five"][specs[at].shape.len() - 1];
        format!("{field}.{}", Self::index_in_rank(specs, at))
    }

    /// Its index among the parameters of the same rank.
    fn index_in_rank(specs: &[Spec], at: usize) -> usize {
        specs[..at].iter().filter(|spec| spec.shape.len() == specs[at].shape.len()).count()
    }
}
