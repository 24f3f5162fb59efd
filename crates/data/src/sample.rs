//! The embedded sample: enough data and weights to compute influences without any file.
//!
//! The file NOTICES of this project states the origin and licence of both; `sample/make.py`
//! regenerates the data.

use crate::idx;

/// The first 100 images of the MNIST test set, as an IDX file: a header of 16 bytes, then `[100,
/// 28, 28]`.
pub static MNIST_IMAGES: &[u8] = include_bytes!("../sample/t10k-images-idx3-ubyte");

/// Their labels, as an IDX file: a header of 8 bytes, then `[100]`.
pub static MNIST_LABELS: &[u8] = include_bytes!("../sample/t10k-labels-idx1-ubyte");

/// Weights of a small ResNet50 trained on MNIST: a safetensors file (0.8 MB).
///
/// The ResNet50 of Shu & Zhu (AAAI-19) for `[1, 28, 28]` images, at width 8 instead of 64: 0.4 M
/// parameters, 10 classes. Names and layouts are PyTorch's (`stages.0.0.conv1.weight`, `[out, in,
/// height, width]`), values are float16, inputs are pixels in `[0, 1]` (value / 255, no further
/// normalisation). It classifies 99.25 % of the MNIST test set correctly.
pub static RESNET50W8_MNIST: &[u8] = include_bytes!("../sample/resnet50w8-mnist.safetensors");

/// Dimensions and elements of the images and of the labels, parsed at compile time by the reader's
/// own header parser. A faulty sample does not compile, so the embedded data set cannot fail at run
/// time.
pub(crate) const IMAGES: ([usize; 3], &[u8]) = array(MNIST_IMAGES);
pub(crate) const LABELS: ([usize; 1], &[u8]) = array(MNIST_LABELS);

const _: () = {
    let ([count, height, width], pixels) = IMAGES;
    assert!(pixels.len() == count * height * width, "pixels");
    assert!(LABELS.0[0] == count && LABELS.1.len() == count, "a label for each image");
    let mut image = 0;
    while image < count {
        assert!(LABELS.1[image] < 10, "ten classes");
        image += 1;
    }
};

/// The dimensions and the elements of an IDX file.
const fn array<const D: usize>(file: &'static [u8]) -> ([usize; D], &'static [u8]) {
    let Some(read) = idx::parse_header::<D>(file) else { panic!("the embedded sample is not in IDX files") };
    let (mut dims, mut at) = ([0; D], 0);
    while at < D {
        dims[at] = read[at] as usize;
        at += 1;
    }
    (dims, file.split_at(idx::header_length(D)).1)
}
