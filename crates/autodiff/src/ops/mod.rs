//! The operations that the engine can differentiate: a table here, and one file for each family.
//!
//! Adding an operation takes a struct with a `Rule` in the file of its family, a line with its
//! formulas in the `operations!` list below, and samples for the derivative tests (a listed
//! operation without samples is a failing test). Each rule describes a function `y = f(x_0, x_1,
//! ...)` and its *pullback*: for V cotangents of y, stacked on a leading axis `[V, ...shape of y]`,
//! the cotangents of one operand, `[V, ...shape of x_i]`. See the crate documentation for the
//! notation.

pub mod activation;
pub mod arithmetic;
pub mod assembly;
pub mod attention;
pub(crate) mod constant;
pub mod conv;
mod cubic;
pub mod elementwise;
pub mod grid;
pub mod indexing;
pub mod layout;
pub mod linear;
pub mod logic;
pub mod mask;
pub mod norm;
pub mod pool;
pub mod reduce;
pub mod resample;
pub mod row;
pub mod softmax;
pub mod sort;
pub mod step;
pub mod transposed;
pub mod unfold;
pub mod volume;

#[cfg(test)]
mod apart;
#[cfg(test)]
mod derivatives;
#[cfg(test)]
mod document;
#[cfg(test)]
mod naive;
#[cfg(test)]
mod parity;
#[cfg(test)]
mod refusals;

use std::fmt;

use burn::backend::ir::{OperationIr, TensorIr};

use crate::array::{Array, Placement};
use crate::coupling::{BatchAxis, Passage};
use crate::grams::{GradientFactors, OuterSizes};

/// A tensor that a rule's pullback reads; from these the plan computes bytes and lifetimes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// The operand at this position.
    Input(usize),
    /// The result.
    Output,
    /// A mask: one byte per element of the result.
    Mask,
    /// Indices: one machine word per element of the result.
    Indices,
}

/// The part of the forward pass that a pullback may read: the tensors that the rule keeps, and all
/// shapes.
#[derive(Debug)]
pub(crate) struct Saved<'a> {
    /// The operands, by position; none where the rule does not keep one.
    pub(crate) inputs: &'a [Option<Array>],
    /// The result, if kept.
    pub(crate) output: Option<&'a Array>,
    /// The mask or indices, if kept.
    pub(crate) derived: Option<&'a Array>,
    /// The shapes of all operands.
    pub(crate) shapes: &'a [Vec<usize>],
}

impl Saved<'_> {
    /// An operand that the rule keeps.
    pub(crate) fn input(&self, position: usize) -> Array {
        self.inputs[position].clone().unwrap_or_else(|| unreachable!("a rule reads only what it keeps"))
    }

    /// The result, where the rule keeps it.
    pub(crate) fn output(&self) -> Array {
        self.output.cloned().unwrap_or_else(|| unreachable!("a rule reads only what it keeps"))
    }

    /// The mask or indices, where the rule keeps them.
    pub(crate) fn derived(&self) -> Array {
        self.derived.cloned().unwrap_or_else(|| unreachable!("a rule reads only what it keeps"))
    }

    /// An operand, if the rule keeps it.
    pub(crate) fn kept(&self, position: usize) -> Option<Array> {
        self.inputs.get(position).cloned().flatten()
    }
}

/// The mathematics of one operation.
pub(crate) trait Rule: fmt::Debug + fmt::Display {
    /// The shape of the result, from the operands' shapes and, for operations whose operands do not
    /// determine it, the recorded shape.
    ///
    /// # Errors
    /// The reason why the operands do not fit.
    fn shape(&self, inputs: &[Vec<usize>], recorded: &[usize]) -> Result<Vec<usize>, String>;

    /// The result, of shape `shape`. Operands are owned, so that Burn can reuse their storage. They
    /// live at `place`, and a result without operands is made there.
    fn forward(&self, inputs: Vec<Array>, shape: &[usize], place: &Placement) -> Array;

    /// Whether there is a pullback to the operand at `position`; without one, that operand must not
    /// depend on the input.
    fn differentiable(&self, _position: usize) -> bool {
        true
    }

    /// Whether there is a pullback to the operand at `position` where that depends on parameters
    /// and not on the input.
    fn trainable(&self, position: usize) -> bool {
        self.differentiable(position)
    }

