//! Vectorised reverse-mode autodiff for captured Burn modules.
