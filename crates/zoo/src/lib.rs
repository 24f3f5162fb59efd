//! ResNet50, DenseNet121 and a small CNN for small images, with PyTorch-named weights.
