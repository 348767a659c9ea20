//! One answer: frames the application's response and sends it, or leaves it to the poller.

mod sending;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::Host;
use super::answer_race::AnswerRace;
use super::coalescing::Holding;
use super::connection::Then;
use super::drain::may_keep_open;
use super::relay::{Pair, Relay};
use crate::app::{Block, Gone, Reply, Verdict};
use crate::http::chunked::{LAST_CHUNK, write_chunk};
use crate::http::response::{
    BodyFraming, Finish, ResponseHead, Stamp, may_have_body, write_head, write_interim,
};
use crate::http::version::Version;
use crate::net::buffer::{BlockPart, FilePart, Outgoing, Tail};
use crate::net::stream::{Progress, Stream};

/// Largest answer that may wait for others.
const SMALL: usize = 16 * 1024;

/// The properties of the request and the engine that an answer depends on.
pub(super) struct Asked<'a> {
    pub(super) method: &'a str,
    pub(super) version: Version,
    /// The bytes behind a request whose client asks for another protocol.
    pub(super) received: &'a [u8],
    /// Whether client and settings allow another exchange.
    pub(super) keep_alive: bool,
    /// Whether the engine still does: looked at when the head leaves, since that may be long after the call.
    pub(super) host: &'a dyn Host,
    pub(super) gave_up: &'a AtomicBool,
    pub(super) stamp: Stamp<'a>,
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
    /// The application has the connection: nothing is sent from here.
    Taken,
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
enum Rest {
    Piece(Vec<u8>),
    File(FilePart),
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
    give_up_at: Option<Instant>,
    is_interrupted: bool,
    rest: Option<Rest>,
    /// The application's socket, where it is not the connection's own,
    pair: Option<Pair>,
    /// and what moves the bytes between the two.
    relay: Option<Relay>,
}

