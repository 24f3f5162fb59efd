//! For tests: the slowest reader that `Read` permits.

use std::io::{self, ErrorKind, Read};

/// Returns one byte per call, and an interruption before each.
pub(crate) struct Trickle<'a> {
    rest: &'a [u8],
    interrupted: bool,
}

impl<'a> Trickle<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, interrupted: false }
    }
}

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.interrupted = !self.interrupted;
        if self.interrupted {
            return Err(ErrorKind::Interrupted.into());
        }
        let (now, rest) = self.rest.split_at(self.rest.len().min(buffer.len()).min(1));
        buffer[..now.len()].copy_from_slice(now);
        self.rest = rest;
        Ok(now.len())
    }
}
