//! Shrinks a failing model as long as it still fails.

use crate::attack::compare::{Fault, ModelOutcome, Scope, compare};
use crate::attack::model::{DrawnModel, DrawnStep, StepInput};
use crate::attack::op::DrawnOp;
use crate::attack::quietly;
use crate::attack::value::Dim;

/// The smallest model found that fails in the same way on the same engine.
pub(crate) fn shrunk(model: &DrawnModel, scope: Scope, fault: Fault, engine: &str) -> DrawnModel {
    let fails = |model: &DrawnModel| match quietly(|| compare(model, scope)) {
        Ok(ModelOutcome::Wrong { fault: found, engine: at, .. }) => found == fault && at == engine,
        _ => false,
    };
    let mut best = model.clone();
    // Each round makes the model strictly smaller, so the loop ends.
    while let Some(smaller) = candidates(&best).into_iter().find(|smaller| fails(smaller)) {
        best = smaller;
    }
    best
}

/// Programs that are smaller by one change, the largest changes first.
fn candidates(model: &DrawnModel) -> Vec<DrawnModel> {
    let Ok(Some(shapes)) = quietly(|| model.shapes()) else { return vec![] };
    let steps = model.steps.len();
    let mut all = Vec::new();
    // Without the last steps, then without the first.
    for end in 1..steps {
        all.extend(ended(model, &shapes, end));
    }
    for at in (1..=steps).rev() {
        all.extend(begun(model, &shapes, at));
    }
    // A value replaced by an earlier one of the same shape.
    for at in 1..=steps {
        for earlier in 0..at {
            if shapes[earlier] == shapes[at] {
                all.push(replaced(model, at, StepInput::Value(earlier)));
            }
        }
    }
    // Without a bias, then with a constant in place of a parameter.
    for at in 0..steps {
        all.extend(without_last_operand(model, at));
    }
    for at in 0..model.parameters.len() {
        all.extend(constant(model, at));
    }
    let size = |model: &DrawnModel| {
        let operands: usize = model.steps.iter().map(|step| step.inputs.len()).sum();
        let tied = model.parameters.iter().filter(|spec| spec.tied.is_some()).count();
        (model.steps.len(), operands, model.parameters.len() + tied, model.constants.len())
    };
    let before = size(model);
    all.into_iter().map(|model| model.tidy()).filter(|smaller| size(smaller) < before).collect()
}

/// The model up to step `end`, with that step's value as the logits.
fn ended(model: &DrawnModel, shapes: &[Vec<Dim>], end: usize) -> Option<DrawnModel> {
    let (shape, mut model) = (&shapes[end], model.clone());
    model.steps.truncate(end);
    let all: usize = shape.iter().map(|dim| dim.at(1)).product();
    if shape[0].per_sample == 0 || all < 2 {
        return None;
    }
    if shape.len() != 2 || shape[0] != Dim::N {
        let op = DrawnOp::Reshape { shape: vec![Dim::N, Dim::fixed(all)] };
        model.steps.push(DrawnStep { op, inputs: vec![StepInput::Value(end)] });
    }
    Some(model)
}

/// The model after step `at`, with that step's value as the input; none if a later step reads an
/// earlier value.
fn begun(model: &DrawnModel, shapes: &[Vec<Dim>], at: usize) -> Option<DrawnModel> {
    let shape = &shapes[at];
    if shape[0] != Dim::N || !(2..=5).contains(&shape.len()) || at == model.steps.len() {
        return None;
    }
    let mut model = model.clone();
    model.sample = shape[1..].iter().map(|dim| dim.fixed).collect();
    model.steps.drain(..at);
    for source in model.steps.iter_mut().flat_map(|step| &mut step.inputs) {
        if let StepInput::Value(value) = source {
            *value = value.checked_sub(at)?;
        }
    }
    Some(model)
}

