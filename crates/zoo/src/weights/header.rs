//! The header of a safetensors file: names, types, shapes and byte ranges. It is parsed strictly
//! and checked for consistency and against the length of the file.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use super::Dtype;
use super::checkpoint::{MOST_AXES, MOST_TENSORS, TensorInfo};
use super::input::Input;
use super::json::{Cursor, FormatFault};
use super::layout::ElementOrder;
use crate::Error;
use crate::error::quoted;

/// Bytes before the header: its length.
const PREFIX: u64 = 8;
/// The longest header that is accepted (the limit of the format's own library).
const LONGEST_HEADER: u64 = 100_000_000;

/// A tensor of the header, with the offset of its entry.
struct HeaderTensor {
    info: TensorInfo,
    offset: usize,
}

impl HeaderTensor {
    /// Converts its byte range to one of the file, whose data part begins at `data`.
    fn at(self, data: u64) -> TensorInfo {
        let Range { start, end } = self.info.bytes;
        TensorInfo { bytes: data + start..data + end, ..self.info }
    }
}

/// The contents of a header: the tensors and the metadata.
type Directory = (Vec<TensorInfo>, BTreeMap<String, String>);

/// Reads the header of a file.
pub(super) fn open(input: &mut Input<'_>) -> Result<Directory, Error> {
    let length = input.length;
    if length < PREFIX {
        return input.corrupt(length, "the file ends within the 8 bytes that give the header's length");
    }
    let mut bytes = Vec::new();
    input.fetch(0..PREFIX, &mut bytes)?;
    let header = bytes.iter().rev().fold(0u64, |value, &byte| value << 8 | u64::from(byte));
    let wrong = if header == 0 {
        "the header is empty".to_owned()
    } else if header > LONGEST_HEADER {
        format!("a header of {header} bytes is announced: at most {LONGEST_HEADER}")
    } else if header > length - PREFIX {
        format!("a header of {header} bytes is announced, the file has {length}")
    } else {
        String::new()
    };
    if !wrong.is_empty() {
        return input.corrupt(0, wrong);
    }
    let data = PREFIX + header;
    input.fetch(PREFIX..data, &mut bytes)?;
    read(&bytes, data, length).or_else(|fault| input.at(PREFIX, fault))
}

/// Reads the JSON of a header. The tensors begin at byte `data` of a file of `length` bytes.
///
/// The returned byte ranges count from the start of the file, offsets of faults from the start of
/// the header.
fn read(header: &[u8], data: u64, length: u64) -> Result<Directory, FormatFault> {
    let mut cursor = Cursor::new(header);
    if header.first() != Some(&b'{') {
        return cursor.fault("the header does not begin with `{`");
    }
    cursor.expect(b'{')?;
    let (mut tensors, mut metadata) = (Vec::new(), BTreeMap::new());
    let mut names = HashSet::new();
    while cursor.more(names.is_empty(), b'}')? {
        let offset = cursor.offset();
        let name = cursor.string()?;
        if !names.insert(name.clone()) {
            return Err(FormatFault { offset, why: format!("the key `{}` is there twice", quoted(&name)) });
        }
        cursor.expect(b':')?;
        if name == "__metadata__" {
            metadata = parse_metadata(&mut cursor)?;
        } else if tensors.len() == MOST_TENSORS {
            return Err(FormatFault { offset, why: format!("more than {MOST_TENSORS} tensors") });
        } else {
            tensors.push(HeaderTensor { info: parse_tensor(&mut cursor, name)?, offset });
        }
    }
    cursor.end()?;
    check_sizes(&tensors)?;
    check_layout(&tensors, header.len(), length.saturating_sub(data))?;
    Ok((tensors.into_iter().map(|raw| raw.at(data)).collect(), metadata))
}

fn parse_metadata(cursor: &mut Cursor<'_>) -> Result<BTreeMap<String, String>, FormatFault> {
    cursor.expect(b'{')?;
    let mut metadata = BTreeMap::new();
    while cursor.more(metadata.is_empty(), b'}')? {
        let key = cursor.string()?;
        cursor.expect(b':')?;
        if metadata.insert(key, cursor.string()?).is_some() {
            return cursor.fault("a key of the metadata is there twice");
        }
    }
    Ok(metadata)
}

