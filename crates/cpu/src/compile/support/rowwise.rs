//! What is done to each channel by itself: normalisation by stored statistics, ReLU, sums, constants.

use influence_autodiff::graph::{Node, ValueId};
use influence_autodiff::ops::Op;
use influence_autodiff::ops::norm::BatchNorm;

use super::{Answer, Arrangement, Own, Reason, Support};
use crate::compile::stage::{Affine, Normalization, StageOp, Trained};
use crate::compile::view::{SampleShape, View};

impl<'g> Support<'_, 'g> {
    /// Along the second axis.
    pub(super) fn batch_norm(&self, node: &Node, norm: &BatchNorm) -> Result<Answer<'g>, Reason> {
        let view = self.view(node.inputs[0])?;
        if view.shape.batch == 1 {
            return Err("a normalisation of samples".into());
        }
        let vector = |position: usize| self.numbers(node, position).map(|numbers| numbers.to_vec());
        let (gamma, beta, mean, variance) = (vector(1)?, vector(2)?, vector(3)?, vector(4)?);
        let inverse: Vec<_> =
            variance.iter().map(|variance| 1.0 / (variance + norm.epsilon).sqrt()).collect();
        let deviation = |v: &f64| (v + norm.epsilon).sqrt();
        let scale: Vec<_> = gamma.iter().zip(&variance).map(|(g, v)| g / deviation(v)).collect();
        let shift = beta.iter().zip(&scale).zip(&mean).map(|((b, s), m)| b - s * m).collect();
        let affine = Affine { scale, shift };
        let operand = self.whole_image(view, 1);
        let result = match &operand.copy {
            Some(copy) => copy.clone(),
            None => Arrangement::like(view, self.stores[view.store]),
        };
        let [gamma, beta] = [1, 2].map(|at| self.perturbed.tensor(self.graph, node.inputs[at]));
        let norm = Normalization { gamma, beta, mean, inverse, affine: affine.clone() };
        let trained = Trained { norm: (gamma.or(beta).is_some()).then_some(norm), ..Trained::default() };
        let own = Own::new(StageOp::Affine(Some(affine)), vec![operand], result);
        Ok(Answer::Own(Box::new(Own { trained, ..own })))
    }

    pub(super) fn relu(&self, node: &Node) -> Result<Answer<'g>, Reason> {
        let (operand, result) = self.whole(self.view(node.inputs[0])?);
        let own = Own::new(StageOp::Affine(None), vec![operand], result);
        Ok(Answer::Own(Box::new(Own { relu: true, ..own })))
    }

    /// `[scale, shift]` of every number.
    pub(super) fn scalar(&self, node: &Node, [scale, shift]: [f64; 2]) -> Result<Answer<'g>, Reason> {
        let (operand, result) = self.whole(self.view(node.inputs[0])?);
        let channels = result.store.channels;
        let affine = Affine { scale: vec![scale; channels], shift: vec![shift; channels] };
        Ok(Answer::Own(Box::new(Own::new(StageOp::Affine(Some(affine)), vec![operand], result))))
    }

    /// A sum of two values, or a value and a constant that differs among channels at most.
    pub(super) fn arithmetic(&self, node: &Node) -> Result<Answer<'g>, Reason> {
        let [a, b] = [node.inputs[0], node.inputs[1]];
        let shape = self.shape(node.output)?;
        match (self.depends(a), self.depends(b), &node.op) {
            (true, true, Op::Add(_)) => {
                let [a, b] = [self.repeated(a, &shape)?, self.repeated(b, &shape)?];
                // In the arrangement of whichever fills its store, so that nothing is copied but the other.
                let fills = |view: &View| view.covers(self.stores[view.store]);
                let [a, b] = if fills(&a) || !fills(&b) { [a, b] } else { [b, a] };
                let (first, result) = self.whole(&a);
                let other = self.arranged(&b, &result);
                Ok(Answer::Own(Box::new(Own::new(StageOp::Sum, vec![first, other], result))))
            }
            (true, true, _) => Err("two values that depend on the input".into()),
            (live, ..) => {
                let (value, constant) = if live { (a, b) } else { (b, a) };
                self.with_constant(node, [value, constant], live, &shape)
            }
        }
    }

    /// A value repeated to a shape.
    fn repeated(&self, id: ValueId, shape: &SampleShape) -> Result<View, Reason> {
        self.view(id)?.expand(shape.clone()).ok_or_else(|| "operands that do not line up".into())
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
        let of_channels = per_channel(&result, shape, &sizes, &numbers.to_vec());
        let of_channels = of_channels.ok_or("a constant that differs among positions")?;
        let tensor = self.perturbed.tensor(self.graph, constant);
        let affine = match (&node.op, live_first) {
            (Op::Add(_), _) => Affine { scale: vec![1.0; of_channels.len()], shift: of_channels },
            _ if tensor.is_some() => return Err("a perturbed tensor that is not added".into()),
            (Op::Sub(_), true) => {
                let shift = of_channels.iter().map(|c| -c).collect();
                Affine { scale: vec![1.0; of_channels.len()], shift }
            }
            (Op::Sub(_), false) => Affine { scale: vec![-1.0; of_channels.len()], shift: of_channels },
            (Op::Mul(_), _) => Affine { shift: vec![0.0; of_channels.len()], scale: of_channels },
            (Op::Div(_), true) => {
                let scale: Vec<_> = of_channels.iter().map(|c| 1.0 / c).collect();
                Affine { shift: vec![0.0; scale.len()], scale }
            }
            _ => return Err("a quotient by a value that depends on the input".into()),
        };
        if !affine.scale.iter().chain(&affine.shift).all(|number| number.is_finite()) {
            return Err("a quotient by zero".into());
        }
        let trained = match tensor {
            // One number for each channel, or its gradients would have to be added up first.
            Some(_) if sizes.iter().product::<usize>() != affine.shift.len() => {
                return Err("a perturbed tensor that is repeated".into());
            }
            Some(beta) => self.added(beta, &affine),
            None => Trained::default(),
        };
        let own = Own::new(StageOp::Affine(Some(affine)), vec![operand], result);
        Ok(Answer::Own(Box::new(Own { trained, ..own })))
    }

    /// A perturbed tensor that is added is what beta is to a normalisation that does nothing else.
    fn added(&self, beta: usize, affine: &Affine) -> Trained {
        let (mean, inverse) = (vec![0.0; affine.shift.len()], vec![1.0; affine.shift.len()]);
        let norm = Normalization { gamma: None, beta: Some(beta), mean, inverse, affine: affine.clone() };
        Trained { norm: Some(norm), ..Trained::default() }
    }
}

