//! The records of an uncompressed zip archive, as `torch.save` writes it.
//!
//! The directory at the end of the archive lists the records with their lengths and the offsets of
//! their own headers; archives beyond 4 GiB have additional 64-bit fields. Checksums are not
//! verified: PyTorch can omit them, and other weight formats have none. Source: PKWARE's
//! APPNOTE.TXT 6.3.10.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::Error;
use crate::error::quoted;
use crate::weights::input::Input;

/// Bytes of the end record, without its comment.
const END: usize = 22;
/// The longest comment after it.
const LONGEST_COMMENT: u64 = 0xffff;
/// Bytes of the locator of the 64-bit end record, directly before the end record.
const LOCATOR: u64 = 20;
/// Bytes of the 64-bit end record that are read.
const END_64: u64 = 56;
/// Bytes of a directory entry, without name, extra fields and comment.
const ENTRY: usize = 46;
/// Bytes of a record's own header, without name and extra fields.
const HEADER: u64 = 30;
/// The extra field with 64-bit numbers.
const EXTRA_64: u16 = 1;

/// A record of the directory.
#[derive(Debug)]
struct ZipRecord {
    /// Offset of its entry in the directory.
    entry: u64,
    header: u64,
    length: u64,
    /// Why its bytes cannot be read directly, if so. Not an error until the record is needed: other
    /// files in the archive may be compressed.
    odd: Option<&'static str>,
}

/// The directory of an archive.
#[derive(Debug)]
pub(super) struct Archive {
    records: BTreeMap<String, ZipRecord>,
    /// Offset of the directory; all records must end before it.
    directory: u64,
}

impl Archive {
    /// Reads the directory.
    pub(super) fn read(input: &mut Input<'_>) -> Result<Self, Error> {
        let directory = find_directory(input)?;
        let mut bytes = Vec::new();
        input.fetch(directory.clone(), &mut bytes)?;
        let mut archive = Self { records: BTreeMap::new(), directory: directory.start };
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let at = directory.end - rest.len() as u64;
            let (name, record, length) = entry(rest, at).or_else(|why| input.corrupt(at, why))?;
            if archive.records.contains_key(&name) {
                return input.corrupt(at, format!("the record `{}` is there twice", quoted(&name)));
            }
            archive.records.insert(name, record);
            rest = &rest[length..];
        }
        Ok(archive)
    }

    /// Names of the records.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.records.keys().map(String::as_str)
    }

    /// The byte range of the record with this name, if there is one.
    pub(super) fn find(&self, input: &mut Input<'_>, name: &str) -> Result<Option<Range<u64>>, Error> {
        let Some(record) = self.records.get(name) else { return Ok(None) };
        if let Some(odd) = record.odd {
            return input.corrupt(record.entry, format!("the record `{}` {odd}", quoted(name)));
        }
        let outside = |input: &Input<'_>| {
            let why = format!("the record `{}` does not lie before the directory", quoted(name));
            input.corrupt(record.entry, why)
        };
        // The record's own header has a name and extra fields whose lengths may differ from those
        // in the directory, so the start of the data must be computed from the header itself.
        let behind = record.header.checked_add(HEADER).filter(|&end| end <= self.directory);
        let Some(behind) = behind else { return outside(input) };
        let mut header = Vec::new();
        input.fetch(record.header..behind, &mut header)?;
        if !header.starts_with(b"PK\x03\x04") {
            return input.corrupt(record.header, format!("no header of the record `{}`", quoted(name)));
        }
        let variable = u64::from(u16_at(&header, 26)) + u64::from(u16_at(&header, 28));
        let start = behind + variable;
        match start.checked_add(record.length).filter(|&end| end <= self.directory) {
            Some(end) => Ok(Some(start..end)),
            None => outside(input),
        }
    }
}

