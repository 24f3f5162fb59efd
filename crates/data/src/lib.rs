//! MNIST and CIFAR-10 in their official file formats, and the embedded sample.
