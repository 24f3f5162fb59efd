//! `--truth`: the images known to be bad, from a file of indices.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::failure::{Failure, Result};

/// The indices in a file; `name` is the data set and split, which selects one of several lists.
pub(crate) fn read(path: &Path, name: &str) -> Result<BTreeSet<usize>> {
    let fail = |why: String| Failure::new(format!("--truth {}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
    let csv = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("csv"));
    let found = if csv { from_csv(&text) } else { from_json(&text, name) };
    found.map_err(fail)
}

/// Indices of images, or what is wrong with the file.
type ImageNumbers = std::result::Result<BTreeSet<usize>, String>;

/// Reads a list, or an object with a list of this name or with only one list.
fn from_json(text: &str, name: &str) -> ImageNumbers {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("this is not JSON: {error}"))?;
    let list = match &value {
        Value::Array(list) => list,
        Value::Object(object) => {
            let lists: Vec<_> =
                object.iter().filter_map(|(key, value)| Some((key, value.as_array()?))).collect();
            let own = lists.iter().find(|(key, _)| *key == name).map(|(_, list)| *list);
            match (own, &lists[..]) {
                (Some(list), _) => list,
                (None, [(_, list)]) => list,
                _ => {
                    let names: Vec<&str> = lists.iter().map(|(key, _)| key.as_str()).collect();
                    return Err(format!("there is no list {name}; lists there: {}", names.join(", ")));
                }
            }
        }
        _ => return Err("give a list of indices, or an object with lists of them".into()),
    };
    let index = |value: &Value| {
        let index = value.as_u64().and_then(|index| usize::try_from(index).ok());
        index.ok_or_else(|| format!("{value} is not an index: indices are whole numbers from 0"))
    };
    list.iter().map(index).collect()
}

/// Reads the column `index`, or the only one.
fn from_csv(text: &str) -> ImageNumbers {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
    let (mut column, mut found) = (0, BTreeSet::new());
    for (line, record) in reader.records().enumerate() {
        let record = record.map_err(|error| error.to_string())?;
        let named = record.iter().position(|cell| cell.trim() == "index");
        match (line, named) {
            (0, Some(at)) => column = at,
            (0, None) if record.len() > 1 => return Err("no column is called index".into()),
            _ => {
                let cell = record.get(column).unwrap_or_default().trim();
                let fail = |_| {
                    format!("line {}: '{cell}' is not an index: indices are whole numbers from 0", line + 1)
                };
                found.insert(cell.parse().map_err(fail)?);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_every_kind() {
        let all = |found: ImageNumbers| found.map(Vec::from_iter);
        for text in ["[3, 1]", r#"{"source": "x", "mnist_test": [1, 3], "b": [2]}"#, r#"{"any": [3, 1]}"#] {
            assert_eq!(all(from_json(text, "mnist_test")), Ok(vec![1, 3]), "{text}");
        }
        for text in ["index,why\n1,a\n3,b\n", "1\n3\n", "index\n3\n1"] {
            assert_eq!(all(from_csv(text)), Ok(vec![1, 3]), "{text}");
        }
    }

    #[test]
    fn what_is_no_list_is_reported() {
        for (text, why) in [
            ("x", "not JSON"),
            ("3", "give a list"),
            ("[1.5]", "1.5 is not an index"),
            (r#"{"a": [1], "b": [2]}"#, "no list mnist_test; lists there: a, b"),
        ] {
            assert!(from_json(text, "mnist_test").is_err_and(|found| found.contains(why)), "{text}");
        }
        for (text, why) in [("a,b\n1,2\n", "called index"), ("index\nx\n", "line 2: 'x'")] {
            assert!(from_csv(text).is_err_and(|found| found.contains(why)), "{text}");
        }
    }
}