    /// Whether the pullback preserves inner products of cotangents, because it only moves elements.
    fn is_isometric(&self) -> bool {
        false
    }

    /// The sizes of the outer products whose sum is the cotangent of the operand at `position`,
    /// where it is such a sum; from the shapes of all operands and of the result, for one sample.
    fn outer(&self, _position: usize, _inputs: &[Vec<usize>], _output: &[usize]) -> Option<OuterSizes> {
        None
    }

    /// The factors of these products, where [`Rule::outer`] gives their sizes. It reads the same
    /// kept tensors as [`Rule::pullback`].
    fn factors(&self, _cotangent: Array, _position: usize, _saved: &Saved<'_>) -> GradientFactors {
        unreachable!("called only where the rule gives the sizes of its products")
    }

    /// Whether the derivative is zero wherever it exists: masks, and functions that are constant
    /// between steps.
    fn is_locally_constant(&self) -> bool {
        false
    }

    /// The position of the operand that holds indices, and the size of the axis that they index.
    fn indexes(&self, _inputs: &[Vec<usize>]) -> Option<(usize, usize)> {
        None
    }

    /// Where the samples of a batch lie in the result, for an operand in which they lie as
    /// `passage` says; `None` where the operation couples samples or changes their order.
    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis>;

    /// The tensors that the pullback to the `active` operands reads.
    fn keeps(&self, active: &[bool]) -> Vec<Keep>;

    /// [`Rule::forward`], with the mask or indices that the rule keeps, if any.
    fn trace(&self, inputs: Vec<Array>, shape: &[usize], place: &Placement) -> (Array, Option<Array>) {
        (self.forward(inputs, shape, place), None)
    }

    /// The cotangents `[V, ...shapes[position]]` of one operand from those of the result, `[V,
    /// ...shape]`.
    fn pullback(&self, cotangent: Array, position: usize, saved: &Saved<'_>) -> Array;
}

/// An operation recognised in Burn's recording.
#[derive(Debug)]
pub(crate) struct Lowered<'a> {
    pub(crate) op: Op,
    pub(crate) inputs: Vec<&'a TensorIr>,
    pub(crate) output: &'a TensorIr,
}

/// A family's answer to a recorded operation: `None` if it is of another family, else the
/// operation, or the reason why it is refused.
pub(crate) type Recognition<'a> = Option<Result<Lowered<'a>, String>>;

macro_rules! operations {
    ($($variant:ident($rule:ty) = $value:literal, $pullback:literal;)+) => {
        /// Every operation of the engine.
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub enum Op {
            $(#[doc = concat!("See [`", stringify!($rule), "`].")] $variant($rule),)+
        }

        impl Op {
            /// The names of all operations, in the table's order.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($variant)),+];

            /// What each operation computes and how it pulls back, in the order of [`Op::NAMES`]:
            /// the table of docs/ops.md.
            pub const FORMULAS: &'static [[&'static str; 2]] = &[$([$value, $pullback]),+];

            /// The operation's name.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self { $(Self::$variant(_) => stringify!($variant),)+ }
            }

            /// The operation's mathematics.
            #[must_use]
            pub(crate) fn rule(&self) -> &dyn Rule {
                match self { $(Self::$variant(rule) => rule,)+ }
            }
        }
    };
}

