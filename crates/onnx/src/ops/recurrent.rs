//! Recurrent layers (RNN, LSTM and GRU) as one group of operations per step: forwards, backwards or
//! both.
//!
//! The products with the input are computed for all steps at once, those with the state step by
//! step.

use influence_autodiff::graph::{Size, ValueId};
use influence_autodiff::ops::Op;
use influence_autodiff::ops::activation::{Relu, Sigmoid, Tanh};
use influence_autodiff::ops::layout::{Cat, Slice};
use influence_autodiff::ops::linear::Linear;

use crate::call::{Call, Results, fixed};
use crate::error::Refusal;
use crate::host::BatchId;
use crate::import::Binding;

/// The kind of a layer's cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CellKind {
    /// RNN.
    Plain,
    /// LSTM.
    Long,
    /// GRU.
    Gated,
}

impl CellKind {
    /// The number of gates; the one product of an RNN cell counts as one.
    fn gates(self) -> usize {
        match self {
            Self::Plain => 1,
            Self::Gated => 3,
            Self::Long => 4,
        }
    }

    /// The activations of the formulas below.
    fn activations(self) -> &'static [&'static str] {
        match self {
            Self::Plain => &["Tanh"],
            Self::Gated => &["Sigmoid", "Tanh"],
            Self::Long => &["Sigmoid", "Tanh", "Tanh"],
        }
    }
}

pub(super) fn plain(call: &mut Call<'_, '_>) -> Results {
    layer(call, CellKind::Plain)
}

pub(super) fn long(call: &mut Call<'_, '_>) -> Results {
    layer(call, CellKind::Long)
}

pub(super) fn gated(call: &mut Call<'_, '_>) -> Results {
    layer(call, CellKind::Gated)
}

/// The weights of one direction: `[in, gates H]`, `[H, gates H]`, and a bias for each product.
#[derive(Debug, Clone, Copy)]
struct CellWeights {
    input: ValueId,
    state: ValueId,
    bias: Option<[ValueId; 2]>,
}

/// The state that is passed from step to step: `[n, H]`, and the memory of LSTM cells. None stands
/// for zeros.
#[derive(Debug, Clone, Copy)]
struct State {
    hidden: Option<ValueId>,
    memory: Option<ValueId>,
}

/// One direction of a layer.
#[derive(Debug, Clone, Copy)]
struct DirectedLayer {
    cell: CellKind,
    /// H, the size of the state.
    size: usize,
    steps: usize,
    backwards: bool,
    /// For GRU cells, whether the reset gate is applied after the product with the state.
    reset_after: bool,
    relu: bool,
}

/// All directions of a layer, and their results: the hidden states of all steps, and the states
/// after the last step.
fn layer(call: &mut Call<'_, '_>, cell: CellKind) -> Results {
    let relu = refuse_variants(call, cell)?;
    let attributes = call.attributes();
    let directions: &[bool] = match attributes.word("direction", "forward") {
        "forward" => &[false],
        "reverse" => &[true],
        "bidirectional" => &[false, true],
        other => return Err(format!("there is no direction \"{other}\"").into()),
    };
    let samples_first = attributes.int("layout", 0) == 1;
    let reset_after = attributes.int("linear_before_reset", 0) != 0;
    let x = call.value(0)?;
    if call.shape(x).len() != 3 {
        return Err("its input does not have three axes".into());
    }
    // From here on, x is [n, steps, in].
    let x = if samples_first { x } else { call.permute(x, vec![1, 0, 2])? };
    let shape = call.shape(x);
    if shape[1].per_sample > 0 {
        return Err(Refusal::new(
            "its steps grow with the batch",
            "export with a symbolic batch and a fixed number of steps",
        ));
    }
    let size = call.shape_of(2)?.last().copied().unwrap_or(0);
    let (samples, steps) = (shape[0], shape[1].fixed);
    let mut all = Vec::new();
    let mut last = Vec::new();
    // Each direction is a layer with weights and a state of its own.
    for (direction, &backwards) in directions.iter().enumerate() {
        let layer = DirectedLayer { cell, size, steps, backwards, reset_after, relu };
        let weights = layer.weights(call, direction)?;
        let state = State {
            hidden: initial(call, 5, direction, samples_first, size)?,
            memory: if cell == CellKind::Long {
                initial(call, 6, direction, samples_first, size)?
            } else {
                None
            },
        };
        let (hidden, end) = layer.run(call, x, weights, state)?;
        all.push(hidden);
        last.push(end);
    }
    results(call, &all, &last, [samples, fixed(size)], samples_first)
}

