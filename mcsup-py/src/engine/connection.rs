//! One connection: its state, and the parsing of a request until it is complete.
//!
//! It receives and parses; it never calls the application, and never waits.

use std::fs::File;
use std::sync::Arc;
use std::time::Instant;

use mcsup_core::MAX_HANDED;

use super::EngineConfig;
use super::body::{Fault, Receiving};
use super::body_memory::BodyMemory;
use super::lingering::Lingering;
use super::pace::Pace;
use super::turn::{MOST_SENT, Turn};
use crate::app::{Body, Peer};
use crate::http::framing::Framing;
use crate::http::head::{Head, Heads};
use crate::http::reject::{self, Reject};
use crate::net::buffer::{Incoming, Outgoing, Tail};
use crate::net::stream::{Progress, Stream};
use crate::net::timers::Armed;
use crate::net::timers::after;

/// The event that a connection waits for.
#[derive(Debug)]
pub(super) enum State {
    /// The first byte of a request; `fresh`: of the first one.
    Idle { fresh: bool },
    /// The rest of a head.
    Head,
    /// The rest of a body.
    Body { head: HeadBytes, receiving: Receiving, pace: Pace },
    /// The permit.
    Ready { head: HeadBytes, body: Body },
    /// The client, to take what is left of a response.
    Flushing { then: Then },
    /// The client, to notice that the connection is over.
    Lingering(Lingering),
}

/// The state after a response was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// The next request.
    Next,
    /// The end.
    Close,
    /// The end, after the client had time to read: bytes of its own are on the way, and a close would reset it.
    Linger,
}

/// Where a request's head is kept until it has been answered.
#[derive(Debug)]
pub(super) enum HeadBytes {
    /// At the front of what was received.
    InPlace(usize),
    /// On its own, because a body followed.
    Own(Vec<u8>),
}

impl HeadBytes {
    pub(super) fn bytes<'a>(&'a self, incoming: &'a Incoming) -> &'a [u8] {
        match self {
            HeadBytes::InPlace(length) => &incoming.bytes()[..*length],
            HeadBytes::Own(bytes) => bytes,
        }
    }
}

/// The result of one step of a connection.
#[derive(Debug)]
pub(super) enum Step {
    /// More must come from the client, or be taken by it.
    Wait,
    /// There is more to do at once, but its turn is over.
    Later,
    /// A response has left.
    Sent(Then),
    /// A request is whole.
    Ready,
    /// It will not be served.
    Refuse(Reject),
    /// There is no room to keep its body.
    NoRoom(std::io::Error),
    /// The connection is over.
    Close,
}

/// How much is received at once of what goes to a file.
const SPOOL_PIECE: usize = 64 * 1024;

/// No more than this of a body is taken together with its head: less than what goes to a file.
const COMES_ALONG: usize = 32 * 1024;

/// A head of more bytes than this is received in turns.
const LONG_HEAD: usize = 16 * 1024;
/// The share of the turn that a byte of such a head takes.
const HEAD_WEIGHT: usize = 8;

/// A connection and everything that belongs to it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: Arc<Stream>,
    pub(super) peer: Peer,
    pub(super) incoming: Incoming,
    pub(super) outgoing: Outgoing,
    pub(super) heads: Heads,
    pub(super) state: State,
    pub(super) token: u64,
    /// Whether the poller knows it: one that ends with its first response never needs to.
    pub(super) registered: bool,
    pub(super) deadline: Instant,
    pub(super) armed: Armed,
    /// It waits for a turn: news of it is only noted.
    pub(super) queued: bool,
    /// Since when it has been idle or lingering, or the head of its request has been arriving.
    pub(super) since: Instant,
    /// The engine's memory that the request's body may use.
    pub(super) body_memory: usize,
    /// How many bytes its request's head takes, where it is large.
    pub(super) head_memory: usize,
    /// The file of its request's body.
    pub(super) spooled: Option<Arc<File>>,
    /// A connection was closed for that file, whose descriptor is one of the application's.
    pub(super) has_made_room: bool,
    /// The socket was empty when it was last read, and the poller has not said otherwise since.
    emptied: bool,
    /// The client has ended its side.
    ended: bool,
}

impl Connection {
    pub(super) fn new(stream: Stream, peer: Peer, token: u64, now: Instant, deadline: Instant) -> Self {
        Self {
            stream: Arc::new(stream),
            peer,
            incoming: Incoming::default(),
            outgoing: Outgoing::default(),
            heads: Heads::default(),
            state: State::Idle { fresh: true },
            token,
            registered: false,
            deadline,
            armed: Armed::default(),
            queued: false,
            since: now,
            body_memory: 0,
            head_memory: 0,
            spooled: None,
            has_made_room: false,
            emptied: false,
            ended: false,
        }
    }