fn parse_tensor(cursor: &mut Cursor<'_>, name: String) -> Result<TensorInfo, FormatFault> {
    let start = cursor.offset();
    cursor.expect(b'{')?;
    let (mut dtype, mut shape, mut bytes) = (None, None, None);
    let mut first = true;
    while cursor.more(first, b'}')? {
        first = false;
        let key = cursor.string()?;
        cursor.expect(b':')?;
        let repeated = match key.as_str() {
            "dtype" => dtype.replace(parse_dtype(cursor)?).is_some(),
            "shape" => shape.replace(parse_shape(cursor)?).is_some(),
            "data_offsets" => bytes.replace(parse_range(cursor)?).is_some(),
            _ => return cursor.fault(format!("a tensor has no `{}`", quoted(&key))),
        };
        if repeated {
            return cursor.fault(format!("`{key}` is there twice"));
        }
    }
    match (dtype, shape, bytes) {
        (Some(dtype), Some(shape), Some(bytes)) => {
            Ok(TensorInfo { name, dtype, shape, bytes, layout: ElementOrder::default() })
        }
        _ => {
            let why = format!("`{}` lacks dtype, shape or data_offsets", quoted(&name));
            Err(FormatFault { offset: start, why })
        }
    }
}

fn parse_dtype(cursor: &mut Cursor<'_>) -> Result<Dtype, FormatFault> {
    let name = cursor.string()?;
    Dtype::parse(&name)
        .map_or_else(|| cursor.fault(format!("no element type is called `{}`", quoted(&name))), Ok)
}

fn parse_shape(cursor: &mut Cursor<'_>) -> Result<Vec<usize>, FormatFault> {
    let axes = cursor.numbers(MOST_AXES)?;
    let axes: Option<Vec<usize>> = axes.into_iter().map(|axis| usize::try_from(axis).ok()).collect();
    axes.map_or_else(|| cursor.fault("an axis is longer than this machine can address"), Ok)
}

fn parse_range(cursor: &mut Cursor<'_>) -> Result<Range<u64>, FormatFault> {
    match cursor.numbers(2)?[..] {
        [start, end] if start <= end => Ok(start..end),
        [start, end] => cursor.fault(format!("data_offsets run backwards, from {start} to {end}")),
        _ => cursor.fault("data_offsets are not two numbers"),
    }
}

/// Checks that shape and type of each tensor account for exactly its bytes.
fn check_sizes(tensors: &[HeaderTensor]) -> Result<(), FormatFault> {
    for HeaderTensor { info, offset } in tensors {
        let bits = info.shape.iter().try_fold(info.dtype.bits(), |bits, &axis| bits.checked_mul(axis as u64));
        let held = (info.bytes.end - info.bytes.start).checked_mul(8);
        if bits.is_none() || bits != held {
            return Err(FormatFault { offset: *offset, why: disagreement(info) });
        }
    }
    Ok(())
}

/// Checks that the tensors cover all `length` bytes after the header, without holes or overlaps.
/// `header` is the length of the header.
fn check_layout(tensors: &[HeaderTensor], header: usize, length: u64) -> Result<(), FormatFault> {
    let last = tensors.iter().map(|raw| raw.info.bytes.end).max().unwrap_or(0);
    // Reported at the end of the file, where a truncated file lacks something.
    let end_of_file = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(header);
    if last > length {
        let why = format!("the file is cut short: its tensors need {} more bytes", last - length);
        return Err(FormatFault { offset: end_of_file, why });
    }
    let mut order: Vec<&HeaderTensor> = tensors.iter().collect();
    order.sort_by_key(|raw| (raw.info.bytes.start, raw.info.bytes.end));
    let mut end = 0;
    for HeaderTensor { info, offset } in order {
        let start = info.bytes.start;
        if start != end {
            let name = quoted(&info.name);
            let why = match start.checked_sub(end) {
                Some(hole) => format!("tensor `{name}` follows a hole of {hole} bytes"),
                None => format!("tensor `{name}` overlaps another"),
            };
            return Err(FormatFault { offset: *offset, why });
        }
        end = info.bytes.end;
    }
    if end < length {
        let why = format!("the last {} bytes of the file belong to no tensor", length - end);
        return Err(FormatFault { offset: end_of_file, why });
    }
    Ok(())
}

fn disagreement(info: &TensorInfo) -> String {
    let bytes = info.bytes.end - info.bytes.start;
    let name = quoted(&info.name);
    format!("tensor `{name}` of type {} and shape {:?} does not fill {bytes} bytes", info.dtype, info.shape)
}