/// A constant of shape `sizes`, repeated to `shape`, as one number for each channel of an arrangement.
fn per_channel(
    arrangement: &Arrangement,
    shape: &SampleShape,
    sizes: &[usize],
    numbers: &[f64],
) -> Option<Vec<f64>> {
    if sizes.len() != shape.sizes.len()
        || sizes[shape.batch] != 1 && shape.sizes[shape.batch] != sizes[shape.batch]
    {
        return None;
    }
    let mut found: Vec<Option<f64>> = vec![None; arrangement.store.channels];
    let places = repeated_places(&shape.sizes, sizes)?;
    for ([_, channel], place) in arrangement.view.elements().into_iter().zip(places) {
        let number = numbers[place];
        match found[channel] {
            None => found[channel] = Some(number),
            Some(known) if known.to_bits() == number.to_bits() => {}
            Some(_) => return None,
        }
    }
    found.into_iter().collect()
}

/// For each element of a shape, the flat place in a tensor of `sizes` that is repeated to it.
fn repeated_places(shape: &[usize], sizes: &[usize]) -> Option<Vec<usize>> {
    let fits = shape.iter().zip(sizes).all(|(to, from)| from == to || *from == 1);
    if !fits {
        return None;
    }
    let mut places = vec![0];
    for (&to, &from) in shape.iter().zip(sizes) {
        let step = |at: usize| (0..to).map(move |i| at * from + if from == 1 { 0 } else { i });
        places = places.into_iter().flat_map(step).collect();
    }
    Some(places)
}
