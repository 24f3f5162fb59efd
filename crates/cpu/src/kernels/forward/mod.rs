//! The forward pass.
//!
//! | module | computes |
//! |---|---|
//! | [`product`] | convolutions and linear layers |
//! | [`channelwise`] | depthwise convolutions |
//! | [`pool`] | pools, and scales and shifts |
//! | [`pointwise`] | functions of one variable |
//! | [`combine`] | sums, products and quotients of two values |
//! | [`within`] | softmax and layer normalisation |

pub(crate) mod channelwise;
pub(crate) mod combine;
pub(crate) mod pointwise;
pub(crate) mod pool;
pub(crate) mod product;
pub(crate) mod within;
