//! One connection and its state. It never calls the application, and never waits.

mod proxy_header;
mod receiving;

use std::fs::File;
use std::sync::Arc;
use std::time::Instant;

use mcsup_core::MAX_HANDED;

use super::EngineConfig;
use super::body::Receiving;
use super::lingering::Lingering;
use super::pace::Pace;
use super::turn::MOST_SENT;
use crate::app::{Body, Peer};
use crate::files::FileAnswer;
use crate::http::framing::Framing;
use crate::http::head::{Head, Heads};
use crate::http::reject::Reject;
use crate::net::buffer::{Incoming, Outgoing, Tail};
use crate::net::stream::{Progress, Stream};
use crate::net::timers::{Armed, after};
use crate::tls::Secured;
use crate::trust::{ProxyProtocol, Trust};

/// The event that a connection waits for.
#[derive(Debug)]
pub(super) enum State {
    /// The rest of a handshake of TLS; `begun`: the client has sent a part of it.
    Handshake { begun: bool },
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
    /// The answer to it is in a file.
    Found(Box<FileAnswer>),
    /// No file has the answer to it: it is the application's.
    NoFile,
    /// The file with the answer to it cannot be opened now.
    NotOpened(std::io::Error),
    /// It will not be served.
    Refuse(Reject),
    /// There will be no TLS, for this reason.
    NotSecured(String),
    /// There is no room to keep its body.
    NoRoom(std::io::Error),
    /// The connection is over.
    Close,
}

/// A connection and everything that belongs to it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: Arc<Stream>,
    pub(super) peer: Peer,
    /// What the handshake of TLS has determined.
    pub(super) secured: Option<Box<Secured>>,
    pub(super) incoming: Incoming,
    pub(super) outgoing: Outgoing,
    pub(super) heads: Heads,
    pub(super) state: State,
    pub(super) token: u64,
    /// Whether the poller knows it: one that ends with its first response never needs to.
    pub(super) registered: bool,
    pub(super) deadline: Instant,
    pub(super) armed: Armed,
    /// It waits for a turn: its events are only noted.
    pub(super) queued: bool,
    /// Since when it has been idle or lingering, or the head of its request has been arriving.
    pub(super) since: Instant,
    pub(super) granted: Granted,
    /// Its request, which is whole, may be one for a file: that is looked for in a turn.
    pub(super) seeks_file: bool,
    /// The application has taken it, and may have a descriptor of its socket.
    pub(super) is_taken: bool,
    /// The socket was empty when it was last read, and the poller has not said otherwise since.
    emptied: bool,
    /// The client has ended its side.
    ended: bool,
    /// Whether the fields of the peer count.
    is_trusted: bool,
    /// Whether it may begin with a PROXY header still.
    pub(super) may_have_proxy_header: bool,
}

/// The part of the engine's resources that an unanswered request has.
#[derive(Debug, Default)]
pub(super) struct Granted {
    /// The engine's memory that the body may use.
    pub(super) body_memory: usize,
    /// How many bytes the head takes, if it is large.
    pub(super) head_memory: usize,
    /// The file of the body.
    pub(super) spooled: Option<Arc<File>>,
    /// A connection was closed for that file, whose descriptor is one of the application's.
    pub(super) has_made_room: bool,
}

impl Connection {
    pub(super) fn new(stream: Stream, peer: Peer, token: u64, now: Instant, deadline: Instant) -> Self {
        let state =
            if stream.is_tls() { State::Handshake { begun: false } } else { State::Idle { fresh: true } };
        Self {
            stream: Arc::new(stream),
            peer,
            secured: None,
            incoming: Incoming::default(),
            outgoing: Outgoing::default(),
            heads: Heads::default(),
            state,
            token,
            registered: false,
            deadline,
            armed: Armed::default(),
            queued: false,
            since: now,
            granted: Granted::default(),
            seeks_file: false,
            is_taken: false,
            emptied: false,
            ended: false,
            is_trusted: false,
            may_have_proxy_header: false,
        }
    }

    /// With as much trust in the peer as `trust` has. `is_unread`: not a byte of it has been read.
    pub(super) fn trusted_by(mut self, trust: &Trust, is_unread: bool) -> Self {
        self.decide_trust(trust);
        self.may_have_proxy_header = is_unread && trust.proxy_protocol != ProxyProtocol::Off;
        self
    }

