//! A request's body on its way in: de-chunked, counted, kept in memory while small and in an unlinked file beyond.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

use crate::app::Body;
use crate::http::chunked::Decoder;
use crate::http::framing::Framing;
use crate::http::reject::{self, Reject};

/// Larger bodies go to a file.
const SPOOL_ABOVE: usize = 64 * 1024;

/// A body that is being received.
#[derive(Debug)]
pub(super) struct Receiving {
    coding: Coding,
    kept: Kept,
    limit: u64,
}

#[derive(Debug)]
enum Coding {
    Length(u64),
    Chunked(Decoder),
}

#[derive(Debug)]
enum Kept {
    Memory(Vec<u8>),
    Spooled { file: File, length: u64 },
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
        let capacity = usize::try_from(expected).unwrap_or(SPOOL_ABOVE).min(SPOOL_ABOVE);
        Ok(Some(Self { coding, kept: Kept::Memory(Vec::with_capacity(capacity)), limit }))
    }

    /// Takes what belongs to the body from the front of `input`; returns how many bytes that was.
    pub(super) fn take(&mut self, input: &[u8]) -> Result<usize, Fault> {
        let Self { coding, kept, limit } = self;
        match coding {
            Coding::Length(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                kept.keep(&input[..count]).map_err(Fault::NoRoom)?;
                *left -= count as u64;
                Ok(count)
            }
            Coding::Chunked(decoder) => {
                let mut kept_all = Ok(());
                let count = decoder
                    .decode(input, |data| {
                        if kept_all.is_ok() {
                            kept_all = kept.keep(data);
                        }
                    })
                    .map_err(Fault::Refused)?;
                kept_all.map_err(Fault::NoRoom)?;
                if kept.len() > *limit { Err(Fault::Refused(reject::BODY_SIZE)) } else { Ok(count) }
            }
        }
    }

    /// Whether more is to come than a small piece.
    pub(super) fn expects_much(&self) -> bool {
        match &self.coding {
            Coding::Length(left) => *left > 8 * 1024,
            Coding::Chunked(_) => self.kept.len() > 8 * 1024,
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

    fn keep(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Kept::Memory(bytes) if bytes.len() + data.len() <= SPOOL_ABOVE => bytes.extend_from_slice(data),
            Kept::Memory(bytes) => {
                // Unlinked from the start: it goes with the descriptor, however the process ends.
                let mut file = tempfile::tempfile()?;
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
    use std::io::Read;

    #[test]
    fn a_small_body_stays_in_memory_and_a_large_one_goes_to_a_file() {
        for (size, in_memory) in [(10, true), (SPOOL_ABOVE, true), (SPOOL_ABOVE + 1, false)] {
            let sent: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            let mut receiving = Receiving::begin(Framing::Length(size as u64), 0).unwrap().unwrap();
            for piece in sent.chunks(4096) {
                assert!(!receiving.is_whole());
                assert_eq!(receiving.take(piece).unwrap(), piece.len());
            }
            assert!(receiving.is_whole());
            assert_eq!(receiving.take(b"next").unwrap(), 0);
            let received = match receiving.finish().unwrap() {
                Body::Memory(bytes) if in_memory => bytes,
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
        let refused = receiving.take(b"5\r\nabcde\r\n");
        assert!(matches!(refused, Err(Fault::Refused(reject)) if reject == reject::BODY_SIZE));
    }
}
