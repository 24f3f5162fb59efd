//! A file being read: its name for messages, the current offset, and decompression of gzip data.

use crate::foreign;
use crate::{Error, error::grouped};
use flate2::bufread::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufReader, Cursor, ErrorKind, Read};
use std::path::{Path, PathBuf};

/// The most that is decompressed from one gzip file: 47 040 016 bytes, the size of the largest
/// official one (the MNIST training images).
///
/// A few kilobytes of gzip can expand to gigabytes. Larger data must be decompressed before
/// reading, so that its size is known.
pub const MAX_DECOMPRESSED: u64 = 16 + 60_000 * 28 * 28;

/// The two bytes with which every gzip file begins.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The contents of one file, read sequentially.
pub(crate) struct FileStream<'a> {
    file: PathBuf,
    reader: Box<dyn Read + 'a>,
    /// Number of bytes read so far, i.e. the offset of the next one.
    offset: u64,
    /// The length of the contents, if known in advance: that of an uncompressed file.
    length: Option<u64>,
    compressed: bool,
    /// What the file is according to its first bytes, if it is a common mistake.
    foreign: Option<&'static str>,
}

impl FileStream<'static> {
    /// Opens `file`, which must be a regular file.
    pub(crate) fn open(file: &Path) -> Result<Self, Error> {
        let failure = |source| Error::Io { file: file.to_path_buf(), source };
        let metadata = std::fs::metadata(file).map_err(failure)?;
        if !metadata.is_file() {
            let what = if metadata.is_dir() { "a folder, not a file" } else { "not a regular file" };
            return Err(failure(io::Error::new(ErrorKind::InvalidInput, what)));
        }
        Self::new(file, File::open(file).map_err(failure)?, Some(metadata.len()))
    }
}

impl<'a> FileStream<'a> {
    /// The contents of `reader`, decompressed if they begin like gzip, whatever the file's name.
    /// `length` is the length of the file.
    pub(crate) fn new(file: &Path, reader: impl Read + 'a, length: Option<u64>) -> Result<Self, Error> {
        let file = file.to_path_buf();
        let (mut reader, mut start) = (BufReader::new(reader), Vec::new());
        if let Err(source) = reader.by_ref().take(8).read_to_end(&mut start) {
            return Err(Error::Io { file, source });
        }
        let compressed = start.starts_with(&GZIP);
        if !compressed && file.extension().is_some_and(|name| name.eq_ignore_ascii_case("gz")) {
            return Err(Error::Corrupt { file, offset: 0, why: not_gzip(&start) });
        }
        let foreign = foreign::recognise(&start);
        let whole = Cursor::new(start).chain(reader);
        let reader: Box<dyn Read + 'a> =
            if compressed { Box::new(MultiGzDecoder::new(whole)) } else { Box::new(whole) };
        Ok(Self { file, reader, offset: 0, length: length.filter(|_| !compressed), compressed, foreign })
    }

    /// The file's name.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// The length of the contents, if known.
    pub(crate) const fn length(&self) -> Option<u64> {
        self.length
    }

    /// Whether the contents are decompressed from gzip.
    pub(crate) const fn is_compressed(&self) -> bool {
        self.compressed
    }

