//! Page headers of Parquet: structs in Thrift's compact protocol.
//!
//! A field is a byte (high bits: the difference of its number to the previous one; low bits: its
//! type) followed by its value. A zero byte ends a struct. Integers are zigzag-encoded, with seven
//! bits per byte.

/// The fields of a struct, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Struct(Vec<(i64, ThriftValue)>);

#[derive(Debug)]
enum ThriftValue {
    Integer(i64),
    Struct(Struct),
    /// A floating-point number, text or list, which page headers do not need.
    Other,
}

/// The deepest nesting that is read; page headers need less.
const DEEPEST: usize = 8;

impl Struct {
    /// Reads a struct from the start of `bytes`, which is advanced past it.
    pub(super) fn read(bytes: &mut &[u8]) -> Option<Self> {
        Self::nested(bytes, DEEPEST)
    }

    fn nested(bytes: &mut &[u8], depth: usize) -> Option<Self> {
        let (mut fields, mut number) = (Vec::new(), 0);
        loop {
            let head = byte(bytes)?;
            if head == 0 {
                return Some(Self(fields));
            }
            // A difference of 0 means that the number itself follows.
            number = match i64::from(head >> 4) {
                0 => zigzag(bytes)?,
                further => number + further,
            };
            fields.push((number, value(bytes, head & 15, depth)?));
        }
    }

    /// An integer field, or a boolean one as 1 or 0.
    pub(super) fn integer(&self, number: i64) -> Option<i64> {
        self.0.iter().find_map(|(own, field)| match field {
            ThriftValue::Integer(value) if *own == number => Some(*value),
            _ => None,
        })
    }

    /// An integer field that is a non-negative count.
    pub(super) fn count(&self, number: i64) -> Option<u32> {
        self.integer(number).and_then(|count| u32::try_from(count).ok())
    }

    pub(super) fn inner(&self, number: i64) -> Option<&Self> {
        self.0.iter().find_map(|(own, field)| match field {
            ThriftValue::Struct(inner) if *own == number => Some(inner),
            _ => None,
        })
    }
}

/// Reads the value of a field of type `kind`.
fn value(bytes: &mut &[u8], kind: u8, depth: usize) -> Option<ThriftValue> {
    match kind {
        1 => Some(ThriftValue::Integer(1)),
        2 => Some(ThriftValue::Integer(0)),
        3 => byte(bytes).map(|value| ThriftValue::Integer(value.into())),
        4..=6 => zigzag(bytes).map(ThriftValue::Integer),
        7 => skip(bytes, 8),
        8 => {
            let length = varint(bytes)?;
            skip(bytes, usize::try_from(length).ok()?)
        }
        9 | 10 => list(bytes, depth.checked_sub(1)?),
        12 => Struct::nested(bytes, depth.checked_sub(1)?).map(ThriftValue::Struct),
        _ => None,
    }
}

/// Skips a list or a set.
fn list(bytes: &mut &[u8], depth: usize) -> Option<ThriftValue> {
    let head = byte(bytes)?;
    let count = match u64::from(head >> 4) {
        15 => varint(bytes)?,
        few => few,
    };
    for _ in 0..count {
        // In a list, booleans take one byte each; as fields they are part of the type.
        value(bytes, if head & 15 <= 2 { 3 } else { head & 15 }, depth)?;
    }
    Some(ThriftValue::Other)
}

fn byte(bytes: &mut &[u8]) -> Option<u8> {
    let (&first, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(first)
}

fn skip(bytes: &mut &[u8], count: usize) -> Option<ThriftValue> {
    *bytes = bytes.get(count..)?;
    Some(ThriftValue::Other)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    // Ten groups of seven bits hold the 64 of the longest number; the last has one of them.
    for index in 0..10 {
        let next = byte(bytes)?;
        if index == 9 && next > 1 {
            return None;
        }
        value |= u64::from(next & 0x7f) << (7 * index);
        if next & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Zigzag decoding: 0, 1, 2, 3, ... stand for 0, -1, 1, -2, ...
fn zigzag(bytes: &mut &[u8]) -> Option<i64> {
    let value = varint(bytes)?;
    Some((value >> 1) as i64 ^ -((value & 1) as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_and_others_passed_over() {
        // 1: i32 -3; 2: text "ab"; 5: struct { 1: i32 300, 2: true }; 6: list of two i32; 30: i32
        // 1.
        let bytes = [
            0x15, 5, 0x18, 2, b'a', b'b', 0x3c, 0x15, 0xd8, 4, 0x11, 0, 0x19, 0x25, 2, 4, 0x05, 60, 2, 0, 99,
        ];
        let mut rest = &bytes[..];
        let read = Struct::read(&mut rest).expect("a struct");
        assert_eq!(rest, [99]);
        assert_eq!((read.integer(1), read.count(1), read.integer(2)), (Some(-3), None, None));
        let inner = read.inner(5).expect("a struct within");
        assert_eq!((inner.count(1), inner.integer(2)), (Some(300), Some(1)));
        assert_eq!((read.integer(30), read.integer(7)), (Some(1), None));
        for cut in 0..bytes.len() - 1 {
            assert!(Struct::read(&mut &bytes[..cut]).is_none(), "{cut}");
        }
        assert!(Struct::read(&mut &[0x1c; 100][..]).is_none(), "too deep");
        assert!(Struct::read(&mut &[0x1d, 0][..]).is_none(), "an unknown type");
        let longest = |last: u8| zigzag(&mut &[&[0xff; 9][..], &[last]].concat()[..]);
        assert_eq!((longest(1), longest(2)), (Some(i64::MIN), None));
    }
}
