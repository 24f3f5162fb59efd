//! The constants that docs/numerics.md names exist, with the values that its tables give; sources
//! and pages have the widths and lengths that CONTRIBUTING.md asks for.
//!
//! Tables of operations have tests of their own (crates/autodiff, crates/onnx), and so have the
//! commands and columns of the pages (crates/cli).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Where each constant is defined, and its right-hand side there, in the whole workspace.
type Constants = BTreeMap<String, Vec<(String, String)>>;

/// The constants of all Rust and Python files.
fn constants(root: &Path) -> Constants {
    let (mut sources, mut all) = (Vec::new(), Constants::new());
    for folder in ["crates", "tests", "benches"] {
        ["rs", "py"].iter().for_each(|end| files(&root.join(folder), end, &mut sources));
    }
    for (file, text) in &sources {
        for (name, value) in text.lines().filter_map(constant) {
            all.entry(name.to_owned()).or_default().push((file.clone(), value.to_owned()));
        }
    }
    all
}

/// The text files below a folder, by the end of their name.
fn files(folder: &Path, end: &str, all: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, end, all);
        } else if path.extension().is_some_and(|own| own == end) {
            all.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
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

/// The folders or files that a text names: `rank.rs`, `crates/cpu`.
fn places(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split([' ', ',', '(', ')', '`']);
    words.filter(|word| word.contains('/') && word.len() > 1 || word.ends_with(".rs"))
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
    let all = constants(root);
    let page = fs::read_to_string(root.join("docs/numerics.md")).unwrap();
    // A table may say in its head where its constants are, a row where its own are.
    let (mut compared, mut head) = (0, "");
    for line in page.lines() {
        for name in named(line) {
            assert!(all.contains_key(name), "docs/numerics.md: there is no constant {name}");
        }
        let Some(row) = line.strip_prefix('|') else {
            head = "";
            continue;
        };
        // Names, then their values, then what they are for.
        let mut cells = row.split('|');
        let (Some(names), Some(values)) = (cells.next(), cells.next()) else { continue };
        if head.is_empty() {
            head = names;
        }
        let values = numbers(values);
        for name in named(names) {
            let own: Vec<&str> = places(names).collect();
            let places = if own.is_empty() { places(head).collect() } else { own };
            let lies_in =
                |file: &str, at: &str| file.ends_with(&format!("/{at}")) || file.contains(&format!("/{at}/"));
            let is_there = |file: &str| places.is_empty() || places.iter().any(|at| lies_in(file, at));
            let defined = || all[name].iter().filter(|(file, _)| is_there(file));
            let agrees =
                |(_, value): &(String, String)| numbers(value).first().is_some_and(|x| values.contains(x));
            let files = defined().map(|(file, _)| file.as_str()).collect::<Vec<_>>();
            assert!(!files.is_empty(), "docs/numerics.md: there is no {name} in {places:?}");
            // Where the page leaves open which of several constants it means, it means all.
            assert!(
                defined().all(agrees),
                "docs/numerics.md gives {name} as one of {values:?}, or does not say which: {files:?}"
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
    let row = " `ACCURACY`, `ROUNDOFFS` (`paper.rs`, `crates/cpu`) of 1 / K ";
    assert_eq!(places(row).collect::<Vec<_>>(), ["paper.rs", "crates/cpu"]);
}

/// The way of one image in docs/architecture.md: each function of a hop is in a file of its row.
#[test]
fn every_hop_is_where_the_page_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/architecture.md")).unwrap();
    let hop = |line: &&str| line.starts_with("| ") && line.as_bytes()[2].is_ascii_digit();
    let mut functions = 0;
    for line in page.lines().filter(hop) {
        let cells: Vec<&str> = line.split('|').collect();
        let read = |file| fs::read_to_string(root.join("crates").join(file)).unwrap();
        let texts: Vec<String> = places(cells[3]).map(read).collect();
        for name in cells[2].split('`').skip(1).step_by(2) {
            let function = format!("fn {}", name.rsplit("::").next().unwrap_or(name));
            let defines =
                |text: &String| ["(", "<"].iter().any(|end| text.contains(&(function.clone() + end)));
            assert!(texts.iter().any(defines), "docs/architecture.md: {name} is not in {}", cells[3]);
            functions += 1;
        }
    }
    assert!(functions >= 20, "{functions} functions");
}

/// CONTRIBUTING.md: columns of prose, lines of a file, lines of a function.
const WIDTH: usize = 100;
const FILE_LINES: usize = 600;
const FUNCTION_LINES: usize = 80;

/// The lines of prose that are too wide, counted from 1. Tables and code are as wide as they need
/// to be: code stands between fences or, in pages, after four spaces. `prose` gives the prose in a
/// line.
fn wide<'a>(text: &'a str, prose: impl Fn(&'a str) -> Option<&'a str>) -> Vec<usize> {
    let (mut found, mut fenced) = (Vec::new(), false);
    for (at, line) in text.lines().enumerate() {
        let Some(words) = prose(line) else { continue };
        fenced ^= words.trim_start().starts_with("```");
        if !fenced && !words.starts_with('|') && line.chars().count() > WIDTH {
            found.push(at + 1);
        }
    }
    found
}

/// The functions that are too long: their first lines, counted from 1, and their lengths. rustfmt
/// closes a function in the column where it begins.
fn long_functions(text: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (first, line) in lines.iter().enumerate() {
        let words = line.trim_start();
        let indent = &line[..line.len() - words.len()];
        let before = words.split_once("fn ").map_or("not a function", |(before, _)| before);
        let is_function = before.split_whitespace().all(|word| {
            ["pub", "const", "unsafe", "async", "in", "extern"].iter().any(|known| word.starts_with(known))
        });
        if is_function && !words.ends_with(';') && !words.ends_with('}') {
            let end = lines[first..].iter().position(|line| line.strip_prefix(indent) == Some("}"));
            found.extend(end.filter(|end| end + 1 >= FUNCTION_LINES).map(|end| (first + 1, end + 1)));
        }
    }
    found
}

#[test]
fn sources_and_pages_keep_their_widths_and_lengths() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut sources, mut pages, mut faults) = (Vec::new(), Vec::new(), Vec::new());
    ["crates", "tests", "benches", "examples"].iter().map(|folder| root.join(folder)).for_each(|folder| {
        files(&folder, "rs", &mut sources);
        files(&folder, "md", &mut pages);
    });
    files(&root.join("docs"), "md", &mut pages);
    for page in ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"] {
        pages.push((page.to_owned(), fs::read_to_string(root.join(page)).unwrap()));
    }
    let comment = |line| -> Option<&str> {
        let words = str::trim_start(line).strip_prefix("//")?;
        Some(words.trim_start_matches(['/', '!']).trim_start())
    };
    for (name, text) in &sources {
        faults.extend(wide(text, comment).iter().map(|line| format!("{name}:{line}: wide")));
        faults.extend(long_functions(text).iter().map(|(line, long)| format!("{name}:{line}: {long} lines")));
        if text.lines().count() > FILE_LINES {
            faults.push(format!("{name}: more than {FILE_LINES} lines"));
        }
        if !text.starts_with("//!") {
            faults.push(format!("{name}: does not open with //!"));
        }
    }
    for (name, text) in &pages {
        let prose = |line| Some(line).filter(|line: &&str| !line.starts_with("    "));
        faults.extend(wide(text, prose).iter().map(|line| format!("{name}:{line}: wide")));
    }
    assert!(sources.len() > 200 && pages.len() > 15, "{} and {} files", sources.len(), pages.len());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn widths_and_lengths_are_seen() {
    let words = "word ".repeat(21);
    let text = format!("{words}\n| {words}\n```\n{words}\n```\n{words}");
    assert_eq!(wide(&text, Some), [1, 6]);
    let long = format!(
        "    fn long(\n    ) {{\n{}    }}\n    fn short() {{\n    }}",
        "        {\n        }\n".repeat(40)
    );
    assert_eq!(long_functions(&long), [(1, 83)]);
}
