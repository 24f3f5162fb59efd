//! Safetensors files of results: named tensors, with a description in the metadata. The same
//! results give the same bytes.

use std::collections::HashMap;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::Value;

use crate::failure::{Failure, Result};

/// A tensor's name, type, shape and bytes.
pub(crate) type NamedTensor = (String, Dtype, Vec<usize>, Vec<u8>);

/// The metadata of a file.
pub(crate) type Metadata = HashMap<String, String>;

/// Pairs as metadata.
pub(crate) fn metadata(pairs: impl IntoIterator<Item = (&'static str, String)>) -> Metadata {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// The bytes of a file; `what` is its description for errors.
pub(crate) fn file(what: &str, tensors: &[NamedTensor], metadata: Metadata) -> Result<Vec<u8>> {
    let fail = |error: &dyn std::fmt::Display| Failure::new(format!("{what} could not be written: {error}"));
    let views: Vec<(&str, TensorView<'_>)> = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| {
            let view = TensorView::new(*dtype, shape.clone(), bytes).map_err(|error| fail(&error))?;
            Ok((name.as_str(), view))
        })
        .collect::<Result<_>>()?;
    let bytes = safetensors::serialize(views, Some(metadata)).map_err(|error| fail(&error))?;
    in_order(bytes).map_err(|error| fail(&error))
}

/// The file with sorted keys in its header, because safetensors writes metadata in arbitrary order.
fn in_order(mut bytes: Vec<u8>) -> serde_json::Result<Vec<u8>> {
    const PREFIX: usize = size_of::<u64>();
    let Some(length) = bytes.first_chunk().map(|length| u64::from_le_bytes(*length) as usize) else {
        return Ok(bytes);
    };
    if let Some(header) = bytes.get_mut(PREFIX..PREFIX + length) {
        let keys: Value = serde_json::from_slice(header)?;
        let text = serde_json::to_vec(&keys)?;
        if let Some((own, rest)) = header.split_at_mut_checked(text.len()) {
            own.copy_from_slice(&text);
            rest.fill(b' ');
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    //! Files can be read by safetensors, and their bytes do not depend on the order of a hash map.

    use safetensors::SafeTensors;

    use super::*;

    fn one() -> Vec<u8> {
        let tensors =
            [("b".into(), Dtype::U8, vec![2], vec![1, 2]), ("a".into(), Dtype::U8, vec![1], vec![3])];
        let keys = ["q", "w", "e", "r", "t", "y"];
        file("this", &tensors, metadata(keys.map(|key| (key, format!("\"{key}\""))))).expect("it fits")
    }

    #[test]
    fn files_have_the_same_bytes_and_are_read_again() {
        let first = one();
        assert!((0..20).all(|_| one() == first));
        let read = SafeTensors::deserialize(&first).expect("it is a file");
        assert_eq!(
            (read.tensor("a").expect("there").data(), read.tensor("b").expect("there").data()),
            (&[3][..], &[1, 2][..])
        );
        let (_, header) = SafeTensors::read_metadata(&first).expect("it has a header");
        let own = header.metadata().as_ref().expect("metadata");
        assert_eq!((own.len(), own["e"].as_str()), (6, "\"e\""));
    }
}
