//! The table of docs/onnx.md is the one of the code; `UPDATE_DOCS=1 cargo test -p influence-onnx --test document`
//! rewrites it.

use std::fs;
use std::path::PathBuf;

use influence_onnx::OPERATORS;

const MARKERS: [&str; 2] = ["<!-- begin of the table -->\n", "<!-- end of the table -->\n"];

#[test]
fn the_page_has_the_table_of_the_operators() {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/onnx.md");
    let text = fs::read_to_string(&page).expect("docs/onnx.md");
    let (before, rest) = text.split_once(MARKERS[0]).expect("the first marker");
    let (found, after) = rest.split_once(MARKERS[1]).expect("the second marker");
    let rows = OPERATORS.iter().map(|[name, words]| format!("| `{name}` | {words} |\n"));
    let expected: String =
        std::iter::once("| operator | what is imported |\n|---|---|\n".to_owned()).chain(rows).collect();
    if found != expected && std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&page, [before, MARKERS[0], &expected, MARKERS[1], after].concat()).expect("it is written");
    } else {
        assert_eq!(found, expected, "docs/onnx.md is out of date: run this test with UPDATE_DOCS=1");
    }
}
