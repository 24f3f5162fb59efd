//! CIFAR-10, binary version: batches of records of 3 073 bytes, a label and the planes of a 3 x 32
//! x 32 image.

use crate::dataset::Sizes;
use crate::error::{Error, counted, grouped};
use crate::locate::{Wanted, locate};
use crate::source::Source;
use crate::{Dataset, Kind, Split};
use std::io::ErrorKind;
use std::path::Path;

/// Channels, height and width.
const SHAPE: [usize; 3] = [3, 32, 32];
/// The bytes of one record: the label, then the pixels.
pub(crate) const RECORD: usize = 1 + PIXELS;
const PIXELS: usize = SHAPE[0] * SHAPE[1] * SHAPE[2];
const CLASSES: u8 = 10;
/// The images of each official batch.
const BATCH: u64 = 10_000;
/// The file of class names, one a line.
const NAMES: &str = "batches.meta.txt";
/// Far more than ten names need.
const MAX_NAMES: u64 = 1 << 12;

/// The batches of `split`.
pub(crate) fn files(split: Split) -> Vec<Wanted> {
    match split {
        Split::Train => (1..=5)
            .map(|n| Wanted {
                what: format!("batch {n}"),
                names: vec![format!("data_batch_{n}.bin")],
                gzip: false,
            })
            .collect(),
        Split::Test => {
            vec![Wanted { what: "batch".to_owned(), names: vec!["test_batch.bin".to_owned()], gzip: false }]
        }
    }
}

/// Reads `split` from the official files in `folder`: all its batches, and the class names where
/// they are there.
pub(crate) fn open(folder: &Path, split: Split, sizes: Sizes) -> Result<Dataset, Error> {
    let paths = locate(Kind::Cifar10, split, folder)?;
    let class_names = class_names(&folder.join(NAMES))?;
    let batches = paths.iter().map(|path| Source::open(path)).collect::<Result<Vec<_>, _>>()?;
    from_batches(format!("CIFAR-10 {split}"), batches, class_names, sizes)
}

/// A data set out of its batches, in their order. All lengths are checked before anything is set
/// aside, and are what is.
fn from_batches(
    name: String,
    batches: Vec<Source<'_>>,
    class_names: Vec<String>,
    sizes: Sizes,
) -> Result<Dataset, Error> {
    let counts = batches.iter().map(|batch| count(batch, sizes)).collect::<Result<Vec<_>, _>>()?;
    let total: u64 = counts.iter().sum();
    let Some(first) = batches.first() else {
        return Err(Error::Parts { name, why: "no batches".to_owned() });
    };
    let (mut pixels, mut labels) = (first.room(total.saturating_mul(PIXELS as u64))?, first.room(total)?);
    for (mut batch, count) in batches.into_iter().zip(counts) {
        read(&mut batch, count, &mut pixels, &mut labels)?;
    }
    Ok(Dataset::of_checked_parts(name, SHAPE, pixels, labels, class_names))
}

/// The number of images in a batch, from its length.
fn count(batch: &Source<'_>, sizes: Sizes) -> Result<u64, Error> {
    if let Some(what) = batch.foreign() {
        return Err(batch.corrupt(0, format!("not a CIFAR-10 batch; it is {what}")));
    }
    let Some(length) = batch.length() else {
        return Err(batch.corrupt(0, "the length of the batch is not known before it is read"));
    };
    let (images, over) = (length / RECORD as u64, length % RECORD as u64);
    if length == 0 {
        return Err(batch.corrupt(0, "the file is empty: no images"));
    }
    if over == 0 && (sizes == Sizes::Any || images == BATCH) {
        return Ok(images);
    }
    if over == 0 {
        let why = format!(
            "{} where a batch of CIFAR-10 has {}: the images behind it would be numbered wrongly; download it \
             again, or say that the files are your own (--own, Dataset::open_own)",
            counted(images, "image", "images"),
            grouped(BATCH)
        );
        return Err(batch.corrupt(length.min(BATCH * RECORD as u64), why));
    }
    let found = counted(images, "image", "images");
    let hint = if length.is_multiple_of(RECORD as u64 + 1) {
        "; records of 3 074 bytes are CIFAR-100's"
    } else {
        ""
    };
    let why = format!(
        "{} bytes are not a whole number of records of {} bytes (a label and 3 x 32 x 32 pixels): {found} and {} more{hint}",
        grouped(length),
        grouped(RECORD),
        counted(over, "byte", "bytes")
    );
    Err(batch.corrupt(length - over, why))
}

