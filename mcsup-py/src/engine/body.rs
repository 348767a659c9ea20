//! A request's body on its way in: de-chunked, counted, kept in memory while small and in an unlinked file beyond.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::sync::Arc;

use super::body_memory::{BodyMemory, LARGEST_IN_MEMORY};
use super::turn::Turn;
use crate::app::Body;
use crate::http::chunked::Decoder;
use crate::http::framing::Framing;
use crate::http::reject::{self, Reject};
use crate::net::buffer::Incoming;
use crate::net::memory::Memory;
use crate::net::stream::{Progress, Stream};

/// Larger bodies go to a file, unless [`BodyMemory`] has memory for them.
const SPOOL_ABOVE: usize = 64 * 1024;

/// Chunks are decoded in pieces of this size: after each the turn may be over.
const DECODED_AT_ONCE: usize = 8 * 1024;
/// The turn of chunks while the body is in memory is short: its largest amount of data is known before, and with it
/// whether a file is needed.
const SHORT_TURN: usize = 32 * 1024;
const MOST_IN_SHORT_TURN: usize = SHORT_TURN + DECODED_AT_ONCE;
/// A byte of the chunked coding itself (size, extension, line end) takes as long as this many bytes of data: measured, 5 ns
/// against a tenth or two.
const CODING_WEIGHT: usize = 32;

/// A body that is being received.
#[derive(Debug)]
pub(super) struct Receiving {
    coding: Coding,
    kept: Kept,
    limit: u64,
    /// How much of it may be in memory.
    in_memory: usize,
    /// It is to be in memory whole, and has not begun.
    wants_memory: bool,
}

#[derive(Debug)]
enum Coding {
    Length(u64),
    Chunked(Decoder),
}

#[derive(Debug)]
enum Kept {
    Memory(Memory),
    Spooled { file: Arc<File>, length: u64 },
}

/// Why a body cannot be received.
#[derive(Debug)]
pub(super) enum Fault {
    /// The client's doing.
    Refused(Reject),
    /// Ours: there is no room to keep it.
    NoRoom(io::Error),
}

impl Receiving {
    /// `None`: there is no body. `limit`: the most bytes; 0: any number.
    pub(super) fn begin(framing: Framing, limit: u64) -> Result<Option<Self>, Reject> {
        let limit = if limit == 0 { u64::MAX } else { limit };
        let (coding, expected) = match framing {
            Framing::Empty => return Ok(None),
            Framing::Length(length) if length > limit => return Err(reject::BODY_SIZE),
            Framing::Length(length) => (Coding::Length(length), length),
            Framing::Chunked => (Coding::Chunked(Decoder::default()), 0),
        };
        let expected = usize::try_from(expected).unwrap_or(usize::MAX);
        let wants_memory = (SPOOL_ABOVE + 1..=LARGEST_IN_MEMORY).contains(&expected);
        let room = if wants_memory { 0 } else { expected.min(SPOOL_ABOVE) };
        let kept = Kept::Memory(Memory::from(Vec::with_capacity(room)));
        Ok(Some(Self { coding, kept, limit, in_memory: SPOOL_ABOVE, wants_memory }))
    }

    /// Its length, if it is to be in memory whole, and has not begun: see [`Receiving::begin_in`].
    pub(super) fn wants_memory(&self) -> Option<usize> {
        match self.coding {
            Coding::Length(left) if self.wants_memory => usize::try_from(left).ok(),
            _ => None,
        }
    }

    /// Begins it, in memory if there is enough; returns how much it takes.
    pub(super) fn begin_in(&mut self, memory: &mut BodyMemory) -> usize {
        let wanted = self.wants_memory();
        self.wants_memory = false;
        let Some((length, granted)) = wanted.and_then(|length| Some((length, memory.grant(length)?))) else {
            return 0;
        };
        (self.kept, self.in_memory) = (Kept::Memory(granted), length);
        length
    }

    /// The file that it goes to.
    pub(super) fn file(&self) -> Option<Arc<File>> {
        match &self.kept {
            Kept::Spooled { file, .. } => Some(Arc::clone(file)),
            Kept::Memory(_) => None,
        }
    }

