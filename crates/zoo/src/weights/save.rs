//! Saves a network's weights to a file.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use burn::module::Module;
use burn::tensor::{DType, TensorData, bf16, f16};

use super::describe::describe;
use super::json::literal;
use super::write::write_whole;
use super::{Dtype, module};
use crate::Error;
use crate::names::{Entry, entries};

/// Writes a network's tensors, including buffers, with PyTorch's names, in PyTorch's layouts and in
/// their own element types.
///
/// [`load`](super::load) reads the same bits back, and so does PyTorch. The metadata name the
/// format, the program and, for networks of this crate, the network. The file is replaced
/// atomically: it is written next to `path`, synced, then renamed.
///
/// # Errors
///
/// [`Error::Io`] from the system or the device, [`Error::NotSavable`] if a tensor is quantised.
pub fn save<M: Module>(network: &M, path: &Path) -> Result<(), Error> {
    save_with(network, path, &BTreeMap::new())
}

/// [`save`] with further entries in the file's metadata, which override the default ones.
///
/// # Errors
///
/// As [`save`].
pub fn save_with<M: Module>(
    network: &M,
    path: &Path,
    metadata: &BTreeMap<String, String>,
) -> Result<(), Error> {
    let mut all = own_metadata(network);
    all.extend(metadata.iter().map(|(key, value)| (key.clone(), value.clone())));
    let header = header(&plan(network)?, &all);
    write_whole(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(header.as_bytes())?;
        let mut outcome = Ok(());
        module::visit(network, |data, transposed| {
            if outcome.is_ok() {
                outcome =
                    data.map_err(std::io::Error::other).and_then(|data| write_tensor(out, &data, transposed));
            }
        });
        outcome
    })
}

fn own_metadata<M: Module>(network: &M) -> BTreeMap<String, String> {
    let entries = entries(network);
    let mut metadata = BTreeMap::from([
        ("format".to_owned(), "pt".to_owned()),
        ("program".to_owned(), concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")).to_owned()),
    ]);
    if let Some(description) = describe(entries.iter().map(|entry| (entry.name.as_str(), &entry.shape[..]))) {
        metadata.insert("network".to_owned(), description.to_string());
    }
    metadata
}

/// The tensors to be written, in order.
fn plan<M: Module>(network: &M) -> Result<Vec<(Entry, Dtype)>, Error> {
    let typed = module::types(network).into_iter().map(|(entry, dtype)| match file_type(dtype) {
        Some(dtype) => Ok((entry, dtype)),
        None => Err(Error::NotSavable {
            tensor: entry.name,
            why: format!("its type is {dtype:?}, not a plain float"),
        }),
    });
    typed.collect()
}

fn file_type(dtype: DType) -> Option<Dtype> {
    match dtype {
        DType::F16 => Some(Dtype::F16),
        DType::BF16 => Some(Dtype::BF16),
        DType::F32 => Some(Dtype::F32),
        DType::F64 => Some(Dtype::F64),
        _ => None,
    }
}

fn header(plan: &[(Entry, Dtype)], metadata: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> =
        metadata.iter().map(|(key, value)| format!("{}:{}", literal(key), literal(value))).collect();
    let mut items = vec![format!("\"__metadata__\":{{{}}}", pairs.join(","))];
    let mut end = 0;
    for (Entry { name, shape, .. }, dtype) in plan {
        let start = end;
        end += shape.iter().product::<usize>() as u64 * dtype.bits() / 8;
        let name = literal(name);
        items.push(format!(
            "{name}:{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data_offsets\":[{start},{end}]}}"
        ));
    }
    let mut header = format!("{{{}}}", items.join(","));
    // Padded to 8 bytes: readers that map the file into memory need aligned tensors.
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    header
}

fn write_tensor(out: &mut dyn Write, data: &TensorData, transposed: bool) -> std::io::Result<()> {
    match data.dtype() {
        DType::F16 => write_elements(out, data, transposed, f16::to_le_bytes),
        DType::BF16 => write_elements(out, data, transposed, bf16::to_le_bytes),
        DType::F32 => write_elements(out, data, transposed, f32::to_le_bytes),
        DType::F64 => write_elements(out, data, transposed, f64::to_le_bytes),
        other => Err(std::io::Error::other(format!("a tensor became {other:?}"))),
    }
}

fn write_elements<T: burn::tensor::Element, const S: usize>(
    out: &mut dyn Write,
    data: &TensorData,
    transposed: bool,
    bytes: impl Fn(T) -> [u8; S],
) -> std::io::Result<()> {
    let values = data.as_slice::<T>().map_err(|error| std::io::Error::other(format!("{error:?}")))?;
    match (transposed, &data.shape()[..]) {
        (true, &[rows, columns]) => module::transpose(values, rows, columns)
            .into_iter()
            .try_for_each(|value| out.write_all(&bytes(value))),
        _ => values.iter().try_for_each(|&value| out.write_all(&bytes(value))),
    }
}
