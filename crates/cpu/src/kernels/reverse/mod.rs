//! The reverse pass: cotangents from the rows that read to those that are read.
//!
//! | module | pulls back |
//! |---|---|
//! | [`pullback`] | convolutions and linear layers |
//! | [`gather`] | pools and depthwise convolutions |
//! | [`scaled`] | functions of one variable, products, quotients, repeats |
//! | [`spread`] | sums, masks, scales of channels |
//! | [`within`] | softmax and layer normalisation |

pub(crate) mod gather;
pub(crate) mod lanes;
pub(crate) mod pullback;
pub(crate) mod scaled;
pub(crate) mod spread;
pub(crate) mod within;
