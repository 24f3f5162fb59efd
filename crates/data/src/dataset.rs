//! A data set in memory: images as bytes, their labels, and the names of the classes.

use crate::error::counted;
use crate::source::FileStream;
use crate::{DatasetKind, Error, Pixel, Split, cifar, mnist, sample};
use std::borrow::Cow;
use std::fmt;
use std::path::Path;

/// The accepted sizes of the files of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AcceptedSizes {
    /// The sizes of the published files.
    Official,
    /// Any size that the format allows.
    Any,
}

/// `N` >= 1 labelled images of shape `[C, H, W]`, one byte per value. Every label has a class.
#[derive(Clone, PartialEq, Eq)]
pub struct Dataset {
    name: String,
    shape: [usize; 3],
    /// The bytes of all images, `[N, C, H, W]`.
    pixels: Cow<'static, [u8]>,
    /// The label of each image, `[N]`.
    labels: Cow<'static, [u8]>,
    class_names: Vec<String>,
}

impl Dataset {
    /// Reads one split of a data set from its official files in `folder`.
    ///
    /// * MNIST: `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, and `t10k-...` for the test
    ///   split; also spelt with a dot (`t10k-images.idx3-ubyte`), and with `.gz` (the uncompressed
    ///   file is preferred if both exist).
    /// * CIFAR-10: `data_batch_1.bin` to `data_batch_5.bin`, or `test_batch.bin`, and
    ///   `batches.meta.txt` for the class names if it exists.
    /// * CIFAR-100: `train.bin` or `test.bin`, and `fine_label_names.txt` or
    ///   `coarse_label_names.txt`.
    /// * Fashion-MNIST: the same file names as MNIST.
    ///
    /// All images of the split are read into memory (MNIST 47 MB and 8 MB, CIFAR-10 154 MB and 31
    /// MB).
    ///
    /// The files must have the official sizes: images of 28 x 28 for MNIST, batches of 10 000
    /// images for CIFAR-10. CIFAR files do not state how many images they contain; a batch cut at
    /// the end of an image would shift the numbers of all later images of the split.
    ///
    /// # Errors
    /// [`Error::Missing`] if files are missing, with what was found instead; [`Error::Corrupt`]
    /// with file and byte if one is incomplete or wrong; [`Error::Io`] and [`Error::OutOfMemory`]
    /// from the system.
    pub fn open(kind: DatasetKind, folder: &Path, split: Split) -> Result<Self, Error> {
        Self::open_as(kind, folder, split, AcceptedSizes::Official)
    }

