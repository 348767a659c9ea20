//! Bytes on their way in and out. Capacity is kept from one ordinary exchange to the next; what a large one needed is
//! given back.

use std::fs::File;

/// An idle connection keeps no more than this of each kind.
const KEPT: usize = 16 * 1024;

/// Bytes that were received and not used yet.
#[derive(Debug, Default)]
pub struct Incoming {
    bytes: Vec<u8>,
    start: usize,
}

impl Incoming {
    /// What is there.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    /// Used: the first `count` bytes.
    pub fn consume(&mut self, count: usize) {
        self.start += count;
        if self.is_empty() {
            self.bytes.clear();
            self.start = 0;
        }
    }

    /// Where to receive: the vector's spare capacity is at least `least` bytes.
    pub fn room(&mut self, least: usize) -> &mut Vec<u8> {
        if self.start > 0 && self.bytes.capacity() - self.bytes.len() < least {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.reserve(least);
        &mut self.bytes
    }

    /// Gives back the memory of an uncommonly large message, if nothing is there.
    pub fn release(&mut self) {
        if self.is_empty() && self.bytes.capacity() > KEPT {
            *self = Self::default();
        }
    }
}

/// Bytes, and behind them perhaps a part of a file, that the socket has not taken yet.
#[derive(Debug, Default)]
pub struct Outgoing {
    bytes: Vec<u8>,
    start: usize,
    file: Option<FilePart>,
}

/// A part of a file.
#[derive(Debug)]
pub struct FilePart {
    /// The file; its position is not used.
    pub file: File,
    /// Where the part begins.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
}

impl Outgoing {
    /// The bytes before the file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Where to append. Not behind a file: see [`Outgoing::file`].
    pub fn append(&mut self) -> &mut Vec<u8> {
        // A slow client may never leave it empty: without this an endless stream would be kept whole.
        if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        &mut self.bytes
    }

    /// The file part, once the bytes before it are gone.
    pub fn file(&mut self) -> Option<&mut FilePart> {
        self.file.as_mut()
    }

    /// Puts a part of a file behind the bytes.
    pub fn set_file(&mut self, part: FilePart) {
        self.file = (part.length > 0).then_some(part);
    }

    /// Sent: the first `count` bytes.
    pub fn consume(&mut self, count: usize) {
        self.start += count;
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        }
    }

    /// Sent: the first `count` bytes of the file part.
    pub fn consume_file(&mut self, count: u64) {
        if let Some(part) = &mut self.file {
            part.offset += count;
            part.length -= count.min(part.length);
            if part.length == 0 {
                self.file = None;
            }
        }
    }

    /// Whether all of it is sent.
    pub fn is_empty(&self) -> bool {
        self.bytes().is_empty() && self.file.is_none()
    }

    /// How many bytes wait in memory.
    pub fn len(&self) -> usize {
        self.bytes().len()
    }

    /// Gives back the memory of an uncommonly large message, if nothing waits.
    pub fn release(&mut self) {
        if self.is_empty() && self.bytes.capacity() > KEPT {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_consumed_is_gone_and_what_is_left_stays() {
        let mut incoming = Incoming::default();
        incoming.room(8).extend_from_slice(b"abcdef");
        incoming.consume(2);
        incoming.room(64).extend_from_slice(b"gh");
        assert_eq!(incoming.bytes(), b"cdefgh");
        incoming.consume(6);
        assert!(incoming.is_empty());
    }

    #[test]
    fn a_stream_that_is_never_quite_sent_does_not_grow() {
        let mut outgoing = Outgoing::default();
        outgoing.append().extend_from_slice(&[0; 1000]);
        for _ in 0..1000 {
            outgoing.append().extend_from_slice(&[1; 1000]);
            outgoing.consume(1000);
        }
        assert_eq!(outgoing.bytes(), [1; 1000]);
        assert!(outgoing.bytes.capacity() < 10_000, "{}", outgoing.bytes.capacity());
    }

    #[test]
    fn an_idle_connection_keeps_little_memory() {
        let mut outgoing = Outgoing::default();
        for (size, kept) in [(1000, true), (100_000, false)] {
            outgoing.append().resize(size, 0);
            outgoing.consume(size);
            outgoing.release();
            assert_eq!(outgoing.bytes.capacity() > 0, kept, "{size}");
        }
    }
}
