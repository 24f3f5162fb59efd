//! The operators that can be imported: a table here, and one file for each family.

mod activation;
mod arithmetic;
mod attention;
mod choice;
mod conv;
mod einsum;
mod grid;
mod layout;
mod linear;
mod norm;
mod pool;
mod recurrent;
mod reduce;
mod resize;
mod scatter;
mod shape;

pub(crate) use layout::lines;

use crate::call::{Call, Results};
use crate::error::Refusal;

/// Translates a node of an operator into operations of the engine.
pub(crate) type ImportRule = for<'a, 'b, 'c> fn(&'c mut Call<'a, 'b>) -> Results;

macro_rules! operators {
    ($($name:literal => $rule:path, $words:literal, $refused:literal;)+) => {
        /// The operators that can be imported: for each, how it is imported, what of it is refused,
        /// and what to do then (in the repository, the table of `docs/onnx.md`).
        pub const OPERATORS: &[[&str; 3]] = &[$([$name, $words, $refused]),+];

        fn known(op: &str) -> Option<ImportRule> {
            match op {
                $($name => Some($rule),)+
                _ => None,
            }
        }
    };
}

operators! {
    "Abs" => activation::abs, "as it is", "";
    "Acosh" => activation::acosh, "composed", "";
    "Add" => arithmetic::add, "broadcasts as NumPy does; of a product with a matrix its bias", "";
    "AffineGrid" => grid::affine, "of images; composed", "of volumes: sample images";
    "And" => choice::and, "of masks", "";
    "Asinh" => activation::asinh, "composed", "";
    "Atanh" => activation::atanh, "composed", "";
    "Attention" => attention::attention, "products, a softmax, and a constant or additive mask; no caches", "with caches, several results or a window: export below opset 23, which writes attention out";
    "AveragePool" => pool::average, "over one to three axes: auto_pad, uneven padding, dilations, ceil_mode", "over more than three axes: reshape to three";
    "BatchNormalization" => norm::batch, "in evaluation, with constant statistics; of weights, with their own", "in training: export in evaluation (model.eval())";
    "Cast" => layout::cast, "from floats to floats, and from a mask to numbers", "to whole numbers: where the input is token ids, export from the embeddings on";
    "CastLike" => layout::cast, "as Cast", "as Cast";
    "Ceil" => activation::ceil, "its derivative is 0", "";
    "Celu" => activation::celu, "composed", "";
    "Clip" => activation::clip, "constant bounds, as attributes or operands", "bounds that follow the input: write them as minimum and maximum";
    "Col2Im" => conv::fold, "of images; a transposed convolution", "of volumes: fold images";
    "Concat" => layout::concat, "as it is", "";
    "Constant" => shape::constant, "numbers; no strings, no sparse tensors", "strings and sparse tensors: export with dense numbers";
    "ConstantOfShape" => shape::filled, "known numbers; where there are very many, computed by the engine", "a shape that follows the input's values: fix it";
    "Conv" => conv::conv, "over one to three axes: groups, dilations, auto_pad, uneven padding", "over more than three axes: reshape to three";
    "ConvTranspose" => conv::transposed, "over one axis or two: groups, dilations, auto_pad, output_padding, output_shape", "over three axes: upsample (Resize) and convolve";
    "Cos" => activation::cos, "as it is", "";
    "Cosh" => activation::cosh, "composed", "";
    "CumSum" => reduce::cumulative, "forwards and backwards, inclusive and exclusive", "over the samples: take another axis";
    "DepthToSpace" => layout::depth_to_space, "both modes, composed", "";
    "Div" => arithmetic::div, "broadcasts as NumPy does", "";
    "Dropout" => layout::identity, "in evaluation: the operand itself", "in training: export in evaluation";
    "Einsum" => einsum::einsum, "any number of operands, ellipses and diagonals; products of two at a time", "two axes that grow with the batch in one product: take each sample on its own";
    "Elu" => activation::elu, "composed", "";
    "Equal" => choice::equal, "a mask; its derivative is 0", "";
    "Erf" => activation::erf, "as it is", "";
    "Erfc" => activation::erfc, "1 - erf, as tf2onnx writes it", "";
    "Exp" => activation::exp, "as it is", "";
    "Expand" => layout::expand, "to a known shape", "to a shape that follows the input's values: fix it";
    "Flatten" => layout::flatten, "as it is", "";
    "Floor" => activation::floor, "its derivative is 0", "";
    "GRU" => recurrent::gated, "the usual activations, sequences of one length; step by step", "other activations, lengths of sequences: export with the usual ones, all sequences of one length";
    "Gather" => choice::gather, "at constant indices", "indices that follow the input: export from the embeddings on; that take other samples: treat each on its own";
    "GatherElements" => scatter::gather_elements, "at known indices, the same for every sample", "as Gather";
    "GatherND" => scatter::gather_nd, "at known indices, the same for every sample", "as Gather";
    "Gelu" => activation::gelu, "exact, or composed with the hyperbolic tangent", "";
    "Gemm" => linear::gemm, "alpha, beta, transA, transB, any bias that broadcasts", "";
    "GlobalAveragePool" => pool::global_average, "any number of axes", "";
    "GlobalMaxPool" => pool::global_max, "any number of axes", "";
    "Greater" => choice::greater, "a mask; its derivative is 0", "";
    "GreaterOrEqual" => choice::greater_or_equal, "a mask; its derivative is 0", "";
    "GridSample" => grid::sample, "images, every mode; grids that are constant or follow the input", "of volumes: sample images";
    "GroupNormalization" => norm::group, "composed", "";
    "HardSigmoid" => activation::hard_sigmoid, "as it is", "";
    "HardSwish" => activation::hard_swish, "composed", "";
    "Identity" => layout::identity, "the operand itself; a second name of a weight is the same weight", "";
    "InstanceNormalization" => norm::instance, "composed", "";
    "IsNaN" => choice::is_nan, "a mask; its derivative is 0", "";
    "LRN" => norm::local_response, "composed", "";
    "LSTM" => recurrent::long, "the usual activations, sequences of one length, no peepholes; step by step", "peepholes, other activations, lengths of sequences: export without, all sequences of one length";
    "LayerNormalization" => norm::layer, "over any last axes", "over the samples: normalise each on its own";
    "LeakyRelu" => activation::leaky_relu, "as it is", "";
    "Less" => choice::less, "a mask; its derivative is 0", "";
    "LessOrEqual" => choice::less_or_equal, "a mask; its derivative is 0", "";
    "Log" => activation::log, "as it is", "";
    "LogSoftmax" => activation::log_softmax, "one axis; before opset 13 all from one on", "over the samples: take another axis";
    "LpNormalization" => norm::length, "p of 1 and 2, composed", "";
    "LpPool" => pool::length, "composed, over one to three axes", "over more than three axes: reshape to three";
    "MatMul" => linear::matmul, "any ranks; with a matrix of weights a linear layer", "";
    "Max" => arithmetic::max, "composed of comparisons; with a number, a bound", "";
    "MaxPool" => pool::max, "over one to three axes: dilations, auto_pad, uneven padding, ceil_mode", "indices that are used: unpool by another operator; over more than three axes: reshape to three";
    "Mean" => arithmetic::mean, "of any number of operands", "";
    "MeanVarianceNormalization" => norm::mean_variance, "composed", "over the samples, as by default: name the axes of one sample";
    "Min" => arithmetic::min, "composed of comparisons; with a number, a bound", "";
    "Mish" => activation::mish, "composed", "";
    "Mod" => arithmetic::remainder, "composed with a step: its derivative is that of the dividend", "";
    "Mul" => arithmetic::mul, "broadcasts as NumPy does", "";
    "Neg" => activation::neg, "as it is", "";
    "Not" => choice::not, "of a mask", "";
    "Or" => choice::or, "of masks", "";
    "PRelu" => activation::prelu, "slopes that broadcast", "";
    "Pad" => layout::pad, "constant, reflect and edge, negative widths; constant widths", "widths that follow the input, mode wrap: fix them, concatenate parts";
    "Pow" => arithmetic::pow, "broadcasts as NumPy does", "";
    "RMSNormalization" => norm::root_mean_square, "over any last axes, composed", "over the samples: normalise each on its own";
    "RNN" => recurrent::plain, "tanh or ReLU, sequences of one length; step by step", "other activations, lengths of sequences: export with the usual ones, all sequences of one length";
    "Reciprocal" => activation::reciprocal, "as it is", "";
    "ReduceL1" => reduce::l1, "composed", "";
    "ReduceL2" => reduce::l2, "composed", "";
    "ReduceLogSum" => reduce::log_sum, "composed", "";
    "ReduceLogSumExp" => reduce::log_sum_exp, "composed, shifted by the maximum", "";
    "ReduceMax" => reduce::max, "one axis after the other", "";
    "ReduceMean" => reduce::mean, "as it is", "";
    "ReduceMin" => reduce::min, "one axis after the other", "";
    "ReduceProd" => reduce::product, "factor by factor", "more than 64 factors: add logarithms";
    "ReduceSum" => reduce::sum, "as it is", "";
    "ReduceSumSquare" => reduce::sum_square, "composed", "";
    "Relu" => activation::relu, "as it is", "";
    "Reshape" => layout::reshape, "0, -1 and allowzero; shapes computed from the input's", "targets that no batch size explains: export with a dynamic first axis, or a batch of 1";
    "Resize" => resize::resize, "H and W of images: nearest, linear, cubic, as PyTorch exports them", "the axis of samples, a region of interest, a kept aspect ratio: export with the sizes written out";
    "Round" => activation::round, "its derivative is 0", "";
    "Scaler" => norm::scaler, "of ai.onnx.ml: offsets and scales of features", "";
    "Scatter" => scatter::scatter_elements, "as ScatterElements", "as ScatterElements";
    "ScatterElements" => scatter::scatter_elements, "at known indices, the same for every sample; replaced, added or multiplied", "indices that follow the input: mask instead; maxima and minima: gather, and take them";
    "ScatterND" => scatter::scatter_nd, "at known indices, the same for every sample; replaced, added or multiplied", "as ScatterElements";
    "Selu" => activation::selu, "composed", "";
    "Shape" => shape::shape, "known: the batch's size is followed through what is computed from it", "";
    "Shrink" => activation::shrink, "composed", "";
    "Sigmoid" => activation::sigmoid, "as it is", "";
    "Sign" => activation::sign, "its derivative is 0", "";
    "Sin" => activation::sin, "as it is", "";
    "Sinh" => activation::sinh, "composed", "";
    "Size" => shape::size, "known, as Shape", "";
    "Slice" => layout::slice, "constant bounds, negative steps", "the axis of samples, bounds that follow the input: treat each sample on its own, fix them";
    "Softmax" => activation::softmax, "one axis; before opset 13 all from one on", "over the samples: take another axis";
    "Softplus" => activation::softplus, "composed", "";
    "Softsign" => activation::softsign, "composed", "";
    "SpaceToDepth" => layout::space_to_depth, "composed", "";
    "Split" => layout::split, "constant parts, or a number of equal ones", "the axis of samples: treat each sample on its own";
    "Sqrt" => activation::sqrt, "as it is", "";
    "Squeeze" => layout::squeeze, "as it is", "";
    "Sub" => arithmetic::sub, "broadcasts as NumPy does", "";
    "Sum" => arithmetic::sum, "of any number of operands", "";
    "SwiGLU" => activation::gated, "composed", "";
    "Swish" => activation::swish, "composed", "";
    "Tan" => activation::tan, "composed", "";
    "Tanh" => activation::tanh, "as it is", "";
    "ThresholdedRelu" => activation::thresholded_relu, "composed", "";
    "Tile" => layout::tile, "known numbers of copies; once for each sample", "numbers that follow the input: fix them";
    "TopK" => choice::top, "the values, in order; no indices", "indices that are used: use only the values";
    "Transpose" => layout::transpose, "as it is", "";
    "Trilu" => choice::triangle, "composed with a constant mask", "";
    "Unsqueeze" => layout::unsqueeze, "as it is", "";
    "Upsample" => resize::upsample, "as Resize", "as Resize";
    "Where" => choice::choose, "a constant mask, or one compared from the input", "";
    "Xor" => choice::xor, "of masks", "";
}