/// Appends the `count` images and labels of a batch.
fn read(batch: &mut Source<'_>, count: u64, pixels: &mut Vec<u8>, labels: &mut Vec<u8>) -> Result<(), Error> {
    let mut record = [0; RECORD];
    for image in 0..count {
        let at = batch.offset();
        if batch.fill(&mut record)? < RECORD {
            let why = format!(
                "cut short while it was read: {} of {}",
                grouped(image),
                counted(count, "image", "images")
            );
            return Err(batch.corrupt(batch.offset(), why));
        }
        let label = record[0];
        if label >= CLASSES {
            return Err(batch.corrupt(at, wrong_label(label, image, count)));
        }
        labels.push(label);
        pixels.extend_from_slice(&record[1..]);
    }
    Ok(())
}

fn wrong_label(label: u8, image: u64, count: u64) -> String {
    let last = CLASSES - 1;
    format!(
        "label {label} of image {image} of this file's {} is not a class: they are 0 to {last}",
        grouped(count)
    )
}

/// The class names in `file`, or the usual ones where there is no such file.
fn class_names(file: &Path) -> Result<Vec<String>, Error> {
    let mut source = match Source::open(file) {
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            return Ok(Kind::Cifar10.class_names().map(str::to_owned).into());
        }
        opened => opened?,
    };
    let length = source.length().unwrap_or(u64::MAX);
    if length > MAX_NAMES {
        return Err(source.corrupt(MAX_NAMES, "too long for a list of ten class names, one a line"));
    }
    let mut text = vec![0; length as usize];
    let found = source.fill(&mut text)?;
    text.truncate(found);
    parse_class_names(&source, &text)
}

/// Ten names, one a line; lines of white space do not count.
fn parse_class_names(source: &Source<'_>, text: &[u8]) -> Result<Vec<String>, Error> {
    let text = std::str::from_utf8(text)
        .map_err(|error| source.corrupt(error.valid_up_to() as u64, "the class names are not UTF-8 text"))?;
    let names: Vec<String> =
        text.lines().map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    if let Some(at) = text.find(|c: char| c.is_control() && !c.is_whitespace()) {
        return Err(source.corrupt(at as u64, "a control character in the class names"));
    }
    if names.len() != usize::from(CLASSES) {
        let found = counted(names.len(), "class name", "class names");
        return Err(
            source.corrupt(text.len() as u64, format!("{found}, one a line, where CIFAR-10 has {CLASSES}"))
        );
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trickle::Trickle;

    fn source(name: &str, bytes: &'static [u8], length: u64) -> Result<Source<'static>, Error> {
        Source::new(Path::new(name), Trickle::new(bytes), Some(length))
    }

    #[test]
    fn batches_may_come_byte_by_byte() -> Result<(), Error> {
        static BATCH: [u8; 2 * RECORD] = [3; 2 * RECORD];
        let batches =
            vec![source("a", &BATCH, 2 * RECORD as u64)?, source("b", &BATCH[..RECORD], RECORD as u64)?];
        let names = Kind::Cifar10.class_names().map(str::to_owned).into();
        let set = from_batches("three".to_owned(), batches, names, Sizes::Any)?;
        assert_eq!((set.labels(), set.image(2)), (&[3; 3][..], &[3; PIXELS][..]));
        Ok(())
    }

    #[test]
    fn a_batch_that_shrinks_while_it_is_read_is_told() -> Result<(), Error> {
        static BATCH: [u8; RECORD + 9] = [3; RECORD + 9];
        let batches = vec![source("a", &BATCH, 2 * RECORD as u64)?];
        let found = from_batches("two".to_owned(), batches, vec![], Sizes::Any);
        let message = found.map_err(|error| error.to_string());
        assert_eq!(message, Err("a: cut short while it was read: 1 of 2 images (offset 3082)".to_owned()));
        Ok(())
    }
}
