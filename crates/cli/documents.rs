//! Tests that the command lines and columns in the pages and in the help are those of the program.

use std::fs;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use crate::arguments::CommandLine;
use crate::compare::SETTINGS;
use crate::judged;
use crate::layers::LayerRow;
use crate::record::{ColumnSpec, Record};
use crate::row::ScoreRow;

/// README.md and the pages of docs/.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = fs::read_dir(root.join("docs")).expect("docs/").map(|page| page.expect("a page").path());
    let pages = pages.filter(|page| page.extension().is_some_and(|end| end == "md"));
    pages.chain([root.join("README.md")]).collect()
}

/// The long help of every command, after its flags.
fn helps() -> Vec<(String, String)> {
    let program = CommandLine::command();
    let help = |command: &clap::Command| {
        command.get_after_long_help().map(|help| (command.get_name().to_owned(), help.to_string()))
    };
    program.get_subcommands().filter_map(help).collect()
}

/// The help of one command.
fn help(command: &str) -> String {
    helps().into_iter().find(|(name, _)| name == command).expect("it has examples").1
}

/// The command lines in blocks of code: between fences, or indented by at least `indent` spaces.
fn blocks(text: &str, indent: usize) -> Vec<String> {
    let (mut found, mut fenced, mut begun) = (Vec::new(), false, String::new());
    for line in text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
            continue;
        }
        if !fenced && !line.starts_with(&" ".repeat(indent)) {
            begun.clear();
            continue;
        }
        let whole = format!("{begun}{}", line.trim());
        begun.clear();
        match whole.strip_suffix('\\') {
            Some(part) => begun.push_str(part),
            None => found.push(whole),
        }
    }
    found
}

/// The command lines in spans of code, as in `influence map --check`.
fn spans(text: &str) -> Vec<String> {
    let spans = text.split('`').skip(1).step_by(2);
    spans.map(|span| span.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// The words of a line that calls the program, without the shell's comment or pipe; `None` for
/// other lines, and where something is left out or to be chosen.
fn words(line: &str) -> Option<Vec<String>> {
    let line = line.strip_prefix("- ").unwrap_or(line);
    let line = line.strip_prefix("exec ").unwrap_or(line);
    let line = line.split(" #").next()?.split(" | ").next()?;
    let left_open = ["...", "|", "COMMAND", "influence ="].iter().any(|open| line.contains(open));
    let called = line.starts_with("influence ") && !left_open;
    called.then(|| line.split_whitespace().map(|word| word.replace(['\'', '"'], "")).collect())
}

/// Whether the grammar accepts these words; with `part`, required arguments may be missing.
fn is_understood(words: &[String], part: bool) -> Result<(), String> {
    let Err(error) = CommandLine::try_parse_from(words) else { return Ok(()) };
    match error.kind() {
        ErrorKind::DisplayHelp => Ok(()),
        ErrorKind::MissingRequiredArgument if part => Ok(()),
        _ => Err(format!("{}: {error}", words.join(" "))),
    }
}

#[test]
fn every_command_that_is_shown_is_understood() {
    let mut shown = 0;
    let mut check = |from: &str, line: &str, part: bool| {
        let Some(words) = words(line) else { return };
        if let Err(why) = is_understood(&words, part) {
            panic!("{from}: {why}");
        }
        shown += 1;
    };
    for page in pages() {
        let text = fs::read_to_string(&page).expect("a page");
        let name = page.display().to_string();
        blocks(&text, 4).iter().for_each(|line| check(&name, line, false));
        let spans = spans(&text);
        spans.iter().filter(|span| span.contains("--")).for_each(|span| check(&name, span, true));
    }
    for (command, text) in helps() {
        let examples = blocks(&text, 2);
        examples.iter().for_each(|line| check(&command, line, false));
    }
    assert!(shown > 60, "only {shown} command lines were found");
}

/// The names in a list of columns that begins after `marker`, up to the settings of the run or the
/// end of the sentence. What is in parentheses explains them.
fn listed(help: &str, marker: &str) -> Vec<String> {
    let (_, list) = help.split_once(marker).expect("a list of columns");
    let mut depth = 0;
    let outside = |letter: &char| {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => return depth == 0,
        }
        false
    };
    let list: String = list.chars().filter(outside).collect();
    let list = list.split_whitespace().collect::<Vec<_>>().join(" ");
    let list = list.split("the settings of the run").next().unwrap_or_default();
    let list = list.split('.').next().unwrap_or_default();
    let names = list.split([',', ';']).map(|item| {
        let item = item.trim();
        let item = item.strip_prefix("with --tail ").unwrap_or(item);
        item.split_whitespace().next().unwrap_or_default().to_owned()
    });
    names.filter(|name| !name.is_empty() && name != "and").collect()
}

fn names(columns: &[ColumnSpec]) -> Vec<&'static str> {
    columns.iter().map(|(name, _)| *name).collect()
}

#[test]
fn the_columns_in_the_help_are_those_of_the_files() {
    assert_eq!(listed(&help("score"), "Columns: "), names(ScoreRow::COLUMNS));
    assert_eq!(listed(&help("layers"), "one row per layer: "), names(LayerRow::COLUMNS));
    let outliers = judged::columns(&["FILTER".to_owned()], 2);
    assert_eq!(listed(&help("outliers"), "Columns: "), names(outliers));
    let compared = [names(&judged::taken()), vec!["set", "objective"]].concat();
    assert_eq!(listed(&help("compare"), "Columns: "), compared);
    let score = help("score").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(score.contains(&format!("the settings of the run: {}", SETTINGS.join(", "))), "{score}");
}

#[test]
fn the_page_about_the_numbers_has_every_number() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reading-the-numbers.md");
    let page = fs::read_to_string(page).expect("the page");
    // The first seven name the image, the objective and the perturbation; the direction is
    // explained with the families.
    let numbers = names(ScoreRow::COLUMNS).into_iter().skip(7).filter(|name| *name != "direction");
    for name in numbers {
        assert!(page.contains(&format!("`{name}`")), "docs/reading-the-numbers.md lacks {name}");
    }
}
