//! Buffers for received and sent bytes. A worker keeps the capacity of ordinary exchanges, not each connection; the
//! memory of large ones is freed.

use std::fmt;
use std::fs::File;

/// No more capacity than this is kept.
const KEPT: usize = 16 * 1024;

/// Bytes that were received and not used yet.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    bytes: Vec<u8>,
    start: usize,
}

impl Incoming {
    /// The buffered bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Whether nothing is there.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    /// Used: the first `count` bytes.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count;
        if self.is_empty() {
            self.clear();
        }
    }

    /// Where to receive: the vector's spare capacity is at least `least` bytes.
    pub(crate) fn room(&mut self, least: usize) -> &mut Vec<u8> {
        if self.start > 0 && self.bytes.capacity() - self.bytes.len() < least {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.reserve(least);
        &mut self.bytes
    }

    /// Used: all of it.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.start = 0;
    }

    /// Whether it has no memory of its own.
    pub(crate) fn is_bare(&self) -> bool {
        self.bytes.capacity() == 0
    }

    /// How much memory it has.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Gives back the memory of an uncommonly large message; what is there stays.
    pub(crate) fn release(&mut self) {
        let rest = self.bytes().len();
        if self.bytes.capacity() > KEPT && self.bytes.capacity() / 2 > rest {
            *self = Self { bytes: self.bytes().to_vec(), start: 0 };
        }
    }
}

/// Bytes, and behind them perhaps something that is not copied, that the socket has not taken yet.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    copied: Incoming,
    tail: Option<Tail>,
}

/// A body that is sent from its own memory or file.
#[derive(Debug)]
pub(crate) enum Tail {
    /// A part of a file.
    File(FilePart),
    /// Memory with another owner.
    Block(BlockPart),
}

/// A part of a file.
#[derive(Debug)]
pub(crate) struct FilePart {
    /// The file; its position is not used.
    pub file: File,
    /// Where the part begins.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
}

impl FilePart {
    /// Whether it can be sent without a wait for a disk, as far as its first and last bytes tell; also where the system does
    /// not tell.
    #[cfg(target_os = "linux")]
    pub(crate) fn is_at_hand(&self) -> bool {
        let (first, last) = (self.offset, self.offset.saturating_add(self.length.saturating_sub(1)));
        let is_one_page = first / SMALLEST_PAGE == last / SMALLEST_PAGE;
        self.has_in_memory(last) && (is_one_page || self.has_in_memory(first))
    }

    /// Whether it can be sent without a wait for a disk: the system does not tell.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn is_at_hand(&self) -> bool {
        true
    }

    #[cfg(target_os = "linux")]
    fn has_in_memory(&self, at: u64) -> bool {
        use rustix::io::{Errno, ReadWriteFlags, preadv2};
        let mut byte = [0];
        let mut parts = [std::io::IoSliceMut::new(&mut byte)];
        preadv2(&self.file, &mut parts, at, ReadWriteFlags::NOWAIT) != Err(Errno::AGAIN)
    }
}

/// A file is read from a disk by pages at least.
#[cfg(target_os = "linux")]
const SMALLEST_PAGE: u64 = 4096;

/// Memory that stays what and where it is for as long as it is held.
pub type Block = Box<dyn AsRef<[u8]> + Send>;

/// The unsent part of a block.
pub(crate) struct BlockPart {
    block: Block,
    start: usize,
    end: usize,
}

impl BlockPart {
    /// The first `length` bytes of a block.
    pub(crate) fn new(block: Block, length: usize) -> Self {
        let end = length.min((*block).as_ref().len());
        Self { block, start: 0, end }
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &(*self.block).as_ref()[self.start..self.end]
    }
}

impl fmt::Debug for BlockPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BlockPart").field(&(self.start..self.end)).finish()
    }
}