/// The byte range of the directory.
fn find_directory(input: &mut Input<'_>) -> Result<Range<u64>, Error> {
    let length = input.length;
    let start = length.saturating_sub(END as u64 + LONGEST_COMMENT);
    let mut tail = Vec::new();
    input.fetch(start..length, &mut tail)?;
    // The end record is found by its signature, searched backwards; its comment must reach exactly
    // to the end of the file, so that a signature inside a comment is not taken for it.
    let is_end =
        |end: &[u8]| end.starts_with(b"PK\x05\x06") && usize::from(u16_at(end, 20)) + END == end.len();
    let Some(at) = (0..tail.len().saturating_sub(END - 1)).rev().find(|&at| is_end(&tail[at..])) else {
        return input.corrupt(length, "a zip archive without its end: the file is cut short or was changed");
    };
    let (end, at) = (&tail[at..], start + at as u64);
    let (mut size, mut offset, mut limit) = (u32_at(end, 12).into(), u32_at(end, 16).into(), at);
    if size == u64::from(u32::MAX) || offset == u64::from(u32::MAX) {
        limit = end_64(input, at)?;
        input.fetch(limit..limit + END_64, &mut tail)?;
        (size, offset) = (u64_at(&tail, 40), u64_at(&tail, 48));
    }
    match offset.checked_add(size).filter(|&end| end <= limit) {
        Some(end) => Ok(offset..end),
        None => input.corrupt(at, "the directory of the archive does not lie before its end"),
    }
}

/// The offset of the 64-bit end record; the 32-bit one is at byte `end`.
fn end_64(input: &mut Input<'_>, end: u64) -> Result<u64, Error> {
    let mut bytes = Vec::new();
    let Some(locator) = end.checked_sub(LOCATOR) else {
        return input.corrupt(end, "a 64-bit archive without its end record");
    };
    input.fetch(locator..end, &mut bytes)?;
    let start = u64_at(&bytes, 8);
    let sound =
        bytes.starts_with(b"PK\x06\x07") && start.checked_add(END_64).is_some_and(|end| end <= locator);
    if sound {
        input.fetch(start..start + END_64, &mut bytes)?;
        if bytes.starts_with(b"PK\x06\x06") {
            return Ok(start);
        }
    }
    input.corrupt(locator, "a 64-bit archive without its end record")
}

/// Reads the directory entry at the start of `bytes`, which is byte `at` of the file: its name, the
/// record, and the length of the entry.
fn entry(bytes: &[u8], at: u64) -> Result<(String, ZipRecord, usize), String> {
    if bytes.len() < ENTRY || !bytes.starts_with(b"PK\x01\x02") {
        return Err("no entry of the archive's directory".to_owned());
    }
    let [name, extra, comment] = [28, 30, 32].map(|at| usize::from(u16_at(bytes, at)));
    let whole = ENTRY + name + extra + comment;
    let (Some(name), Some(extra)) =
        (bytes.get(ENTRY..ENTRY + name), bytes.get(ENTRY + name..ENTRY + name + extra))
    else {
        return Err("an entry of the archive's directory that is cut short".to_owned());
    };
    if bytes.len() < whole {
        return Err("an entry of the archive's directory that is cut short".to_owned());
    }
    let name = String::from_utf8(name.to_vec()).map_err(|_| "a record whose name is not UTF-8".to_owned())?;
    let mut numbers = [24, 20, 42].map(|at| u64::from(u32_at(bytes, at)));
    widen(&mut numbers, extra);
    let [length, stored, header] = numbers;
    let odd = if u16_at(bytes, 8) & 1 != 0 {
        Some("is encrypted")
    } else if u16_at(bytes, 10) != 0 {
        Some("is compressed, which torch.save does not do: save the file again with PyTorch")
    } else {
        (length != stored).then_some("has two lengths")
    };
    Ok((name, ZipRecord { entry: at, header, length, odd }, whole))
}

/// Replaces the numbers that do not fit 32 bits (all ones), in order, by those of the 64-bit extra
/// field. Without that field they remain, and fail later checks because they exceed the file.
fn widen(numbers: &mut [u64], mut extra: &[u8]) {
    while extra.len() >= 4 {
        let (kind, length) = (u16_at(extra, 0), usize::from(u16_at(extra, 2)));
        let field = extra[4..].get(..length).unwrap_or_default();
        if kind == EXTRA_64 {
            let wide = numbers.iter_mut().filter(|number| **number == u64::from(u32::MAX));
            for (number, bytes) in wide.zip(field.as_chunks::<8>().0) {
                *number = u64::from_le_bytes(*bytes);
            }
            return;
        }
        extra = extra.get(4 + length..).unwrap_or_default();
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u64_of(bytes, at, 2) as u16
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u64_of(bytes, at, 4) as u32
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64_of(bytes, at, 8)
}

/// A little-endian number of `width` bytes; bytes past the end count as 0.
fn u64_of(bytes: &[u8], at: usize, width: usize) -> u64 {
    let digits = bytes.iter().skip(at).take(width).enumerate();
    digits.fold(0, |value, (position, &byte)| value | u64::from(byte) << (8 * position))
}
