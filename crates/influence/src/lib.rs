//! First-order influence of perturbations on trained deep networks (Shu & Zhu, AAAI-19).
