//! The table of docs/ops.md, generated from the operations, and the test that compares it with the
//! page.
//!
//! `UPDATE_DOCS=1 cargo test -p influence-autodiff document` rewrites the page. A published package
//! does not contain it: there the test is skipped, and says so.

use std::fs;
use std::path::PathBuf;

use super::derivatives::{OpSample, samples};
use super::{Keep, Op};

/// The lines before and after the table.
const MARKERS: [&str; 2] = ["<!-- begin of the table -->\n", "<!-- end of the table -->\n"];

fn page() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/ops.md")
}

/// The tensors that a rule keeps when all operands that may be active are.
fn kept(sample: &OpSample) -> String {
    let active: Vec<_> = (0..sample.operands.len()).map(|i| sample.active.contains(&i)).collect();
    if !active.contains(&true) {
        return "nothing".into();
    }
    let name = |keep: &Keep| match keep {
        Keep::Input(position) => format!("operand {}", position + 1),
        Keep::Output => "result".into(),
        Keep::Mask => "mask".into(),
        Keep::Indices => "indices".into(),
    };
    let names: Vec<_> = sample.op.rule().keeps(&active).iter().map(name).collect();
    if names.is_empty() { "nothing".into() } else { names.join(", ") }
}

fn table() -> String {
    let samples = samples();
    let row = |(name, [value, pullback]): (&&str, &[&str; 2])| {
        let of_it = |sample: &&OpSample| sample.op.name() == *name;
        let fullest = samples.iter().filter(of_it).max_by_key(|sample| sample.active.len());
        let kept = fullest.map(kept).unwrap_or_default();
        format!("| `{name}` | {value} | {pullback} | {kept} |\n")
    };
    let head = "| operation | y | pullback of g | kept |\n|---|---|---|---|\n";
    std::iter::once(head.to_owned()).chain(Op::NAMES.iter().zip(Op::FORMULAS).map(row)).collect()
}

#[test]
#[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
fn the_page_has_the_table_of_the_operations() {
    if !page().exists() {
        println!("skipped: docs/ops.md is not in this package");
        return;
    }
    let text = fs::read_to_string(page()).expect("docs/ops.md");
    let (before, rest) = text.split_once(MARKERS[0]).expect("the first marker");
    let (found, after) = rest.split_once(MARKERS[1]).expect("the second marker");
    let expected = table();
    if found != expected && std::env::var_os("UPDATE_DOCS").is_some() {
        let text = [before, MARKERS[0], &expected, MARKERS[1], after].concat();
        fs::write(page(), text).expect("it is written");
    } else {
        assert_eq!(found, expected, "docs/ops.md is out of date: run this test with UPDATE_DOCS=1");
    }
}
