//! One answer: frames the application's response and sends it, or leaves it to the poller.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::Host;
use super::answer_race::AnswerRace;
use super::coalescing::Holding;
use super::connection::Then;
use super::leaving::may_keep_open;
use super::turn::MOST_SENT;
use crate::app::{Block, Gone, Reply, Verdict};
use crate::http::chunked::{LAST_CHUNK, write_chunk};
use crate::http::response::{BodyFraming, Finish, ResponseHead, may_have_body, write_head, write_interim};
use crate::http::version::Version;
use crate::net::buffer::{BlockPart, FilePart, Outgoing, Tail};
use crate::net::stream::{Progress, Stream};
use crate::net::timers::after;

/// A streaming application waits while more than this is on its way to a slow client,
const HIGH_WATER: usize = 256 * 1024;
/// until no more than this is.
const LOW_WATER: usize = 64 * 1024;

/// While an answer waits for its client, handlers of signals that came just before the wait run so long afterwards.
const LOOK_FOR_SIGNALS: Duration = Duration::from_millis(50);

/// A piece that follows the one before it within this time may wait for the next.
const QUICK_SUCCESSION: Duration = Duration::from_micros(300);

/// Largest answer that may wait for others.
const SMALL: usize = 16 * 1024;

/// A longer part of a file is not sent from here, nor is one that is not in memory: to read it may wait for a disk.
const SHORT_FILE: u64 = 64 * 1024;

/// The properties of the request and the engine that an answer depends on.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) method: &'a str,
    pub(super) version: Version,
    /// Whether client and settings allow another exchange.
    pub(super) keep_alive: bool,
    /// Whether the engine still does: looked at when the head leaves, since that may be long after the call.
    pub(super) host: &'a dyn Host,
    pub(super) gave_up: &'a AtomicBool,
    pub(super) date: &'a [u8],
    pub(super) write_timeout: Duration,
    /// The race for the start of the answer between application and deadline.
    pub(super) race: &'a AnswerRace,
    /// Whether a small answer need not leave at once, since others follow soon.
    pub(super) coalesce: bool,
    /// Whether a signal interrupts it: see [`App::handles_signals`](crate::app::App::handles_signals).
    pub(super) handles_signals: bool,
    /// Where what does not leave at once is meanwhile.
    pub(super) holding: Holding<'a>,
}

/// How far the answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing was sent yet.
    Before,
    /// The head is out; the body is delimited like this.
    Body(Delimit),
    /// The client is gone.
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delimit {
    /// The number of bytes still to send.
    Owed(u64),
    Chunked,
    UntilClose,
    /// There is none; what the application says is dropped.
    Dropped,
}

/// The part of an answer that is not sent yet, because the wait before it was interrupted.
#[derive(Debug, Default)]
enum Rest {
    #[default]
    Nothing,
    Piece(Vec<u8>),
    File(FilePart),
}

impl Rest {
    fn is_any(&self) -> bool {
        !matches!(self, Rest::Nothing)
    }
}

/// The engine's [`Reply`].
pub(super) struct Exchange<'a> {
    stream: &'a Arc<Stream>,
    outgoing: &'a mut Outgoing,
    asked: Asked<'a>,
    stage: Stage,
    /// Gets a copy of the head that is sent, for the access log.
    sent: Option<&'a mut ResponseHead>,
    bytes: u64,
    /// When a part of it was last sent.
    flushed: Option<Instant>,
    /// When it is given up, where the client takes nothing until then.
    given_up: Option<Instant>,
    is_interrupted: bool,
    rest: Rest,
}

/// The result of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answered {
    pub(super) then: Then,
    /// The connection is to be reset rather than closed.
    pub(super) abort: bool,
    /// The socket takes no more for now.
    pub(super) blocked: bool,
    /// The bytes of the body.
    pub(super) bytes: u64,
}

