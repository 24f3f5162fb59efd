//! Sums over named axes of one operand or two.

use influence_autodiff::graph::{Size, ValueId};
use influence_autodiff::ops::Op;
use influence_autodiff::ops::linear::{Linear, Matmul};
use influence_autodiff::ops::reduce::Sum;

use crate::call::{Call, Results, fixed, one};
use crate::error::Refusal;
use crate::import::Operand;

/// Names of the axes of each operand and of the result.
#[derive(Debug, PartialEq, Eq)]
struct Equation {
    operands: Vec<Vec<char>>,
    result: Vec<char>,
}

impl Equation {
    fn read(text: &str) -> Result<Self, Refusal> {
        let plain: String = text.chars().filter(|letter| !letter.is_whitespace()).collect();
        if plain.contains("...") {
            return Err(Refusal::new(
                format!("\"{text}\" leaves axes unnamed"),
                "name all axes of the equation",
            ));
        }
        let (left, right) = match plain.split_once("->") {
            Some((left, right)) => (left, Some(right)),
            None => (plain.as_str(), None),
        };
        let operands: Vec<Vec<char>> = left.split(',').map(|names| names.chars().collect()).collect();
        // Without an arrow: all names that occur once, in alphabetical order.
        let result = match right {
            Some(names) => names.chars().collect(),
            None => {
                let all = operands.concat();
                let mut once: Vec<char> = all.clone();
                once.retain(|name| all.iter().filter(|other| *other == name).count() == 1);
                once.sort_unstable();
                once
            }
        };
        let this = Self { operands, result };
        let diagonal = this.operands.iter().chain([&this.result]).any(|names| repeats(names));
        match diagonal {
            true => Err(Refusal::new(
                format!("\"{text}\" takes a diagonal"),
                "write the diagonal as a product with a constant mask, and a sum",
            )),
            false => Ok(this),
        }
    }
}

fn repeats(names: &[char]) -> bool {
    names.iter().enumerate().any(|(at, name)| names[..at].contains(name))
}

/// A value whose axes have names.
#[derive(Debug, Clone)]
struct Named {
    value: ValueId,
    names: Vec<char>,
}

pub(super) fn einsum(call: &mut Call<'_, '_>) -> Results {
    let equation = Equation::read(call.attributes().word("equation", ""))?;
    if equation.operands.len() != call.operands.len() {
        return Err("its equation has not as many operands as the node".into());
    }
    let operand = |call: &mut Call<'_, '_>, at: usize| -> Result<Named, Refusal> {
        let (value, names) = (call.value(at)?, equation.operands[at].clone());
        match call.shape(value).len() == names.len() {
            true => Ok(Named { value, names }),
            false => Err(format!("operand {at} has not {} axes", names.len()).into()),
        }
    };
    let found = match equation.operands.len() {
        1 => operand(call, 0)?,
        2 => {
            let constant = matches!(call.operand(1), Some(Operand::Weight(_) | Operand::Known(_)));
            let [a, b] = [operand(call, 0)?, operand(call, 1)?];
            product(call, a, b, &equation.result, constant)?
        }
        count => {
            return Err(Refusal::new(
                format!("it has {count} operands"),
                "write it as sums over two operands at a time",
            ));
        }
    };
    let found = summed(call, found, |name| equation.result.contains(&name))?;
    let order = equation.result.iter().map(|name| found.names.iter().position(|own| own == name));
    let order: Option<Vec<usize>> = order.collect();
    one(call.permute(found.value, order.ok_or("its result names an axis that no operand has")?)?)
}