operations! {
    Conv2d(conv::Conv2d) = "sum over taps of w x, plus bias; padding, stride, dilation, groups", "transposed convolution of g with w; sum over positions of g x under each tap; sum of g";
    Conv1d(conv::Conv1d) = "the same along one axis", "transposed convolution of g with w; sum over positions of g x under each tap; sum of g";
    ConvTranspose2d(transposed::ConvTranspose2d) = "x spread out by the stride under w, plus bias; padding cut off, dilation, groups", "convolution of g with w; sum over positions of x g under each tap; sum of g";
    ConvTranspose1d(transposed::ConvTranspose1d) = "the same along one axis", "convolution of g with w; sum over positions of x g under each tap; sum of g";
    Conv3d(volume::Conv3d) = "the same along three axes", "transposed convolution of g with w; sum over positions of g x under each tap; sum of g";
    Linear(linear::Linear) = "x W + b", "g W^T; x^T g; sum of g over rows";
    Matmul(linear::Matmul) = "a b over the last two axes; leading axes broadcast", "g b^T, a^T g, summed over broadcast axes";
    BatchNorm(norm::BatchNorm) = "gamma (x - mean) / sqrt(variance + epsilon) + beta with stored statistics", "g gamma / sqrt(variance + epsilon); sum of g (x - mean) / sqrt(variance + epsilon); sum of g";
    LayerNorm(norm::LayerNorm) = "gamma h + beta, h = (x - mean) / sqrt(variance + epsilon) over the last axis", "r (u - mean u - h mean(u h)), u = g gamma, r = 1 / sqrt(variance + epsilon); sum of g h; sum of g";
    Relu(activation::Relu) = "max(x, 0)", "g where x > 0, else 0";
    LeakyRelu(activation::LeakyRelu) = "x where x > 0, else s x", "g where x > 0, else s g";
    PRelu(activation::PRelu) = "x where x > 0, else a x; a broadcasts", "g where x > 0, else a g; sum of g x where x <= 0";
    Sigmoid(activation::Sigmoid) = "1 / (1 + exp(-x))", "g y (1 - y)";
    HardSigmoid(elementwise::HardSigmoid) = "a x + b, cut to [0, 1]", "a g where 0 < y < 1, else 0";
    LogSigmoid(elementwise::LogSigmoid) = "-ln(1 + exp(-x))", "g / (1 + exp(x))";
    Tanh(activation::Tanh) = "tanh x", "g (1 - y^2)";
    Gelu(activation::Gelu) = "x Phi(x)", "g (Phi(x) + x phi(x))";
    Exp(elementwise::Exp) = "exp x", "g y";
    Log(elementwise::Log) = "ln x", "g / x";
    Log1p(elementwise::Log1p) = "ln(1 + x)", "g / (1 + x)";
    Sqrt(elementwise::Sqrt) = "sqrt x", "g / (2 y)";
    Power(elementwise::Power) = "x^p, p a constant", "p g x^(p - 1); 0 for p = 0";
    Sin(elementwise::Sin) = "sin x", "g cos x";
    Cos(elementwise::Cos) = "cos x", "-g sin x";
    Erf(elementwise::Erf) = "erf x", "2 / sqrt(pi) g exp(-x^2)";
    Abs(elementwise::Abs) = "absolute value of x", "g sign x; 0 at 0";
    Clamp(elementwise::Clamp) = "x cut to [min, max], either bound optional", "g where min < x < max, else 0";
    MaxPool2d(pool::MaxPool2d) = "maximum over windows", "g at the window's first maximum";
    MaxPool1d(pool::MaxPool1d) = "the same along one axis", "g at the window's first maximum";
    AvgPool2d(pool::AvgPool2d) = "mean over windows", "g / count over the window";
    AvgPool1d(pool::AvgPool1d) = "the same along one axis", "g / count over the window";
    AdaptiveAvgPool2d(pool::AdaptiveAvgPool2d) = "mean over windows that divide the axes", "g / count over the window";
    AdaptiveAvgPool1d(pool::AdaptiveAvgPool1d) = "the same along one axis", "g / count over the window";
    AdaptiveAvgPool3d(volume::AdaptiveAvgPool3d) = "mean over windows that divide the axes of a volume", "g / count over the window";
    Cat(layout::Cat) = "operands side by side along an axis", "the operand's part of g";
    Reshape(layout::Reshape) = "the same elements under another shape", "g reshaped back";
    Permute(layout::Permute) = "axes in another order", "g in the inverse order";
    Flip(layout::Flip) = "axes reversed", "g reversed";
    Slice(layout::Slice) = "a regular part", "g placed into zeros";
    Expand(layout::Expand) = "repeated along axes of size 1 and new leading axes", "the sum of g over the repeats";
    Empty(layout::Empty) = "what Burn leaves unwritten: NaN, so that a read of it shows", "none: no operands";
    Fill(layout::Fill) = "one number everywhere", "none: no operands";
    Cast(layout::Cast) = "the same numbers: the run's precision stands above the model's casts", "g";
    Add(arithmetic::Add) = "a + b with broadcasts", "g, g, summed over broadcast axes";
    Sub(arithmetic::Sub) = "a - b with broadcasts", "g, -g, summed over broadcast axes";
    Mul(arithmetic::Mul) = "a b with broadcasts", "g b, g a, summed over broadcast axes";
    Div(arithmetic::Div) = "a / b with broadcasts", "g / b, -g a / b^2, summed over broadcast axes";
    Pow(arithmetic::Pow) = "a^b with broadcasts", "g b a^(b - 1), 0 where b = 0; g y ln a, 0 where a = 0; summed over broadcast axes";
    AddScalar(arithmetic::AddScalar) = "x + s", "g";
    MulScalar(arithmetic::MulScalar) = "s x", "s g";
    DivScalar(arithmetic::DivScalar) = "x / s", "g / s";
    Recip(arithmetic::Recip) = "1 / x", "-g y^2";
    Sum(reduce::Sum) = "sum over axes", "g repeated";
    Mean(reduce::Mean) = "mean over axes", "g / count repeated";
    Extremum(reduce::Extremum) = "maximum or minimum along an axis", "g at the first extremum";
    CumSum(reduce::CumSum) = "sums of the elements up to each along an axis", "sums of g from each on";
    Sort(sort::Sort) = "elements along an axis in order, all or the first k", "g added where each came from";
    Step(step::StepFunction) = "sign, round, floor, ceil, trunc", "none: the derivative is 0";
    Compare(mask::Compare) = "whether x > s, x >= s, x < s, x <= s, x = s, x != s: a mask", "none: the derivative is 0";
    ComparePair(logic::ComparePair) = "whether a > b, a >= b, a < b, a <= b, a = b, a != b: a mask", "none: the derivative is 0";
    Logic(logic::Logic) = "two masks as one: and, or, xor", "none: the derivative is 0";
    Not(logic::Not) = "true where a mask is not", "none: the derivative is 0";
    Indicator(logic::Indicator) = "1 where a mask is true, else 0", "none: the derivative is 0";
    MaskFill(mask::MaskFill) = "s where a mask is true, else x", "g where the mask is false, else 0";
    MaskWhere(mask::MaskWhere) = "b where a mask is true, else x", "g where the mask is false; g where it is true";
    Select(indexing::Select) = "slices at constant indices along an axis", "g added at the indices";
    Gather(indexing::Gather) = "elements at constant indices along an axis", "g added at the indices";
    Embedding(indexing::Embedding) = "rows of a parameter or constant at constant indices", "g added at the indices";
    Unfold(unfold::Unfold) = "windows along an axis side by side on a new last axis", "g added where each element came from";
    SliceAssign(assembly::SliceAssign) = "x with a regular part replaced by b", "g with zeros in the part; the part of g";
    Pad(assembly::Pad) = "x with margins: a number, x mirrored, or its edges", "g inside; of mirrored and repeated margins also g where they came from";
    Repeat(assembly::Repeat) = "copies side by side along an axis", "the sum of g over the copies";
    Interpolate(resample::Interpolate) = "A x B^T over the last two axes: nearest, bilinear, bicubic, Lanczos weights", "A^T g B";
    GridSample(grid::GridSample) = "x at the positions of a grid: nearest, bilinear or bicubic; zeros, edges or reflections outside", "g added at the neighbours by their weights; g x by the weights' slopes";
    Attention(attention::Attention) = "P V, P = softmax(cap(s Q K^T) + bias) without masked positions", "S K s, S^T Q s, P^T g; S = cap' P (g V^T - sum g V^T P)";
    Softmax(softmax::Softmax) = "exp x / sum exp x along an axis", "y (g - sum g y)";
    Softmin(softmax::Softmin) = "exp -x / sum exp -x along an axis", "-y (g - sum g y)";
    LogSoftmax(softmax::LogSoftmax) = "x - ln sum exp x along an axis", "g - exp(y) sum g";
}

