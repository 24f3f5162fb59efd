//! MNIST, and other images and labels in a pair of IDX files.

use crate::dataset::AcceptedSizes;
use crate::error::{Error, counted};
use crate::idx;
use crate::locate::{Wanted, locate};
use crate::source::FileStream;
use crate::{Dataset, DatasetKind, Split};
use std::path::Path;

/// The files of `split`: images, then labels; compressed or not, in both usual spellings.
pub(crate) fn files(split: Split) -> Vec<Wanted> {
    let prefix = match split {
        Split::Train => "train",
        Split::Test => "t10k",
    };
    let file = |what: &str, idx: &str| {
        let names = ["-", "."].map(|dash| format!("{prefix}-{what}{dash}{idx}-ubyte"));
        Wanted { what: what.to_owned(), names: names.into(), gzip: true }
    };
    vec![file("images", "idx3"), file("labels", "idx1")]
}

/// Height and width of the official images.
const SIZE: [usize; 2] = [28, 28];

/// Reads `split` from the files in `folder`.
pub(crate) fn open(
    kind: DatasetKind,
    folder: &Path,
    split: Split,
    sizes: AcceptedSizes,
) -> Result<Dataset, Error> {
    let paths = locate(kind, split, folder)?;
    let name = format!("{} {split}", kind.title());
    let [images, labels] = paths.as_slice() else {
        return Err(Error::Parts {
            name,
            why: format!("{} files instead of images and labels", paths.len()),
        });
    };
    let set = from_idx(name, FileStream::open(images)?, FileStream::open(labels)?, kind.own_class_names())?;
    let [_, height, width] = set.shape();
    if sizes == AcceptedSizes::Official && [height, width] != SIZE {
        let why = format!(
            "images of {height} x {width} pixels where {} has 28 x 28: a network for those would give wrong \
             answers on others, without an error; if the files are your own, say so (--own, \
             Dataset::open_own)",
            kind.title()
        );
        return Err(Error::Corrupt { file: images.clone(), offset: 8, why });
    }
    Ok(set)
}

/// Makes a data set from a file of images and a file of their labels.
///
/// # Errors
/// [`Error::Corrupt`] for faults of either file, for different counts, and for a label without a
/// class.
pub(crate) fn from_idx(
    name: String,
    mut images_file: FileStream<'_>,
    mut labels_file: FileStream<'_>,
    class_names: Vec<String>,
) -> Result<Dataset, Error> {
    let images = idx::read::<3>(&mut images_file)?;
    let labels = idx::read::<1>(&mut labels_file)?;
    let [count, height, width] = images.dims;
    if labels.dims[0] != count {
        let (labels, images) =
            (counted(labels.dims[0], "label", "labels"), counted(count, "image", "images"));
        let of = images_file.file().display();
        return Err(
            labels_file.corrupt(4, format!("{labels} for {images} ({of}): the two files do not match"))
        );
    }
    let classes = class_names.len();
    if let Some(image) = labels.data.iter().position(|&label| usize::from(label) >= classes) {
        let (label, last) = (labels.data[image], classes.saturating_sub(1));
        let why = format!("label {label} of image {image} is not a class: they are 0 to {last}");
        return Err(labels_file.corrupt((idx::header_length(1) + image) as u64, why));
    }
    Ok(Dataset::of_checked_parts(name, [1, height, width], images.data, labels.data, class_names))
}