impl<'a> Exchange<'a> {
    pub(super) fn new(
        stream: &'a Arc<Stream>,
        outgoing: &'a mut Outgoing,
        asked: Asked<'a>,
        sent: Option<&'a mut ResponseHead>,
    ) -> Self {
        let (stage, rest) = (Stage::Before, Rest::Nothing);
        let (bytes, flushed, given_up, is_interrupted) = (0, None, None, false);
        Self { stream, outgoing, asked, stage, sent, bytes, flushed, given_up, is_interrupted, rest }
    }

    /// Ends the answer as the application's verdict demands.
    pub(super) fn finish(mut self, verdict: Verdict) -> Answered {
        self.asked.holding.take_back(self.outgoing);
        let said_nothing = self.stage == Stage::Before;
        if said_nothing {
            self.fail();
        }
        match (self.stage, verdict) {
            // The client has been told, and has the time to read it.
            _ if self.asked.race.has_expired() => return self.answered(Then::Linger, false),
            (Stage::Gone | Stage::Before, _) => return self.answered(Then::Close, true),
            (Stage::Body(_), Verdict::Failed) if !said_nothing => return self.answered(Then::Close, true),
            // A handler's exception has kept a part of it from being sent, and the application goes on without it.
            (Stage::Body(_), _) if self.rest.is_any() => return self.answered(Then::Close, true),
            (Stage::Body(Delimit::Chunked), Verdict::Complete) => {
                self.outgoing.append().extend_from_slice(LAST_CHUNK);
            }
            // Fewer bytes than announced: only a close tells the client.
            (Stage::Body(Delimit::Owed(1..)), Verdict::Complete) => self.asked.keep_alive = false,
            (Stage::Body(_), _) => {}
        }
        let then = if self.asked.keep_alive { Then::Next } else { Then::Close };
        if self.asked.coalesce && self.outgoing.tail().is_none() && self.outgoing.len() <= SMALL {
            return self.answered(then, false);
        }
        // The rest of something large leaves when its connection has a turn: others wait for this permit.
        let most = match self.outgoing.tail() {
            Some(Tail::File(part)) if part.length > SHORT_FILE || !part.is_at_hand() => self.outgoing.len(),
            _ => MOST_SENT,
        };
        match self.stream.send_at_most(self.outgoing, most) {
            Progress::Ended => self.answered(Then::Close, true),
            Progress::Blocked(_) => Answered { blocked: true, ..self.answered(then, false) },
            Progress::More(_) => self.answered(then, false),
        }
    }

    fn answered(&self, then: Then, abort: bool) -> Answered {
        Answered { then, abort, blocked: false, bytes: self.bytes }
    }

    /// Answers 500 for an application that failed before it said anything.
    fn fail(&mut self) {
        let text = b"Internal Server Error\n";
        let mut head = ResponseHead::of_text(500);
        // Named, since an answer to HEAD announces it too.
        let _ = head.push(b"Content-Length", text.len().to_string().as_bytes());
        self.asked.keep_alive = false;
        if self.start(&head, Some(text.len() as u64)).is_ok() {
            self.put(text);
        }
    }

    /// Puts the head on its way. `whole`: the length of the body, where all of it is known.
    fn start(&mut self, head: &ResponseHead, whole: Option<u64>) -> Result<(), Gone> {
        if !self.asked.race.begin_answer() {
            return self.gone();
        }
        let (delimit, body) = self.delimit(head, whole);
        let is_interim = head.status() < 200;
        if delimit == Delimit::UntilClose || is_interim || !may_keep_open(self.asked.host, self.asked.gave_up)
        {
            self.asked.keep_alive = false;
        }
        let Asked { version, keep_alive, date, .. } = self.asked;
        write_head(self.outgoing.append(), head, &Finish { version, body, keep_alive, date });
        if let Some(sent) = &mut self.sent {
            sent.clone_from(head);
        }
        self.stage = Stage::Body(delimit);
        Ok(())
    }