impl Op {
    /// Whether it computes exp, ln, a sine, an error function or a power, which a device may have
    /// only in single precision.
    pub(crate) fn is_transcendental(&self) -> bool {
        use Op::*;
        let smooth = matches!(self, Sigmoid(_) | LogSigmoid(_) | Tanh(_) | Gelu(_) | Erf(_));
        let elementary = matches!(self, Exp(_) | Log(_) | Log1p(_) | Power(_) | Pow(_) | Sin(_) | Cos(_));
        smooth || elementary || matches!(self, Attention(_) | Softmax(_) | Softmin(_) | LogSoftmax(_))
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.rule(), f)
    }
}

/// Recognises a recorded operation. `None` when no family knows it.
pub(crate) fn lower(ir: &OperationIr) -> Recognition<'_> {
    const FAMILIES: &[fn(&OperationIr) -> Recognition<'_>] = &[
        conv::lower,
        transposed::lower,
        linear::lower,
        norm::lower,
        activation::lower,
        elementwise::lower,
        pool::lower,
        layout::lower,
        arithmetic::lower,
        reduce::lower,
        softmax::lower,
        mask::lower,
        logic::lower,
        step::lower,
        sort::lower,
        unfold::lower,
        indexing::lower,
        assembly::lower,
        resample::lower,
        grid::lower,
        volume::lower,
        attention::lower,
    ];
    FAMILIES.iter().find_map(|family| family(ir))
}

