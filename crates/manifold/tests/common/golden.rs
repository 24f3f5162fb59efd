//! The golden files next to the repository.
#![allow(clippy::print_stdout, reason = "a skipped test says so")]

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};

/// One golden file: named arrays.
pub struct Golden {
    shapes: BTreeMap<String, Vec<usize>>,
    floats: BTreeMap<String, Vec<f64>>,
    ints: BTreeMap<String, Vec<i64>>,
}

impl Golden {
    fn read(bytes: &[u8]) -> Self {
        let file = SafeTensors::deserialize(bytes).expect("a safetensors file");
        let mut golden = Self { shapes: BTreeMap::new(), floats: BTreeMap::new(), ints: BTreeMap::new() };
        for (name, view) in file.tensors() {
            let words =
                || view.data().chunks_exact(8).map(|word| <[u8; 8]>::try_from(word).expect("eight bytes"));
            golden.shapes.insert(name.clone(), view.shape().to_vec());
            match view.dtype() {
                Dtype::F64 => _ = golden.floats.insert(name, words().map(f64::from_le_bytes).collect()),
                Dtype::I64 => _ = golden.ints.insert(name, words().map(i64::from_le_bytes).collect()),
                _ => {}
            }
        }
        golden
    }

    pub fn shape(&self, name: &str) -> &[usize] {
        &self.shapes[name]
    }

    pub fn values(&self, name: &str) -> &[f64] {
        &self.floats[name]
    }

    /// Integers, from whichever integer type the file uses.
    pub fn integers(&self, name: &str) -> Vec<i64> {
        match self.ints.get(name) {
            Some(values) => values.clone(),
            None => self.floats[name].iter().map(|value| *value as i64).collect(),
        }
    }

    /// The values of one sample: the `i`-th along the first axis.
    pub fn sample(&self, name: &str, i: usize) -> &[f64] {
        let values = &self.floats[name];
        let length = values.len() / self.shapes[name][0];
        &values[i * length..][..length]
    }

    pub fn sample_integers(&self, name: &str, i: usize) -> Vec<i64> {
        let values = self.integers(name);
        let length = values.len() / self.shapes[name][0];
        values[i * length..][..length].to_vec()
    }

    pub fn label(&self, i: usize) -> usize {
        self.ints["labels"][i] as usize
    }
}

/// The golden files next to the repository, by name. Where there are none, prints a line and
/// returns only the one in tests/golden.
pub fn golden_files() -> Vec<(String, Golden)> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let entries = std::fs::read_dir(own.join("../../../shared/golden")).or_else(|_| {
        println!("skipped: no golden files next to the repository (shared/golden); only the one in tests/golden is checked");
        std::fs::read_dir(own.join("tests/golden"))
    });
    let entries = entries.expect("the crate's own golden file");
    let mut paths: Vec<_> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "safetensors"));
    paths.sort();
    let name =
        |path: &Path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    paths
        .iter()
        .map(|path| (name(path), Golden::read(&std::fs::read(path).expect("a readable file"))))
        .collect()
}
