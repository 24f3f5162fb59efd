//! The perturbation manifold of a classifier: Fisher metric, spectral filters and first-order influence.
