//! Operations on each channel by itself: normalisation by stored statistics, ReLU, arithmetic with
//! constants.

use influence_autodiff::graph::{Node, ValueId};
use influence_autodiff::ops::Op;
use influence_autodiff::ops::norm::BatchNorm;

use super::{Answer, Arrangement, NewStage, Reason, Support};
use crate::compile::ids::LeafId;
use crate::compile::stage::{ChannelAffine, StageNorm, StageOp, StageTensors};
use crate::compile::view::SampleShape;
use crate::kernels::{ChainPart, ElementsOf};

impl<'g> Support<'_, 'g> {
    /// A normalisation along the second axis by stored statistics.
    pub(super) fn batch_norm(&self, node: &Node, norm: &BatchNorm) -> Result<Answer<'g>, Reason> {
        let view = self.view(node.inputs[0])?;
        if view.shape.batch == 1 {
            return Err("a normalisation of samples".into());
        }
        let vector = |position: usize| self.numbers(node, position).map(|numbers| numbers.to_vec());
        let (gamma, beta, mean, variance) = (vector(1)?, vector(2)?, vector(3)?, vector(4)?);
        let inverse: Vec<_> =
            variance.iter().map(|variance| 1.0 / (variance + norm.epsilon).sqrt()).collect();
        // gamma (x - mean) / deviation + beta as a scale and a shift.
        let deviation = |v: &f64| (v + norm.epsilon).sqrt();
        let scale: Vec<_> = gamma.iter().zip(&variance).map(|(g, v)| g / deviation(v)).collect();
        let shift = beta.iter().zip(&scale).zip(&mean).map(|((b, s), m)| b - s * m).collect();
        let affine = ChannelAffine { scale, shift };
        let operand = self.whole_image(view, 1);
        let result = match &operand.copy {
            Some(copy) => copy.clone(),
            None => Arrangement::like(view, self.store(view.store)),
        };
        let [gamma, beta] = [1, 2].map(|at| self.perturbed.tensor(self.graph, node.inputs[at]));
        let norm = StageNorm { gamma, beta, mean, inverse, affine: affine.clone() };
        let tensors =
            StageTensors { norm: (gamma.or(beta).is_some()).then_some(norm), ..StageTensors::default() };
        let own = NewStage::new(StageOp::Affine(Some(affine)), vec![operand], result);
        Ok(Answer::Stage(Box::new(NewStage { tensors, ..own })))
    }

    pub(super) fn relu(&self, node: &Node) -> Result<Answer<'g>, Reason> {
        let (operand, result) = self.whole(self.view(node.inputs[0])?);
        let own = NewStage::new(StageOp::Affine(None), vec![operand], result);
        Ok(Answer::Stage(Box::new(NewStage { relu: true, ..own })))
    }

    /// scale x + shift for every element.
    pub(super) fn scalar(&self, node: &Node, [scale, shift]: [f64; 2]) -> Result<Answer<'g>, Reason> {
        let (operand, result) = self.whole(self.view(node.inputs[0])?);
        let channels = result.store.channels;
        let affine = ChannelAffine { scale: vec![scale; channels], shift: vec![shift; channels] };
        Ok(Answer::Stage(Box::new(NewStage::new(StageOp::Affine(Some(affine)), vec![operand], result))))
    }

    /// Arithmetic with two values, or with a value and a constant.
    pub(super) fn arithmetic(&self, node: &Node) -> Result<Answer<'g>, Reason> {
        let [a, b] = [node.inputs[0], node.inputs[1]];
        let shape = self.shape(node.output)?;
        match (self.depends(a), self.depends(b)) {
            (true, true) => self.combined(node),
            (live, _) => {
                let (value, constant) = if live { (a, b) } else { (b, a) };
                self.with_constant(node, [value, constant], live, &shape)
            }
        }
    }

    fn with_constant(
        &self,
        node: &Node,
        [value, constant]: [ValueId; 2],
        live_first: bool,
        shape: &SampleShape,
    ) -> Result<Answer<'g>, Reason> {
        let view = self.repeated(value, shape)?;
        self.perturbed.direct(self.graph, constant)?;
        let numbers = self.constants.numbers(constant).ok_or("an operand that depends on the input")?;
        let sizes = self.graph.values()[constant].shape_at(1);
        let (operand, result) = self.whole(&view);
        let indices = per_element(&result, shape, &sizes).ok_or("a constant that does not line up")?;
        let numbers = numbers.to_vec();
        let elements: Vec<f64> = indices.iter().map(|&index| numbers[index]).collect();
        let tensor = self.perturbed.tensor(self.graph, constant);
        let is_gamma = matches!(node.op, Op::Mul(_));
        // (A tensor that is subtracted has the same Gram matrix as one that is added.)
        if tensor.is_some() && matches!(node.op, Op::Div(_)) {
            return Err("a perturbed tensor in a quotient".into());
        }
        // A perturbed tensor has one value for each channel if its shape says so, whatever the
        // values are.
        let channels = result.store.channels;
        let by_channel = tensor.is_none() || numbers.len() == channels && repeats(&indices, channels);
        let Some(of_channels) = per_channel(&elements, channels).filter(|_| by_channel) else {
            if tensor.is_some() && is_gamma {
                return Err("a perturbed factor that is not one number for each channel".into());
            }
            let indices = indices.iter().map(|&index| index as u32).collect();
            let added = tensor.map(|tensor| (tensor, ElementsOf { count: numbers.len(), indices }));
            let tensors = StageTensors { elements: added.into_iter().collect(), ..StageTensors::default() };
            let ChannelAffine { scale, shift } = affine(&node.op, live_first, elements)?;
            let scale = scale.iter().any(|&scale| scale != 1.0).then_some(scale);
            let own = NewStage::new(StageOp::Elementwise { scale, shift }, vec![operand], result);
            return Ok(Answer::Stage(Box::new(NewStage { tensors, ..own })));
        };
        if let (Op::Div(_), false, Some(&one), None) = (&node.op, live_first, of_channels.first(), tensor)
            && of_channels.iter().all(|other| *other == one)
        {
            let chain = vec![ChainPart::Recip, ChainPart::Affine { scale: one, shift: 0.0 }];
            return Ok(Answer::Stage(Box::new(NewStage::new(
                StageOp::Pointwise(chain),
                vec![operand],
                result,
            ))));
        }
        let affine = affine(&node.op, live_first, of_channels)?;
        let norm = tensor.map(|tensor| lone_norm(is_gamma, tensor, &affine));
        let tensors = StageTensors { norm, ..StageTensors::default() };
        let own = NewStage::new(StageOp::Affine(Some(affine)), vec![operand], result);
        Ok(Answer::Stage(Box::new(NewStage { tensors, ..own })))
    }
}