/// Operators that are always refused, with the reason and what to do (in the repository, a table of
/// `docs/onnx.md`).
pub const REFUSED: &[(&[&str], &str)] = &[
    (
        &["If", "Loop", "Scan"],
        "control flow on values cannot be followed: trace the network (torch.onnx.export of a module, no \
         script), or in Keras build recurrent layers with unroll=True",
    ),
    (
        &[
            "QuantizeLinear",
            "DequantizeLinear",
            "DynamicQuantizeLinear",
            "QLinearConv",
            "QLinearMatMul",
            "ConvInteger",
            "MatMulInteger",
        ],
        "rounded numbers have no derivative: export the network before quantisation",
    ),
    (
        &[
            "RandomNormal",
            "RandomNormalLike",
            "RandomUniform",
            "RandomUniformLike",
            "Bernoulli",
            "Multinomial",
        ],
        "the output would be no function of the input: export the network in evaluation",
    ),
    (
        &["ArgMax", "ArgMin", "NonMaxSuppression", "NonZero", "OneHot", "Hardmax", "Unique"],
        "whole numbers have no derivative: name the logits before it as the output",
    ),
    (
        &["MaxUnpool", "MaxRoiPool", "RoiAlign", "DeformConv"],
        "it moves elements by numbers that follow the input: write it with GridSample, or export the \
         classifier after it",
    ),
];