/// The results of a layer, with ONNX's axis of directions: the hidden states of all steps, the last
/// one, and for LSTM cells the last memory; from the hidden states and the last state of each
/// direction.
fn results(
    call: &mut Call<'_, '_>,
    all: &[Vec<ValueId>],
    last: &[State],
    [samples, size]: [Size; 2],
    samples_first: bool,
) -> Results {
    let one = fixed(1);
    let sequence = |call: &mut Call<'_, '_>, steps: &[ValueId]| -> Result<ValueId, Refusal> {
        // `[n, steps, directions, H]`, or `[steps, directions, n, H]`: first the steps together,
        // then the directions.
        let shape = if samples_first { [samples, one, one, size] } else { [one, one, samples, size] };
        let parts = steps.iter().map(|&step| call.reshape(step, &shape)).collect::<Result<Vec<_>, _>>()?;
        together(call, &parts, usize::from(samples_first))
    };
    let whole = all.iter().map(|steps| sequence(call, steps)).collect::<Result<Vec<_>, _>>()?;
    let whole = together(call, &whole, if samples_first { 2 } else { 1 })?;
    let ends = |call: &mut Call<'_, '_>, of: fn(&State) -> Option<ValueId>| -> Results {
        // `[n, directions, H]`, or `[directions, n, H]`.
        let shape = if samples_first { [samples, one, size] } else { [one, samples, size] };
        let parts: Option<Vec<_>> = last.iter().map(of).collect();
        let Some(parts) = parts else { return Ok(vec![]) };
        let parts = parts.into_iter().map(|end| call.reshape(end, &shape)).collect::<Result<Vec<_>, _>>()?;
        Ok(vec![Binding::Value(together(call, &parts, usize::from(samples_first))?)])
    };
    let mut results = vec![Binding::Value(whole)];
    results.extend(ends(call, |state| state.hidden)?);
    results.extend(ends(call, |state| state.memory)?);
    Ok(results)
}

/// Refuses variants that the formulas below do not cover; returns whether RNN cells have a ReLU.
fn refuse_variants(call: &Call<'_, '_>, cell: CellKind) -> Result<bool, Refusal> {
    let attributes = call.attributes();
    let given = attributes.get("activations").map(|attribute| attribute.strings.as_slice());
    let words: Vec<String> =
        given.unwrap_or_default().iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    // The list names the activations of each direction in turn.
    let usual = cell.activations();
    let relu = cell == CellKind::Plain && !words.is_empty() && words.iter().all(|word| word == "Relu");
    let is_usual = words.iter().enumerate().all(|(at, word)| word == usual[at % usual.len()]);
    if !(relu || is_usual) {
        return Err(Refusal::new(
            format!("its activations are {}", words.join(", ")),
            format!("only cells with {} are supported; write others out step by step", usual.join(", ")),
        ));
    }
    let odd = [
        ("clip", attributes.get("clip").is_some()),
        ("input_forget", attributes.int("input_forget", 0) != 0),
    ];
    if let Some((name, _)) = odd.iter().find(|(_, given)| *given) {
        return Err(format!("{name} is not supported").into());
    }
    if call.has(4) {
        return Err(Refusal::new("it takes lengths of sequences", "export with sequences of one length"));
    }
    if cell == CellKind::Long && call.has(7) {
        return Err("peepholes are not supported".into());
    }
    Ok(relu)
}

/// The state before the first step, `[n, H]`; none for zeros.
fn initial(
    call: &mut Call<'_, '_>,
    position: usize,
    direction: usize,
    samples_first: bool,
    size: usize,
) -> Result<Option<ValueId>, Refusal> {
    if call.has(position) && call.shape_of(position)?.last() != Some(&size) {
        return Err(Refusal::new(
            format!("its first state is not of {size} numbers (a projection of the state is not supported)"),
            "leave out proj_size",
        ));
    }
    // Zeros, in whatever form, need no operations. Other constants are refused.
    match call.operand(position) {
        None => return Ok(None),
        Some(Binding::Weight(id)) if call.importer.weights[id.index()].is_zero() => return Ok(None),
        Some(Binding::Known(host))
            if BatchId::ALL.into_iter().all(|batch| host.at(batch).values.iter().all(|&x| x == 0.0)) =>
        {
            return Ok(None);
        }
        Some(Binding::Value(_)) => {}
        Some(_) => {
            return Err(Refusal::new(
                "its first state is a constant other than 0",
                "start from zeros, or compute the state from the input",
            ));
        }
    }
    let state = call.value(position)?;
    // The part of this direction, without the axis of directions.
    let axis = usize::from(samples_first);
    let shape = call.shape(state);
    let own = part(call, state, axis, [direction, direction + 1])?;
    let rest: Vec<Size> = (0..3).filter(|&other| other != axis).map(|other| shape[other]).collect();
    call.reshape(own, &rest).map(Some)
}

