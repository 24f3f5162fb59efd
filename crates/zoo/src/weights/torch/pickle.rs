//! An interpreter for the subset of Python's pickle language in which weight files are written.
//!
//! A pickle is a program for a stack machine, and Python's own interpreter calls any function that
//! the program names. This one calls nothing: it makes [`PickleValue`]s, recognises the names in
//! [`Global`], and stops at any other name. It never recurses and copies no text, and
//! [`MOST_STEPS`] bounds the number of its values. It supports what `torch.save` writes with pickle
//! protocols 2 to 5.

mod calls;

use std::collections::HashMap;

use super::value::{Global, Objects, PickleValue, add};
use crate::weights::json::FormatFault;

/// The most instructions of a pickle; each makes at most one value. A tensor takes about 25.
const MOST_STEPS: usize = 1 << 20;

/// The result of reading a pickle.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    pub(super) root: PickleValue<'a>,
    pub(super) objects: Objects<'a>,
    /// Its length in bytes.
    pub(super) length: usize,
}

/// Why reading stopped before the end of the pickle. Offsets count from its start.
#[derive(Debug, PartialEq)]
pub(super) enum Stop {
    Fault(FormatFault),
    /// It names a class or function that weight files do not need.
    Foreign {
        offset: usize,
        class: String,
    },
}

impl Stop {
    /// This stop with offsets in a larger buffer, in which the pickle begins at byte `start`.
    pub(super) fn behind(self, start: usize) -> Self {
        match self {
            Self::Fault(FormatFault { offset, why }) => {
                Self::Fault(FormatFault { offset: start + offset, why })
            }
            Self::Foreign { offset, class } => Self::Foreign { offset: start + offset, class },
        }
    }
}

/// Reads the pickle at the start of `code`.
pub(super) fn read(code: &[u8]) -> Result<Pickle<'_>, Stop> {
    let mut machine = Machine { code, ..Machine::default() };
    for _ in 0..MOST_STEPS {
        machine.began = machine.at;
        match machine.byte()? {
            b'.' => {
                let root = machine.pop()?;
                return Ok(Pickle { root, objects: machine.objects, length: machine.at });
            }
            opcode => machine.step(opcode)?,
        }
    }
    machine.fault(format!("the pickle has more than {MOST_STEPS} instructions"))
}

#[derive(Debug, Default)]
struct Machine<'a> {
    code: &'a [u8],
    at: usize,
    /// Offset of the current instruction.
    began: usize,
    stack: Vec<PickleValue<'a>>,
    /// Heights of the stack at the marks that are set.
    marks: Vec<usize>,
    memo: HashMap<u32, PickleValue<'a>>,
    objects: Objects<'a>,
}

impl<'a> Machine<'a> {
    fn step(&mut self, opcode: u8) -> Result<(), Stop> {
        match opcode {
            0x80 => self.protocol(),
            // FRAME only states how far a reader may read ahead; its 8-byte length is skipped.
            0x95 => self.bytes(8).map(|_| ()),
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => self.pop().map(|_| ()),
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.remember(opcode),
            b')' | b't' | 0x85..=0x87 => self.tuple(opcode),
            b']' | b'a' | b'e' => self.list(opcode),
            b'}' | b's' | b'u' => self.dict(opcode),
            b'c' | 0x93 => self.global(opcode),
            b'Q' => self.storage(),
            b'R' => self.call(),
            b'b' => self.build(),
            _ => {
                let value = self.literal(opcode)?;
                self.push(value);
                Ok(())
            }
        }
    }

