//! The operations of a random program, and how they are printed.

use burn::tensor::activation as act;
use burn::tensor::ops::{GridSamplePaddingMode, InterpolateMode};
use burn::tensor::{Bool, DType, Tensor};

use crate::attack::value::Dim;

/// A function of each element.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Unary {
    Relu,
    LeakyRelu,
    Sigmoid,
    HardSigmoid,
    LogSigmoid,
    Tanh,
    Gelu,
    GeluTanh,
    Silu,
    HardSwish,
    Mish,
    Softplus,
    Elu,
    Celu,
    Selu,
    Softsign,
    Relu6,
    HardTanh,
    HardShrink,
    Threshold,
    Tanhshrink,
    Exp,
    LogOfSquare,
    Log1pOfAbs,
    SqrtOfSquare,
    Square,
    Cube,
    PowerOfAbs,
    Sin,
    Cos,
    Erf,
    Abs,
    Clamp,
    ClampMin,
    ClampMax,
    RecipOfSquare,
    Neg,
    AddScalar,
    SubScalar,
    ScalarMinus,
    MulScalar,
    DivScalar,
    ScalarOver,
    AddOnes,
    MulFull,
    CastBack,
    Sign,
    Rounded,
    Indicated,
    Between,
    Outside,
    OneOf,
}

impl Unary {
    pub(crate) const ALL: [Self; 52] = [
        Self::Relu,
        Self::LeakyRelu,
        Self::Sigmoid,
        Self::HardSigmoid,
        Self::LogSigmoid,
        Self::Tanh,
        Self::Gelu,
        Self::GeluTanh,
        Self::Silu,
        Self::HardSwish,
        Self::Mish,
        Self::Softplus,
        Self::Elu,
        Self::Celu,
        Self::Selu,
        Self::Softsign,
        Self::Relu6,
        Self::HardTanh,
        Self::HardShrink,
        Self::Threshold,
        Self::Tanhshrink,
        Self::Exp,
        Self::LogOfSquare,
        Self::Log1pOfAbs,
        Self::SqrtOfSquare,
        Self::Square,
        Self::Cube,
        Self::PowerOfAbs,
        Self::Sin,
        Self::Cos,
        Self::Erf,
        Self::Abs,
        Self::Clamp,
        Self::ClampMin,
        Self::ClampMax,
        Self::RecipOfSquare,
        Self::Neg,
        Self::AddScalar,
        Self::SubScalar,
        Self::ScalarMinus,
        Self::MulScalar,
        Self::DivScalar,
        Self::ScalarOver,
        Self::AddOnes,
        Self::MulFull,
        Self::CastBack,
        Self::Sign,
        Self::Rounded,
        Self::Indicated,
        Self::Between,
        Self::Outside,
        Self::OneOf,
    ];

