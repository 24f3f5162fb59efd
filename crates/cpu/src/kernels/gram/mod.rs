//! Gram matrices of the gradients of parameters. The gradient of a weight is never in memory as a
//! whole.
//!
//! | module | of |
//! |---|---|
//! | [`channels`] | the cotangents of a sample, sorted by channel |
//! | [`outer`] | weights, by tiles of the gradient |
//! | [`depthwise`] | weights of depthwise convolutions |
//! | [`elements`] | tensors whose elements are added to those of a result |
//! | [`pairs`] | weights, by pairs of positions |
//! | [`sums`] | biases and normalisations |

pub(crate) mod channels;
pub(crate) mod depthwise;
pub(crate) mod elements;
pub(crate) mod outer;
pub(crate) mod pairs;
pub(crate) mod sums;
