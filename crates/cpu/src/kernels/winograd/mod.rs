//! Convolutions over 3 x 3 neighbours in Winograd's form.
//!
//! | module | what |
//! |---|---|
//! | [`form`] | the transformations, on squares of vectors |
//! | [`patches`] | which rows a patch reads and writes |
//! | [`patched`] | products and pullbacks patch by patch |
//! | [`patched_outer`] | Gram matrices of the weights' gradients |

pub(crate) mod form;
pub(crate) mod patched;
pub(crate) mod patched_outer;
pub(crate) mod patches;
