//! A matrix from an array file: logits that were saved by another program.

use std::path::Path;

use half::f16;

use crate::Error;
use crate::container::Container;
use crate::npy::RawArray;

/// Rows of numbers, `[N, K]`, in f64.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    columns: usize,
    values: Vec<f64>,
}

impl Matrix {
    /// Reads the array `name`, or the only array of the file, from a .npy, .npz or safetensors
    /// file. Its type is float64, float32 or float16.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the file has none of these formats, is damaged, or contains no such
    /// matrix of finite numbers; [`Error::Io`] if it cannot be read.
    pub fn open(file: &Path, name: &str) -> Result<Self, Error> {
        let corrupt = |(offset, why)| Error::Corrupt { file: file.to_path_buf(), offset, why };
        let container = Container::open(file)?;
        let names = container.names().map_err(corrupt)?;
        let name = match &names[..] {
            [only] => only,
            _ => name,
        };
        let missing = || (0, format!("there is no array \"{name}\", but {}", names.join(", ")));
        let raw = container.get(name).and_then(|raw| raw.ok_or_else(missing)).map_err(corrupt)?;
        Self::of(&raw).map_err(|why| corrupt((0, format!("array \"{name}\" {why}"))))
    }

    fn of(raw: &RawArray) -> Result<Self, String> {
        let &[rows, columns] = &raw.shape[..] else {
            return Err(format!("has shape {:?}: a matrix [N, K] is needed", raw.shape));
        };
        if rows == 0 || columns == 0 {
            return Err(format!("has shape {:?}, and so no elements", raw.shape));
        }
        let (kind, bytes) = raw.kind;
        let values =
            floats(raw).ok_or_else(|| format!("has type {kind}{bytes}: save it as float32 or float64"))?;
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(format!("holds {} at [{}, {}]", values[at], at / columns, at % columns));
        }
        Ok(Self { columns, values })
    }

    /// The number of rows N.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.values.len() / self.columns
    }

    /// The number of columns K.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// A row; empty if `index` is past the last one.
    #[must_use]
    pub fn row(&self, index: usize) -> &[f64] {
        self.values.chunks_exact(self.columns).nth(index).unwrap_or_default()
    }
}

/// The elements of an array of floats, or `None` if it is not one.
fn floats(raw: &RawArray) -> Option<Vec<f64>> {
    match raw.kind {
        ('f', 2) => {
            Some(raw.bytes.as_chunks().0.iter().map(|bits| f16::from_le_bytes(*bits).into()).collect())
        }
        ('f', 4) => {
            Some(raw.bytes.as_chunks().0.iter().map(|bits| f32::from_le_bytes(*bits).into()).collect())
        }
        ('f', 8) => Some(raw.bytes.as_chunks().0.iter().map(|bits| f64::from_le_bytes(*bits)).collect()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_matrix_is_refused() {
        let raw =
            |shape: &[usize], kind, bytes: &[u8]| RawArray { shape: shape.into(), kind, bytes: bytes.into() };
        let numbers: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        let matrix = Matrix::of(&raw(&[1, 2], ('f', 4), &numbers)).expect("a matrix");
        let halves = Matrix::of(&raw(&[1, 2], ('f', 2), &[0, 0x3e, 0, 0xc0])).expect("a matrix");
        assert_eq!(halves, matrix);
        assert_eq!((matrix.rows(), matrix.columns(), matrix.row(0)), (1, 2, &[1.5, -2.0][..]));
        assert_eq!(matrix.row(1), &[0.0; 0]);
        for (shape, kind, bytes, word) in [
            (&[2][..], ('f', 4), &numbers[..], "[N, K]"),
            (&[0, 2], ('f', 4), &[], "no elements"),
            (&[1, 8], ('u', 1), &numbers, "float32"),
            (&[1, 1], ('f', 4), &f32::NAN.to_le_bytes(), "NaN at [0, 0]"),
        ] {
            let why = Matrix::of(&raw(shape, kind, bytes)).expect_err(word);
            assert!(why.contains(word), "{why}");
        }
    }
}