    fn delimit(&self, head: &ResponseHead, whole: Option<u64>) -> (Delimit, BodyFraming) {
        // Clients wait for a body unless it is said that there is none (RFC 9110 §15.3.6).
        if head.status() == 205 {
            return (Delimit::Dropped, BodyFraming::Length(0));
        }
        if !may_have_body(self.asked.method, head.status()) {
            return (Delimit::Dropped, BodyFraming::Given);
        }
        match (head.content_length(), whole, self.asked.version) {
            (Some(length), _, _) => (Delimit::Owed(length), BodyFraming::Given),
            (None, Some(length), _) => (Delimit::Owed(length), BodyFraming::Length(length)),
            (None, None, Version::Http11) => (Delimit::Chunked, BodyFraming::Chunked),
            (None, None, Version::Http10) => (Delimit::UntilClose, BodyFraming::UntilClose),
        }
    }

    /// Frames `chunk` and puts it on its way.
    fn put(&mut self, chunk: &[u8]) {
        let Stage::Body(delimit) = &mut self.stage else { return };
        let out = self.outgoing.append();
        let sent = match delimit {
            Delimit::Dropped => 0,
            Delimit::UntilClose => {
                out.extend_from_slice(chunk);
                chunk.len()
            }
            Delimit::Owed(owed) => {
                let count = usize::try_from(*owed).unwrap_or(usize::MAX).min(chunk.len());
                out.extend_from_slice(&chunk[..count]);
                *owed -= count as u64;
                count
            }
            // An empty chunk would be the last one.
            Delimit::Chunked if chunk.is_empty() => 0,
            Delimit::Chunked => {
                write_chunk(out, chunk);
                chunk.len()
            }
        };
        self.bytes += sent as u64;
    }

    /// Whether what is there may leave later: with other answers, or with the pieces that follow in quick succession.
    fn may_hold(&self) -> bool {
        if self.outgoing.tail().is_some() || self.outgoing.len() > SMALL {
            return false;
        }
        match self.stage {
            Stage::Body(Delimit::Owed(0)) => self.asked.coalesce,
            Stage::Body(Delimit::Dropped) | Stage::Before | Stage::Gone => false,
            Stage::Body(_) => self.flushed.is_some_and(|at| at.elapsed() < QUICK_SUCCESSION),
        }
    }

    /// Sends, and waits while too much is on its way.
    fn flush(&mut self) -> Result<(), Gone> {
        self.flushed = Some(Instant::now());
        match self.stream.send(self.outgoing) {
            Progress::Ended => return self.gone(),
            Progress::Blocked(0) => {}
            Progress::Blocked(_) | Progress::More(_) => self.given_up = None,
        }
        if self.outgoing.len() > HIGH_WATER { self.flush_to_low_water() } else { Ok(()) }
    }

    fn flush_to_low_water(&mut self) -> Result<(), Gone> {
        self.flush_while(|outgoing| outgoing.len() > LOW_WATER)
    }

    /// Waits until a file or a block has left, since nothing can be put behind one.
    fn flush_tail(&mut self) -> Result<(), Gone> {
        self.flush_while(|outgoing| outgoing.tail().is_some())
    }

