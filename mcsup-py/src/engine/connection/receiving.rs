//! How a connection receives and parses until a request is complete, and takes its turns.

use std::time::Instant;

use super::{Connection, HeadBytes, State, Step};
use crate::app::Body;
use crate::engine::EngineConfig;
use crate::engine::body::{Fault, Receiving};
use crate::engine::body_memory::BodyMemory;
use crate::engine::pace::Pace;
use crate::engine::turn::Turn;
use crate::http::reject;
use crate::net::stream::{PIECE, Progress, Shaken};
use crate::net::timers::after;
use crate::trust::Trust;

/// How much is received at once of what goes to a file.
const SPOOL_PIECE: usize = 64 * 1024;

/// The interim answer. Where the socket does not take it the client is beyond help by it.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// No more than this of a body is taken together with its head: less than what goes to a file.
const COMES_ALONG: usize = 32 * 1024;

/// A head of more bytes than this is received in turns.
const LONG_HEAD: usize = 16 * 1024;
/// The share of the turn that a byte of such a head takes.
const HEAD_WEIGHT: usize = 8;

impl Connection {
    /// Whether more has come of a head than an ordinary one has.
    pub(in crate::engine) fn has_long_head(&self) -> bool {
        matches!(self.state, State::Head) && self.incoming.bytes().len() > LONG_HEAD
    }

    /// Receives and parses until a request is whole, the socket is empty, something large has begun, or the turn is over.
    /// Never touches a file.
    pub(in crate::engine) fn advance(&mut self, config: &EngineConfig, now: Instant) -> Step {
        let mut turn = Turn::default();
        loop {
            if let Some(step) = self.use_received(config, now, &mut turn) {
                return step;
            }
            if self.is_in_bulk() {
                return if self.may_receive() { Step::Later } else { Step::Wait };
            }
            if let Some(step) = self.receive_more(config, now, &mut turn) {
                return step;
            }
        }
    }

    /// Begins such a body, in memory if there is any left.
    pub(in crate::engine) fn begin_body(
        &mut self,
        config: &EngineConfig,
        memory: &mut BodyMemory,
        now: Instant,
    ) {
        if let State::Body { receiving, pace, .. } = &mut self.state {
            self.granted.body_memory += receiving.begin_in(memory);
            // Its client has waited for us until now.
            *pace = Pace::new(now);
            self.deadline = after(now, config.timeouts.body);
        }
    }

    /// Goes on with something large for one turn.
    pub(in crate::engine) fn take_turn(&mut self, config: &EngineConfig, now: Instant) -> Step {
        let mut turn = match &self.state {
            State::Body { receiving, .. } => receiving.turn(),
            _ => Turn::default(),
        };
        loop {
            let step = match self.state {
                State::Handshake { .. } => Some(self.shake_hands(&config.trust)),
                State::Flushing { then } => Some(self.send(then, config, now)),
                State::Body { .. } => self.read_body(&mut turn),
                State::Lingering(_) => self.discard(now),
                State::Ready { .. } => Some(self.seek_file(config)),
                State::Idle { .. } | State::Head => Some(Step::Wait),
            };
            if let Some(step) = step.or_else(|| self.receive_more(config, now, &mut turn)) {
                return step;
            }
        }
    }

    /// `None`: something has come.
    fn receive_more(&mut self, config: &EngineConfig, now: Instant, turn: &mut Turn) -> Option<Step> {
        if turn.is_over() && self.may_receive() {
            return Some(Step::Later);
        }
        let count = match self.receive() {
            Progress::Blocked(0) => return Some(Step::Wait),
            // The client may still listen: it has ended its own side only.
            Progress::Ended if matches!(self.state, State::Body { .. }) => {
                return Some(Step::Refuse(reject::INCOMPLETE));
            }
            Progress::Ended => return Some(Step::Close),
            Progress::More(count) | Progress::Blocked(count) => count,
        };
        // By TLS a few bytes may have come in many, and none in some.
        let cost = if self.stream.is_tls() && !self.emptied { count.max(PIECE) } else { count };
        // Bytes of a head are parsed, in memory that grows with them.
        turn.spend(if let State::Idle { .. } | State::Head = self.state { cost * HEAD_WEIGHT } else { cost });
        if count == 0 {
            return None;
        }
        if let State::Body { pace, .. } = &mut self.state {
            pace.received(count, now);
            self.deadline = after(now, config.timeouts.body);
        }
        None
    }

    fn receive(&mut self) -> Progress {
        if !self.may_receive() {
            return Progress::Blocked(0);
        }
        let progress = match &mut self.state {
            State::Body { .. } if self.granted.spooled.is_some() => {
                self.incoming.room(SPOOL_PIECE);
                None
            }
            State::Body { receiving, .. } if self.incoming.is_empty() => {
                receiving.receive(&self.stream, &mut self.incoming)
            }
            _ => None,
        };
        let progress = progress.unwrap_or_else(|| self.stream.receive(&mut self.incoming));
        self.emptied = matches!(progress, Progress::Blocked(_));
        progress
    }