/// A lowered operation with one operand.
pub(crate) fn unary<'a>(op: Op, input: &'a TensorIr, output: &'a TensorIr) -> Recognition<'a> {
    Some(Ok(Lowered { op, inputs: vec![input], output }))
}

/// The only operand of a unary operation, owned, so that Burn can reuse its storage.
pub(crate) fn only(inputs: Vec<Array>) -> Array {
    let [x] = <[Array; 1]>::try_from(inputs)
        .unwrap_or_else(|_| unreachable!("the shape rule has seen one operand"));
    x
}

/// A lowered operation with an operand, a weight and, if there is one, a bias.
pub(crate) fn weighted<'a>(
    op: Op,
    [x, weight]: [&'a TensorIr; 2],
    bias: Option<&'a TensorIr>,
    output: &'a TensorIr,
) -> Recognition<'a> {
    Some(Ok(Lowered { op, inputs: [x, weight].into_iter().chain(bias).collect(), output }))
}

/// An operand, its weight and, if there is one, its bias, owned.
pub(crate) fn weight_and_bias(inputs: Vec<Array>) -> ([Array; 2], Option<Array>) {
    let mut inputs = inputs.into_iter();
    let (Some(x), Some(weight)) = (inputs.next(), inputs.next()) else {
        unreachable!("the shape rule has seen two operands")
    };
    ([x, weight], inputs.next())
}

/// Both operands of a binary operation, owned.
pub(crate) fn both(inputs: Vec<Array>) -> [Array; 2] {
    <[Array; 2]>::try_from(inputs).unwrap_or_else(|_| unreachable!("the shape rule has seen two operands"))
}

/// `[V, B, ...]` as `[V * B, ...]`, for kernels that treat every index of their first axis
/// independently.
pub(crate) fn fold(cotangent: Array) -> Array {
    let shape = cotangent.shape();
    let folded: Vec<_> = std::iter::once(shape[0] * shape[1]).chain(shape[2..].iter().copied()).collect();
    cotangent.reshape(&folded)
}

/// A shape with one more axis, of size `count`, in front.
pub(crate) fn with_leading(count: usize, shape: &[usize]) -> Vec<usize> {
    std::iter::once(count).chain(shape.iter().copied()).collect()
}

/// `[...]` as `[1, ...]`, to broadcast over the cotangents.
pub(crate) fn over_cotangents(array: Array) -> Array {
    let shape = with_leading(1, &array.shape());
    array.reshape(&shape)
}

/// Cotangents `[V, ...]` where a mask `[...]`, whose axes of size 1 repeat, is true; 0 elsewhere.
///
/// This selects instead of multiplying by 0 and 1, because the cotangent of a discarded branch may
/// be infinite (a square root after a ReLU), and 0 times infinity is NaN.
pub(crate) fn where_true(cotangent: Array, mask: Array) -> Array {
    let shape = with_leading(1, &mask.shape());
    cotangent.fill(mask.reshape_mask(&shape).not(), 0.0)
}

/// The shape of [`fold`]'s result for V = `count` and an operand of shape `shape`.
pub(crate) fn folded(count: usize, shape: &[usize]) -> Vec<usize> {
    with_leading(count * shape[0], &shape[1..])
}
