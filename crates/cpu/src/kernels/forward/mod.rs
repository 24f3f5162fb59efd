//! The forward pass.

pub(crate) mod channelwise;
pub(crate) mod combine;
pub(crate) mod pointwise;
pub(crate) mod pool;
pub(crate) mod product;
pub(crate) mod within;