    pub(crate) fn apply<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Relu => act::relu(x),
            Self::LeakyRelu => act::leaky_relu(x, 0.2),
            Self::Sigmoid => act::sigmoid(x),
            Self::HardSigmoid => act::hard_sigmoid(x, 0.21, 0.47),
            Self::LogSigmoid => act::log_sigmoid(x),
            Self::Tanh => act::tanh(x),
            Self::Gelu => act::gelu(x),
            Self::GeluTanh => act::gelu_approximate(x),
            Self::Silu => act::silu(x),
            Self::HardSwish => act::hard_swish(x),
            Self::Mish => act::mish(x),
            Self::Softplus => act::softplus(x, 1.5),
            Self::Elu => act::elu(x, 0.7),
            Self::Celu => act::celu(x, 0.6),
            Self::Selu => act::selu(x),
            Self::Softsign => act::softsign(x),
            Self::Relu6 => act::relu6(x * 4.0),
            Self::HardTanh => act::hardtanh(x, -0.61, 0.73),
            Self::HardShrink => act::hard_shrink(x, 0.31),
            Self::Threshold => act::threshold(x, 0.13, -0.57),
            Self::Tanhshrink => act::tanhshrink(x),
            Self::Exp => (x * 0.5).exp(),
            Self::LogOfSquare => (x.clone() * x + 0.7).log(),
            Self::Log1pOfAbs => x.abs().log1p(),
            Self::SqrtOfSquare => (x.square() + 0.6).sqrt(),
            Self::Square => x.clone() * x,
            Self::Cube => x.powi_scalar(3),
            Self::PowerOfAbs => (x.abs() + 0.2).powf_scalar(1.7),
            Self::Sin => x.sin(),
            Self::Cos => x.cos(),
            Self::Erf => x.erf(),
            Self::Abs => x.abs(),
            Self::Clamp => x.clamp(-0.53, 0.81),
            Self::ClampMin => x.clamp_min(-0.37),
            Self::ClampMax => x.clamp_max(0.43),
            Self::RecipOfSquare => (x.powf_scalar(2.0) + 0.9).recip(),
            Self::Neg => -x,
            Self::AddScalar => x + 0.37,
            Self::SubScalar => x - 0.41,
            Self::ScalarMinus => -x + 0.83,
            Self::MulScalar => x * -1.3,
            Self::DivScalar => x / 1.7,
            Self::ScalarOver => (x.square() + 1.1).recip() * 0.9,
            Self::AddOnes => x.clone() + x.ones_like(),
            Self::MulFull => x.full_like(0.77) * x,
            Self::CastBack => {
                let dtype = x.dtype();
                x.cast(DType::F64).cast(dtype)
            }
            Self::Sign => x.clone() * x.sign(),
            Self::Rounded => {
                let steps = (x.clone() * 3.0).round() + (x.clone() * 2.0).floor();
                x.clone() + (steps + (x.clone() * 1.5).ceil() - (x * 2.5).trunc()) * 0.1
            }
            Self::Indicated => x.clone().greater_scalar(0.1).float().cast(x.dtype()) * x,
            Self::Between => {
                let inside = x.clone().greater_scalar(-0.4).bool_and(x.clone().lower_scalar(0.6));
                x.mask_fill(inside, 0.2)
            }
            Self::Outside => {
                let inside = x.clone().greater_scalar(-0.3).bool_or(x.clone().lower_scalar(-0.9));
                x.clone() * inside.bool_not().float().cast(x.dtype()) + x * 0.3
            }
            Self::OneOf => {
                let one = x.clone().greater_scalar(-0.2).bool_xor(x.clone().greater_equal_scalar(0.5));
                x.mask_fill(one, -0.3)
            }
        }
    }
}

/// An operation of two tensors that broadcast.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    DivBySquare,
    Larger,
    Smaller,
    Power,
    DoubleBelow,
}

impl Binary {
    /// The operations to draw from; sums appear most often.
    pub(crate) const COMMON: [Self; 10] = [
        Self::Add,
        Self::Add,
        Self::Add,
        Self::Sub,
        Self::Mul,
        Self::DivBySquare,
        Self::Larger,
        Self::Smaller,
        Self::Power,
        Self::DoubleBelow,
    ];

    pub(crate) fn apply<const D: usize>(self, a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Add => a + b,
            Self::Sub => a - b,
            Self::Mul => a * b,
            Self::Div => a / b,
            Self::DivBySquare => a / (b.clone() * b + 1.3),
            Self::Larger => a.max_pair(b),
            Self::Smaller => a.min_pair(b),
            Self::Power => (a.abs() + 0.3).powf(b.clamp(-1.1, 1.2)),
            Self::DoubleBelow => {
                let (a, b) = (a.clone() + b.clone() * 0.0, b + a * 0.0);
                let below = a.clone().lower(b.clone());
                a.mask_where(below, b * 2.0)
            }
        }
    }
}

/// A reduction over axes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fold {
    Sum,
    Mean,
    Max,
    Min,
    Var,
}

/// How the margins of a padded tensor are filled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum PadFill {
    Number,
    Reflect,
    Edge,
}

/// A comparison with a number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum ScalarComparison {
    Greater,
    GreaterEqual,
    Lower,
    LowerEqual,
}

impl ScalarComparison {
    pub(crate) fn mask<const D: usize>(self, x: Tensor<D>, with: f64) -> Tensor<D, Bool> {
        match self {
            Self::Greater => x.greater_scalar(with),
            Self::GreaterEqual => x.greater_equal_scalar(with),
            Self::Lower => x.lower_scalar(with),
            Self::LowerEqual => x.lower_equal_scalar(with),
        }
    }
}

/// A convolution's or pool's window along each axis.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WindowSpec {
    pub(crate) kernel: Vec<usize>,
    pub(crate) stride: Vec<usize>,
    pub(crate) padding: Vec<(usize, usize)>,
    pub(crate) dilation: Vec<usize>,
}

