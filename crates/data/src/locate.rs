//! Finds the files of a split in a folder, and suggests a remedy if they are missing.

use crate::error::{counted, grouped};
use crate::{DatasetKind, Error, Split, cifar, mnist};
use std::fs::Metadata;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Usual locations of the files below the given folder, for hints in error messages.
const BELOW: [&str; 12] = [
    "mnist",
    "MNIST",
    "MNIST/raw",
    "mnist/raw",
    "raw",
    "cifar-10-batches-bin",
    "cifar10/cifar-10-batches-bin",
    "cifar10",
    "cifar-100-binary",
    "cifar100/cifar-100-binary",
    "fashion-mnist",
    "FashionMNIST/raw",
];

/// A file of a split: its contents, in words, and its possible names, the preferred one first.
pub(crate) struct Wanted {
    pub(crate) what: String,
    pub(crate) names: Vec<String>,
    /// Whether the file may be compressed, with .gz appended to its name.
    pub(crate) gzip: bool,
}

impl Wanted {
    /// The first of its paths in `folder` that is a file. All names are tried before folders of
    /// these names, because some archives (Kaggle's) contain both: a folder with the file inside,
    /// and the file itself. If there is only such a folder without the file, its path is returned,
    /// and the reader then refuses it by name.
    fn find(&self, folder: &Path) -> Result<Option<PathBuf>, Error> {
        let ends: &[&str] = if self.gzip { &["", ".gz"] } else { &[""] };
        let names = self.names.iter().flat_map(|name| ends.iter().map(move |end| format!("{name}{end}")));
        let names: Vec<String> = names.collect();
        let inside = names.iter().map(|name| folder.join(name).join(name));
        let mut else_there = None;
        for path in names.iter().map(|name| folder.join(name)).chain(inside) {
            match exists(&path)? {
                Some(file) if file.is_dir() => else_there = else_there.or(Some(path)),
                Some(_) => return Ok(Some(path)),
                None => {}
            }
        }
        Ok(else_there)
    }

    /// Its names, for messages.
    fn spellings(&self) -> String {
        let end = if self.gzip { "[.gz]" } else { "" };
        let names: Vec<String> = self.names.iter().map(|name| format!("{name}{end}")).collect();
        names.join(" or ")
    }
}

/// The files of a split, in the order of its images.
fn wanted(kind: DatasetKind, split: Split) -> Vec<Wanted> {
    match kind {
        DatasetKind::Mnist | DatasetKind::FashionMnist => mnist::files(split),
        DatasetKind::Cifar10 | DatasetKind::Cifar100 | DatasetKind::Cifar100Coarse => {
            cifar::files(kind, split)
        }
    }
}

/// The path of every file of the split in `folder`, in the order in which
/// [`Dataset::open`](crate::Dataset::open) reads them. A program can use it to avoid overwriting
/// its input.
///
/// # Errors
/// [`Error::Missing`] names all missing files at once; [`Error::Io`] if the system denies access.
pub fn files(kind: DatasetKind, folder: &Path, split: Split) -> Result<Vec<PathBuf>, Error> {
    locate(kind, split, folder)
}

/// The path of every file of a split, as [`files`] returns it.
pub(crate) fn locate(kind: DatasetKind, split: Split, folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let wanted = wanted(kind, split);
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for file in &wanted {
        match file.find(folder)? {
            Some(path) => found.push(path),
            None => missing.push(file),
        }
    }
    if missing.is_empty() {
        return Ok(found);
    }
    let what: Vec<&str> = missing.iter().map(|file| file.what.as_str()).collect();
    Err(Error::Missing {
        what: format!("{} {} {}", kind.title(), split.adjective(), what.join(", ")),
        looked_for: missing.iter().map(|file| file.spellings()).collect(),
        folder: folder.to_path_buf(),
        remedy: remedy(kind, split, folder, &found),
    })
}

/// The metadata of `path`, if it exists.
fn exists(path: &Path) -> Result<Option<Metadata>, Error> {
    match std::fs::metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(source) => Err(Error::Io { file: path.to_path_buf(), source }),
    }
}