    /// Goes on with what was received; `None`: more must be received.
    fn use_received(&mut self, config: &EngineConfig, now: Instant, turn: &mut Turn) -> Option<Step> {
        if self.may_have_proxy_header {
            match self.read_proxy_header(&config.trust, now) {
                Ok(true) => {}
                Ok(false) => return None,
                Err(reject) => return Some(Step::Refuse(reject)),
            }
        }
        match self.state {
            State::Idle { fresh } => {
                let empty = self.heads.pass_over_empty_lines(self.incoming.bytes());
                self.incoming.consume(empty);
                if self.has_begun_nothing() {
                    return None;
                }
                if !fresh {
                    self.deadline = after(now, config.timeouts.head);
                }
                self.since = now;
                self.state = State::Head;
                self.read_head(config, now, turn)
            }
            State::Head => self.read_head(config, now, turn),
            State::Body { .. } => self.read_body(turn),
            State::Handshake { .. } | State::Ready { .. } | State::Flushing { .. } | State::Lingering(_) => {
                Some(Step::Wait)
            }
        }
    }

    /// Goes on with the handshake of TLS. Its deadline is that of the first request, whose head follows.
    fn shake_hands(&mut self, trust: &Trust) -> Step {
        if self.may_have_proxy_header {
            if let Some(step) = self.take_proxy_header(trust) {
                return step;
            }
        }
        match self.stream.shake_hands(&mut self.incoming) {
            Shaken::Done(secured) => {
                self.secured = Some(Box::new(secured));
                self.state = State::Idle { fresh: true };
                Step::Later
            }
            Shaken::Blocked { begun } => {
                self.state = State::Handshake { begun };
                Step::Wait
            }
            Shaken::Plain => Step::Refuse(reject::PLAIN_TEXT),
            Shaken::Failed(reason) => Step::NotSecured(reason),
            Shaken::Ended => Step::Close,
        }
    }

    fn read_head(&mut self, config: &EngineConfig, now: Instant, turn: &mut Turn) -> Option<Step> {
        let rules = config.trust.fields.reader(self.is_trusted);
        let length = match self.heads.read_by(self.incoming.bytes(), &config.limits, rules) {
            Ok(Some(length)) => length,
            Ok(None) => return None,
            Err(reject) => return Some(Step::Refuse(reject)),
        };
        let delimited = self.heads.delimited();
        match Receiving::begin(delimited.framing, config.limits.body) {
            Err(reject) => Some(Step::Refuse(reject)),
            Ok(None) => {
                if delimited.expects_continue {
                    self.stream.send_now(CONTINUE);
                }
                self.state = State::Ready { head: HeadBytes::InPlace(length), body: Body::Empty };
                Some(Step::Ready)
            }
            Ok(Some(receiving)) => {
                let head = HeadBytes::Own(self.incoming.bytes()[..length].to_vec());
                self.incoming.consume(length);
                self.incoming.release();
                // RFC 9110 §7.8: 101 never comes without it.
                if delimited.expects_continue && (self.incoming.is_empty() || delimited.asks_upgrade) {
                    self.stream.send_now(CONTINUE);
                }
                self.deadline = after(now, config.timeouts.body);
                self.state = State::Body { head, receiving, pace: Pace::new(now) };
                // The part of it that has come along is usually small. If not, a file may be needed.
                if self.wants_memory().is_some() || self.incoming.bytes().len() > COMES_ALONG {
                    Some(Step::Later)
                } else {
                    self.read_body(turn)
                }
            }
        }
    }

    fn read_body(&mut self, turn: &mut Turn) -> Option<Step> {
        let State::Body { receiving, .. } = &mut self.state else { return None };
        match receiving.take(self.incoming.bytes(), turn) {
            Ok(count) => self.incoming.consume(count),
            Err(Fault::Refused(reject)) => return Some(Step::Refuse(reject)),
            Err(Fault::NoRoom(error)) => return Some(Step::NoRoom(error)),
        }
        if self.granted.spooled.is_none() {
            self.granted.spooled = receiving.file();
        }
        if !receiving.is_whole() {
            return if self.incoming.is_empty() { None } else { Some(Step::Later) };
        }
        let State::Body { head, receiving, .. } = std::mem::replace(&mut self.state, State::Head) else {
            return None;
        };
        match receiving.finish() {
            Ok(body) => {
                self.state = State::Ready { head, body };
                Some(Step::Ready)
            }
            Err(error) => {
                // The bytes of the head went with the body.
                self.heads.reset();
                Some(Step::NoRoom(error))
            }
        }
    }

    /// Takes no notice of what was received, except for how much it is.
    fn discard(&mut self, now: Instant) -> Option<Step> {
        if let State::Lingering(lingering) = &mut self.state {
            let count = self.incoming.bytes().len();
            self.incoming.consume(count);
            match lingering.received(count, now) {
                Some(deadline) => self.deadline = deadline,
                None => return Some(Step::Close),
            }
        }
        None
    }
}