    /// The poller says that there is something to read.
    pub(super) fn readable(&mut self, ended: bool) {
        self.emptied = false;
        self.ended |= ended;
    }

    /// Receives and parses until a request is whole, the socket is empty, something large has begun, or the turn is over.
    /// Never touches a file.
    pub(super) fn advance(&mut self, config: &EngineConfig, now: Instant) -> Step {
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

    /// Whether it is in the middle of something that may be large, or of which a file is a part: then it goes on by
    /// [`Connection::take_turn`], and not by [`Connection::advance`].
    pub(super) fn is_in_bulk(&self) -> bool {
        match &self.state {
            State::Body { receiving, .. } => receiving.is_large(),
            State::Flushing { .. } | State::Lingering(_) => true,
            State::Idle { .. } | State::Head | State::Ready { .. } => false,
        }
    }

    /// Whether more has come of a head than an ordinary one has.
    pub(super) fn has_long_head(&self) -> bool {
        matches!(self.state, State::Head) && self.incoming.bytes().len() > LONG_HEAD
    }

    /// Whether its next turn may wait for a disk.
    pub(super) fn needs_file(&self) -> bool {
        match &self.state {
            State::Body { receiving, .. } => receiving.needs_file(),
            State::Flushing { .. } => matches!(self.outgoing.tail(), Some(Tail::File(_))),
            _ => false,
        }
    }

    /// Whether it has a body that is to be kept in memory, and has not begun.
    pub(super) fn wants_memory(&self) -> bool {
        matches!(&self.state, State::Body { receiving, .. } if receiving.wants_memory())
    }

    /// How many bytes its body is still to have, where it says so.
    pub(super) fn body_length(&self) -> usize {
        let State::Body { receiving, .. } = &self.state else { return 0 };
        receiving.length_left()
    }

    /// Begins such a body, in memory if there is any left.
    pub(super) fn begin_body(&mut self, config: &EngineConfig, memory: &mut BodyMemory, now: Instant) {
        if let State::Body { receiving, pace, .. } = &mut self.state {
            self.body_memory += receiving.begin_in(memory);
            // Its client has waited for us until now.
            *pace = Pace::new(now);
            self.deadline = after(now, config.timeouts.body);
        }
    }

    /// Goes on with something large for one turn.
    pub(super) fn take_turn(&mut self, config: &EngineConfig, now: Instant) -> Step {
        let mut turn = match &self.state {
            State::Body { receiving, .. } => receiving.turn(),
            _ => Turn::default(),
        };
        loop {
            let step = match self.state {
                State::Flushing { then } => Some(self.send(then, config, now)),
                State::Body { .. } => self.read_body(&mut turn),
                State::Lingering(_) => self.discard(now),
                State::Idle { .. } | State::Head | State::Ready { .. } => Some(Step::Wait),
            };
            if let Some(step) = step.or_else(|| self.receive_more(config, now, &mut turn)) {
                return step;
            }
        }
    }

    /// Sends a turn's worth of what the client has not taken.
    pub(super) fn send(&mut self, then: Then, config: &EngineConfig, now: Instant) -> Step {
        let progress = self.stream.send_at_most(&mut self.outgoing, MOST_SENT);
        if !matches!(progress, Progress::Blocked(0)) {
            self.deadline = after(now, config.timeouts.write);
        }
        match progress {
            Progress::Ended => Step::Close,
            Progress::Blocked(_) => Step::Wait,
            Progress::More(_) if self.outgoing.is_empty() => Step::Sent(then),
            Progress::More(_) => Step::Later,
        }
    }

    /// Begins a request's answer: what was asked, taken out of the connection. `None`: it has no whole request.
    pub(super) fn take_request(&mut self) -> Option<(HeadBytes, Body)> {
        match std::mem::replace(&mut self.state, State::Flushing { then: Then::Next }) {
            State::Ready { head, body } => Some((head, body)),
            other => {
                self.state = other;
                None
            }
        }
    }

    /// The request was answered: its head makes room for the next.
    pub(super) fn forget_request(&mut self, head: &HeadBytes) {
        if let HeadBytes::InPlace(length) = head {
            self.incoming.consume(*length);
            self.incoming.release();
        }
        self.heads.reset();
    }

    /// Whether it could do without what it receives with.
    pub(super) fn is_at_rest(&self) -> bool {
        matches!(self.state, State::Idle { .. } | State::Lingering(_)) && self.incoming.is_empty()
    }

    /// Whether the socket may have something for it.
    pub(super) fn may_receive(&self) -> bool {
        !self.emptied || self.ended
    }

    /// Whether a head was read that is needed still.
    pub(super) fn has_head(&self) -> bool {
        matches!(self.state, State::Body { .. } | State::Ready { .. })
    }

    /// Whether nothing of a request was read: the socket has all of it.
    pub(super) fn is_unread(&self) -> bool {
        matches!(self.state, State::Idle { .. }) && self.has_begun_nothing() && !self.ended
    }

    /// Whether what was received begins no request: it is nothing, or half of an empty line.
    fn has_begun_nothing(&self) -> bool {
        matches!(self.incoming.bytes(), b"" | b"\r")
    }

    /// Whether it can go elsewhere with what was received: nothing, or a request that is whole, as it came, and what came
    /// behind it. A body that was in chunks is not what came, nor is one in a file.
    pub(super) fn can_go(&self) -> bool {
        let before = match &self.state {
            State::Ready { head: HeadBytes::InPlace(_), body: Body::Empty } => 0,
            State::Ready { head: HeadBytes::Own(head), body: Body::Memory(body) }
                if matches!(self.heads.delimited().framing, Framing::Length(_)) =>
            {
                head.len() + body.len()
            }
            _ if self.is_unread() => 0,
            _ => return false,
        };
        before + self.incoming.bytes().len() <= MAX_HANDED
    }

    /// Appends what is to go with it.
    pub(super) fn write_received(&self, out: &mut Vec<u8>) {
        if let State::Ready { head: HeadBytes::Own(head), body: Body::Memory(body) } = &self.state {
            out.extend_from_slice(head);
            out.extend_from_slice(body);
        }
        out.extend_from_slice(self.incoming.bytes());
    }

    /// The head of the request, if it is known and not taken out.
    pub(super) fn asked(&self) -> Option<Head<'_>> {
        match &self.state {
            State::Body { head, .. } | State::Ready { head, .. } => {
                Some(Self::view(&self.heads, &self.incoming, head))
            }
            _ => None,
        }
    }

