//! The error type of this crate. Each variant has the position and the values that a user needs to
//! correct the fault.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why data could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file is damaged, or its contents are not what its name says.
    #[error("{}: {why} (offset {offset})", file.display())]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// Offset in bytes at which the fault was found; in a gzip file, in the decompressed
        /// contents.
        offset: u64,
        /// What is wrong, and what was found instead.
        why: String,
    },
    /// Files were not found.
    #[error("not found: {what}; looked for {} in {}; {remedy}", looked_for.join(", "), folder.display())]
    Missing {
        /// What is missing, in words.
        what: String,
        /// The accepted file names, one entry per missing file.
        looked_for: Vec<String>,
        /// The folder that was searched.
        folder: PathBuf,
        /// What was found instead, and what to do.
        remedy: String,
    },
    /// An error of the operating system.
    #[error("{}: {source}", file.display())]
    Io {
        /// The file or folder.
        file: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file's contents do not fit into memory.
    #[error("{}: no memory for its {} bytes", file.display(), grouped(bytes))]
    OutOfMemory {
        /// The file.
        file: PathBuf,
        /// The number of bytes requested.
        bytes: u64,
    },
    /// A selection of images cannot be parsed, or names images that the split does not have.
    #[error("images {text}: {why}")]
    Selection {
        /// The part of the selection that is at fault.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// An unknown name.
    #[error("no such {what}: \"{given}\"; known are {known}")]
    Unknown {
        /// What the name should denote.
        what: &'static str,
        /// The name given.
        given: String,
        /// The known names.
        known: &'static str,
    },
    /// A picture cannot be read or cannot be made a sample.
    #[error("{name}: {why}")]
    Picture {
        /// Its path below the folder, or its name in the table.
        name: String,
        /// The cause.
        why: String,
    },
    /// The parts of a data set do not match each other.
    #[error("data set \"{name}\": {why}")]
    Parts {
        /// The name of the data set.
        name: String,
        /// What does not match.
        why: String,
    },
}

/// The integer `n` with its digits in groups of three: 60 000.
pub(crate) fn grouped(n: impl fmt::Display) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// A number with its noun: "1 image", "10 000 images".
pub(crate) fn counted(n: impl fmt::Display, one: &str, many: &str) -> String {
    let number = grouped(n);
    let noun = if number == "1" { one } else { many };
    format!("{number} {noun}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (n, text) in
            [(0, "0"), (999, "999"), (1000, "1 000"), (60_000, "60 000"), (30_730_000, "30 730 000")]
        {
            assert_eq!(grouped(n), text);
        }
        assert_eq!(counted(1, "image", "images"), "1 image");
        assert_eq!(counted(0, "image", "images"), "0 images");
    }
}