/// Whether all files of the split are in `folder`.
fn holds(kind: DatasetKind, split: Split, folder: &Path) -> bool {
    let found = |file: &Wanted| file.find(folder).ok().flatten().is_some_and(|path| path.is_file());
    wanted(kind, split).iter().all(found)
}

/// What was found in place of the missing files, and what to do about it.
fn remedy(kind: DatasetKind, split: Split, folder: &Path, found: &[PathBuf]) -> String {
    if !folder.exists() {
        return format!("there is no such folder; {}", download(kind));
    }
    if !folder.is_dir() {
        return "that is a file: name the folder that holds it".to_owned();
    }
    if !found.is_empty() {
        return format!("{}; {}", inventory(kind, split, found), download(kind));
    }
    let mut near = BELOW.iter().map(|name| folder.join(name)).chain([folder.join("..")]);
    if let Some(folder) = near.find(|folder| holds(kind, split, folder)) {
        return format!("they are in {}: name that folder", folder.display());
    }
    other_contents(kind, split, folder).unwrap_or_else(|| download(kind))
}

/// The files of the split that exist, with the number of images where it follows from their length.
fn inventory(kind: DatasetKind, split: Split, found: &[PathBuf]) -> String {
    let names: Vec<_> =
        found.iter().filter_map(|path| path.file_name()).map(|name| name.display().to_string()).collect();
    let list = names.join(", ");
    match kind {
        DatasetKind::Mnist | DatasetKind::FashionMnist => format!("found {list}"),
        DatasetKind::Cifar10 | DatasetKind::Cifar100 | DatasetKind::Cifar100Coarse => {
            let record = cifar::Version::of(kind, split).record() as u64;
            let bytes = found.iter().filter_map(|path| path.metadata().ok()).map(|metadata| metadata.len());
            let images: u64 = bytes.map(|length| length / record).sum();
            format!("found {list} with {}", counted(images, "image", "images"))
        }
    }
}

/// A message if `folder` contains the other split, another data set, or this one in a form that is
/// not supported.
fn other_contents(kind: DatasetKind, split: Split, folder: &Path) -> Option<String> {
    let other = Split::ALL.into_iter().find(|&other| other != split && holds(kind, other, folder));
    if let Some(other) = other {
        return Some(format!("the folder holds only the {other} split; {}", download(kind)));
    }
    let of_kind = |kind| Split::ALL.into_iter().any(|split| holds(kind, split, folder));
    if let Some(other) = DatasetKind::ALL.into_iter().find(|&other| other != kind && of_kind(other)) {
        return Some(format!("the folder holds {}: its data set is called {other}", other.title()));
    }
    let present = |name: &str| folder.join(name).exists();
    match kind {
        DatasetKind::Cifar10 if present("data_batch_1") || present("test_batch") => {
            Some(format!("the folder holds the Python version (files without .bin); {}", download(kind)))
        }
        DatasetKind::Cifar10 if present("cifar-10-binary.tar.gz") => Some(
            "the folder holds cifar-10-binary.tar.gz: unpack it (tar xzf) and name the folder inside"
                .to_owned(),
        ),
        _ => None,
    }
}

/// Where to download the files.
fn download(kind: DatasetKind) -> String {
    match kind {
        DatasetKind::Mnist => format!(
            "name the folder that holds them, or download the four files from https://ossci-datasets.s3.amazonaws.com/mnist/ \
             ({} training and {} test images; .gz files are read as they are)",
            grouped(60_000),
            grouped(10_000)
        ),
        DatasetKind::FashionMnist => "name the folder that holds the four files, which are named as MNIST's; .gz files are read as \
                               they are; https://github.com/zalandoresearch/fashion-mnist says where to download them"
            .to_owned(),
        DatasetKind::Cifar100 | DatasetKind::Cifar100Coarse => {
            "name the folder that holds them (cifar-100-binary), or download and unpack the binary version, \
             https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
                .to_owned()
        }
        DatasetKind::Cifar10 => "name the folder that holds them (cifar-10-batches-bin), or download and unpack the binary version, \
                          https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
            .to_owned(),
    }
}