    /// Waits while there is too much, or until it is interrupted.
    fn flush_while(&mut self, is_too_much: impl Fn(&Outgoing) -> bool) -> Result<(), Gone> {
        while is_too_much(self.outgoing) {
            match self.send_when_writable() {
                None => {
                    self.is_interrupted = true;
                    break;
                }
                Some(Progress::Ended) => return self.gone(),
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// `None`: a signal may have come before the client took anything.
    fn send_when_writable(&mut self) -> Option<Progress> {
        let limit = self.asked.write_timeout;
        // Signals that come again and again do not move it.
        let given_up = *self.given_up.get_or_insert_with(|| after(Instant::now(), limit));
        loop {
            let left = given_up.saturating_duration_since(Instant::now());
            let most = if self.asked.handles_signals { left.min(LOOK_FOR_SIGNALS) } else { left };
            match self.stream.wait_writable(most) {
                Ok(true) => {
                    self.given_up = None;
                    return Some(self.stream.send(self.outgoing));
                }
                Ok(false) if Instant::now() >= given_up => return Some(Progress::Ended),
                Ok(false) | Err(rustix::io::Errno::INTR) if self.asked.handles_signals => return None,
                Ok(false) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Some(Progress::Ended),
            }
        }
    }

    fn gone(&mut self) -> Result<(), Gone> {
        self.stage = Stage::Gone;
        Err(Gone)
    }
}

impl Reply for Exchange<'_> {
    fn send(&mut self, head: &ResponseHead, chunk: &[u8]) -> Result<(), Gone> {
        self.is_interrupted = false;
        match self.stage {
            Stage::Gone => return Err(Gone),
            Stage::Before => self.start(head, None)?,
            // Nothing more is wanted of it: not worth a wait for what is on its way.
            Stage::Body(Delimit::Owed(0) | Delimit::Dropped) => return Ok(()),
            // Something that belongs before it is missing.
            Stage::Body(_) if self.rest.is_any() => return self.gone(),
            Stage::Body(_) => self.asked.holding.take_back(self.outgoing),
        }
        self.send_piece(chunk)
    }

    fn send_whole(&mut self, head: &ResponseHead, body: &[u8]) -> Result<(), Gone> {
        if self.stage != Stage::Before {
            return self.send(head, body);
        }
        self.start(head, Some(body.len() as u64))?;
        self.put(body);
        // Sent by `finish`; what the socket does not take then is the poller's.
        Ok(())
    }

    fn send_block(&mut self, head: &ResponseHead, block: Block) -> Result<(), Gone> {
        self.is_interrupted = false;
        self.asked.holding.take_back(self.outgoing);
        let length = (*block).as_ref().len();
        if self.stage == Stage::Before {
            self.start(head, Some(length as u64))?;
        }
        match &mut self.stage {
            Stage::Gone => Err(Gone),
            Stage::Body(Delimit::Owed(owed)) if self.outgoing.tail().is_none() => {
                let length = usize::try_from(*owed).unwrap_or(usize::MAX).min(length);
                *owed -= length as u64;
                self.bytes += length as u64;
                self.outgoing.set_tail(Tail::Block(BlockPart::new(block, length)));
                Ok(())
            }
            Stage::Body(Delimit::Dropped) => Ok(()),
            _ => self.send(head, (*block).as_ref()),
        }
    }

    fn send_interim(&mut self, head: &ResponseHead) -> Result<(), Gone> {
        self.is_interrupted = false;
        match (self.stage, self.asked.version) {
            (Stage::Gone, _) => Err(Gone),
            (Stage::Before, Version::Http11) if !self.asked.race.begin_interim() => self.gone(),
            (Stage::Before, Version::Http11) => {
                write_interim(self.outgoing.append(), head);
                self.flush()?;
                if self.outgoing.is_empty() {
                    self.asked.race.end_interim();
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn send_file(&mut self, head: &ResponseHead, file: File, offset: u64, length: u64) -> Result<(), Gone> {
        self.is_interrupted = false;
        self.asked.holding.take_back(self.outgoing);
        if self.stage == Stage::Before {
            self.start(head, Some(length))?;
        }
        match &mut self.stage {
            Stage::Gone => Err(Gone),
            Stage::Body(Delimit::Owed(owed)) if self.outgoing.tail().is_none() => {
                let length = length.min(*owed);
                *owed -= length;
                self.bytes += length;
                self.outgoing.set_tail(Tail::File(FilePart { file, offset, length }));
                Ok(())
            }
            Stage::Body(Delimit::Dropped) => Ok(()),
            Stage::Body(_) if self.rest.is_any() => self.gone(),
            _ => self.copy_file(FilePart { file, offset, length }),
        }
    }

    fn is_interrupted(&self) -> bool {
        self.is_interrupted
    }

    fn go_on(&mut self) -> Result<(), Gone> {
        self.is_interrupted = false;
        match std::mem::take(&mut self.rest) {
            _ if self.stage == Stage::Gone => Err(Gone),
            Rest::Nothing => self.flush_to_low_water(),
            Rest::Piece(piece) => self.send_piece(&piece),
            Rest::File(part) => self.copy_file(part),
        }
    }

    fn head_sent(&self) -> bool {
        self.stage != Stage::Before
    }

    fn is_full(&self) -> bool {
        matches!(self.stage, Stage::Gone | Stage::Body(Delimit::Owed(0) | Delimit::Dropped))
    }
}

impl Exchange<'_> {
    /// A piece of the body, behind all that was sent before.
    fn send_piece(&mut self, piece: &[u8]) -> Result<(), Gone> {
        self.flush_tail()?;
        if self.is_interrupted {
            self.rest = Rest::Piece(piece.to_vec());
            return Ok(());
        }
        self.put(piece);
        if self.may_hold() {
            self.asked.holding.put(self.stream, self.outgoing);
            return Ok(());
        }
        self.flush()
    }

    /// A file in the middle of a response that is framed in another way.
    fn copy_file(&mut self, mut part: FilePart) -> Result<(), Gone> {
        self.flush_tail()?;
        let mut piece = vec![0; LOW_WATER];
        while !self.is_interrupted && part.length > 0 && !self.is_full() {
            let most = usize::try_from(part.length).unwrap_or(LOW_WATER).min(LOW_WATER);
            match part.file.read_at(&mut piece[..most], part.offset) {
                Ok(count @ 1..) => {
                    self.asked.holding.take_back(self.outgoing);
                    self.send_piece(&piece[..count])?;
                    part.offset += count as u64;
                    part.length -= count as u64;
                }
                // Shorter than it was, or unreadable: what has left must not pass for the whole.
                Ok(0) | Err(_) => return self.gone(),
            }
        }
        if self.is_interrupted && part.length > 0 {
            self.rest = Rest::File(part);
        }
        Ok(())
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::io::{IoSliceMut, Write};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use rustix::io::{Errno, ReadWriteFlags, pread, preadv2};

    use super::super::coalescing::{Held, Watch};
    use super::super::table::tests::NoHost;
    use super::super::waker::Waker;
    use super::*;

    /// Whether an answer from a file has been sent when it ends.
    fn is_sent(file: &File, length: u64) -> bool {
        let (ours, client) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let stream = Arc::new(Stream::from(OwnedFd::from(ours)));
        let (held, watch, waker) = (Held::default(), Watch::default(), Waker::new().unwrap());
        let (host, gave_up, race) = (NoHost(client), AtomicBool::new(false), AnswerRace::default());
        race.start();
        let asked = Asked {
            method: "GET",
            version: Version::Http11,
            keep_alive: true,
            host: &host,
            gave_up: &gave_up,
            date: b"",
            write_timeout: Duration::from_secs(1),
            handles_signals: false,
            race: &race,
            coalesce: false,
            holding: Holding { held: &held, watch: &watch, waker: &waker },
        };
        let mut outgoing = Outgoing::default();
        let mut exchange = Exchange::new(&stream, &mut outgoing, asked, None);
        exchange.send_file(&ResponseHead::of_text(200), file.try_clone().unwrap(), 0, length).unwrap();
        let answered = exchange.finish(Verdict::Complete);
        assert_eq!((answered.then, answered.abort, answered.bytes), (Then::Next, false, length));
        assert_eq!(outgoing.len(), 0);
        outgoing.tail().is_none()
    }

    #[test]
    fn a_short_file_that_is_not_in_memory_is_not_sent_by_a_permit() {
        let length = 40_000;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[b'x'; 40_000]).unwrap();
        assert!(is_sent(&file, length));
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let mut byte = [0];
        let seen = preadv2(&file, &mut [IoSliceMut::new(&mut byte)], 20_000, ReadWriteFlags::NOWAIT);
        // Not each file system tells, and some files are in memory always.
        if seen == Err(Errno::AGAIN) {
            assert!(!is_sent(&file, length));
            assert_eq!(pread(&file, &mut vec![0; 40_000], 0), Ok(40_000));
            assert!(is_sent(&file, length));
        }
    }
}
