//! The reverse pass: cotangents from the rows that read to those that are read.

pub(crate) mod gather;
pub(crate) mod pullback;
pub(crate) mod scaled;
pub(crate) mod spread;
pub(crate) mod within;