impl DirectedLayer {
    /// The weights of direction number `direction`, transposed as the engine takes them.
    fn weights(self, call: &mut Call<'_, '_>, direction: usize) -> Result<CellWeights, Refusal> {
        let width = self.cell.gates() * self.size;
        let mut matrix = |position: usize| -> Result<ValueId, Refusal> {
            let all = call.value(position)?;
            let inner = call.shape(all).last().copied().unwrap_or(fixed(0));
            let own = part(call, all, 0, [direction, direction + 1])?;
            let own = call.reshape(own, &[fixed(width), inner])?;
            call.permute(own, vec![1, 0])
        };
        let (input, state) = (matrix(1)?, matrix(2)?);
        if !call.has(3) {
            return Ok(CellWeights { input, state, bias: None });
        }
        let all = call.value(3)?;
        let own = part(call, all, 0, [direction, direction + 1])?;
        // The bias of the product with the input, then that of the product with the state.
        let own = call.reshape(own, &[fixed(2 * width)])?;
        let bias = [part(call, own, 0, [0, width])?, part(call, own, 0, [width, 2 * width])?];
        Ok(CellWeights { input, state, bias: Some(bias) })
    }

    /// The hidden states of all steps in the input's order, and the last state.
    fn run(
        self,
        call: &mut Call<'_, '_>,
        x: ValueId,
        weights: CellWeights,
        mut state: State,
    ) -> Result<(Vec<ValueId>, State), Refusal> {
        let samples = call.shape(x)[0];
        // `[n, steps, gates H]`: the product with the input for all steps.
        let mut operands = vec![x, weights.input];
        operands.extend(weights.bias.map(|[input, _]| input));
        let given = call.emit(Op::Linear(Linear), &operands)?;
        let width = self.cell.gates() * self.size;
        let mut hidden = Vec::with_capacity(self.steps);
        for turn in 0..self.steps {
            let step = if self.backwards { self.steps - 1 - turn } else { turn };
            let own = part(call, given, 1, [step, step + 1])?;
            let own = call.reshape(own, &[samples, fixed(width)])?;
            state = match self.cell {
                CellKind::Plain => self.plain(call, own, weights, state)?,
                CellKind::Long => self.long(call, own, weights, state)?,
                CellKind::Gated => self.gated(call, own, weights, state)?,
            };
            hidden.extend(state.hidden);
        }
        if self.backwards {
            hidden.reverse();
        }
        Ok((hidden, state))
    }

    /// `h R^T + b` for a range of gates; only the bias where the state is zero.
    fn of_state(
        self,
        call: &mut Call<'_, '_>,
        hidden: Option<ValueId>,
        weights: CellWeights,
        gates: [usize; 2],
    ) -> Result<Option<ValueId>, Refusal> {
        let columns = gates.map(|gate| gate * self.size);
        let bias = match weights.bias {
            Some([_, bias]) => Some(part(call, bias, 0, columns)?),
            None => None,
        };
        let Some(hidden) = hidden else { return Ok(bias) };
        let state = part(call, weights.state, 1, columns)?;
        let operands: Vec<_> = [hidden, state].into_iter().chain(bias).collect();
        call.emit(Op::Linear(Linear), &operands).map(Some)
    }

    /// One gate, from the concatenation of all.
    fn gate(self, call: &mut Call<'_, '_>, all: ValueId, gate: usize) -> Result<ValueId, Refusal> {
        part(call, all, 1, [gate * self.size, (gate + 1) * self.size])
    }

    /// h' = tanh(.), or ReLU(.).
    fn plain(
        self,
        call: &mut Call<'_, '_>,
        own: ValueId,
        weights: CellWeights,
        state: State,
    ) -> Result<State, Refusal> {
        let from = self.of_state(call, state.hidden, weights, [0, 1])?;
        let sum = plus(call, own, from)?;
        let op = if self.relu { Op::Relu(Relu) } else { Op::Tanh(Tanh) };
        Ok(State { hidden: Some(call.emit(op, &[sum])?), memory: None })
    }

