//! CIFAR-10 and CIFAR-100, binary versions.
//!
//! A batch is a sequence of records without a header. A record is a label (in CIFAR-100 two, the
//! coarse one first) followed by the planes of a 3 x 32 x 32 image.

use crate::dataset::AcceptedSizes;
use crate::error::{Error, counted, grouped};
use crate::locate::{Wanted, locate};
use crate::source::FileStream;
use crate::{Dataset, DatasetKind, Split};
use std::io::ErrorKind;
use std::path::Path;

/// Channels, height and width.
const SHAPE: [usize; 3] = [3, 32, 32];
const PIXELS: usize = SHAPE[0] * SHAPE[1] * SHAPE[2];
/// Bytes of the largest file of class names; a hundred names need far less.
const MAX_NAMES: u64 = 1 << 12;

/// The differences between the versions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Version {
    kind: DatasetKind,
    /// Bytes of labels before the pixels.
    labels: usize,
    /// Index of the label that is used.
    label: usize,
    /// Number of images in each official batch.
    batch: u64,
    /// The file of class names, one per line.
    names: &'static str,
}

impl Version {
    /// The version of a kind and a split. Kinds other than CIFAR get CIFAR-10's.
    pub(crate) fn of(kind: DatasetKind, split: Split) -> Self {
        let large = if split == Split::Train { 50_000 } else { 10_000 };
        let (labels, label, batch, names) = match kind {
            DatasetKind::Cifar100 => (2, 1, large, "fine_label_names.txt"),
            DatasetKind::Cifar100Coarse => (2, 0, large, "coarse_label_names.txt"),
            _ => (1, 0, 10_000, "batches.meta.txt"),
        };
        Self { kind, labels, label, batch, names }
    }

    /// Length of one record in bytes: the labels, then the pixels.
    pub(crate) fn record(self) -> usize {
        self.labels + PIXELS
    }

    fn classes(self) -> usize {
        self.kind.class_names().len()
    }
}

/// The batches of `split`.
pub(crate) fn files(kind: DatasetKind, split: Split) -> Vec<Wanted> {
    let wanted = |what: String, name: String| Wanted { what, names: vec![name], gzip: false };
    match (kind, split) {
        (DatasetKind::Cifar100 | DatasetKind::Cifar100Coarse, split) => {
            vec![wanted("batch".to_owned(), format!("{split}.bin"))]
        }
        (_, Split::Train) => {
            (1..=5).map(|n| wanted(format!("batch {n}"), format!("data_batch_{n}.bin"))).collect()
        }
        (_, Split::Test) => vec![wanted("batch".to_owned(), "test_batch.bin".to_owned())],
    }
}

/// Reads `split` from the official files in `folder`: all its batches, and the class names if that
/// file exists.
pub(crate) fn open(
    kind: DatasetKind,
    folder: &Path,
    split: Split,
    sizes: AcceptedSizes,
) -> Result<Dataset, Error> {
    let version = Version::of(kind, split);
    let paths = locate(kind, split, folder)?;
    let class_names = class_names(&folder.join(version.names), version)?;
    let batches = paths.iter().map(|path| FileStream::open(path)).collect::<Result<Vec<_>, _>>()?;
    from_batches(format!("{} {split}", kind.title()), batches, class_names, version, sizes)
}

/// Makes a data set from its batches, in order. All lengths are checked before memory is allocated,
/// and exactly these lengths are allocated.
fn from_batches(
    name: String,
    batches: Vec<FileStream<'_>>,
    class_names: Vec<String>,
    version: Version,
    sizes: AcceptedSizes,
) -> Result<Dataset, Error> {
    let counts = batches.iter().map(|batch| count(batch, version, sizes)).collect::<Result<Vec<_>, _>>()?;
    let total: u64 = counts.iter().sum();
    let Some(first) = batches.first() else {
        return Err(Error::Parts { name, why: "no batches".to_owned() });
    };
    let (mut pixels, mut labels) = (first.room(total.saturating_mul(PIXELS as u64))?, first.room(total)?);
    for (mut batch, count) in batches.into_iter().zip(counts) {
        read(&mut batch, version, count, &mut pixels, &mut labels)?;
    }
    Ok(Dataset::of_checked_parts(name, SHAPE, pixels, labels, class_names))
}