/// One operation. Axes are counted from 0, the batch included.
#[derive(Debug, Clone)]
pub(crate) enum DrawnOp {
    /// The identity; used when a program is shrunk.
    Same,
    Unary(Unary),
    Binary(Binary),
    Softmax {
        axis: usize,
    },
    LogSoftmax {
        axis: usize,
    },
    Softmin {
        axis: usize,
    },
    CumSum {
        axis: usize,
    },
    /// Sorted, or only the first `count` of the order.
    Sort {
        axis: usize,
        descending: bool,
        count: Option<usize>,
    },
    /// Windows along an axis; the elements of each window lie along a new last axis.
    Unfold {
        axis: usize,
        size: usize,
        step: usize,
    },
    /// An empty tensor that is assigned slice by slice, as recurrent layers do.
    Rewritten {
        axis: usize,
    },
    /// A transposed convolution along one or two axes; `behind` is the output padding.
    Transposed {
        window: WindowSpec,
        groups: usize,
        behind: Vec<usize>,
    },
    Glu {
        axis: usize,
    },
    Flip {
        axes: Vec<usize>,
    },
    Permute {
        axes: Vec<usize>,
    },
    SwapDims {
        axes: [usize; 2],
    },
    Roll {
        axis: usize,
        by: usize,
    },
    Slice {
        axis: usize,
        start: usize,
        end: usize,
        step: isize,
    },
    SelectDim {
        axis: usize,
        at: usize,
    },
    Fold {
        fold: Fold,
        axes: Vec<usize>,
        squeeze: bool,
    },
    Repeat {
        axis: usize,
        times: usize,
    },
    Pad {
        margins: Vec<(usize, usize)>,
        with: PadFill,
    },
    /// The first operand with a slice replaced by the second.
    Assign {
        axis: usize,
        start: usize,
    },
    Select {
        axis: usize,
        indices: Vec<usize>,
    },
    /// A gather with indices generated from a seed; the axis then has `length`.
    Gather {
        axis: usize,
        length: usize,
        seed: u64,
    },
    /// A fill through a constant mask generated from a seed. The mask has 1 in place of the batch
    /// axis, or is expanded to the whole batch.
    MaskFill {
        seed: u64,
        whole: bool,
    },
    MaskWhere {
        seed: u64,
    },
    FillWhere {
        compare: ScalarComparison,
    },
    /// The second operand where the comparison holds for the first.
    Choose {
        compare: ScalarComparison,
    },
    Cat {
        axis: usize,
    },
    Stack {
        axis: usize,
    },
    Reshape {
        shape: Vec<Dim>,
    },
    Flatten {
        from: usize,
        to: usize,
    },
    Squeeze {
        axis: usize,
    },
    Unsqueeze {
        axis: usize,
    },
    Expand {
        shape: Vec<Dim>,
    },
    Linear,
    Matmul,
    Conv1d {
        window: WindowSpec,
        groups: usize,
    },
    Conv2d {
        window: WindowSpec,
        groups: usize,
    },
    Conv3d {
        window: WindowSpec,
        groups: usize,
    },
    BatchNorm {
        seed: u64,
    },
    LayerNorm,
    GroupNorm {
        groups: usize,
    },
    InstanceNorm,
    PRelu,
    MaxPool1d {
        window: WindowSpec,
        ceil: bool,
    },
    MaxPool2d {
        window: WindowSpec,
        ceil: bool,
    },
    AvgPool1d {
        window: WindowSpec,
        ceil: bool,
        count_margins: bool,
    },
    AvgPool2d {
        window: WindowSpec,
        ceil: bool,
        count_margins: bool,
    },
    AdaptiveAvgPool1d {
        size: usize,
    },
    AdaptiveAvgPool2d {
        size: [usize; 2],
    },
    AdaptiveAvgPool3d {
        size: [usize; 3],
    },
    /// The first operand at the positions of the second.
    GridSample {
        mode: InterpolateMode,
        outside: GridSamplePaddingMode,
        corners: bool,
    },
    Interpolate {
        mode: InterpolateMode,
        size: [usize; 2],
        corners: bool,
    },
    Attention {
        causal: bool,
        mask: Option<u64>,
        cap: bool,
    },
    /// Rows of an embedding table, the same for each sample: `[n, indices, width]`.
    Embedding {
        indices: Vec<usize>,
    },
}
