//! Values of objectives, to compare the first-order prediction with the actual change.

use influence_manifold::{Objective, Probabilities};

use crate::error::{Error, Result};

/// f at the logits of a perturbed sample. Predicted class and rival are those at `base`, where f
/// was differentiated, even if they change along the way.
pub(crate) fn value(objective: &Objective, base: &Probabilities, at: &Probabilities) -> Result<f64> {
    let plain = |source| Error::Measure { sample: 0, source };
    let margin = |class: usize| {
        let logits = base.logits();
        let others = (0..logits.len()).filter(|k| *k != class);
        let rival = others.reduce(|best, k| if logits[k] > logits[best] { k } else { best }).unwrap_or(class);
        Ok(at.logits()[class] - at.logits()[rival])
    };
    match objective {
        Objective::NegLogProbability { .. } | Objective::Predicted => {
            let class = objective.class_of(base).map_err(plain)?;
            Ok(-at.logs()[class])
        }
        Objective::Entropy => Ok(at.entropy()),
        Objective::Margin => margin(base.predicted()),
        Objective::MarginOf { class } => {
            objective.class_of(base).map_err(plain)?;
            margin(*class)
        }
        Objective::ExpectedCost(costs) => {
            Ok(at.values().iter().zip(costs.values()).map(|(p, cost)| p * cost).sum())
        }
        other => Err(Error::NoValue { objective: other.to_string() }),
    }
}