    /// Whether the client has sent more than was used: a close would reset it, and its answer be lost.
    pub(super) fn has_unread(&self) -> bool {
        !self.incoming.is_empty() || self.stream.has_unread()
    }

    /// Waits for the next request.
    pub(super) fn idle(&mut self, now: Instant, deadline: Instant) {
        self.state = State::Idle { fresh: false };
        (self.since, self.deadline) = (now, deadline);
    }

    /// The head of the request, if it is known.
    pub(super) fn view<'a>(heads: &'a Heads, incoming: &'a Incoming, head: &'a HeadBytes) -> Head<'a> {
        heads.view(head.bytes(incoming))
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
        turn.spend(self.cost_of(count));
        if let State::Body { pace, .. } = &mut self.state {
            pace.received(count, now);
            self.deadline = after(now, config.timeouts.body);
        }
        None
    }

    /// The cost of `count` received bytes. Bytes of a head are parsed, in memory that grows with them.
    fn cost_of(&self, count: usize) -> usize {
        if let State::Idle { .. } | State::Head = self.state { count * HEAD_WEIGHT } else { count }
    }

    fn receive(&mut self) -> Progress {
        if !self.may_receive() {
            return Progress::Blocked(0);
        }
        let progress = match &mut self.state {
            State::Body { receiving, .. } if receiving.is_spooled() => {
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
            State::Ready { .. } | State::Flushing { .. } | State::Lingering(_) => Some(Step::Wait),
        }
    }

    fn read_head(&mut self, config: &EngineConfig, now: Instant, turn: &mut Turn) -> Option<Step> {
        let length = match self.heads.read(self.incoming.bytes(), &config.limits) {
            Ok(Some(length)) => length,
            Ok(None) => return None,
            Err(reject) => return Some(Step::Refuse(reject)),
        };
        let delimited = self.heads.delimited();
        match Receiving::begin(delimited.framing, config.limits.body) {
            Err(reject) => Some(Step::Refuse(reject)),
            Ok(None) => {
                self.state = State::Ready { head: HeadBytes::InPlace(length), body: Body::Empty };
                Some(Step::Ready)
            }
            Ok(Some(receiving)) => {
                let head = HeadBytes::Own(self.incoming.bytes()[..length].to_vec());
                self.incoming.consume(length);
                self.incoming.release();
                if delimited.expects_continue && self.incoming.is_empty() {
                    // Where the socket does not take it the client is beyond help by it.
                    self.stream.send_now(b"HTTP/1.1 100 Continue\r\n\r\n");
                }
                self.deadline = after(now, config.timeouts.body);
                self.state = State::Body { head, receiving, pace: Pace::new(now) };
                // What has come along already is small as a rule. If not, a file may be needed.
                if self.wants_memory() || self.incoming.bytes().len() > COMES_ALONG {
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
        if self.spooled.is_none() {
            self.spooled = receiving.file();
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