    /// Gates i, o, f and c: c' = f c + i tanh(.), h' = o tanh(c').
    fn long(
        self,
        call: &mut Call<'_, '_>,
        own: ValueId,
        weights: CellWeights,
        state: State,
    ) -> Result<State, Refusal> {
        let from = self.of_state(call, state.hidden, weights, [0, 4])?;
        let sum = plus(call, own, from)?;
        let mut sigmoid = |gate: usize| -> Result<ValueId, Refusal> {
            let gate = self.gate(call, sum, gate)?;
            call.emit(Op::Sigmoid(Sigmoid), &[gate])
        };
        let [input, output, forget] = [sigmoid(0)?, sigmoid(1)?, sigmoid(2)?];
        let new = self.gate(call, sum, 3)?;
        let new = call.emit(Op::Tanh(Tanh), &[new])?;
        let memory = call.mul(input, new)?;
        let memory = kept(call, memory, forget, state.memory)?;
        let shown = call.emit(Op::Tanh(Tanh), &[memory])?;
        Ok(State { hidden: Some(call.mul(output, shown)?), memory: Some(memory) })
    }

    /// Gates z, r and h: h' = (1 - z) tanh(.) + z h.
    fn gated(
        self,
        call: &mut Call<'_, '_>,
        own: ValueId,
        weights: CellWeights,
        state: State,
    ) -> Result<State, Refusal> {
        let from = self.of_state(call, state.hidden, weights, [0, 2])?;
        // z and r.
        let both = part(call, own, 1, [0, 2 * self.size])?;
        let both = plus(call, both, from)?;
        let both = call.emit(Op::Sigmoid(Sigmoid), &[both])?;
        let [update, reset] = [self.gate(call, both, 0)?, self.gate(call, both, 1)?];
        let new = self.gate(call, own, 2)?;
        // What the state adds to the candidate: the reset gate multiplies the state, or its
        // product.
        let candidate = match (state.hidden, self.reset_after) {
            (Some(hidden), false) => {
                let left = call.mul(reset, hidden)?;
                self.of_state(call, Some(left), weights, [2, 3])?
            }
            (hidden, after) => match self.of_state(call, hidden, weights, [2, 3])? {
                Some(from) if after => {
                    let [reset, from] = call.alike([reset, from])?;
                    Some(call.mul(reset, from)?)
                }
                other => other,
            },
        };
        let new = plus(call, new, candidate)?;
        let new = call.emit(Op::Tanh(Tanh), &[new])?;
        // 1 - z.
        let rest = call.times(update, -1.0)?;
        let rest = call.plus(rest, 1.0)?;
        let hidden = call.mul(rest, new)?;
        let hidden = kept(call, hidden, update, state.hidden)?;
        Ok(State { hidden: Some(hidden), memory: None })
    }
}

/// The sum of two values, where there is a second one.
fn plus(call: &mut Call<'_, '_>, x: ValueId, other: Option<ValueId>) -> Result<ValueId, Refusal> {
    let Some(other) = other else { return Ok(x) };
    let [x, other] = call.alike([x, other])?;
    call.add(x, other)
}

/// `new` + `gate` `old`; only `new` where `old` is zero.
fn kept(
    call: &mut Call<'_, '_>,
    new: ValueId,
    gate: ValueId,
    old: Option<ValueId>,
) -> Result<ValueId, Refusal> {
    let Some(old) = old else { return Ok(new) };
    let kept = call.mul(gate, old)?;
    call.add(new, kept)
}

/// The elements `start..end` along an axis.
fn part(
    call: &mut Call<'_, '_>,
    x: ValueId,
    axis: usize,
    [start, end]: [usize; 2],
) -> Result<ValueId, Refusal> {
    let shape = call.shape(x);
    if shape.get(axis) == Some(&fixed(end - start)) {
        return Ok(x);
    }
    let mut ranges = vec![None; shape.len()];
    *ranges.get_mut(axis).ok_or("an operand has too few axes")? = Some([start, end, 1]);
    call.emit(Op::Slice(Slice { ranges }), &[x])
}

/// The concatenation of parts along an axis.
fn together(call: &mut Call<'_, '_>, parts: &[ValueId], axis: usize) -> Result<ValueId, Refusal> {
    match *parts {
        [only] => Ok(only),
        _ => call.emit(Op::Cat(Cat { axis }), parts),
    }
}