/// The result of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answered {
    pub(super) then: Then,
    /// The connection is to be reset rather than closed.
    pub(super) abort: bool,
    /// The socket takes no more for now.
    pub(super) blocked: bool,
    /// The application has had the connection.
    pub(super) taken: bool,
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
        let (flushed, give_up_at, rest, pair, relay) = (None, None, None, None, None);
        let (stage, bytes, is_interrupted) = (Stage::Before, 0, false);
        Self {
            stream,
            outgoing,
            asked,
            stage,
            sent,
            bytes,
            flushed,
            give_up_at,
            is_interrupted,
            rest,
            pair,
            relay,
        }
    }

    /// Ends the answer as the application's verdict demands.
    pub(super) fn finish(mut self, verdict: Verdict) -> Answered {
        self.asked.holding.take_back(self.outgoing);
        if let Some(relay) = self.relay.take() {
            relay.finish();
        }
        let said_nothing = self.stage == Stage::Before;
        if said_nothing {
            self.fail();
        }
        match (self.stage, verdict) {
            // The client has its refusal, and the time to read it.
            _ if self.asked.race.has_expired() => return self.answered(Then::Linger, false),
            (Stage::Taken, _) => return self.answered(Then::Linger, false),
            (Stage::Gone | Stage::Before, _) => return self.answered(Then::Close, true),
            (Stage::Body(_), Verdict::Failed) if !said_nothing => return self.answered(Then::Close, true),
            // A handler's exception has kept a part of it from being sent, and the application goes on without it.
            (Stage::Body(_), _) if self.rest.is_some() => return self.answered(Then::Close, true),
            (Stage::Body(Delimit::Chunked), Verdict::Complete) => self.end_chunks(),
            // Fewer bytes than announced: only a close tells the client, and by TLS only one out of order.
            (Stage::Body(Delimit::Owed(1..)), Verdict::Complete) if self.stream.is_tls() => {
                return self.answered(Then::Close, true);
            }
            (Stage::Body(Delimit::Owed(1..)), Verdict::Complete) => self.asked.keep_alive = false,
            (Stage::Body(_), _) => {}
        }
        let then = if self.asked.keep_alive { Then::Next } else { Then::Close };
        if self.asked.coalesce && self.outgoing.tail().is_none() && self.outgoing.len() <= SMALL {
            return self.answered(then, false);
        }
        match self.send_now() {
            Progress::Ended => self.answered(Then::Close, true),
            Progress::Blocked(_) => Answered { blocked: true, ..self.answered(then, false) },
            Progress::More(_) => self.answered(then, false),
        }
    }

    fn end_chunks(&mut self) {
        self.outgoing.append().extend_from_slice(LAST_CHUNK);
        self.stage = Stage::Body(Delimit::Owed(0));
    }

    fn answered(&self, then: Then, abort: bool) -> Answered {
        Answered { then, abort, blocked: false, taken: self.stage == Stage::Taken, bytes: self.bytes }
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
        let may_stay = || may_keep_open(self.asked.host, self.stream, self.asked.gave_up);
        if delimit == Delimit::UntilClose || is_interim || !may_stay() {
            self.asked.keep_alive = false;
        }
        let Asked { version, keep_alive, stamp, .. } = self.asked;
        write_head(self.outgoing.append(), head, &Finish { version, body, keep_alive, stamp });
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

    /// How many of `length` bytes are sent as a tail, without a copy; `None`: they must be copied.
    fn length_of_tail(&mut self, head: &ResponseHead, length: u64) -> Result<Option<u64>, Gone> {
        self.is_interrupted = false;
        self.asked.holding.take_back(self.outgoing);
        if self.stage == Stage::Before {
            self.start(head, Some(length))?;
        }
        match &mut self.stage {
            Stage::Gone => Err(Gone),
            Stage::Taken | Stage::Body(Delimit::Dropped) => Ok(Some(0)),
            Stage::Body(Delimit::Owed(owed)) if self.outgoing.tail().is_none() => {
                let length = length.min(*owed);
                *owed -= length;
                self.bytes += length;
                Ok(Some(length))
            }
            _ => Ok(None),
        }
    }

    /// Begins to move bytes where the application has a socket of its own.
    fn start_relay(&mut self) -> Result<(), Gone> {
        let Some(pair) = self.pair.take() else { return Ok(()) };
        match pair.start(Arc::clone(self.stream), self.asked.write_timeout) {
            Ok(relay) => {
                self.relay = Some(relay);
                Ok(())
            }
            Err(error) => {
                log::error!("cannot start the thread of a conversation by TLS: {error}");
                self.gone()
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
            Stage::Taken | Stage::Body(Delimit::Owed(0) | Delimit::Dropped) => return Ok(()),
            // Something that belongs before it is missing.
            Stage::Body(_) if self.rest.is_some() => return self.gone(),
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
        match self.length_of_tail(head, (*block).as_ref().len() as u64)? {
            Some(length) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                self.outgoing.set_tail(Tail::Block(BlockPart::new(block, length)));
                Ok(())
            }
            None => self.send(head, (*block).as_ref()),
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
        match self.length_of_tail(head, length)? {
            Some(length) => {
                self.outgoing.set_tail(Tail::File(FilePart { file, offset, length }));
                Ok(())
            }
            None if self.rest.is_some() => self.gone(),
            None => self.copy_file(FilePart { file, offset, length }),
        }
    }

    fn complete(&mut self) {
        self.asked.holding.take_back(self.outgoing);
        if self.rest.is_some() {
            return;
        }
        match self.stage {
            Stage::Body(Delimit::Chunked) => self.end_chunks(),
            Stage::Body(_) => {}
            Stage::Before | Stage::Taken | Stage::Gone => return,
        }
        if matches!(self.send_now(), Progress::Ended) {
            self.stage = Stage::Gone;
        }
    }

    fn socket(&mut self) -> Option<io::Result<OwnedFd>> {
        if !self.stream.is_tls() {
            return Some(self.stream.duplicate());
        }
        let pair = Pair::new().and_then(|pair| Ok((pair.for_application()?, pair)));
        Some(pair.map(|(theirs, pair)| {
            self.pair = Some(pair);
            theirs
        }))
    }

    fn take(&mut self) -> Result<Vec<u8>, Gone> {
        match self.stage {
            Stage::Taken => return Ok(Vec::new()),
            Stage::Gone => return Err(Gone),
            Stage::Before | Stage::Body(_) => {}
        }
        self.asked.holding.take_back(self.outgoing);
        if self.rest.is_some() || !self.asked.race.take() {
            self.stage = Stage::Gone;
            return Err(Gone);
        }
        self.flush_all()?;
        self.start_relay()?;
        if let Some(sent) = self.sent.as_mut().filter(|_| self.stage == Stage::Before) {
            // The application sends the head itself, and a protocol has no other.
            let _ = sent.begin(101, b"Switching Protocols");
        }
        self.stage = Stage::Taken;
        Ok(self.asked.received.to_vec())
    }

    fn is_interrupted(&self) -> bool {
        self.is_interrupted
    }

    fn go_on(&mut self) -> Result<(), Gone> {
        self.is_interrupted = false;
        match self.rest.take() {
            _ if self.stage == Stage::Gone => Err(Gone),
            None => self.flush_to_low_water(),
            Some(Rest::Piece(piece)) => self.send_piece(&piece),
            Some(Rest::File(part)) => self.copy_file(part),
        }
    }

    fn body_bytes(&self) -> u64 {
        self.bytes
    }

    fn head_sent(&self) -> bool {
        self.stage != Stage::Before
    }

    fn is_full(&self) -> bool {
        match self.stage {
            Stage::Gone | Stage::Body(Delimit::Owed(0) | Delimit::Dropped) => true,
            // An iterable may go on with the other protocol.
            Stage::Before | Stage::Taken | Stage::Body(_) => false,
        }
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
