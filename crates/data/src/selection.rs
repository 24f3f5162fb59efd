//! Selections of images of a split: `0..8,12`. [`Selection`] describes the grammar.

use crate::Error;
use crate::error::counted;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// A selection of images, before their number is known; [`FromStr`] parses it.
///
/// The text is a comma-separated list of parts: `12` is one image, `0..8` the images 0 to 7
/// (half-open), `..8` the images before 8, `5..` all from 5 on, `all` (or `..`) every image. Images
/// are numbered from 0 in the split, and their order is kept as given. The parts form a union: an
/// image named by several parts counts once, at its first occurrence, because duplicate rows would
/// falsify sums over a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The ranges in the given order, at least one.
    parts: Vec<IndexRange>,
}

/// The images from `start` to before `end`, or to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct IndexRange {
    start: usize,
    end: Option<usize>,
}

impl Selection {
    /// Every image.
    #[must_use]
    pub fn all() -> Self {
        Self { parts: vec![IndexRange { start: 0, end: None }] }
    }

    /// The indices of the selected images out of `len`, in the given order: at least one, each less
    /// than `len`, no duplicates.
    ///
    /// The memory used is bounded by `len`, whatever numbers the selection contains.
    ///
    /// # Errors
    /// [`Error::Selection`] if an image does not exist.
    pub fn resolve(&self, len: usize) -> Result<Vec<usize>, Error> {
        let ranges = self.parts.iter().map(|part| part.within(len)).collect::<Result<Vec<_>, _>>()?;
        let mut there = vec![false; len];
        let first = |index: &usize| !std::mem::replace(&mut there[*index], true);
        Ok(ranges.into_iter().flatten().filter(first).collect())
    }
}

impl IndexRange {
    /// The indices of this part out of `len`, at least one.
    fn within(self, len: usize) -> Result<Range<usize>, Error> {
        let Self { start, end } = self;
        let end = end.unwrap_or(len);
        if start < len && end <= len {
            return Ok(start..end);
        }
        let why = match len.checked_sub(1) {
            Some(last) => format!("the split has {}, the last is {last}", counted(len, "image", "images")),
            None => "the split has no images".to_owned(),
        };
        Err(Error::Selection { text: self.to_string(), why })
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, part) in self.parts.iter().enumerate() {
            let comma = if position > 0 { "," } else { "" };
            write!(f, "{comma}{part}")?;
        }
        Ok(())
    }
}

impl fmt::Display for IndexRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self { start: 0, end: None } => f.write_str("all"),
            Self { start, end: None } => write!(f, "{start}.."),
            Self { start, end: Some(end) } if end - start == 1 => write!(f, "{start}"),
            Self { start, end: Some(end) } => write!(f, "{start}..{end}"),
        }
    }
}

impl FromStr for Selection {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parts = text.split(',').map(|part| parse_part(part.trim())).collect::<Result<_, _>>();
        let parts = parts.map_err(|(part, why)| {
            let text = if part.is_empty() { format!("\"{text}\"") } else { part };
            Error::Selection { text, why }
        })?;
        Ok(Self { parts })
    }
}

/// Parses one part of the list; the error is the part and what is wrong with it.
fn parse_part(text: &str) -> Result<IndexRange, (String, String)> {
    let fault = |why: &str| (text.to_owned(), why.to_owned());
    if text == "all" {
        return Ok(IndexRange { start: 0, end: None });
    }
    let Some((start, end)) = text.split_once("..") else {
        let image = number(text).map_err(|why| fault(&why))?;
        let end = image.checked_add(1).ok_or_else(|| fault("no split has that many images"))?;
        return Ok(IndexRange { start: image, end: Some(end) });
    };
    if end.starts_with('=') {
        return Err(fault("ranges are half-open, without `=`: 0..8 is the images 0 to 7"));
    }
    let bound = |text: &str| if text.is_empty() { Ok(None) } else { number(text).map(Some) };
    let start = bound(start.trim()).map_err(|why| fault(&why))?.unwrap_or(0);
    let end = bound(end.trim()).map_err(|why| fault(&why))?;
    match end {
        Some(end) if end < start => Err(fault("the range runs backwards")),
        Some(end) if end == start => Err(fault("the range is empty: its end is not part of it")),
        _ => Ok(IndexRange { start, end }),
    }
}