    fn literal(&mut self, opcode: u8) -> Result<PickleValue<'a>, Stop> {
        Ok(match opcode {
            b'N' => PickleValue::None,
            0x88 => PickleValue::Bool(true),
            0x89 => PickleValue::Bool(false),
            b'K' => PickleValue::Integer(self.number(1)? as i64),
            b'M' => PickleValue::Integer(self.number(2)? as i64),
            // A signed 32-bit integer.
            b'J' => PickleValue::Integer(i64::from(self.number(4)? as u32 as i32)),
            0x8a => self.long()?,
            b'G' => self.bytes(8).map(|_| PickleValue::Other("a number"))?,
            b'U' | 0x8c => self.text(1)?,
            b'T' | b'X' => self.text(4)?,
            0x8d => self.text(8)?,
            b'C' => self.data(1)?,
            b'B' => self.data(4)?,
            0x8e => self.data(8)?,
            _ => return self.fault(format!("instruction {opcode:#04x}, which no file of weights needs")),
        })
    }

    fn protocol(&mut self) -> Result<(), Stop> {
        match self.byte()? {
            2..=5 => Ok(()),
            other => self.fault(format!("pickle protocol {other}: 2 to 5 are read")),
        }
    }

    /// An integer of any length. Integers beyond 64 bits (random seeds) cannot be sizes, so their
    /// value is dropped.
    fn long(&mut self) -> Result<PickleValue<'a>, Stop> {
        let length = self.byte()?;
        let bytes = self.bytes(u64::from(length))?;
        if bytes.len() > 8 {
            return Ok(PickleValue::Other("a number"));
        }
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut value = [if negative { 0xff } else { 0 }; 8];
        value[..bytes.len()].copy_from_slice(bytes);
        Ok(PickleValue::Integer(i64::from_le_bytes(value)))
    }

    fn text(&mut self, width: u64) -> Result<PickleValue<'a>, Stop> {
        let length = self.number(width)?;
        match std::str::from_utf8(self.bytes(length)?) {
            Ok(text) => Ok(PickleValue::Text(text)),
            Err(_) => self.fault("text that is not UTF-8"),
        }
    }

    fn data(&mut self, width: u64) -> Result<PickleValue<'a>, Stop> {
        let length = self.number(width)?;
        self.bytes(length).map(|_| PickleValue::Other("bytes"))
    }

    /// Stores the top of the stack in the memo, or pushes a value from the memo.
    fn remember(&mut self, opcode: u8) -> Result<(), Stop> {
        let slot = match opcode {
            // MEMOIZE uses the next free index; BINPUT and BINGET have one byte, the long forms
            // four.
            0x94 => self.memo.len() as u64,
            b'q' | b'h' => self.number(1)?,
            _ => self.number(4)?,
        } as u32;
        if matches!(opcode, b'h' | b'j') {
            let Some(&value) = self.memo.get(&slot) else {
                return self.fault(format!("no value is stored in the memo as {slot}"));
            };
            self.push(value);
        } else {
            let value = self.pop()?;
            self.push(value);
            self.memo.insert(slot, value);
        }
        Ok(())
    }

    fn tuple(&mut self, opcode: u8) -> Result<(), Stop> {
        let items = match opcode {
            b')' => Vec::new(),
            b't' => self.pop_mark()?,
            _ => self.pop_many(usize::from(opcode - 0x84))?,
        };
        let tuple = PickleValue::Tuple(add(&mut self.objects.tuples, items));
        self.push(tuple);
        Ok(())
    }

    fn list(&mut self, opcode: u8) -> Result<(), Stop> {
        let items = match opcode {
            b']' => {
                let list = PickleValue::List(add(&mut self.objects.lists, Vec::new()));
                self.push(list);
                return Ok(());
            }
            b'a' => vec![self.pop()?],
            _ => self.pop_mark()?,
        };
        match self.stack.last() {
            Some(&PickleValue::List(list)) => self.objects.lists[list].extend(items),
            _ => return self.fault("items for a list where there is none"),
        }
        Ok(())
    }

    fn dict(&mut self, opcode: u8) -> Result<(), Stop> {
        let items = match opcode {
            b'}' => {
                self.new_dict();
                return Ok(());
            }
            b's' => self.pop_many(2)?,
            _ => self.pop_mark()?,
        };
        let (pairs, rest) = items.as_chunks::<2>();
        match self.stack.last() {
            Some(&PickleValue::Dict(dict)) if rest.is_empty() => {
                self.objects.dicts[dict].extend(pairs.iter().map(|&[key, value]| (key, value)));
                Ok(())
            }
            Some(PickleValue::Dict(_)) => self.fault("a key without a value"),
            _ => self.fault("items for a dict where there is none"),
        }
    }

    fn new_dict(&mut self) {
        let dict = PickleValue::Dict(add(&mut self.objects.dicts, Vec::new()));
        self.push(dict);
    }

    fn global(&mut self, opcode: u8) -> Result<(), Stop> {
        let (module, name) = match opcode {
            b'c' => (self.line()?, self.line()?),
            _ => match self.pop_many(2)?[..] {
                [PickleValue::Text(module), PickleValue::Text(name)] => (module, name),
                _ => return self.fault("a class whose name is not text"),
            },
        };
        let Some(global) = Global::find(module, name) else {
            return Err(Stop::Foreign { offset: self.began, class: format!("{module}.{name}") });
        };
        self.push(PickleValue::Global(global));
        Ok(())
    }

    /// Sets the attributes of an object. Only dicts may have some (`state_dict` stores its versions
    /// there). They do not concern the tensors and are dropped.
    fn build(&mut self) -> Result<(), Stop> {
        self.pop()?;
        match self.stack.last() {
            Some(PickleValue::Dict(_)) => Ok(()),
            _ => self.fault("attributes of something that is not a dict"),
        }
    }

    fn push(&mut self, value: PickleValue<'a>) {
        self.stack.push(value);
    }

    /// Pops the top of the stack, but nothing below the last mark.
    fn pop(&mut self) -> Result<PickleValue<'a>, Stop> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() > floor
            && let Some(value) = self.stack.pop()
        {
            return Ok(value);
        }
        self.fault("the stack is empty where a value is needed")
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<PickleValue<'a>>, Stop> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len().checked_sub(count) {
            Some(start) if start >= floor => Ok(self.stack.split_off(start)),
            _ => self.fault("the stack holds fewer values than are needed"),
        }
    }

    fn pop_mark(&mut self) -> Result<Vec<PickleValue<'a>>, Stop> {
        match self.marks.pop() {
            Some(start) => Ok(self.stack.split_off(start)),
            None => self.fault("a mark is needed, and none was set"),
        }
    }

    fn byte(&mut self) -> Result<u8, Stop> {
        Ok(self.number(1)? as u8)
    }

    /// A little-endian unsigned number of `width` bytes, at most 8.
    fn number(&mut self, width: u64) -> Result<u64, Stop> {
        let bytes = self.bytes(width)?;
        Ok(bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    fn bytes(&mut self, length: u64) -> Result<&'a [u8], Stop> {
        let rest = self.code.get(self.at..).unwrap_or_default();
        let found = usize::try_from(length).ok().and_then(|length| rest.get(..length));
        match found {
            Some(bytes) => {
                self.at += bytes.len();
                Ok(bytes)
            }
            None => self.fault("the pickle ends within this instruction"),
        }
    }

    /// A text up to the next newline, which is consumed.
    fn line(&mut self) -> Result<&'a str, Stop> {
        let rest = self.code.get(self.at..).unwrap_or_default();
        let Some(length) = rest.iter().position(|&byte| byte == b'\n') else {
            return self.fault("the pickle ends within a name");
        };
        self.at += length + 1;
        std::str::from_utf8(&rest[..length]).or_else(|_| self.fault("a name that is not UTF-8"))
    }

    fn fault<T>(&self, why: impl Into<String>) -> Result<T, Stop> {
        Err(Stop::Fault(FormatFault { offset: self.began, why: why.into() }))
    }
}
