//! Reads what PyTorch's `torch.save` writes for a `state_dict`, without executing any of it.
//!
//! Since PyTorch 1.6 such a file is a zip archive (`zip.rs`): `NAME/data.pkl`, a pickle that
//! describes tensors by storage, offset, shape and strides; the storages as `NAME/data/KEY`; and
//! `NAME/byteorder`. Before, it was a sequence of pickles followed by the storages (`legacy.rs`).
//! The pickle is read by an interpreter without functions (`pickle.rs`), and its result is searched
//! for one dict of tensors (`state.rs`).

mod legacy;
mod pickle;
mod state;
mod value;
mod zip;

use std::collections::HashSet;
use std::ops::Range;

use super::checkpoint::TensorInfo;
use super::input::Input;
use crate::Error;
use crate::error::quoted;
use pickle::{Pickle, Stop};
use value::{Body, Storage};
use zip::Archive;

/// The longest pickle that is accepted, in bytes: 200 for each of
/// [`MOST_TENSORS`](super::checkpoint::MOST_TENSORS).
const LONGEST_PICKLE: u64 = 200 << 16;
/// The start of a zip archive.
const ZIP: &[u8] = b"PK\x03\x04";

/// Whether a file with this beginning is one of PyTorch's.
pub(super) fn is_torch(start: &[u8]) -> bool {
    start.starts_with(ZIP) || start.first_chunk::<4>().is_some_and(|start| legacy::START.starts_with(start))
}

/// Reads the descriptions of the file's tensors.
pub(super) fn open(input: &mut Input<'_>) -> Result<Vec<TensorInfo>, Error> {
    let mut start = Vec::new();
    input.fetch(0..ZIP.len() as u64, &mut start)?;
    if start == ZIP { zipped(input) } else { before_zip(input) }
}

fn zipped(input: &mut Input<'_>) -> Result<Vec<TensorInfo>, Error> {
    let archive = Archive::read(input)?;
    let folder = folder(&archive, input)?;
    let mut bytes = Vec::new();
    let big_endian = match archive.find(input, &format!("{folder}byteorder"))? {
        Some(range) => {
            input.fetch(range, &mut bytes)?;
            bytes == b"big"
        }
        None => false,
    };
    let Some(range) = archive.find(input, &format!("{folder}data.pkl"))? else {
        return input.corrupt(0, "the archive lost its data.pkl");
    };
    if range.end - range.start > LONGEST_PICKLE {
        return input.corrupt(range.start, format!("a pickle of more than {LONGEST_PICKLE} bytes"));
    }
    input.fetch(range.clone(), &mut bytes)?;
    let pickle = match pickle::read(&bytes) {
        Ok(pickle) => pickle,
        Err(stop) => return refuse(input, range.start, stop),
    };
    located(input, range.start, &pickle, big_endian, |input, storage| {
        archive.find(input, &format!("{folder}data/{}", storage.key))
    })
}

/// The folder of the archive that contains the pickle, with a trailing slash.
fn folder(archive: &Archive, input: &Input<'_>) -> Result<String, Error> {
    let mut folders = archive.names().filter_map(|name| name.strip_suffix("data.pkl"));
    let folder = folders.find(|folder| folder.split_once('/').is_some_and(|(_, rest)| rest.is_empty()));
    let Some(folder) = folder else {
        return input
            .corrupt(0, "a zip archive without a pickle NAME/data.pkl, which torch.save would write");
    };
    if archive.names().any(|name| name.strip_prefix(folder) == Some("constants.pkl")) {
        return Err(Error::TorchScript { file: input.name.clone() });
    }
    Ok(folder.to_owned())
}

fn before_zip(input: &mut Input<'_>) -> Result<Vec<TensorInfo>, Error> {
    let mut bytes = Vec::new();
    input.fetch(0..input.length.min(LONGEST_PICKLE), &mut bytes)?;
    if !bytes.starts_with(legacy::START) {
        return input.corrupt(0, "a pickle, but not the one at the start of PyTorch's old files");
    }
    let front = match legacy::front(&bytes) {
        Ok(front) => front,
        Err(stop) => return refuse(input, 0, stop),
    };
    let ranges = front.ranges(input)?;
    located(input, front.start as u64, &front.pickle, front.big_endian, |_, storage| {
        Ok(ranges.get(storage.key).cloned())
    })
}

/// The tensors of the pickle's `state_dict`, located in the file: `find` returns the byte range of
/// a storage. The pickle begins at byte `start` of the file.
fn located(
    input: &mut Input<'_>,
    start: u64,
    pickle: &Pickle<'_>,
    big_endian: bool,
    find: impl Fn(&mut Input<'_>, &Storage<'_>) -> Result<Option<Range<u64>>, Error>,
) -> Result<Vec<TensorInfo>, Error> {
    let tensors =
        state::state_dict(pickle).map_err(|why| Error::StateDict { file: input.name.clone(), why })?;
    let (mut located, mut names) = (Vec::with_capacity(tensors.len()), HashSet::new());
    for (name, tensor) in tensors {
        if !names.insert(name) {
            return input
                .corrupt(start + tensor.at as u64, format!("the key `{}` is there twice", quoted(name)));
        }
        let bytes = match &tensor.body {
            Body::Odd(_) => 0..0,
            Body::Stored { storage, .. } => match find(input, storage)? {
                Some(bytes) => bytes,
                None => {
                    let why = format!("the storage `{}` is not in the file", quoted(storage.key));
                    return input.corrupt(start + tensor.at as u64, why);
                }
            },
        };
        located.push(state::locate(name, tensor, bytes, big_endian).or_else(|fault| input.at(start, fault))?);
    }
    Ok(located)
}

/// The error for a pickle that begins at byte `start` of the file.
fn refuse<T>(input: &Input<'_>, start: u64, stop: Stop) -> Result<T, Error> {
    match stop {
        Stop::Fault(fault) => input.at(start, fault),
        Stop::Foreign { offset, class } => {
            Err(Error::Foreign { file: input.name.clone(), offset: start + offset as u64, class })
        }
    }
}
