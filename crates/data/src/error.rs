//! What can go wrong: one enum, each variant with the place and the values that a person needs to act.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why data could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file is not what its name says, or is damaged.
    #[error("{}: {why} (offset {offset})", file.display())]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// The byte at which the fault shows, from 0; in a gzip file, the byte of its decompressed contents.
        offset: u64,
        /// What is wrong there, and what was found instead.
        why: String,
    },
    /// Files are not where they were looked for.
    #[error("not found: {what}; looked for {} in {}; {remedy}", looked_for.join(", "), folder.display())]
    Missing {
        /// What is missing, in words.
        what: String,
        /// The file names that would have done: an entry for each file that is missing.
        looked_for: Vec<String>,
        /// The folder that was searched.
        folder: PathBuf,
        /// What was found instead, and what to do.
        remedy: String,
    },
    /// The operating system refused.
    #[error("{}: {source}", file.display())]
    Io {
        /// The file or folder.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file's contents do not fit into memory.
    #[error("{}: no memory for its {} bytes", file.display(), grouped(bytes))]
    OutOfMemory {
        /// The file.
        file: PathBuf,
        /// The bytes that were asked for.
        bytes: u64,
    },
    /// A choice of images cannot be read, or does not fit the split.
    #[error("images {text}: {why}")]
    Selection {
        /// The part of the choice that is at fault.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// A name is none of those known.
    #[error("no such {what}: \"{given}\"; known are {known}")]
    Unknown {
        /// What was to be named.
        what: &'static str,
        /// The name given.
        given: String,
        /// The names known.
        known: &'static str,
    },
    /// A picture cannot be read, or is no sample.
    #[error("{name}: {why}")]
    Picture {
        /// Its path below the folder, or what its table calls it.
        name: String,
        /// The cause.
        why: String,
    },
    /// The parts of a data set made in memory do not fit together.
    #[error("data set \"{name}\": {why}")]
    Parts {
        /// The name it was to have.
        name: String,
        /// What does not fit.
        why: String,
    },
}

/// The whole number `n` in groups of three digits: 60 000.
pub(crate) fn grouped(n: impl fmt::Display) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// `n` things in words: "1 image", "10 000 images".
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
