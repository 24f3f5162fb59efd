//! Rows of channels, cotangents and weights in memory, and which row reads which.

pub(crate) mod active;
pub(crate) mod cotangent;
pub(crate) mod lanes;
pub(crate) mod lines;
pub(crate) mod moves;
pub(crate) mod panels;
pub(crate) mod rows;
pub(crate) mod table;
