//! The most influential direction in parameter space, at one image: the only result that is as
//! large as the network.

use std::sync::Arc;

use burn::tensor::TensorData;
use influence_manifold::{Filter, SampleObjective, influence};

use crate::error::{Error, Result};
use crate::objective::Resolved;
use crate::perturbation::refused;
use crate::rates::Rates;
use crate::samples::IntoSamples;
use crate::scorer::Scorer;

/// A direction of perturbations of trainable tensors, of Euclidean length 1 over all of them
/// together.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ParameterDirection {
    /// The tensors of the group in the model's order; all zero where no perturbation moves the
    /// distribution.
    pub tensors: Vec<DirectionTensor>,
    /// How fast the objective and the distribution move along it.
    pub rates: Rates,
}

/// The component of one tensor.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DirectionTensor {
    /// The tensor's name in PyTorch's terms.
    pub name: String,
    /// Its shape in Burn's convention: a linear weight is `[in, out]`.
    pub shape: Vec<usize>,
    /// Its elements.
    pub values: Vec<f64>,
}

impl Scorer {
    /// The direction G^+ df (or its damped form) in the parameters of one group, scaled to length
    /// 1.
    ///
    /// `image` is a batch of one, `[1, ...sample]`; `group` is an index into [`Scorer::groups`]. It
    /// takes one more reverse pass, by Burn's operations. With a relative budget, a group whose
    /// parameters are all 0 has no perturbation, and the direction is 0.
    ///
    /// # Errors
    /// As [`ParameterLinearization::score`](crate::ParameterLinearization::score);
    /// [`Error::Perturbation`] for a batch of more or fewer images than one, and for a group that
    /// includes the input.
    pub fn parameter_direction(
        &self,
        image: impl IntoSamples,
        objective: &SampleObjective,
        group: usize,
    ) -> Result<ParameterDirection> {
        let image = image.into_samples()?;
        if image.shape().first() != Some(&1) {
            return Err(refused("a direction belongs to one image: give a batch of one".into()));
        }
        let of: Arc<[Resolved]> = vec![Resolved::Known(objective.clone())].into();
        let at =
            self.parameter_linearizations(image.clone(), &of, false)?.next().ok_or(Error::NoSamples)??;
        let (gram, tangent) = at.plain(group)?;
        let classes = at.classes();
        let objective = classes.objective(objective)?;
        // The direction is h = J^T c. A group that cannot move has c = 0.
        let c = if self.resolved_groups()[group].moves() {
            let filter = self.scaled_filter(group)?;
            let found = influence(classes.measured(), &tangent, &objective, &filter);
            found.map_err(|source| classes.fault(source))?.coefficients
        } else {
            vec![0.0; classes.measured().len()]
        };
        // The velocity J h = (J J^T) c and the length |h|^2 = c^T J J^T c come from the Gram
        // matrix. Only h itself needs a reverse pass.
        let mut velocity: Vec<f64> =
            gram.chunks_exact(c.len() - 1).map(|row| row.iter().zip(&c).map(|(m, c)| m * c).sum()).collect();
        let length = velocity.iter().zip(&c).map(|(v, c)| v * c).sum::<f64>().max(0.0).sqrt();
        let unit = if length > 0.0 { 1.0 / length } else { 0.0 };
        velocity.push(0.0);
        velocity.iter_mut().for_each(|v| *v *= unit);
        let cotangent = classes.spread(c.iter().map(|c| c * unit).collect())?;
        let tensors = self.pulled(image, &cotangent, group)?;
        Ok(ParameterDirection { tensors, rates: Rates::new(classes, &objective, &velocity)? })
    }

    /// The filter for an unscaled Gram matrix. For a relative budget the Gram matrix would be
    /// multiplied by `scale`; dividing lambda by it is equivalent.
    fn scaled_filter(&self, group: usize) -> Result<Filter> {
        match *self.filter() {
            Filter::Tikhonov { lambda } => {
                let scale = self.resolved_groups().get(group).map_or(1.0, |resolved| resolved.scale);
                Filter::tikhonov(lambda / scale).map_err(Error::Filter)
            }
            filter => Ok(filter),
        }
    }

    /// J_t^T c for each tensor t of a group.
    fn pulled(&self, image: TensorData, cotangent: &[f64], group: usize) -> Result<Vec<DirectionTensor>> {
        let plan = self.plan();
        let places: Vec<usize> = self.resolved_groups()[group]
            .tensors
            .iter()
            .map(|&tensor| plan.leaves().indices()[tensor])
            .collect();
        let pulled = influence_autodiff::gradients(plan, &places, self.device(), image, cotangent)?;
        let tensor = |(place, data): (&usize, TensorData)| {
            let of = &plan.graph().parameters()[*place];
            let values = data.iter().collect();
            DirectionTensor { name: of.name.clone(), shape: of.shape.clone(), values }
        };
        Ok(places.iter().zip(pulled).map(tensor).collect())
    }
}