/// Parses a number of decimal digits only (no sign).
fn number(text: &str) -> Result<usize, String> {
    const GRAMMAR: &str =
        "write images as 0..8,12 (half-open ranges and single numbers, counted from 0) or all";
    if text.is_empty() {
        return Err(format!("a part is empty; {GRAMMAR}"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("not a number or a range; {GRAMMAR}"));
    }
    text.parse().map_err(|_| "no split has that many images".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(text: &str, len: usize) -> Result<Vec<usize>, String> {
        let resolve = |selection: Selection| selection.resolve(len);
        text.parse().and_then(resolve).map_err(|error: Error| error.to_string())
    }

    #[test]
    fn the_grammar_means_what_it_says() {
        let cases: [(&str, &[usize]); 11] = [
            ("0..3", &[0, 1, 2]),
            ("0..2,4", &[0, 1, 4]),
            ("4,0..2", &[4, 0, 1]),
            ("..2", &[0, 1]),
            ("3..", &[3, 4]),
            ("..", &[0, 1, 2, 3, 4]),
            ("all", &[0, 1, 2, 3, 4]),
            (" 1 , 2 .. 4 ", &[1, 2, 3]),
            ("004", &[4]),
            ("0..3,2", &[0, 1, 2]),
            ("3,1..,2..4", &[3, 1, 2, 4]),
        ];
        for (text, indices) in cases {
            assert_eq!(resolved(text, 5).as_deref(), Ok(indices), "{text}");
        }
    }

    #[test]
    fn what_does_not_fit_the_split_is_reported_with_its_size() {
        let cases = [
            ("0..10001", 10_000, "images 0..10001: the split has 10 000 images, the last is 9999"),
            ("10000", 10_000, "images 10000: the split has 10 000 images, the last is 9999"),
            ("0..3,7..", 5, "images 7..: the split has 5 images, the last is 4"),
            ("5..", 5, "images 5..: the split has 5 images, the last is 4"),
            ("0..99999999999", 1, "images 0..99999999999: the split has 1 image, the last is 0"),
            ("all", 0, "images all: the split has no images"),
        ];
        for (text, len, message) in cases {
            assert_eq!(resolved(text, len), Err(message.to_owned()));
        }
    }

    #[test]
    fn what_is_no_choice_is_reported_with_the_grammar() {
        let cases = [
            ("8..8", "images 8..8: the range is empty"),
            ("8..3", "images 8..3: the range runs backwards"),
            ("..0", "images ..0: the range is empty"),
            ("", "images \"\": a part is empty"),
            ("0..8,", "images \"0..8,\": a part is empty"),
            ("0..=8", "images 0..=8: ranges are half-open"),
            ("0-8", "images 0-8: not a number or a range; write images as 0..8,12"),
            ("-1", "images -1: not a number"),
            ("+1", "images +1: not a number"),
            ("1...3", "images 1...3: not a number"),
            ("1..2..3", "images 1..2..3: not a number"),
            ("٣", "images ٣: not a number"),
            ("0..184467440737095516160", "images 0..184467440737095516160: no split has that many images"),
            ("18446744073709551615", "images 18446744073709551615: no split has that many images"),
        ];
        for (text, message) in cases {
            let found = resolved(text, 10);
            assert!(
                found.as_ref().is_err_and(|found| found.starts_with(message)),
                "{found:?} is not {message}"
            );
        }
    }

    #[test]
    fn text_goes_round() -> Result<(), Error> {
        for text in ["all", "0..8,12", "5..", "0..5", "7"] {
            assert_eq!(text.parse::<Selection>()?.to_string(), text);
        }
        assert_eq!("..".parse::<Selection>()?, Selection::all());
        Ok(())
    }
}