/// The number of images in a batch, from its length.
fn count(batch: &FileStream<'_>, version: Version, sizes: AcceptedSizes) -> Result<u64, Error> {
    // The format has no header: a wrong length is the only sign of a cut or foreign file. Even a
    // whole number of records is refused if it is not the official one, because the images of later
    // batches would get other numbers.
    let (record, title) = (version.record() as u64, version.kind.title());
    if let Some(what) = batch.foreign() {
        return Err(batch.corrupt(0, format!("not a {title} batch; it is {what}")));
    }
    let Some(length) = batch.length() else {
        return Err(batch.corrupt(0, "the length of the batch is not known before it is read"));
    };
    let (images, over) = (length / record, length % record);
    if length == 0 {
        return Err(batch.corrupt(0, "the file is empty: no images"));
    }
    if over == 0 && (sizes == AcceptedSizes::Any || images == version.batch) {
        return Ok(images);
    }
    if over == 0 {
        let why = format!(
            "{} where a batch of {title} has {}: the images after it would have wrong numbers; download it \
             again, or say that the files are your own (--own, Dataset::open_own)",
            counted(images, "image", "images"),
            grouped(version.batch)
        );
        return Err(batch.corrupt(length.min(version.batch * record), why));
    }
    // Not a whole number of records. If it is one of the other version's records, the hint says so.
    let found = counted(images, "image", "images");
    let hint = match version.labels {
        1 if length.is_multiple_of(record + 1) => "; records of 3 074 bytes are CIFAR-100's",
        2 if length.is_multiple_of(record - 1) => "; records of 3 073 bytes are CIFAR-10's",
        _ => "",
    };
    let labels = if version.labels == 1 { "a label" } else { "two labels" };
    let why = format!(
        "{} bytes are not a whole number of records of {} bytes ({labels} and 3 x 32 x 32 pixels): {found} and {} more{hint}",
        grouped(length),
        grouped(record),
        counted(over, "byte", "bytes")
    );
    Err(batch.corrupt(length - over, why))
}

/// Appends the `count` images and labels of a batch.
fn read(
    batch: &mut FileStream<'_>,
    version: Version,
    count: u64,
    pixels: &mut Vec<u8>,
    labels: &mut Vec<u8>,
) -> Result<(), Error> {
    let mut record = vec![0; version.record()];
    for image in 0..count {
        let at = batch.offset();
        if batch.fill(&mut record)? < version.record() {
            let why = format!(
                "cut short while it was read: {} of {}",
                grouped(image),
                counted(count, "image", "images")
            );
            return Err(batch.corrupt(batch.offset(), why));
        }
        let (before, planes) = record.split_at(version.labels);
        let label = before[version.label];
        if usize::from(label) >= version.classes() {
            return Err(batch.corrupt(at, wrong_label(label, version.classes(), image, count)));
        }
        labels.push(label);
        pixels.extend_from_slice(planes);
    }
    Ok(())
}

fn wrong_label(label: u8, classes: usize, image: u64, count: u64) -> String {
    let last = classes.saturating_sub(1);
    format!(
        "label {label} of image {image} of this file's {} is not a class: they are 0 to {last}",
        grouped(count)
    )
}

/// The class names in `file`, or the standard ones if there is no such file.
fn class_names(file: &Path, version: Version) -> Result<Vec<String>, Error> {
    let mut source = match FileStream::open(file) {
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            return Ok(version.kind.own_class_names());
        }
        opened => opened?,
    };
    let length = source.length().unwrap_or(u64::MAX);
    if length > MAX_NAMES {
        return Err(source.corrupt(MAX_NAMES, "too long for a list of class names, one per line"));
    }
    let mut text = vec![0; length as usize];
    let found = source.fill(&mut text)?;
    text.truncate(found);
    parse_class_names(&source, version, &text)
}

/// Parses one class name per line; blank lines are ignored.
fn parse_class_names(source: &FileStream<'_>, version: Version, text: &[u8]) -> Result<Vec<String>, Error> {
    let text = std::str::from_utf8(text)
        .map_err(|error| source.corrupt(error.valid_up_to() as u64, "the class names are not UTF-8 text"))?;
    let names: Vec<String> =
        text.lines().map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    if let Some(at) = text.find(|c: char| c.is_control() && !c.is_whitespace()) {
        return Err(source.corrupt(at as u64, "a control character in the class names"));
    }
    if names.len() != version.classes() {
        let found = counted(names.len(), "class name", "class names");
        let (title, classes) = (version.kind.title(), version.classes());
        let why = format!("{found}, one per line, where {title} has {classes}");
        return Err(source.corrupt(text.len() as u64, why));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trickle::Trickle;

    const RECORD: usize = 1 + PIXELS;

    fn ten() -> Version {
        Version::of(DatasetKind::Cifar10, Split::Test)
    }

    fn source(name: &str, bytes: &'static [u8], length: u64) -> Result<FileStream<'static>, Error> {
        FileStream::new(Path::new(name), Trickle::new(bytes), Some(length))
    }

    #[test]
    fn batches_may_come_byte_by_byte() -> Result<(), Error> {
        static BATCH: [u8; 2 * RECORD] = [3; 2 * RECORD];
        let batches =
            vec![source("a", &BATCH, 2 * RECORD as u64)?, source("b", &BATCH[..RECORD], RECORD as u64)?];
        let names = DatasetKind::Cifar10.own_class_names();
        let set = from_batches("three".to_owned(), batches, names, ten(), AcceptedSizes::Any)?;
        assert_eq!((set.labels(), set.image(2)), (&[3; 3][..], &[3; PIXELS][..]));
        Ok(())
    }

    #[test]
    fn a_batch_that_shrinks_while_it_is_read_is_reported() -> Result<(), Error> {
        static BATCH: [u8; RECORD + 9] = [3; RECORD + 9];
        let batches = vec![source("a", &BATCH, 2 * RECORD as u64)?];
        let found = from_batches("two".to_owned(), batches, vec![], ten(), AcceptedSizes::Any);
        let message = found.map_err(|error| error.to_string());
        assert_eq!(message, Err("a: cut short while it was read: 1 of 2 images (offset 3082)".to_owned()));
        Ok(())
    }
}