    /// Reads one split from your own files that have the official names and format, but any size:
    /// images of any height and width in MNIST's format, batches of any number of images in
    /// CIFAR-10's. Images are numbered in the order of the files.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_own(kind: DatasetKind, folder: &Path, split: Split) -> Result<Self, Error> {
        Self::open_as(kind, folder, split, AcceptedSizes::Any)
    }

    fn open_as(kind: DatasetKind, folder: &Path, split: Split, sizes: AcceptedSizes) -> Result<Self, Error> {
        match kind {
            DatasetKind::Mnist | DatasetKind::FashionMnist => mnist::open(kind, folder, split, sizes),
            DatasetKind::Cifar10 | DatasetKind::Cifar100 | DatasetKind::Cifar100Coarse => {
                cifar::open(kind, folder, split, sizes)
            }
        }
    }

    /// Reads images `[N, H, W]` and labels `[N]` from a pair of IDX files of any name and size,
    /// compressed or not; the labels are indices into `class_names`. The data set is named after
    /// the file of images.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with file and byte if a file is incomplete, or the two files do not match
    /// each other or the classes; [`Error::Parts`] if there are no classes; [`Error::Io`] and
    /// [`Error::OutOfMemory`] from the system.
    pub fn from_idx_files(images: &Path, labels: &Path, class_names: Vec<String>) -> Result<Self, Error> {
        let name = images.file_name().unwrap_or(images.as_os_str()).display().to_string();
        if class_names.is_empty() {
            return Err(Error::Parts { name, why: "no class names, so no label has a class".to_owned() });
        }
        mnist::from_idx(name, FileStream::open(images)?, FileStream::open(labels)?, class_names)
    }

    /// A data set of your own: `pixels` is `[N, C, H, W]` for `shape` `[C, H, W]`, `labels` is
    /// `[N]`, indices into `class_names`.
    ///
    /// # Errors
    /// [`Error::Parts`] if there is no image, sizes do not match, or a label has no class.
    pub fn from_parts(
        name: impl Into<String>,
        shape: [usize; 3],
        pixels: Vec<u8>,
        labels: Vec<u8>,
        class_names: Vec<String>,
    ) -> Result<Self, Error> {
        let name = name.into();
        match fault_of_parts(shape, &pixels, &labels, class_names.len()) {
            Some(why) => Err(Error::Parts { name, why }),
            None => Ok(Self::of_checked_parts(name, shape, pixels, labels, class_names)),
        }
    }

    /// The embedded sample: the first 100 images of the MNIST test set, with the same numbers. No
    /// file is read and nothing can fail. [`sample::RESNET50W8_MNIST`] has weights for it.
    #[must_use]
    pub fn embedded() -> Self {
        let ([_, height, width], pixels) = sample::IMAGES;
        let class_names = DatasetKind::Mnist.own_class_names();
        Self::of_checked_parts(
            "MNIST test, first 100".to_owned(),
            [1, height, width],
            pixels,
            sample::LABELS.1,
            class_names,
        )
    }

    /// A data set whose parts a reader has already checked, with messages that name the file
    /// position: the same checks as [`fault_of_parts`].
    pub(crate) fn of_checked_parts(
        name: String,
        shape: [usize; 3],
        pixels: impl Into<Cow<'static, [u8]>>,
        labels: impl Into<Cow<'static, [u8]>>,
        class_names: Vec<String>,
    ) -> Self {
        Self { name, shape, pixels: pixels.into(), labels: labels.into(), class_names }
    }

    /// The name of the data set in messages: "MNIST test".
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Keeps only the first `len` images, but at least one, and frees the memory of the others.
    pub fn truncate(&mut self, len: usize) {
        let len = len.clamp(1, self.len());
        let size = self.size();
        for (numbers, count) in [(&mut self.pixels, len * size), (&mut self.labels, len)] {
            match numbers {
                Cow::Borrowed(numbers) => *numbers = &numbers[..count],
                Cow::Owned(numbers) => {
                    numbers.truncate(count);
                    numbers.shrink_to_fit();
                }
            }
        }
    }

    /// The number of images.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Always false: there is at least one image.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Channels, height and width of every image.
    #[must_use]
    pub const fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// The number of classes.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.class_names.len()
    }

    /// The name of each class, in the order of the labels.
    #[must_use]
    pub fn class_names(&self) -> &[String] {
        &self.class_names
    }

    /// The name of a class, if there is such a class.
    #[must_use]
    pub fn class_name(&self, label: usize) -> Option<&str> {
        self.class_names.get(label).map(String::as_str)
    }

    /// The label of every image, each less than [`classes`](Self::classes).
    #[must_use]
    pub fn labels(&self) -> &[u8] {
        &self.labels
    }

    /// The label of image `index`.
    ///
    /// # Panics
    /// If `index` is not less than [`len`](Self::len), as indexing does.
    #[must_use]
    pub fn label(&self, index: usize) -> usize {
        self.labels[index].into()
    }

    /// The bytes of image `index`, `[C, H, W]`: one plane per channel, rows from the top.
    ///
    /// # Panics
    /// If `index` is not less than [`len`](Self::len), as indexing does.
    #[must_use]
    pub fn image(&self, index: usize) -> &[u8] {
        let size = self.size();
        &self.pixels[index * size..][..size]
    }

    /// Appends image `index` to `values`: `[C, H, W]`, each byte as byte / 255.
    ///
    /// # Panics
    /// If `index` is not less than [`len`](Self::len), as indexing does.
    pub fn write_scaled<T: Pixel>(&self, index: usize, values: &mut Vec<T>) {
        values.extend(self.image(index).iter().map(|&byte| T::scaled(byte)));
    }

    /// The images with these indices, concatenated: `[indices.len(), C, H, W]`, each byte as byte /
    /// 255.
    ///
    /// # Panics
    /// If an index is not less than [`len`](Self::len), as indexing does. Indices from
    /// [`Selection::resolve`](crate::Selection::resolve) are always valid.
    #[must_use]
    pub fn batch<T: Pixel>(&self, indices: &[usize]) -> Vec<T> {
        let mut values = Vec::with_capacity(indices.len() * self.size());
        indices.iter().for_each(|&index| self.write_scaled(index, &mut values));
        values
    }

    /// The number of bytes of one image.
    fn size(&self) -> usize {
        self.shape.iter().product()
    }
}

impl fmt::Debug for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dataset")
            .field("name", &self.name)
            .field("len", &self.len())
            .field("shape", &self.shape)
            .field("class_names", &self.class_names)
            .finish_non_exhaustive()
    }
}

