//! The forward pass.

pub(crate) mod channelwise;
pub(crate) mod pool;
pub(crate) mod product;
