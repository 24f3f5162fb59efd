//! The tables of docs/onnx.md are those of the code; `UPDATE_DOCS=1 cargo test -p influence-onnx
//! --test document` rewrites the page. A published package does not contain it: there the test is
//! skipped, and says so.

use std::fs;
use std::path::PathBuf;

use influence_onnx::{OPERATORS, REFUSED};

fn imported() -> String {
    let rows = OPERATORS.iter().map(|[name, words, refused]| format!("| `{name}` | {words} | {refused} |\n"));
    let head = "| operator | what is imported | what of it is refused, and what to do |\n|---|---|---|\n";
    std::iter::once(head.to_owned()).chain(rows).collect()
}

fn refused() -> String {
    let row = |(names, remedy): &(&[&str], &str)| {
        let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
        format!("| {} | {remedy} |\n", names.join(", "))
    };
    let head = "| operator | why it is refused, and what to do |\n|---|---|\n";
    std::iter::once(head.to_owned()).chain(REFUSED.iter().map(row)).collect()
}

#[test]
#[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
fn the_page_has_the_tables_of_the_operators() {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/onnx.md");
    if !page.exists() {
        println!("skipped: docs/onnx.md is not in this package");
        return;
    }
    let mut text = fs::read_to_string(&page).expect("docs/onnx.md");
    for (what, expected) in [("table", imported()), ("refused", refused())] {
        let markers = [format!("<!-- begin of the {what} -->\n"), format!("<!-- end of the {what} -->\n")];
        let (before, rest) = text.split_once(&markers[0]).expect("the first marker");
        let (found, after) = rest.split_once(&markers[1]).expect("the second marker");
        if std::env::var_os("UPDATE_DOCS").is_none() {
            assert_eq!(found, expected, "docs/onnx.md is out of date: run this test with UPDATE_DOCS=1");
        }
        text = [before, &markers[0], &expected, &markers[1], after].concat();
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&page, text).expect("it is written");
    }
}
