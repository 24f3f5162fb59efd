//! Tables of encoded pictures, the format in which hubs publish data sets: Parquet files with a
//! column `image` or `img` (a struct of `bytes` and `path`, or only the bytes) and a column of
//! labels.
//!
//! The class names are in the metadata that the Python library `datasets` writes.

mod pages;
mod snappy;
mod thrift;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use influence_data::Listing;
use parquet::basic::Compression;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};

use crate::failure::{self, Failure};
use crate::inputs::Inputs;
use pages::PictureGroup;

/// Names of a column of pictures.
const PICTURES: [&str; 4] = ["image", "img", "jpg", "png"];
/// Names of a column of labels, the preferred first.
const LABELS: [&str; 4] = ["label", "labels", "fine_label", "coarse_label"];
/// The metadata key under which `datasets` describes the columns.
const METADATA: &str = "huggingface";

/// A picture's name, bytes and label.
type LabelledPicture = (String, Vec<u8>, Option<usize>);

/// The pictures of a file, or of all files of a folder in the order of their names.
pub(crate) fn listing(path: &Path, inputs: &mut Inputs) -> failure::Result<Listing> {
    let files = files(path)?;
    let (mut pictures, mut class_names) = (Vec::new(), Vec::new());
    for file in &files {
        inputs.add(file);
        let names =
            table(file, &mut pictures).map_err(|why| Failure::new(format!("{}: {why}", file.display())))?;
        if class_names.is_empty() {
            class_names = names;
        }
    }
    let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy();
    Ok(Listing::from_encoded(name, pictures, class_names)?)
}

/// The file itself, or the Parquet files of a folder in the order of their names.
fn files(path: &Path) -> failure::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let fail = |why: String| Failure::new(format!("{}: {why}", path.display()));
    let entries = fs::read_dir(path).map_err(|error| fail(error.to_string()))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>();
    let mut paths = paths.map_err(|error| fail(error.to_string()))?;
    paths.retain(|path| path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("parquet")));
    paths.sort();
    match paths.is_empty() {
        true => Err(fail("no file in this folder ends in .parquet".into())),
        false => Ok(paths),
    }
}

/// Appends the pictures of a file, and returns its class names.
fn table(file: &Path, pictures: &mut Vec<LabelledPicture>) -> Result<Vec<String>, String> {
    let words = |error: &dyn std::error::Error| error.to_string();
    let reader = SerializedFileReader::new(File::open(file).map_err(|error| words(&error))?)
        .map_err(|error| words(&error))?;
    let metadata = reader.metadata();
    let schema = metadata.file_metadata().schema();
    let columns: Vec<&str> = schema.get_fields().iter().map(|field| field.name()).collect();
    let one_of = |names: &[&'static str]| names.iter().copied().find(|name| columns.contains(name));
    let picture = one_of(&PICTURES).ok_or_else(|| {
        format!("no column of pictures ({}), but {}", PICTURES.join(", "), columns.join(", "))
    })?;
    let label = one_of(&LABELS);
    // The build has no other decompressors. Checking here names the remedy, where the parquet crate
    // would fail at the first page.
    for column in metadata.row_groups().iter().flat_map(|group| group.columns()) {
        let codec = column.compression();
        if !matches!(codec, Compression::UNCOMPRESSED | Compression::SNAPPY) {
            return Err(format!(
                "its columns are compressed by {codec}, which this build does not read; in Python: \
                 pyarrow.parquet.write_table(pyarrow.parquet.read_table(\"{}\"), \"plain.parquet\", compression=\"snappy\")",
                file.display()
            ));
        }
    }
    // Compressed columns are read from the file here (`pages.rs`), past the crate's reader.
    let again = File::open(file).map_err(|error| words(&error))?;
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group).map_err(|error| words(&error))?;
        let group = PictureGroup { group, file: &again };
        let rows = RowIter::from_row_group(None, &group).map_err(|error| words(&error))?;
        for row in rows {
            let row = row.map_err(|error| words(&error))?;
            pictures.push(read(&row, (picture, label), pictures.len())?);
        }
    }
    let pairs = metadata.file_metadata().key_value_metadata();
    let known = pairs.and_then(|pairs| pairs.iter().find(|pair| pair.key == METADATA)?.value.as_deref());
    Ok(known.zip(label).map(|(known, label)| class_names(known, label)).unwrap_or_default())
}

/// Reads one row: name, bytes and label of its picture.
fn read(row: &Row, (picture, label): (&str, Option<&str>), number: usize) -> Result<LabelledPicture, String> {
    let field = |row: &Row, name: &str| {
        row.get_column_iter().find(|(column, _)| *column == name).map(|(_, field)| field.clone())
    };
    let (mut name, mut bytes) = (format!("row {number}"), None);
    match field(row, picture) {
        Some(Field::Group(inner)) => {
            if let Some(Field::Str(path)) = field(&inner, "path") {
                name = format!("row {number} ({path})");
            }
            bytes = field(&inner, "bytes");
        }
        other => bytes = other.or(bytes),
    }
    let bytes = match bytes {
        Some(Field::Bytes(bytes)) => bytes.data().to_vec(),
        // Empty bytes are reported when the picture is decoded.
        _ => Vec::new(),
    };
    let label = match label.and_then(|label| field(row, label)) {
        None | Some(Field::Null) => None,
        Some(found) => Some(
            whole(&found)
                .ok_or_else(|| format!("the label of {name} is {found}: whole numbers from 0 are needed"))?,
        ),
    };
    Ok((name, bytes, label))
}

/// A label as a number.
fn whole(field: &Field) -> Option<usize> {
    match *field {
        Field::Byte(label) => usize::try_from(label).ok(),
        Field::Short(label) => usize::try_from(label).ok(),
        Field::Int(label) => usize::try_from(label).ok(),
        Field::Long(label) => usize::try_from(label).ok(),
        Field::UByte(label) => Some(label.into()),
        Field::UShort(label) => Some(label.into()),
        Field::UInt(label) => usize::try_from(label).ok(),
        Field::ULong(label) => usize::try_from(label).ok(),
        _ => None,
    }
}

/// The class names of a column, from the metadata of `datasets`.
fn class_names(metadata: &str, label: &str) -> Vec<String> {
    let metadata: serde_json::Value = serde_json::from_str(metadata).unwrap_or_default();
    let names = metadata["info"]["features"][label]["names"].as_array().cloned().unwrap_or_default();
    names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect()
}
