//! The axis of the samples: what every rule says of it, against the rule's own forward pass.
//!
//! For every sample of the derivative tests, each axis of each operand is taken as a batch axis.
//! Where the rule says that the samples are not coupled, a change of one of them may change the
//! result only where the rule says that it lies.

use super::Op;
use super::derivatives::{OpSample, forward, samples};
use crate::coupling::{BatchAxis, Passage};

/// An operand whose axis `from` holds `count` samples of a batch.
struct BatchedOperand<'a> {
    sample: &'a OpSample,
    position: usize,
    from: BatchAxis,
    count: usize,
}

impl BatchedOperand<'_> {
    /// The rule's answer, if the samples lie along `axis` of the result.
    fn carried(&self, axis: usize) -> Option<BatchAxis> {
        let (mut input, mut output) =
            (self.sample.operands[self.position].shape.clone(), self.sample.shape());
        if !output[axis].is_multiple_of(self.count) {
            return None;
        }
        // A passage has the shapes for one sample.
        input[self.from.axis] /= self.count;
        output[axis] /= self.count;
        let passage =
            Passage { position: self.position, from: self.from, input: &input, output: &output, axis };
        let carried = self.sample.op.rule().carry(&passage)?;
        (carried.axis == axis && output[axis].is_multiple_of(carried.inner)).then_some(carried)
    }

    /// For each element of a value, the sample of the batch to which it belongs.
    fn owners(shape: &[usize], lie: BatchAxis, count: usize) -> Vec<usize> {
        let behind: usize = shape[lie.axis + 1..].iter().product();
        let all: usize = shape.iter().product();
        (0..all).map(|i| i / behind % shape[lie.axis] / lie.inner % count).collect()
    }

    /// Asserts that each sample of the batch changes only its own part of the result.
    fn check(&self, to: BatchAxis) {
        let before = forward(self.sample, &self.sample.operands);
        let owners = Self::owners(&self.sample.shape(), to, self.count);
        let operand = &self.sample.operands[self.position];
        let own = Self::owners(&operand.shape, self.from, self.count);
        for one in 0..self.count {
            let mut operands = self.sample.operands.clone();
            let moved = operands[self.position].values.iter_mut().zip(&own);
            moved.filter(|(_, owner)| **owner == one).for_each(|(x, _)| *x = 0.9 - *x);
            let after = forward(self.sample, &operands);
            let pairs = before.iter().zip(&after).zip(&owners);
            let stray = pairs.filter(|((a, b), owner)| a.to_bits() != b.to_bits() && **owner != one).count();
            assert_eq!(
                stray,
                0,
                "{}: operand {}, {:?} to {to:?}",
                self.sample.label(),
                self.position,
                self.from
            );
        }
    }
}

/// Checks every batch axis of every operand; returns the number of checks.
fn check(sample: &OpSample) -> usize {
    let mut checked = 0;
    for position in sample.active.iter().copied() {
        for (axis, &size) in sample.operands[position].shape.iter().enumerate() {
            for (count, inner) in [(size, 1), (size / 2, 2)] {
                if count < 2 || count * inner != size {
                    continue;
                }
                let batch = BatchedOperand { sample, position, from: BatchAxis { axis, inner }, count };
                for to in (0..sample.shape().len()).filter_map(|axis| batch.carried(axis)) {
                    batch.check(to);
                    checked += 1;
                }
            }
        }
    }
    checked
}

/// Samples with more elements in an operand are left out: they would test nothing more here.
const SMALL: usize = 500;

#[test]
fn samples_lie_where_the_rules_say() {
    let small = |sample: &OpSample| sample.operands.iter().all(|operand| operand.values.len() <= SMALL);
    let mut unseen: Vec<&str> = Op::NAMES.to_vec();
    for sample in samples().iter().filter(|sample| small(sample)) {
        if check(sample) > 0 {
            unseen.retain(|name| *name != sample.op.name());
        }
    }
    // `Empty` and `Fill` have no operands, the derivatives of masks and steps are zero, and the
    // samples of `Embedding` lie in its indices.
    let masks = ["Compare", "ComparePair", "Logic", "Not", "Indicator"];
    let expected = [&["Empty", "Fill", "Step"], &masks[..], &["Embedding"]].concat();
    assert_eq!(unseen, expected);
}