    /// Whether what is to come is large, or may need a file: not to be received while others wait for the same lock.
    pub(super) fn is_large(&self) -> bool {
        match (&self.coding, &self.kept) {
            (Coding::Length(left), Kept::Memory(_)) => *left > SPOOL_ABOVE as u64 || self.needs_file(),
            _ => true,
        }
    }

    /// Whether it goes to a file, or may in its next turn: then it waits for a disk, which may stall.
    pub(super) fn needs_file(&self) -> bool {
        match (&self.coding, &self.kept) {
            (_, Kept::Spooled { .. }) => true,
            (Coding::Length(left), Kept::Memory(bytes)) => bytes.len() as u64 + left > self.in_memory as u64,
            (Coding::Chunked(_), Kept::Memory(bytes)) => bytes.len() + MOST_IN_SHORT_TURN > self.in_memory,
        }
    }

    /// The cost limit of one turn.
    pub(super) fn turn(&self) -> Turn {
        let is_short = matches!(self.coding, Coding::Chunked(_)) && !self.needs_file();
        if is_short { Turn::of(SHORT_TURN) } else { Turn::default() }
    }

    /// Receives where the body is kept, without a detour; what came behind its end goes to `incoming`. `None`: what comes
    /// has to be looked at first.
    pub(super) fn receive(&mut self, stream: &Stream, incoming: &mut Incoming) -> Option<Progress> {
        let (Coding::Length(left), Kept::Memory(bytes)) = (&mut self.coding, &mut self.kept) else {
            return None;
        };
        let bytes = bytes.append();
        let wanted = usize::try_from(*left).ok().filter(|wanted| *wanted > 0)?;
        if bytes.capacity() - bytes.len() < wanted {
            return None;
        }
        let end = bytes.len() + wanted;
        let progress = stream.receive_into_room_of(bytes);
        if let Some(behind) = bytes.get(end..).filter(|behind| !behind.is_empty()) {
            incoming.room(behind.len()).extend_from_slice(behind);
            bytes.truncate(end);
        }
        *left = (end - bytes.len()) as u64;
        Some(progress)
    }

    /// Takes what belongs to the body from the front of `input`, as long as the turn lasts; returns how many bytes that
    /// was.
    pub(super) fn take(&mut self, input: &[u8], turn: &mut Turn) -> Result<usize, Fault> {
        let Self { coding, kept, limit, in_memory, .. } = self;
        match coding {
            Coding::Length(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                kept.keep(&input[..count], *in_memory).map_err(Fault::NoRoom)?;
                *left -= count as u64;
                turn.spend(count);
                Ok(count)
            }
            Coding::Chunked(decoder) => {
                let (mut taken, mut gathered) = (0, Vec::new());
                while taken < input.len() && !decoder.is_done() && !turn.is_over() {
                    let piece = &input[taken..input.len().min(taken + DECODED_AT_ONCE)];
                    let (mut data, mut kept_all) = (0, Ok(()));
                    let count = decoder.decode(piece, |chunk| {
                        data += chunk.len();
                        if kept_all.is_ok() {
                            kept_all = kept.gather(chunk, *in_memory, &mut gathered);
                        }
                    });
                    let count = count.map_err(Fault::Refused)?;
                    kept_all.map_err(Fault::NoRoom)?;
                    if kept.len() + gathered.len() as u64 > *limit {
                        return Err(Fault::Refused(reject::BODY_SIZE));
                    }
                    taken += count;
                    turn.spend(data + (count - data) * CODING_WEIGHT);
                }
                kept.keep(&gathered, *in_memory).map_err(Fault::NoRoom)?;
                Ok(taken)
            }
        }
    }

    /// Whether all of it is there.
    pub(super) fn is_whole(&self) -> bool {
        match &self.coding {
            Coding::Length(left) => *left == 0,
            Coding::Chunked(decoder) => decoder.is_done(),
        }
    }

