//! Sums of products over named axes, for any number of operands, two at a time.

use influence_autodiff::graph::{Size, ValueId};
use influence_autodiff::ops::Op;
use influence_autodiff::ops::layout::Slice;
use influence_autodiff::ops::linear::{Linear, Matmul};
use influence_autodiff::ops::reduce::Sum;

use super::layout::times;
use crate::call::{Call, Results, fixed, one};
use crate::error::Refusal;
use crate::import::Binding;

/// Names of the axes of each operand and of the result.
#[derive(Debug, PartialEq, Eq)]
struct Equation {
    operands: Vec<Vec<char>>,
    result: Vec<char>,
}

/// The name of the first axis under dots; these names are letters that no equation has.
const DOTS: u32 = 0xE000;

impl Equation {
    /// Reads an equation for operands of these ranks.
    fn read(text: &str, ranks: &[usize]) -> Result<Self, Refusal> {
        let plain: String = text.chars().filter(|letter| !letter.is_whitespace()).collect();
        let (left, right) = match plain.split_once("->") {
            Some((left, right)) => (left, Some(right)),
            None => (plain.as_str(), None),
        };
        let terms: Vec<&str> = left.split(',').collect();
        if terms.len() != ranks.len() {
            return Err("its equation does not have as many operands as the node".into());
        }
        // The axes under dots are counted from the last one, as in broadcasts.
        let dots = |term: &str, rank: usize| match term.contains("...") {
            true => rank.checked_sub(term.chars().count() - 3),
            false => Some(0),
        };
        let counts: Option<Vec<usize>> =
            terms.iter().zip(ranks).map(|(term, &rank)| dots(term, rank)).collect();
        let counts = counts.ok_or("an operand has fewer axes than its names")?;
        let most = counts.iter().copied().max().unwrap_or(0);
        let under = |count: usize| -> String {
            (0..count).filter_map(|i| char::from_u32(DOTS + (most - count + i) as u32)).collect()
        };
        let names = |term: &str, count: usize| term.replace("...", &under(count)).chars().collect::<Vec<_>>();
        let operands: Vec<_> = terms.iter().zip(counts).map(|(term, count)| names(term, count)).collect();
        // Without an arrow, the result has the axes under dots, and the names that occur once, in
        // alphabetical order.
        let result = match right {
            Some(term) => names(term, most),
            None => {
                let all = operands.concat();
                let mut once: Vec<char> = all.clone();
                once.retain(|name| {
                    u32::from(*name) < DOTS && all.iter().filter(|other| *other == name).count() == 1
                });
                once.sort_unstable();
                under(most).chars().chain(once).collect()
            }
        };
        match repeats(&result) {
            true => Err(format!("the result of \"{text}\" names an axis twice").into()),
            false => Ok(Self { operands, result }),
        }
    }
}

fn repeats(names: &[char]) -> bool {
    names.iter().enumerate().any(|(at, name)| names[..at].contains(name))
}

/// A value with names for its axes.
#[derive(Debug, Clone)]
struct LabelledValue {
    value: ValueId,
    names: Vec<char>,
}

pub(super) fn einsum(call: &mut Call<'_, '_>) -> Results {
    let ranks: Vec<_> = (0..call.operands.len()).map(|at| call.rank(at)).collect::<Result<_, _>>()?;
    let equation = Equation::read(call.attributes().word("equation", ""), &ranks)?;
    let mut found: Option<LabelledValue> = None;
    for (at, names) in equation.operands.iter().enumerate() {
        let constant = matches!(call.operand(at), Some(Binding::Weight(_) | Binding::Known(_)));
        let next = operand(call, at, names)?;
        // Axes that the result or a later operand names are kept.
        let kept = [&equation.result[..], &equation.operands[at + 1..].concat()].concat();
        found = Some(match found {
            None => next,
            Some(found) => product(call, found, next, &kept, constant)?,
        });
    }
    let found = summed(call, found.ok_or("it has no operands")?, |name| equation.result.contains(&name))?;
    let order = equation.result.iter().map(|name| found.names.iter().position(|own| own == name));
    let order: Option<Vec<usize>> = order.collect();
    one(call.permute(found.value, order.ok_or("its result names an axis that no operand has")?)?)
}

/// An operand with the names of its axes; of axes with the same name, the diagonal is taken.
fn operand(call: &mut Call<'_, '_>, at: usize, names: &[char]) -> Result<LabelledValue, Refusal> {
    let (mut value, mut names) = (call.value(at)?, names.to_vec());
    if call.shape(value).len() != names.len() {
        return Err(format!("operand {at} does not have {} axes", names.len()).into());
    }
    while let Some(second) = (0..names.len()).find(|&axis| names[..axis].contains(&names[axis])) {
        let first = names.iter().position(|name| *name == names[second]).unwrap_or(second);
        let mut order: Vec<_> = (0..names.len()).filter(|&axis| axis != first && axis != second).collect();
        let rest = order.len();
        // Both axes last, and merged into one of size^2: every (size + 1)-th element is on the
        // diagonal.
        order.extend([first, second]);
        names = order[..=rest].iter().map(|&axis| names[axis]).collect();
        let turned = call.permute(value, order)?;
        let mut shape = call.shape(turned);
        let size = shape.pop().map_or(0, |size| size.fixed);
        if size == 0 || shape[rest] != fixed(size) {
            return Err("the axes of a diagonal have different sizes".into());
        }
        let square = size.checked_mul(size).ok_or("the axes of a diagonal are too large")?;
        shape[rest] = fixed(square);
        let flat = call.reshape(turned, &shape)?;
        let mut ranges = vec![None; rest];
        ranges.push(Some([0, square, size + 1]));
        value = call.emit(Op::Slice(Slice { ranges }), &[flat])?;
    }
    Ok(LabelledValue { value, names })
}

