//! The subset of JSON in a safetensors header: objects of strings, unsigned numbers and lists of
//! numbers.
//!
//! A separate reader, because general ones silently drop duplicate keys and do not report byte
//! offsets. It never recurses, so no nesting can exhaust the stack, and it reports anything that a
//! header cannot contain with its position.

/// What is wrong, and the offset in the header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FormatFault {
    pub(crate) offset: usize,
    pub(crate) why: String,
}

/// A position in a header.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Offset of the next byte that is not white space.
    pub(crate) fn offset(&mut self) -> usize {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        self.at
    }

    fn peek(&mut self) -> Option<u8> {
        let at = self.offset();
        self.bytes.get(at).copied()
    }

    pub(crate) fn fault<T>(&self, why: impl Into<String>) -> Result<T, FormatFault> {
        Err(FormatFault { offset: self.at, why: why.into() })
    }

    /// Consumes the next byte, which must be `wanted`.
    pub(crate) fn expect(&mut self, wanted: u8) -> Result<(), FormatFault> {
        match self.peek() {
            Some(byte) if byte == wanted => {
                self.at += 1;
                Ok(())
            }
            Some(byte) => self.fault(format!(
                "expected `{}`, found `{}`",
                char::from(wanted),
                char::from(byte).escape_debug()
            )),
            None => self.fault(format!("expected `{}`, but the header ends", char::from(wanted))),
        }
    }

    /// Inside a list or object: whether another item follows. Consumes the comma, or the closing
    /// byte. `first` is true before the first item.
    pub(crate) fn more(&mut self, first: bool, close: u8) -> Result<bool, FormatFault> {
        if self.peek() == Some(close) {
            self.at += 1;
            return Ok(false);
        }
        if !first {
            self.expect(b',')?;
        }
        Ok(true)
    }

    /// Checks that only white space follows.
    pub(crate) fn end(&mut self) -> Result<(), FormatFault> {
        match self.peek() {
            None => Ok(()),
            Some(_) => self.fault("the header continues after its last `}`"),
        }
    }

    /// An unsigned 64-bit integer.
    pub(crate) fn number(&mut self) -> Result<u64, FormatFault> {
        let start = self.offset();
        let mut value: u64 = 0;
        while let Some(digit @ b'0'..=b'9') = self.bytes.get(self.at) {
            let next = value.checked_mul(10).and_then(|value| value.checked_add(u64::from(digit - b'0')));
            let Some(next) = next else { return self.fault("a number beyond 64 bits") };
            value = next;
            self.at += 1;
        }
        if self.at == start {
            return self.fault("expected an unsigned whole number");
        }
        if matches!(self.bytes.get(self.at), Some(b'.' | b'e' | b'E')) {
            return self.fault("expected a whole number");
        }
        Ok(value)
    }

    /// A list of at most `most` unsigned integers.
    pub(crate) fn numbers(&mut self, most: usize) -> Result<Vec<u64>, FormatFault> {
        self.expect(b'[')?;
        let mut numbers = Vec::new();
        while self.more(numbers.is_empty(), b']')? {
            if numbers.len() == most {
                return self.fault(format!("a list of more than {most} numbers"));
            }
            numbers.push(self.number()?);
        }
        Ok(numbers)
    }

    /// A string with its escapes resolved.
    pub(crate) fn string(&mut self) -> Result<String, FormatFault> {
        self.expect(b'"')?;
        let mut text = Vec::new();
        loop {
            match self.bytes.get(self.at) {
                None => return self.fault("a string does not end"),
                Some(b'"') => break,
                Some(b'\\') => {
                    let letter = self.escape()?;
                    text.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                }
                Some(0..0x20) => return self.fault("a control character in a string"),
                Some(&byte) => {
                    text.push(byte);
                    self.at += 1;
                }
            }
        }
        let text = String::from_utf8(text).or_else(|_| self.fault("a string that is not UTF-8"))?;
        self.at += 1;
        Ok(text)
    }

    /// The character of an escape sequence; the cursor is at its backslash.
    fn escape(&mut self) -> Result<char, FormatFault> {
        let letter = match self.bytes.get(self.at + 1) {
            Some(b'u') => return self.unicode(),
            Some(letter @ (b'"' | b'\\' | b'/')) => char::from(*letter),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            _ => return self.fault("an unknown escape in a string"),
        };
        self.at += 2;
        Ok(letter)
    }

    /// `\uXXXX`, or a pair of them for a character beyond 16 bits.
    fn unicode(&mut self) -> Result<char, FormatFault> {
        let high = self.hex()?;
        let code = if (0xd800..0xdc00).contains(&high) {
            let low = self.hex()?;
            if !(0xdc00..0xe000).contains(&low) {
                return self.fault("half a surrogate pair in a string");
            }
            0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)
        } else {
            high
        };
        char::from_u32(code).map_or_else(|| self.fault("half a surrogate pair in a string"), Ok)
    }

    fn hex(&mut self) -> Result<u32, FormatFault> {
        let digits = self.bytes.get(self.at..self.at + 6).and_then(|sequence| sequence.strip_prefix(b"\\u"));
        let Some(digits) = digits else { return self.fault("expected \\u and four hexadecimal digits") };
        let mut code = 0;
        for &digit in digits {
            let Some(value) = char::from(digit).to_digit(16) else {
                return self.fault("expected four hexadecimal digits");
            };
            code = 16 * code + value;
        }
        self.at += 6;
        Ok(code)
    }
}

/// A JSON string literal.
pub(crate) fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            '\0'..='\u{1f}' => out.push_str(&format!("\\u{:04x}", u32::from(letter))),
            _ => out.push(letter),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(json: &str) -> Result<String, FormatFault> {
        Cursor::new(json.as_bytes()).string()
    }

    #[test]
    fn strings_with_escapes() {
        assert_eq!(string(r#" "a.b" "#).unwrap(), "a.b");
        assert_eq!(string(r#""\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00ü""#).unwrap(), "\"\\/\u{8}\u{c}\n\r\té😀ü");
        for bad in [r#""a"#, r#""\x""#, r#""\u12""#, r#""\ud800x""#, r#""\udc00""#, "\"\n\"", "a", "", "\"\\"]
        {
            assert!(string(bad).is_err(), "{bad}");
        }
        assert_eq!(Cursor::new(b"\"\xff\"").string().unwrap_err().offset, 2);
    }

    #[test]
    fn literals_read_back() {
        for text in ["", "plain", "\"\\\n\u{1}", "ü😀"] {
            assert_eq!(string(&literal(text)).unwrap(), text);
        }
    }

    #[test]
    fn numbers_are_unsigned_and_bounded() {
        let number = |json: &str| Cursor::new(json.as_bytes()).number();
        assert_eq!(number(" 42"), Ok(42));
        assert_eq!(number("18446744073709551615"), Ok(u64::MAX));
        for bad in ["18446744073709551616", "-1", "1.5", "1e3", "x", ""] {
            assert!(number(bad).is_err(), "{bad}");
        }
        let numbers = |json: &str| Cursor::new(json.as_bytes()).numbers(3);
        assert_eq!(numbers("[]"), Ok(vec![]));
        assert_eq!(numbers("[1, 2,3 ]"), Ok(vec![1, 2, 3]));
        for bad in ["[1,2,3,4]", "[1 2]", "[1,]", "[", "[1"] {
            assert!(numbers(bad).is_err(), "{bad}");
        }
    }
}
