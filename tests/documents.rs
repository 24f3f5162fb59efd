//! The constants that docs/numerics.md names exist, with the values that its tables give.
//!
//! Tables of operations have tests of their own (crates/autodiff, crates/onnx), and so have the
//! commands and columns of the pages (crates/cli).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The right-hand sides of all constants of this name, in the whole workspace.
type Constants = BTreeMap<String, Vec<String>>;

/// Adds the constants of all Rust and Python files below `folder`.
fn collect(folder: &Path, all: &mut Constants) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, all);
        } else if path.extension().is_some_and(|end| end == "rs" || end == "py") {
            let text = fs::read_to_string(&path).unwrap();
            for (name, value) in text.lines().filter_map(constant) {
                all.entry(name.to_owned()).or_default().push(value.to_owned());
            }
        }
    }
}

/// The name and the value of a constant that this line defines: `const NAME: T = VALUE;` in Rust,
/// `NAME = VALUE` in Python.
fn constant(line: &str) -> Option<(&str, &str)> {
    let (left, value) = line.split_once('=')?;
    let name = match left.split_once("const ") {
        Some((_, declared)) => declared.split_once(':')?.0,
        None => left.trim_end(),
    };
    is_name(name).then_some((name, value))
}

/// Whether this is the name of a constant: upper case, with digits and underscores.
fn is_name(text: &str) -> bool {
    let upper = |letter: char| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_';
    text.len() > 2 && text.starts_with(|letter: char| letter.is_ascii_uppercase()) && text.chars().all(upper)
}

/// The names of constants among the `code` spans of a text.
fn named(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2).filter(|span| is_name(span))
}

/// The numbers in a text, as in "100 u sigma_1" (100, but not the 1 of a name).
fn numbers(text: &str) -> Vec<f64> {
    let bytes = text.as_bytes();
    let (mut found, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let begins = bytes[at].is_ascii_digit()
            && !text[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_');
        if !begins {
            at += 1;
            continue;
        }
        let start = at;
        while at < bytes.len() && (bytes[at].is_ascii_digit() || matches!(bytes[at], b'.' | b'_')) {
            at += 1;
        }
        let exponent = text[at..].strip_prefix('e').map(|rest| rest.strip_prefix('-').unwrap_or(rest));
        if exponent.is_some_and(|rest| rest.starts_with(|letter: char| letter.is_ascii_digit())) {
            at += if text[at + 1..].starts_with('-') { 2 } else { 1 };
            while at < bytes.len() && bytes[at].is_ascii_digit() {
                at += 1;
            }
        }
        let digits = text[start..at].replace('_', "");
        found.push(digits.trim_end_matches('.').parse().unwrap());
    }
    found
}

#[test]
fn constants_are_those_of_the_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Constants::new();
    ["crates", "tests", "benches"].iter().for_each(|folder| collect(&root.join(folder), &mut all));
    let page = fs::read_to_string(root.join("docs/numerics.md")).unwrap();
    let mut compared = 0;
    for line in page.lines() {
        for name in named(line) {
            assert!(all.contains_key(name), "docs/numerics.md: there is no constant {name}");
        }
        // A row of a table: names, then their values, then what they are for.
        let Some(row) = line.strip_prefix('|') else { continue };
        let mut cells = row.split('|');
        let (Some(names), Some(values)) = (cells.next(), cells.next()) else { continue };
        let values = numbers(values);
        for name in named(names) {
            let defined = &all[name];
            let first = |value: &String| numbers(value).first().is_some_and(|x| values.contains(x));
            assert!(
                defined.iter().any(first),
                "docs/numerics.md gives {name} as one of {values:?}; it is {defined:?}"
            );
            compared += 1;
        }
    }
    assert!(compared > 40, "{compared} constants were compared");
}

#[test]
fn numbers_are_read_from_text_and_code() {
    assert_eq!(numbers("100 u sigma_1"), [100.0]);
    assert_eq!(numbers("(n + 1) 2^-24 of 1e-7, 2."), [1.0, 2.0, 24.0, 1e-7, 2.0]);
    assert_eq!(numbers(" 32.0 / (1_u64 << 24) as f64;"), [32.0, 1.0, 24.0]);
    assert_eq!(constant("    const NEAR: f64 = 1e-9;"), Some(("NEAR", " 1e-9;")));
    assert_eq!(constant("pub(crate) const A_B: usize = 3;"), Some(("A_B", " 3;")));
    assert_eq!(constant("TOLERANCE = 1e-3"), Some(("TOLERANCE", " 1e-3")));
    assert_eq!(constant("    let x = 3;"), None);
}