/// Sums over the axes that are not kept.
fn summed(
    call: &mut Call<'_, '_>,
    x: LabelledValue,
    keep: impl Fn(char) -> bool,
) -> Result<LabelledValue, Refusal> {
    let LabelledValue { value, names } = x;
    let axes: Vec<usize> = (0..names.len()).filter(|&axis| !keep(names[axis])).collect();
    if axes.is_empty() {
        return Ok(LabelledValue { value, names });
    }
    let sum = call.emit(Op::Sum(Sum { axes }), &[value])?;
    let kept: Vec<usize> = (0..names.len()).filter(|&axis| keep(names[axis])).collect();
    let shape = call.shape(value);
    let shape: Vec<Size> = kept.iter().map(|&axis| shape[axis]).collect();
    let value = call.reshape(sum, &shape)?;
    Ok(LabelledValue { value, names: kept.into_iter().map(|axis| names[axis]).collect() })
}

/// The product of two values, summed over the names that are not needed any more: a matrix product
/// for each index of the names that both have and the result keeps.
fn product(
    call: &mut Call<'_, '_>,
    a: LabelledValue,
    b: LabelledValue,
    result: &[char],
    constant: bool,
) -> Result<LabelledValue, Refusal> {
    let (left, right) = (a.names.clone(), b.names.clone());
    let a = summed(call, a, |name| result.contains(&name) || right.contains(&name))?;
    let b = summed(call, b, |name| result.contains(&name) || left.contains(&name))?;
    // Names of both operands that stay have a product for each index, the others of both are summed
    // over. Names of one operand are rows or columns.
    let pick = |from: &LabelledValue, wanted: &dyn Fn(char) -> bool| -> Vec<char> {
        from.names.iter().copied().filter(|&name| wanted(name)).collect()
    };
    let shared = pick(&a, &|name| b.names.contains(&name) && result.contains(&name));
    let inner = pick(&a, &|name| b.names.contains(&name) && !result.contains(&name));
    let rows = pick(&a, &|name| !b.names.contains(&name));
    let columns = pick(&b, &|name| !a.names.contains(&name));
    let (mut a, sizes_a) = grouped(call, &a, &[&shared, &rows, &inner])?;
    let (b, sizes_b) = grouped(call, &b, &[&shared, &inner, &columns])?;
    let linear = constant && shared.is_empty();
    let value = if linear {
        call.emit(Op::Linear(Linear), &[a, b])?
    } else {
        // Leading axes of size 1, where the other operand has an axis under which this one is
        // shared.
        a = call.of_rank(a, shared.len() + 2)?;
        call.emit(Op::Matmul(Matmul), &[a, b])?
    };
    let names: Vec<char> = [&shared[..], &rows, &columns].concat();
    let size =
        |name: &char| sizes_a.iter().chain(&sizes_b).find(|(own, _)| own == name).map(|(_, size)| *size);
    let shape: Option<Vec<Size>> = names.iter().map(size).collect();
    let value = call.reshape(value, &shape.ok_or("its equation names an axis twice")?)?;
    Ok(LabelledValue { value, names })
}

/// A value with the axes of the first group, followed by one merged axis for each further group;
/// and the sizes of all names.
fn grouped(
    call: &mut Call<'_, '_>,
    x: &LabelledValue,
    groups: &[&[char]; 3],
) -> Result<(ValueId, Vec<(char, Size)>), Refusal> {
    let shape = call.shape(x.value);
    let sizes: Vec<(char, Size)> = x.names.iter().copied().zip(shape).collect();
    let size = |name: &char| sizes.iter().find(|(own, _)| own == name).map_or(fixed(1), |(_, size)| *size);
    let order = groups.concat();
    let axes = order.iter().filter_map(|name| x.names.iter().position(|own| own == name)).collect();
    let value = call.permute(x.value, axes)?;
    let mut shape: Vec<Size> = groups[0].iter().map(size).collect();
    for group in &groups[1..] {
        shape.push(group.iter().map(size).try_fold(fixed(1), times)?);
    }
    Ok((call.reshape(value, &shape)?, sizes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn einsum_equations_are_read() {
        let read = |text: &str, ranks: &[usize]| Equation::read(text, ranks).expect("an equation");
        let names = |text: &str| text.chars().collect::<Vec<_>>();
        assert_eq!(
            read("bij, bjk -> bik", &[3, 3]),
            Equation { operands: vec![names("bij"), names("bjk")], result: names("bik") }
        );
        assert_eq!(read("ba,bc", &[2, 2]).result, names("ac"));
        let dots = read("...i,i->...", &[3, 1]);
        assert_eq!(dots.operands[0], names("\u{E000}\u{E001}i"));
        assert_eq!(dots.result, names("\u{E000}\u{E001}"));
        assert_eq!(read("...i,...i", &[2, 3]).result, names("\u{E000}\u{E001}"));
        for (text, ranks) in [("ij->ii", &[2][..]), ("ij,jk", &[2]), ("...ijk", &[2])] {
            assert!(Equation::read(text, ranks).is_err(), "{text}");
        }
    }
}
