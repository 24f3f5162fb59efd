//! Shrinks a failing program as long as it still fails.

use crate::attack::compare::{Fault, Outcome, Scope, compare};
use crate::attack::op::Op;
use crate::attack::program::{Program, Source, Step};
use crate::attack::quietly;
use crate::attack::value::Dim;

/// The smallest program found that fails in the same way on the same engine.
pub(crate) fn shrunk(program: &Program, scope: Scope, fault: Fault, engine: &str) -> Program {
    let fails = |program: &Program| match quietly(|| compare(program, scope)) {
        Ok(Outcome::Wrong { fault: found, engine: at, .. }) => found == fault && at == engine,
        _ => false,
    };
    let mut best = program.clone();
    // Each round makes the program strictly smaller, so the loop ends.
    while let Some(smaller) = candidates(&best).into_iter().find(|smaller| fails(smaller)) {
        best = smaller;
    }
    best
}

/// Programs that are smaller by one change, the largest changes first.
fn candidates(program: &Program) -> Vec<Program> {
    let Ok(Some(shapes)) = quietly(|| program.shapes()) else { return vec![] };
    let steps = program.steps.len();
    let mut all = Vec::new();
    for end in 1..steps {
        all.extend(ended(program, &shapes, end));
    }
    for at in (1..=steps).rev() {
        all.extend(begun(program, &shapes, at));
    }
    for at in 1..=steps {
        for earlier in 0..at {
            if shapes[earlier] == shapes[at] {
                all.push(replaced(program, at, Source::Value(earlier)));
            }
        }
    }
    for at in 0..steps {
        all.extend(without_last_operand(program, at));
    }
    for at in 0..program.parameters.len() {
        all.extend(constant(program, at));
    }
    let size = |program: &Program| {
        let operands: usize = program.steps.iter().map(|step| step.inputs.len()).sum();
        let tied = program.parameters.iter().filter(|spec| spec.tied.is_some()).count();
        (program.steps.len(), operands, program.parameters.len() + tied, program.constants.len())
    };
    let before = size(program);
    all.into_iter().map(|program| program.tidy()).filter(|smaller| size(smaller) < before).collect()
}

/// The program up to step `end`, with that step's value as the logits.
fn ended(program: &Program, shapes: &[Vec<Dim>], end: usize) -> Option<Program> {
    let (shape, mut program) = (&shapes[end], program.clone());
    program.steps.truncate(end);
    let all: usize = shape.iter().map(|dim| dim.at(1)).product();
    if shape[0].per_sample == 0 || all < 2 {
        return None;
    }
    if shape.len() != 2 || shape[0] != Dim::N {
        let op = Op::Reshape { shape: vec![Dim::N, Dim::fixed(all)] };
        program.steps.push(Step { op, inputs: vec![Source::Value(end)] });
    }
    Some(program)
}

/// The program after step `at`, with that step's value as the input; none if a later step reads an
/// earlier value.
fn begun(program: &Program, shapes: &[Vec<Dim>], at: usize) -> Option<Program> {
    let shape = &shapes[at];
    if shape[0] != Dim::N || !(2..=5).contains(&shape.len()) || at == program.steps.len() {
        return None;
    }
    let mut program = program.clone();
    program.sample = shape[1..].iter().map(|dim| dim.fixed).collect();
    program.steps.drain(..at);
    for source in program.steps.iter_mut().flat_map(|step| &mut step.inputs) {
        if let Source::Value(value) = source {
            *value = value.checked_sub(at)?;
        }
    }
    Some(program)
}

/// The program with another value in place of a step's value.
fn replaced(program: &Program, at: usize, by: Source) -> Program {
    let mut program = program.clone();
    for source in program.steps.iter_mut().flat_map(|step| &mut step.inputs) {
        if *source == Source::Value(at) {
            *source = by;
        }
    }
    if at == program.steps.len() {
        program.steps.pop();
        program.steps.push(Step { op: Op::Same, inputs: vec![by] });
    }
    program
}

/// The program without the bias of a step.
fn without_last_operand(program: &Program, at: usize) -> Option<Program> {
    let step = &program.steps[at];
    let optional =
        matches!(step.op, Op::Linear | Op::Conv1d { .. } | Op::Conv2d { .. }) && step.inputs.len() == 3;
    let mut program = program.clone();
    program.steps[at].inputs.pop();
    optional.then_some(program)
}

/// The program with a constant in place of a parameter.
fn constant(program: &Program, at: usize) -> Option<Program> {
    let mut program = program.clone();
    program.constants.push(program.parameters[at].shape.clone());
    let by = Source::Constant(program.constants.len() - 1);
    let mut used = false;
    for source in program.steps.iter_mut().flat_map(|step| &mut step.inputs) {
        if *source == Source::Parameter(at) {
            (*source, used) = (by, true);
        }
    }
    used.then_some(program)
}

impl Program {
    /// The program without steps, parameters and constants that nothing reads. The last step is the
    /// result and always kept.
    pub(crate) fn tidy(&self) -> Self {
        let mut read = vec![false; self.steps.len() + 1];
        read[self.steps.len()] = true;
        for at in (1..=self.steps.len()).rev().filter(|at| *at > 0) {
            if read[at] {
                for source in &self.steps[at - 1].inputs {
                    if let Source::Value(value) = source {
                        read[*value] = true;
                    }
                }
            }
        }
        let steps: Vec<&Step> =
            self.steps.iter().zip(&read[1..]).filter(|(_, read)| **read).map(|(step, _)| step).collect();
        let uses = |source: Source| steps.iter().any(|step| step.inputs.contains(&source));
        let mut kept_parameters: Vec<usize> = Vec::new();
        for at in 0..self.parameters.len() {
            let shared = (0..self.parameters.len())
                .any(|other| self.parameters[other].tied == Some(at) && uses(Source::Parameter(other)));
            if uses(Source::Parameter(at)) || shared {
                kept_parameters.push(at);
            }
        }
        let kept_constants: Vec<usize> =
            (0..self.constants.len()).filter(|&at| uses(Source::Constant(at))).collect();
        let place = |kept: &[usize], at: usize| kept.iter().position(|&old| old == at).unwrap_or(usize::MAX);
        let number = |at: usize| read[1..].iter().take(at).filter(|read| **read).count();
        let renamed = |source: &Source| match *source {
            Source::Value(at) => Source::Value(number(at)),
            Source::Parameter(at) => Source::Parameter(place(&kept_parameters, at)),
            Source::Constant(at) => Source::Constant(place(&kept_constants, at)),
        };
        let rename =
            |step: &Step| Step { op: step.op.clone(), inputs: step.inputs.iter().map(renamed).collect() };
        let parameter = |&at: &usize| {
            let mut spec = self.parameters[at].clone();
            spec.tied = spec.tied.map(|first| place(&kept_parameters, first));
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