/// Sums over the axes that are not kept.
fn summed(call: &mut Call<'_, '_>, x: Named, keep: impl Fn(char) -> bool) -> Result<Named, Refusal> {
    let Named { value, names } = x;
    let axes: Vec<usize> = (0..names.len()).filter(|&axis| !keep(names[axis])).collect();
    if axes.is_empty() {
        return Ok(Named { value, names });
    }
    let sum = call.emit(Op::Sum(Sum { axes }), &[value])?;
    let kept: Vec<usize> = (0..names.len()).filter(|&axis| keep(names[axis])).collect();
    let shape = call.shape(value);
    let shape: Vec<Size> = kept.iter().map(|&axis| shape[axis]).collect();
    let value = call.reshape(sum, &shape)?;
    Ok(Named { value, names: kept.into_iter().map(|axis| names[axis]).collect() })
}

/// The product of two, summed over the names that only they have: a matrix product for each index of
/// the names that both have and the result keeps.
fn product(
    call: &mut Call<'_, '_>,
    a: Named,
    b: Named,
    result: &[char],
    constant: bool,
) -> Result<Named, Refusal> {
    let (left, right) = (a.names.clone(), b.names.clone());
    let a = summed(call, a, |name| result.contains(&name) || right.contains(&name))?;
    let b = summed(call, b, |name| result.contains(&name) || left.contains(&name))?;
    let pick = |from: &Named, wanted: &dyn Fn(char) -> bool| -> Vec<char> {
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
        // An axis of 1 leads where a matrix of the batch meets one that is shared.
        a = call.of_rank(a, shared.len() + 2)?;
        call.emit(Op::Matmul(Matmul), &[a, b])?
    };
    let names: Vec<char> = [&shared[..], &rows, &columns].concat();
    let size =
        |name: &char| sizes_a.iter().chain(&sizes_b).find(|(own, _)| own == name).map(|(_, size)| *size);
    let shape: Option<Vec<Size>> = names.iter().map(size).collect();
    let value = call.reshape(value, &shape.ok_or("its equation names an axis twice")?)?;
    Ok(Named { value, names })
}

/// Axes in a new order, those of the first group each on its own and each further group as one axis;
/// with the sizes of all.
fn grouped(
    call: &mut Call<'_, '_>,
    x: &Named,
    groups: &[&[char]; 3],
) -> Result<(ValueId, Vec<(char, Size)>), Refusal> {
    let shape = call.shape(x.value);
    let sizes: Vec<(char, Size)> = x.names.iter().copied().zip(shape).collect();
    let size = |name: &char| sizes.iter().find(|(own, _)| own == name).map_or(fixed(1), |(_, size)| *size);
    let order = groups.concat();
    let places = order.iter().filter_map(|name| x.names.iter().position(|own| own == name)).collect();
    let value = call.permute(x.value, places)?;
    let mut shape: Vec<Size> = groups[0].iter().map(size).collect();
    for group in &groups[1..] {
        shape.push(group.iter().map(size).try_fold(fixed(1), times)?);
    }
    Ok((call.reshape(value, &shape)?, sizes))
}

/// The product of two sizes, of which one at most depends on the batch.
fn times(a: Size, b: Size) -> Result<Size, Refusal> {
    match (a.per_sample, b.per_sample) {
        (_, 0) => Ok(Size { per_sample: a.per_sample * b.fixed, fixed: a.fixed * b.fixed }),
        (0, _) => Ok(Size { per_sample: b.per_sample * a.fixed, fixed: a.fixed * b.fixed }),
        _ => Err("two of its axes grow with the batch".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equations_are_read() {
        let read = |text: &str| Equation::read(text).expect("an equation");
        let names = |text: &str| text.chars().collect::<Vec<_>>();
        assert_eq!(
            read("bij, bjk -> bik"),
            Equation { operands: vec![names("bij"), names("bjk")], result: names("bik") }
        );
        assert_eq!(read("ba,bc").result, names("ac"));
        for (text, word) in [("...ij,jk->...ik", "unnamed"), ("ii->i", "diagonal")] {
            let refusal = Equation::read(text).expect_err(text);
            assert!(refusal.why.contains(word), "{}", refusal.why);
        }
    }
}