    /// The whole body, to be read from its beginning.
    pub(super) fn finish(self) -> io::Result<Body> {
        match self.kept {
            Kept::Memory(bytes) if bytes.is_empty() => Ok(Body::Empty),
            Kept::Memory(bytes) => Ok(Body::Memory(bytes)),
            Kept::Spooled { mut file, length } => {
                file.seek(SeekFrom::Start(0))?;
                Ok(Body::File { file, length })
            }
        }
    }
}

impl Kept {
    fn len(&self) -> u64 {
        match self {
            Kept::Memory(bytes) => bytes.len() as u64,
            Kept::Spooled { length, .. } => *length,
        }
    }

    /// Keeps a chunk that is perhaps one byte: what goes to a file is gathered, to be written at once.
    fn gather(&mut self, chunk: &[u8], in_memory: usize, gathered: &mut Vec<u8>) -> io::Result<()> {
        if let Kept::Spooled { .. } = self {
            gathered.extend_from_slice(chunk);
            return Ok(());
        }
        self.keep(chunk, in_memory)
    }

    fn keep(&mut self, data: &[u8], in_memory: usize) -> io::Result<()> {
        match self {
            Kept::Memory(bytes) if bytes.len() + data.len() <= in_memory => {
                bytes.append().extend_from_slice(data);
            }
            Kept::Memory(bytes) => {
                // Unlinked from the start: it goes with the descriptor, however the process ends.
                let mut file = Arc::new(tempfile::tempfile()?);
                file.write_all(bytes)?;
                file.write_all(data)?;
                let length = (bytes.len() + data.len()) as u64;
                *self = Kept::Spooled { file, length };
            }
            Kept::Spooled { file, length } => {
                file.write_all(data)?;
                *length += data.len() as u64;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::body_memory::BODY_MEMORY;
    use std::io::Read;

    #[test]
    fn a_small_body_stays_in_memory_and_a_large_one_goes_to_a_file() {
        for (size, memory, in_memory) in [
            (10, 0, true),
            (SPOOL_ABOVE, 0, true),
            (SPOOL_ABOVE + 1, SPOOL_ABOVE, false),
            (SPOOL_ABOVE + 1, BODY_MEMORY, true),
            (LARGEST_IN_MEMORY, BODY_MEMORY, true),
            (LARGEST_IN_MEMORY + 1, BODY_MEMORY, false),
        ] {
            let sent: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            let mut receiving = Receiving::begin(Framing::Length(size as u64), 0).unwrap().unwrap();
            let mut memory = BodyMemory::of(memory);
            let wants_memory = size > SPOOL_ABOVE && size <= LARGEST_IN_MEMORY;
            assert_eq!(receiving.wants_memory(), wants_memory.then_some(size));
            let granted = receiving.begin_in(&mut memory);
            assert_eq!(granted, if in_memory && size > SPOOL_ABOVE { size } else { 0 });
            assert_eq!(receiving.wants_memory(), None);
            for piece in sent.chunks(4096) {
                assert!(!receiving.is_whole());
                assert_eq!(receiving.take(piece, &mut Turn::default()).unwrap(), piece.len());
            }
            assert!(receiving.is_whole());
            assert_eq!(receiving.take(b"next", &mut Turn::default()).unwrap(), 0);
            let received = match receiving.finish().unwrap() {
                Body::Memory(bytes) if in_memory => bytes.to_vec(),
                Body::File { mut file, length } if !in_memory => {
                    assert_eq!(length, size as u64);
                    let mut bytes = Vec::new();
                    file.read_to_end(&mut bytes).unwrap();
                    bytes
                }
                other => panic!("{size} bytes became {other:?}"),
            };
            assert!(received == sent);
        }
    }

    #[test]
    fn the_limit_holds_for_announced_and_for_chunked_bodies() {
        assert_eq!(Receiving::begin(Framing::Length(5), 4).unwrap_err(), reject::BODY_SIZE);
        let mut receiving = Receiving::begin(Framing::Chunked, 4).unwrap().unwrap();
        let refused = receiving.take(b"5\r\nabcde\r\n", &mut Turn::default());
        assert!(matches!(refused, Err(Fault::Refused(reject)) if reject == reject::BODY_SIZE));
    }
}