/// A perturbed tensor that is a factor or is added: the gamma or the beta of a normalisation that
/// does nothing else.
fn lone_norm(is_gamma: bool, tensor: LeafId, affine: &ChannelAffine) -> StageNorm {
    let [gamma, beta] = [is_gamma, !is_gamma].map(|it| it.then_some(tensor));
    StageNorm { gamma, beta, ..StageNorm::constant(affine.clone()) }
}

/// Arithmetic with constants as a scale and shift of the other operand, which comes first or
/// second.
fn affine(op: &Op, live_first: bool, constants: Vec<f64>) -> Result<ChannelAffine, Reason> {
    let count = constants.len();
    let affine = match (op, live_first) {
        (Op::Add(_), _) => ChannelAffine { scale: vec![1.0; count], shift: constants },
        (Op::Sub(_), true) => {
            ChannelAffine { scale: vec![1.0; count], shift: constants.iter().map(|c| -c).collect() }
        }
        (Op::Sub(_), false) => ChannelAffine { scale: vec![-1.0; count], shift: constants },
        (Op::Mul(_), _) => ChannelAffine { scale: constants, shift: vec![0.0; count] },
        (Op::Div(_), true) => {
            ChannelAffine { scale: constants.iter().map(|c| 1.0 / c).collect(), shift: vec![0.0; count] }
        }
        _ => return Err("a quotient by a value that depends on the input".into()),
    };
    match affine.scale.iter().chain(&affine.shift).all(|number| number.is_finite()) {
        true => Ok(affine),
        false => Err("a quotient by zero".into()),
    }
}

/// For each element of an arrangement, row by row, the index in a constant of shape `sizes` that is
/// repeated to `shape`.
fn per_element(arrangement: &Arrangement, shape: &SampleShape, sizes: &[usize]) -> Option<Vec<usize>> {
    if sizes.len() != shape.sizes.len()
        || sizes[shape.batch] != 1 && shape.sizes[shape.batch] != sizes[shape.batch]
    {
        return None;
    }
    Some(arrangement.stored(&repeated_indices(&shape.sizes, sizes)?))
}

/// Whether all rows are the same.
fn repeats<E: PartialEq>(elements: &[E], channels: usize) -> bool {
    elements.chunks_exact(channels).all(|row| row == &elements[..channels])
}

/// One value for each channel, where all rows have the same values.
fn per_channel(elements: &[f64], channels: usize) -> Option<Vec<f64>> {
    let bits: Vec<u64> = elements.iter().map(|x| x.to_bits()).collect();
    repeats(&bits, channels).then(|| elements[..channels].to_vec())
}

/// For each element of a shape, the flat index in a tensor of `sizes` that is repeated to it.
pub(super) fn repeated_indices(shape: &[usize], sizes: &[usize]) -> Option<Vec<usize>> {
    let fits = shape.iter().zip(sizes).all(|(to, from)| from == to || *from == 1);
    if !fits {
        return None;
    }
    let mut indices = vec![0];
    for (&to, &from) in shape.iter().zip(sizes) {
        let step = |at: usize| (0..to).map(move |i| at * from + if from == 1 { 0 } else { i });
        indices = indices.into_iter().flat_map(step).collect();
    }
    Some(indices)
}
