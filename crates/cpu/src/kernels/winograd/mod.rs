//! Convolutions over 3 x 3 neighbours in Winograd's form.

pub(crate) mod form;
pub(crate) mod patch_gram;
pub(crate) mod patched;
pub(crate) mod patches;
