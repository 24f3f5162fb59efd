//! The parts of a user-defined objective: costs of the classes, and functions that return a
//! gradient.
//!
//! Both implement `Eq` and `Hash`, because objectives do: costs by their bits, functions by
//! identity.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::error::{check_finite, wrong_length};
use crate::{Error, Probabilities};

/// The costs of the classes: one finite number per class.
#[derive(Debug, Clone)]
pub struct Costs(Arc<[f64]>);

impl Costs {
    /// The costs c_k of the classes.
    ///
    /// # Errors
    ///
    /// NaN or infinity; costs that span more than the range of `f64`.
    pub fn new(costs: impl Into<Vec<f64>>) -> Result<Self, Error> {
        let costs: Vec<f64> = costs.into();
        check_finite("the list of costs", costs.iter().copied())?;
        let (smallest, largest) =
            costs.iter().fold((f64::MAX, f64::MIN), |(low, high), c| (low.min(*c), high.max(*c)));
        let spread = if costs.is_empty() { 0.0 } else { largest - smallest };
        check_finite("the difference of the largest and the smallest cost", [spread])?;
        Ok(Self(costs.into()))
    }

    /// The costs c_k: `[K]`.
    pub fn values(&self) -> &[f64] {
        &self.0
    }

    /// Refuses a number of costs that differs from the number of classes.
    pub(crate) fn check_classes(&self, classes: usize) -> Result<(), Error> {
        let found = self.0.len();
        if found == classes { Ok(()) } else { Err(wrong_length("the list of costs", classes, found)) }
    }

    /// The costs as bits.
    fn bits(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().map(|cost| cost.to_bits())
    }
}

impl PartialEq for Costs {
    fn eq(&self, other: &Self) -> bool {
        self.bits().eq(other.bits())
    }
}

impl Eq for Costs {}

impl Hash for Costs {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bits().for_each(|bits| bits.hash(state));
    }
}

/// The function itself.
type Function = dyn Fn(&Probabilities) -> Vec<f64> + Send + Sync;

/// A named function from the output of the network, logits and probabilities, to K partial
/// derivatives.
#[derive(Clone)]
pub struct GradientFunction {
    name: Arc<str>,
    function: Arc<Function>,
}

impl GradientFunction {
    /// A function and its name in messages and tables.
    pub fn new(name: &str, function: impl Fn(&Probabilities) -> Vec<f64> + Send + Sync + 'static) -> Self {
        Self { name: name.into(), function: Arc::new(function) }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its K values, which must be finite.
    pub(crate) fn at(&self, probabilities: &Probabilities) -> Result<Vec<f64>, Error> {
        let what = "the gradient that the objective's function returns";
        let values = (self.function)(probabilities);
        if values.len() != probabilities.classes() {
            return Err(wrong_length(what, probabilities.classes(), values.len()));
        }
        check_finite(what, values.iter().copied())?;
        Ok(values)
    }

    /// The function's address, by which functions are compared.
    fn address(&self) -> *const () {
        Arc::as_ptr(&self.function).cast()
    }
}

impl fmt::Debug for GradientFunction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("GradientFunction").field(&self.name).finish()
    }
}

impl PartialEq for GradientFunction {
    /// Identity: the same function object under the same name.
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.address() == other.address()
    }
}

impl Eq for GradientFunction {}

impl Hash for GradientFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
        self.address().hash(state);
    }
}
