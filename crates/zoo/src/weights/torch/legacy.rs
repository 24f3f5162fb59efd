//! The format of `torch.save` before PyTorch 1.6.
//!
//! Five pickles (a magic number, the version, a description of the machine, the object, the keys of
//! its storages), followed by the storages in the order of these keys. Each storage is an 8-byte
//! number of elements and the elements.

use std::collections::HashMap;
use std::ops::Range;

use super::pickle::{Pickle, Stop, read};
use super::value::PickleValue;
use crate::Error;
use crate::weights::input::Input;
use crate::weights::json::FormatFault;

/// Bytes of the number of elements before each storage.
const COUNT: u64 = 8;

/// The pickles of the magic number 0x1950a86a20f9469cfc6c and of version 1001.
pub(super) const START: &[u8] =
    b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e\x80\x02\x4d\xe9\x03\x2e";

/// The contents of the pickles at the beginning of a file.
#[derive(Debug)]
pub(super) struct Front<'a> {
    pub(super) pickle: Pickle<'a>,
    /// Offset of `pickle` in the file.
    pub(super) start: usize,
    pub(super) big_endian: bool,
    keys: Vec<&'a str>,
    /// Offset of the storages.
    storages: usize,
}

/// Reads the pickles after [`START`].
pub(super) fn front(bytes: &[u8]) -> Result<Front<'_>, Stop> {
    let mut at = START.len();
    let mut next = || {
        let start = at;
        let pickle = read(bytes.get(start..).unwrap_or_default()).map_err(|stop| stop.behind(start))?;
        at += pickle.length;
        Ok((start, pickle))
    };
    let (_, machine) = next()?;
    let (start, pickle) = next()?;
    let (listed, list) = next()?;
    let Some(keys) = texts(&list) else {
        let why = "the keys of the storages are not a list of texts".to_owned();
        return Err(Stop::Fault(FormatFault { offset: listed, why }));
    };
    Ok(Front { pickle, start, big_endian: big_endian(&machine), keys, storages: at })
}

fn big_endian(machine: &Pickle<'_>) -> bool {
    let PickleValue::Dict(dict) = machine.root else { return false };
    machine.objects.dicts[dict].contains(&(PickleValue::Text("little_endian"), PickleValue::Bool(false)))
}

fn texts<'a>(pickle: &Pickle<'a>) -> Option<Vec<&'a str>> {
    let PickleValue::List(list) = pickle.root else { return None };
    let texts = pickle.objects.lists[list].iter().map(|item| match *item {
        PickleValue::Text(text) => Some(text),
        _ => None,
    });
    texts.collect()
}

impl<'a> Front<'a> {
    /// The byte range of every storage.
    pub(super) fn ranges(&self, input: &mut Input<'_>) -> Result<HashMap<&'a str, Range<u64>>, Error> {
        let storages = self.pickle.objects.storages.iter();
        let sizes: HashMap<&str, u64> = storages.map(|it| (it.key, it.dtype.bits() / 8)).collect();
        let (mut ranges, mut bytes) = (HashMap::new(), Vec::new());
        let mut at = self.storages as u64;
        for &key in &self.keys {
            let start = at.saturating_add(COUNT);
            input.fetch(at..start, &mut bytes)?;
            // The number of elements is written in the byte order of the machine.
            if self.big_endian {
                bytes.reverse();
            }
            let count = bytes.iter().rev().fold(0u64, |value, &byte| value << 8 | u64::from(byte));
            let size = sizes.get(key).and_then(|&size| count.checked_mul(size));
            let end = size.and_then(|size| start.checked_add(size)).filter(|&end| end <= input.length);
            let Some(end) = end else {
                return input
                    .corrupt(at, format!("no tensor has the {count} elements that are announced here"));
            };
            ranges.insert(key, start..end);
            at = end;
        }
        Ok(ranges)
    }
}