    /// Whether fields count. A proxy that sends a PROXY header passes on the bytes of its client, which may write any field:
    /// so both are looked up.
    fn decide_trust(&mut self, trust: &Trust) {
        let Peer { remote, proxied, .. } = &self.peer;
        let proxy = proxied.as_deref().map(|proxied| proxied.proxy);
        self.is_trusted =
            trust.believes_fields_of(*remote) && proxy.is_none_or(|proxy| trust.believes_fields_of(proxy));
    }

    /// The poller says that there is something to read.
    pub(super) fn readable(&mut self, ended: bool) {
        self.emptied = false;
        self.ended |= ended;
    }

    /// Whether it is in the middle of something that may be large, or of which a file is a part: then it goes on by
    /// [`Connection::take_turn`], and not by [`Connection::advance`].
    pub(super) fn is_in_bulk(&self) -> bool {
        match &self.state {
            State::Body { receiving, .. } => receiving.is_large(),
            State::Handshake { .. } | State::Flushing { .. } | State::Lingering(_) => true,
            State::Ready { .. } => self.seeks_file,
            State::Idle { .. } | State::Head => false,
        }
    }

    /// Whether its next turn may wait for a disk.
    pub(super) fn needs_file(&self) -> bool {
        match &self.state {
            State::Body { receiving, .. } => receiving.needs_file(),
            State::Flushing { .. } => matches!(self.outgoing.tail(), Some(Tail::File(_))),
            State::Ready { .. } => self.seeks_file,
            _ => false,
        }
    }

    /// Whether a handshake of TLS has begun and goes on with the next event.
    pub(super) fn is_shaking_hands(&self) -> bool {
        matches!(self.state, State::Handshake { begun: true })
    }

    /// Ends TLS in order, unless something is missing that the client was promised.
    pub(super) fn say_goodbye(&self) {
        if self.outgoing.is_empty() && matches!(self.state, State::Idle { .. } | State::Flushing { .. }) {
            self.stream.say_goodbye();
        }
    }

    /// The length of a body that is to be kept in memory, and has not begun.
    pub(super) fn wants_memory(&self) -> Option<usize> {
        let State::Body { receiving, .. } = &self.state else { return None };
        receiving.wants_memory()
    }

    /// Sends a turn's worth of what the client has not taken.
    pub(super) fn send(&mut self, then: Then, config: &EngineConfig, now: Instant) -> Step {
        let progress = self.stream.send_at_most(&mut self.outgoing, MOST_SENT);
        if !matches!(progress, Progress::Blocked(0)) {
            self.deadline = after(now, config.timeouts.write);
        }
        match progress {
            Progress::Ended => {
                // The file may have become shorter: that must not look like the end of an answer.
                self.stream.abort();
                Step::Close
            }
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

    /// Begins to send an answer that the application has no part in. `deadline`: when its client must have taken some of it.
    pub(super) fn send_own_answer(&mut self, request: &HeadBytes, keep_alive: bool, deadline: Instant) {
        self.forget_request(request);
        let then = match keep_alive {
            true => Then::Next,
            false if self.has_unread() => Then::Linger,
            false => Then::Close,
        };
        self.state = State::Flushing { then };
        self.deadline = deadline;
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

    /// Whether nothing of a request was read: the socket has all of it. With TLS nothing of the handshake either.
    pub(super) fn is_unread(&self) -> bool {
        match self.state {
            State::Handshake { begun } => !begun && !self.ended,
            State::Idle { .. } => !self.stream.is_tls() && self.has_begun_nothing() && !self.ended,
            _ => false,
        }
    }

    /// Whether what was received begins no request: it is nothing, or half of an empty line.
    fn has_begun_nothing(&self) -> bool {
        matches!(self.incoming.bytes(), b"" | b"\r")
    }

    /// Whether it can go elsewhere with what was received: nothing, or a request that is whole, as it came, and what came
    /// behind it. A body that was in chunks is not what came, nor is one in a file. The state of TLS cannot go.
    pub(super) fn can_go(&self) -> bool {
        let before = match &self.state {
            State::Ready { .. } if self.stream.is_tls() => return false,
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

    /// The head of the request that is not taken out; of an incomplete or malformed one only the parts that were understood.
    pub(super) fn asked(&self) -> Option<Head<'_>> {
        match &self.state {
            State::Body { head, .. } | State::Ready { head, .. } => {
                Some(Self::view(&self.heads, &self.incoming, head))
            }
            _ => self.heads.is_known().then(|| self.heads.view(self.incoming.bytes())),
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
        heads.view(match head {
            HeadBytes::InPlace(length) => &incoming.bytes()[..*length],
            HeadBytes::Own(bytes) => bytes,
        })
    }
}