/// The rule of one of ONNX's own operators.
pub(crate) fn rule(op: &str) -> Result<ImportRule, Refusal> {
    known(op).ok_or_else(|| {
        let remedy = REFUSED.iter().find(|(names, _)| names.contains(&op)).map(|(_, remedy)| *remedy);
        let other = "write that part of the network in operators of docs/onnx.md and export again";
        Refusal::new("this operator is not supported", remedy.unwrap_or(other))
    })
}

/// Why an operator of another domain is refused.
pub(crate) fn foreign(domain: &str, op: &str, functions: &[String]) -> Refusal {
    let why = format!("operators of the domain {domain} are not supported");
    let remedy = match domain {
        _ if functions.iter().any(|name| name == op) => {
            "the file itself defines this operator: inline it with \
             onnx.inliner.inline_local_functions"
        }
        "ai.onnx.ml" if op.starts_with("Linear") || op == "Normalizer" => {
            "export it in float64 (skl2onnx.to_onnx(model, x[:1].astype(\"float64\"))), which writes it as \
             a product and a softmax"
        }
        "ai.onnx.ml" if op.starts_with("Tree") => {
            "trees are constant between their steps: they have no Jacobian"
        }
        "ai.onnx.ml" => {
            "export the network's own outputs (skl2onnx: options={'zipmap': False}) and name the \
             probabilities or logits as the output"
        }
        "com.microsoft" => "export the network before onnxruntime has optimised it",
        _ => "export with ONNX's own operators",
    };
    Refusal::new(why, remedy)
}