/// The model with another value in place of a step's value.
fn replaced(model: &DrawnModel, at: usize, by: StepInput) -> DrawnModel {
    let mut model = model.clone();
    for source in model.steps.iter_mut().flat_map(|step| &mut step.inputs) {
        if *source == StepInput::Value(at) {
            *source = by;
        }
    }
    if at == model.steps.len() {
        model.steps.pop();
        model.steps.push(DrawnStep { op: DrawnOp::Same, inputs: vec![by] });
    }
    model
}

/// The model without the bias of a step.
fn without_last_operand(model: &DrawnModel, at: usize) -> Option<DrawnModel> {
    let step = &model.steps[at];
    let optional = matches!(step.op, DrawnOp::Linear | DrawnOp::Conv1d { .. } | DrawnOp::Conv2d { .. })
        && step.inputs.len() == 3;
    let mut model = model.clone();
    model.steps[at].inputs.pop();
    optional.then_some(model)
}

/// The model with a constant in place of a parameter.
fn constant(model: &DrawnModel, at: usize) -> Option<DrawnModel> {
    let mut model = model.clone();
    model.constants.push(model.parameters[at].shape.clone());
    let by = StepInput::Constant(model.constants.len() - 1);
    let mut used = false;
    for source in model.steps.iter_mut().flat_map(|step| &mut step.inputs) {
        if *source == StepInput::Parameter(at) {
            (*source, used) = (by, true);
        }
    }
    used.then_some(model)
}

impl DrawnModel {
    /// The model without steps, parameters and constants that nothing reads. The last step is the
    /// result and always kept.
    pub(crate) fn tidy(&self) -> Self {
        // The values that the result depends on, from the last step to the first.
        let mut read = vec![false; self.steps.len() + 1];
        read[self.steps.len()] = true;
        for at in (1..=self.steps.len()).rev().filter(|at| *at > 0) {
            if read[at] {
                for source in &self.steps[at - 1].inputs {
                    if let StepInput::Value(value) = source {
                        read[*value] = true;
                    }
                }
            }
        }
        let steps: Vec<&DrawnStep> =
            self.steps.iter().zip(&read[1..]).filter(|(_, read)| **read).map(|(step, _)| step).collect();
        let uses = |source: StepInput| steps.iter().any(|step| step.inputs.contains(&source));
        // The parameters that a kept step reads, or whose tensor such a parameter shares, and the
        // constants.
        let mut kept_parameters: Vec<usize> = Vec::new();
        for at in 0..self.parameters.len() {
            let shared = (0..self.parameters.len())
                .any(|other| self.parameters[other].tied == Some(at) && uses(StepInput::Parameter(other)));
            if uses(StepInput::Parameter(at)) || shared {
                kept_parameters.push(at);
            }
        }
        let kept_constants: Vec<usize> =
            (0..self.constants.len()).filter(|&at| uses(StepInput::Constant(at))).collect();
        // Operands by their new indices. Value 0 is the input, which always stays.
        let new_index =
            |kept: &[usize], at: usize| kept.iter().position(|&old| old == at).unwrap_or(usize::MAX);
        let number = |at: usize| read[1..].iter().take(at).filter(|read| **read).count();
        let renamed = |source: &StepInput| match *source {
            StepInput::Value(at) => StepInput::Value(number(at)),
            StepInput::Parameter(at) => StepInput::Parameter(new_index(&kept_parameters, at)),
            StepInput::Constant(at) => StepInput::Constant(new_index(&kept_constants, at)),
        };
        let rename = |step: &DrawnStep| DrawnStep {
            op: step.op.clone(),
            inputs: step.inputs.iter().map(renamed).collect(),
        };
        let parameter = |&at: &usize| {
            let mut spec = self.parameters[at].clone();
            spec.tied = spec.tied.map(|first| new_index(&kept_parameters, first));
            spec
        };
        Self {
            seed: self.seed,
            sample: self.sample.clone(),
            parameters: kept_parameters.iter().map(parameter).collect(),
            constants: kept_constants.iter().map(|&at| self.constants[at].clone()).collect(),
            steps: steps.into_iter().map(rename).collect(),
        }
    }
}
