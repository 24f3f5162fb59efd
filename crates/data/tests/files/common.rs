//! Small data sets written into a temporary folder, whole or with faults.
#![allow(dead_code, reason = "every test binary uses a part of this")]

use flate2::{Compression, write::GzEncoder};
use influence_data::{Dataset, DatasetKind, Error, Split};
use std::io::{self, Write};
use std::path::Path;
use tempfile::TempDir;

/// The result type of tests.
pub(crate) type TestResult = Result<(), Box<dyn std::error::Error>>;

/// The official names of the MNIST test files.
pub(crate) const IMAGES: &str = "t10k-images-idx3-ubyte";
/// The official names of the MNIST test files.
pub(crate) const LABELS: &str = "t10k-labels-idx1-ubyte";
/// The official name of the CIFAR-10 test file.
pub(crate) const BATCH: &str = "test_batch.bin";
/// The bytes of a record of CIFAR-10.
pub(crate) const RECORD: usize = 3073;

/// An IDX file with this header, followed by `elements`.
pub(crate) fn idx(dims: &[u32], elements: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, 8, dims.len() as u8];
    dims.iter().for_each(|extent| file.extend_from_slice(&extent.to_be_bytes()));
    file.extend_from_slice(elements);
    file
}

/// `count` bytes that are not all equal.
pub(crate) fn pixels(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at * 31 + at / 256) as u8).collect()
}

/// A file of `count` images of 4 x 3.
pub(crate) fn images(count: u32) -> Vec<u8> {
    idx(&[count, 4, 3], &pixels(count as usize * 12))
}

/// A file of `count` labels 0, 1, .. 9, 0, ..
pub(crate) fn labels(count: u32) -> Vec<u8> {
    idx(&[count], &(0..count).map(|label| (label % 10) as u8).collect::<Vec<_>>())
}

/// A batch of `count` images with the labels 0, 1, .. 9, 0, ..
pub(crate) fn batch(count: usize) -> Vec<u8> {
    (0..count).flat_map(|image| [vec![(image % 10) as u8], pixels(RECORD - 1)].concat()).collect()
}

/// `contents` in gzip.
pub(crate) fn gzip(contents: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(contents)?;
    encoder.finish()
}

/// A folder with these files.
pub(crate) fn folder(files: &[(&str, &[u8])]) -> io::Result<TempDir> {
    let folder = TempDir::new()?;
    for (name, contents) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(folder.path()))?;
        std::fs::write(path, contents)?;
    }
    Ok(folder)
}

thread_local! {
    /// A folder that is reused for thousands of cases: creating and removing one for each takes a
    /// hundred times as long.
    static WORKPLACE: io::Result<TempDir> = TempDir::new();
}

/// The result of `read` on a folder with just these files.
fn in_workplace<T>(files: &[(&str, &[u8])], read: impl FnOnce(&Path) -> T) -> io::Result<T> {
    WORKPLACE.with(|folder| {
        let folder = folder.as_ref().map_err(|error| error.kind())?.path();
        for (name, contents) in files {
            std::fs::write(folder.join(name), contents)?;
        }
        let outcome = read(folder);
        // Removed and not overwritten by the next case: file systems flush a truncated file at
        // once, which is slow.
        files.iter().try_for_each(|(name, _)| std::fs::remove_file(folder.join(name)))?;
        Ok(outcome)
    })
}

/// The MNIST test split made of these two files.
pub(crate) fn mnist(images: &[u8], labels: &[u8]) -> io::Result<Result<Dataset, Error>> {
    in_workplace(&[(IMAGES, images), (LABELS, labels)], open_mnist)
}

/// The MNIST test split of a folder.
pub(crate) fn open_mnist(folder: &Path) -> Result<Dataset, Error> {
    Dataset::open_own(DatasetKind::Mnist, folder, Split::Test)
}

/// The CIFAR-10 test split made of this batch.
pub(crate) fn cifar(batch: &[u8]) -> io::Result<Result<Dataset, Error>> {
    in_workplace(&[(BATCH, batch)], |folder| Dataset::open_own(DatasetKind::Cifar10, folder, Split::Test))
}

/// Asserts [`Error::Corrupt`] for the file `name` at `offset` (at any if `None`), with all of
/// `words` in the message.
#[track_caller]
pub(crate) fn assert_corrupt(found: Result<Dataset, Error>, name: &str, offset: Option<u64>, words: &[&str]) {
    let error = match found {
        Err(error) => error,
        Ok(set) => panic!("{name} with a fault ({words:?}) was read: {set:?}"),
    };
    let message = error.to_string();
    let Error::Corrupt { file, offset: at, .. } = error else { panic!("not Corrupt: {message}") };
    assert_eq!(file.file_name().and_then(|file| file.to_str()), Some(name), "{message}");
    assert!(offset.is_none_or(|offset| offset == at), "not at {offset:?}: {message}");
    for word in words {
        assert!(message.contains(word), "{message:?} lacks {word:?}");
    }
}

/// The lengths at which to cut a file: every one to 1 KiB, then every 37th.
pub(crate) fn cuts(length: usize) -> impl Iterator<Item = usize> {
    (0..length).filter(|&cut| cut <= 1024 || (cut - 1024).is_multiple_of(37))
}

/// Marsaglia's xorshift64*: random numbers that are the same in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound.max(1)
    }
}