    /// What the file is according to its first bytes, if it is a common mistake. For formats that
    /// are not compressed, gzip is one.
    pub(crate) const fn foreign(&self) -> Option<&'static str> {
        self.foreign
    }

    /// The offset of the next byte.
    pub(crate) const fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads until `buffer` is full or the contents end, and returns the number of bytes read.
    /// Short reads are continued.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let start = self.offset;
        let mut filled = 0;
        while filled < buffer.len() {
            match self.reader.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failure(error)),
            }
            self.offset = start + filled as u64;
        }
        Ok(filled)
    }

    /// The error for a fault of this file's contents at `offset`.
    pub(crate) fn corrupt(&self, offset: u64, why: impl Into<String>) -> Error {
        let why = if self.compressed { format!("once decompressed, {}", why.into()) } else { why.into() };
        Error::Corrupt { file: self.file.clone(), offset, why }
    }

    /// An empty vector with capacity for `bytes`. Only for sizes that have been checked against the
    /// length of the file.
    pub(crate) fn room(&self, bytes: u64) -> Result<Vec<u8>, Error> {
        let refused = || Error::OutOfMemory { file: self.file.clone(), bytes };
        let mut room = Vec::new();
        room.try_reserve_exact(usize::try_from(bytes).map_err(|_| refused())?).map_err(|_| refused())?;
        Ok(room)
    }

    /// Converts a read error. The decompressor reports damaged data as I/O errors of certain kinds:
    /// these are faults of the file, all others are errors of the system.
    fn failure(&self, source: io::Error) -> Error {
        let damaged = matches!(
            source.kind(),
            ErrorKind::InvalidInput | ErrorKind::InvalidData | ErrorKind::UnexpectedEof
        );
        if !(self.compressed && damaged) {
            return Error::Io { file: self.file.clone(), source };
        }
        let cut = source.kind() == ErrorKind::UnexpectedEof;
        let what = if cut { "is cut short".to_owned() } else { format!("is damaged ({source})") };
        let why = format!("the gzip data {what} after {} decompressed bytes", grouped(self.offset));
        Error::Corrupt { file: self.file.clone(), offset: self.offset, why }
    }
}

/// The message for a file named .gz whose beginning `start` is not gzip.
fn not_gzip(start: &[u8]) -> String {
    if start.is_empty() {
        return "the file is empty".to_owned();
    }
    let what = match foreign::recognise(start) {
        Some(what) => what,
        None if start.starts_with(&[0, 0]) => {
            "an uncompressed IDX file (browsers decompress some downloads): rename it to its name without .gz"
        }
        None => "of no known kind: download it again",
    };
    format!("named .gz, but does not begin as a gzip file does (1f 8b); it is {what}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trickle::Trickle;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    fn gzip(contents: &[u8]) -> io::Result<Vec<u8>> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(contents)?;
        encoder.finish()
    }

    fn contents(file: &str, bytes: &[u8]) -> Result<(Vec<u8>, bool), Error> {
        let mut source = FileStream::new(Path::new(file), Trickle::new(bytes), Some(bytes.len() as u64))?;
        let mut buffer = vec![0; 1000];
        let count = source.fill(&mut buffer)?;
        assert_eq!(source.offset(), count as u64);
        buffer.truncate(count);
        Ok((buffer, source.is_compressed()))
    }

    #[test]
    fn short_reads_and_interruptions_are_no_end() -> Result<(), Error> {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(contents("a", &bytes)?, (bytes.clone(), false));
        assert_eq!(contents("a", &[])?, (vec![], false));
        Ok(())
    }

    #[test]
    fn gzip_is_recognised_by_its_bytes_alone() -> Result<(), Box<dyn std::error::Error>> {
        let bytes: Vec<u8> = (0..=255).collect();
        let packed = gzip(&bytes)?;
        for name in ["a", "a.gz", "a.GZ"] {
            assert_eq!(contents(name, &packed)?, (bytes.clone(), true));
        }
        let two_members = [gzip(&bytes[..100])?, gzip(&bytes[100..])?].concat();
        assert_eq!(contents("a", &two_members)?, (bytes, true));
        Ok(())
    }

    #[test]
    fn damaged_gzip_is_named() -> Result<(), Box<dyn std::error::Error>> {
        let packed = gzip(&[7; 600])?;
        let mut wrong_sum = packed.clone();
        let sum = packed.len() - 8;
        wrong_sum[sum] ^= 1;
        for (bytes, word) in
            [(&packed[..packed.len() - 1], "cut short"), (&packed[..3], "cut short"), (&wrong_sum, "damaged")]
        {
            let message = contents("f.gz", bytes).map_err(|error| error.to_string());
            assert!(
                message.as_ref().is_err_and(|text| text.starts_with("f.gz: ") && text.contains(word)),
                "{message:?}"
            );
        }
        Ok(())
    }

    #[test]
    fn what_is_named_gz_must_be_gzip() {
        for (bytes, word) in [
            (&b"<html><body>"[..], "web page"),
            (b"\0\0\x08\x03", "rename it"),
            (b"", "empty"),
            (b"abc", "no known kind"),
        ] {
            let message = contents("f.gz", bytes).map_err(|error| error.to_string());
            assert!(message.as_ref().is_err_and(|text| text.contains(word)), "{message:?}");
        }
    }
}