impl Outgoing {
    /// The bytes before the tail.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.copied.bytes()
    }

    /// Where to append. Not behind a tail: see [`Outgoing::tail`].
    pub(crate) fn append(&mut self) -> &mut Vec<u8> {
        // A slow client may never leave it empty: without this an endless stream would be kept whole.
        let Incoming { bytes, start } = &mut self.copied;
        if *start > bytes.len() / 2 {
            bytes.drain(..std::mem::take(start));
        }
        bytes
    }

    /// The body behind the bytes.
    pub(crate) fn tail(&self) -> Option<&Tail> {
        self.tail.as_ref()
    }

    /// Puts something behind the bytes.
    pub(crate) fn set_tail(&mut self, tail: Tail) {
        self.tail = Some(tail);
        self.drop_tail_if_sent();
    }

    /// Sent: the first `count` bytes.
    pub(crate) fn consume(&mut self, count: usize) {
        let of_bytes = count.min(self.len());
        self.copied.consume(of_bytes);
        if count > of_bytes {
            self.consume_tail((count - of_bytes) as u64);
        }
    }

    /// Sent: the first `count` bytes of the tail.
    fn consume_tail(&mut self, count: u64) {
        match &mut self.tail {
            Some(Tail::File(part)) => {
                part.offset += count;
                part.length -= count.min(part.length);
            }
            Some(Tail::Block(part)) => {
                part.start = part.end.min(part.start + usize::try_from(count).unwrap_or(usize::MAX));
            }
            None => {}
        }
        self.drop_tail_if_sent();
    }

    fn drop_tail_if_sent(&mut self) {
        let is_sent = match &self.tail {
            Some(Tail::File(part)) => part.length == 0,
            Some(Tail::Block(part)) => part.start == part.end,
            None => false,
        };
        if is_sent {
            self.tail = None;
        }
    }

    /// Never to be sent: all of it.
    pub(crate) fn clear(&mut self) {
        self.copied.clear();
        self.tail = None;
    }

    /// Whether it has no memory of its own.
    pub(crate) fn is_bare(&self) -> bool {
        self.copied.is_bare()
    }

    /// Whether all of it is sent.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes().is_empty() && self.tail.is_none()
    }

    /// How many bytes wait that were copied.
    pub(crate) fn len(&self) -> usize {
        self.bytes().len()
    }

    /// Gives back the memory of an uncommonly large message, if nothing waits.
    pub(crate) fn release(&mut self) {
        if self.is_empty() && self.copied.capacity() > KEPT {
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
    fn a_large_message_that_was_used_leaves_only_what_came_behind_it() {
        let mut incoming = Incoming::default();
        incoming.room(100_000).extend_from_slice(&[b'x'; 100_000]);
        incoming.release();
        assert!(incoming.capacity() >= 100_000);
        incoming.consume(99_996);
        incoming.release();
        assert_eq!((incoming.bytes(), incoming.capacity()), (&b"xxxx"[..], 4));
        incoming.consume(4);
        incoming.release();
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
        assert!(outgoing.copied.capacity() < 10_000, "{}", outgoing.copied.capacity());
    }

    #[test]
    fn what_is_sent_of_bytes_and_block_together_is_gone_from_both() {
        let mut outgoing = Outgoing::default();
        outgoing.append().extend_from_slice(b"head");
        outgoing.set_tail(Tail::Block(BlockPart::new(Box::new(b"a block".to_vec()), 100)));
        outgoing.consume(6);
        let Some(Tail::Block(part)) = outgoing.tail() else { panic!("{outgoing:?}") };
        assert_eq!((outgoing.bytes(), part.bytes()), (&b""[..], &b"block"[..]));
        outgoing.consume(5);
        assert!(outgoing.is_empty() && outgoing.tail().is_none());
    }

    #[test]
    fn what_a_large_message_needed_is_given_back() {
        let mut outgoing = Outgoing::default();
        for (size, kept) in [(1000, true), (100_000, false)] {
            outgoing.append().resize(size, 0);
            outgoing.consume(size);
            outgoing.release();
            assert_eq!(outgoing.copied.capacity() > 0, kept, "{size}");
        }
    }
}
