//! Terminal output: text without anything that a terminal would interpret.
//!
//! Names of tensors, layers, classes and files come from outside. An escape sequence in one of them
//! could hide a line, change its colour or write to the clipboard. Therefore all output passes
//! through one filter, [`PlainText`], which prints control characters and text-direction overrides
//! as `\u{1b}`. Result files have the names unchanged, escaped as their formats require.

use std::borrow::Cow;
use std::io::{self, IsTerminal, StderrLock, StdoutLock, Write};
use std::path::Path;

/// Standard output, for tables.
pub(crate) fn output() -> PlainText<StdoutLock<'static>> {
    PlainText(io::stdout().lock())
}

/// Standard error, for messages.
pub(crate) fn errors() -> PlainText<StderrLock<'static>> {
    PlainText(io::stderr().lock())
}

/// The width of a line: that of the terminal, or 80 if there is none.
pub(crate) fn width() -> usize {
    const USUAL: usize = 80;
    let found = terminal_size::terminal_size().map(|(terminal_size::Width(columns), _)| usize::from(columns));
    if io::stdout().is_terminal() { found.unwrap_or(USUAL).max(USUAL / 2) } else { USUAL }
}

/// Prints text in lines that fit, all indented.
pub(crate) fn paragraph(out: &mut impl Write, indent: usize, text: &str) -> io::Result<()> {
    for line in lines(&harmless(text), width().saturating_sub(indent)) {
        writeln!(out, "{:indent$}{line}", "")?;
    }
    Ok(())
}

/// Prints text in lines that fit, all but the first indented.
pub(crate) fn hanging(out: &mut impl Write, indent: usize, text: &str) -> io::Result<()> {
    for (at, line) in lines(&harmless(text), width().saturating_sub(indent)).iter().enumerate() {
        writeln!(out, "{:1$}{line}", "", if at == 0 { 0 } else { indent })?;
    }
    Ok(())
}

/// Says where results are: files by what they are, and rows by their number.
pub(crate) fn written(
    out: &mut impl Write,
    files: &[(&str, Option<&Path>)],
    rows: Option<(usize, &Path)>,
) -> io::Result<()> {
    for (what, path) in files {
        path.map_or(Ok(()), |path| writeln!(out, "{what} in {}", path.display()))?;
    }
    rows.map_or(Ok(()), |(rows, path)| writeln!(out, "{rows} rows in {}", path.display()))
}

/// Breaks text at spaces; a word longer than a line gets its own line.
fn lines(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for (at, word) in text.split(' ').enumerate() {
        let full = lines.last().is_some_and(|line| line.chars().count() + 1 + word.chars().count() > width);
        match lines.last_mut() {
            Some(line) if !full || line.is_empty() => {
                line.push_str(if at == 0 { "" } else { " " });
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// The filter. Text is checked per call, which is safe because `write!` never splits a character.
#[derive(Debug)]
pub(crate) struct PlainText<W>(pub(crate) W);

impl<W: Write> Write for PlainText<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_all(harmless(&String::from_utf8_lossy(bytes)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The text without anything that a terminal would interpret, except newlines.
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    escaped(text, |letter| letter != '\n' && obeyed(letter))
}

/// A name for a message or a cell: harmless and on one line.
pub(crate) fn name(text: &str) -> Cow<'_, str> {
    escaped(text, obeyed)
}

/// The text with the `odd` characters as escape sequences.
fn escaped(text: &str, odd: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(&odd) {
        return text.into();
    }
    let mut plain = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if odd(letter) {
            plain.extend(letter.escape_default());
        } else {
            plain.push(letter);
        }
    }
    plain.into()
}

/// Whether a terminal would interpret a character: control characters, text-direction marks and
/// overrides, and line separators.
fn obeyed(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_passes() {
        for (text, shown) in [
            ("conv1.weight; 0 < 1, \"ü\"\n", "conv1.weight; 0 < 1, \"ü\"\n"),
            ("\u{1b}]52;c;ZWNobyBoaQ==\u{7}", "\\u{1b}]52;c;ZWNobyBoaQ==\\u{7}"),
            ("a\rb\u{8}\u{9b}31m", "a\\rb\\u{8}\\u{9b}31m"),
            ("\u{202e}gpj.exe", "\\u{202e}gpj.exe"),
        ] {
            let mut out = PlainText(Vec::new());
            write!(out, "{text}").expect("memory takes all");
            assert_eq!(String::from_utf8_lossy(&out.0), shown);
        }
        assert_eq!(name("a\nb"), "a\\nb");
    }

    #[test]
    fn lines_break_at_spaces() {
        assert_eq!(lines("aa bb cc", 5), ["aa bb", "cc"]);
        assert_eq!(lines("aaaaaaaa bb  c", 5), ["aaaaaaaa", "bb  c"]);
        assert_eq!(lines("", 5), [""]);
    }
}