/// Why these parts do not make a data set, or `None` if they do.
fn fault_of_parts(shape: [usize; 3], pixels: &[u8], labels: &[u8], classes: usize) -> Option<String> {
    let size = shape.iter().try_fold(1_usize, |size, &extent| size.checked_mul(extent));
    let images = counted(labels.len(), "image", "images");
    if labels.is_empty() {
        return Some("no images".to_owned());
    }
    if shape.contains(&0) {
        return Some(format!("images of shape {shape:?} have no elements"));
    }
    if size.and_then(|size| size.checked_mul(labels.len())) != Some(pixels.len()) {
        let bytes = counted(pixels.len(), "byte", "bytes");
        return Some(format!(
            "{bytes} of pixels, which is not {images} (as there are labels) of shape {shape:?}"
        ));
    }
    let image = labels.iter().position(|&label| usize::from(label) >= classes)?;
    let classes = counted(classes, "class", "classes");
    Some(format!("label {} of image {image} is not one of the {classes}, counted from 0", labels[image]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trickle::Trickle;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|class| format!("class {class}")).collect()
    }

    #[test]
    fn images_keep_their_order_and_planes() -> Result<(), Error> {
        let set = Dataset::from_parts("own", [2, 1, 3], (0..12).collect(), vec![1, 0], names(2))?;
        assert_eq!((set.name(), set.len(), set.shape(), set.classes()), ("own", 2, [2, 1, 3], 2));
        assert_eq!((set.image(0), set.image(1)), (&[0, 1, 2, 3, 4, 5][..], &[6, 7, 8, 9, 10, 11][..]));
        assert_eq!((set.label(0), set.labels()), (1, &[1, 0][..]));
        let values: Vec<f64> = set.batch(&[1, 0]);
        assert_eq!((values[0], values[6], values.len()), (6.0 / 255.0, 0.0, 12));
        assert!(!set.is_empty());
        Ok(())
    }

    #[test]
    fn what_is_cut_off_is_gone_and_the_rest_stays_as_it_was() -> Result<(), Error> {
        let own = Dataset::from_parts("own", [1, 1, 2], (0..8).collect(), vec![0, 1, 0, 1], names(2))?;
        for whole in [Dataset::embedded(), own] {
            let mut cut = whole.clone();
            cut.truncate(3);
            assert_eq!((cut.len(), cut.label(1), cut.shape()), (3, whole.label(1), whole.shape()));
            assert!((0..3).all(|index| cut.image(index) == whole.image(index)));
            assert_eq!(cut.pixels.len(), 3 * whole.size());
            cut.truncate(9);
            assert_eq!(cut.len(), 3);
            cut.truncate(0);
            assert_eq!(cut.len(), 1, "one image stays");
        }
        Ok(())
    }

    #[test]
    fn parts_that_do_not_fit_are_reported() {
        let none: &[u8] = &[];
        let cases = [
            ([1, 1, 1], 0, none, 1, "no images"),
            ([1, 0, 1], 0, &[0], 1, "[1, 0, 1] have no elements"),
            ([1, 2, 2], 7, &[0, 0], 1, "7 bytes of pixels, which is not 2 images"),
            ([usize::MAX, 2, 2], 8, &[0, 0], 1, "8 bytes of pixels"),
            ([1, 2, 2], 8, &[0, 3], 3, "label 3 of image 1 is not one of the 3 classes"),
            ([1, 2, 2], 4, &[0], 0, "label 0 of image 0 is not one of the 0 classes"),
        ];
        for (shape, bytes, labels, classes, why) in cases {
            let made = Dataset::from_parts("own", shape, vec![0; bytes], labels.to_vec(), names(classes));
            let message = made.map_err(|error| error.to_string());
            assert!(message.as_ref().is_err_and(|text| text.contains(why)), "{message:?} lacks {why:?}");
        }
    }

    #[test]
    fn the_embedded_sample_is_what_the_reader_reads_byte_by_byte() -> Result<(), Error> {
        let source = |bytes: &'static [u8]| {
            FileStream::new(Path::new("sample"), Trickle::new(bytes), Some(bytes.len() as u64))
        };
        let embedded = Dataset::embedded();
        let read = mnist::from_idx(
            embedded.name.clone(),
            source(sample::MNIST_IMAGES)?,
            source(sample::MNIST_LABELS)?,
            embedded.class_names.clone(),
        )?;
        assert_eq!(read, embedded);
        assert_eq!(embedded.len(), 100);
        assert_eq!(embedded.labels()[..10], [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]);
        Ok(())
    }
}
