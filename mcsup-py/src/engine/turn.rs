//! The engine's loop. A turn: wait, receive what has come, answer what is whole, see to deadlines, accept.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant, SystemTime};

use slab::Slab;

use super::connection::{Connection, HeadBytes, LINGER_BYTES, LINGER_TIME, State, Step, Then};
use super::exchange::{Answered, Asked, Exchange};
use super::{EngineConfig, Host, Listening, Phase};
use crate::access::{AccessLog, Entry};
use crate::app::{App, Peer, Request};
use crate::http::reject::{self, Reject};
use crate::http::response::{BodyFraming, Finish, ResponseHead, reason_of, write_head};
use crate::http::version::Version;
use crate::net::poller::{Interest, Poller, Ready};
use crate::net::stream::{self, Progress};
use crate::net::timers::Timers;

/// Tokens of what is no connection. A connection's is its place in the table below a serial number, so that news of
/// one that has ended is not taken for news of its successor.
const WAKE: u64 = u64::MAX;
const LISTENERS: u64 = u64::MAX - 1024;
const PLACE_BITS: u32 = 32;

/// A turn lasts no longer, so that beats go on.
const LONGEST_WAIT: Duration = Duration::from_millis(500);
/// How long accepting rests when the process or the system has no descriptor left.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// The engine at work.
pub(super) struct Engine<'a> {
    pub(super) config: EngineConfig,
    pub(super) host: &'a dyn Host,
    app: &'a mut dyn App,
    access: Option<AccessLog>,
    poller: Poller,
    pub(super) listeners: Vec<Listening<'a>>,
    pub(super) connections: Slab<Connection>,
    /// Connections with a whole request, in the order in which it became whole.
    ready: VecDeque<u64>,
    timers: Timers,
    date: Date,
    serial: u64,
    /// The head of the last answer.
    sent: ResponseHead,
    pub(super) phase: Phase,
    log_epoch: u32,
    accept_rests_until: Option<Instant>,
}

impl<'a> Engine<'a> {
    pub(super) fn new(
        config: EngineConfig,
        listeners: Vec<Listening<'a>>,
        host: &'a dyn Host,
        app: &'a mut dyn App,
        access: Option<AccessLog>,
    ) -> io::Result<Self> {
        let poller = Poller::new()?;
        poller.add(host.wake_fd(), WAKE, Interest::Level)?;
        for (index, listener) in listeners.iter().enumerate() {
            poller.add(listener.fd, LISTENERS + index as u64, Interest::Shared)?;
        }
        Ok(Self {
            config,
            host,
            app,
            access,
            poller,
            listeners,
            connections: Slab::new(),
            ready: VecDeque::new(),
            timers: Timers::default(),
            date: Date::default(),
            serial: 0,
            sent: ResponseHead::new(),
            phase: Phase::Serving,
            log_epoch: host.log_epoch(),
            accept_rests_until: None,
        })
    }

    pub(super) fn run(mut self) -> io::Result<()> {
        let mut news = Vec::new();
        loop {
            self.host.beat();
            self.follow_host();
            if self.is_over() {
                break;
            }
            let timeout = self.timeout(Instant::now());
            self.poller.wait(&mut news, timeout)?;
            let now = Instant::now();
            for ready in news.drain(..) {
                self.on_news(ready, now);
            }
            self.answer_ready();
            self.expire(Instant::now());
            if let Some(access) = &mut self.access {
                access.flush();
            }
        }
        if let Some(access) = &mut self.access {
            access.flush();
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.phase == Phase::Quitting || (self.phase > Phase::Serving && self.connections.is_empty())
    }

    fn timeout(&self, now: Instant) -> Duration {
        if !self.ready.is_empty() {
            return Duration::ZERO;
        }
        let next = [self.timers.next(), self.accept_rests_until].into_iter().flatten().min();
        next.map_or(LONGEST_WAIT, |at| at.saturating_duration_since(now).min(LONGEST_WAIT))
    }

    fn on_news(&mut self, news: Ready, now: Instant) {
        match news.token {
            // Looked at in every turn.
            WAKE => self.host.acknowledge(),
            token if token >= LISTENERS => {
                let index = usize::try_from(token - LISTENERS).unwrap_or(usize::MAX);
                if self.phase == Phase::Serving && self.ready.is_empty() {
                    self.accept(index, now);
                }
            }
            token => self.on_connection(token, news, now),
        }
    }

    fn on_connection(&mut self, token: u64, news: Ready, now: Instant) {
        let Some(connection) = self.find(token) else { return };
        if news.readable {
            connection.readable(news.ended);
        }
        if matches!(connection.state, State::Flushing { .. }) {
            if news.writable {
                self.flush(token, now);
            }
        } else if news.readable {
            self.advance(token, now);
        }
    }

    pub(super) fn find(&mut self, token: u64) -> Option<&mut Connection> {
        self.connections.get_mut(place_of(token)).filter(|connection| connection.token == token)
    }

    /// Takes one connection from a listener, and whatever it has sent already.
    fn accept(&mut self, index: usize, now: Instant) -> bool {
        let Some(listener) = self.listeners.get(index) else { return false };
        match stream::accept(listener.fd) {
            Ok(stream) => {
                let peer = Peer { remote: stream.remote(), local: listener.local.clone() };
                self.serial += 1;
                let entry = self.connections.vacant_entry();
                let token = token_of(self.serial, entry.key());
                let deadline = now + self.config.timeouts.head;
                entry.insert(Connection::new(stream, peer, token, deadline));
                self.host.connections(self.connections.len());
                self.advance(token, now);
                true
            }
            Err(error) => {
                self.on_accept_error(&error, now);
                false
            }
        }
    }

    fn on_accept_error(&mut self, error: &io::Error, now: Instant) {
        let exhausted = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE, rustix::io::Errno::NOMEM];
        if exhausted.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error())) {
            log::error!("cannot accept connections for a moment: {error}");
            self.stop_polling_listeners();
            self.accept_rests_until = Some(now + ACCEPT_REST);
        }
    }

    pub(super) fn stop_polling_listeners(&self) {
        for listener in &self.listeners {
            // Not polled, or let go of because the supervisor is dead: either way it is as it should be.
            let _ = self.poller.delete(listener.fd);
        }
    }

    fn accept_again(&mut self) {
        self.accept_rests_until = None;
        for (index, listener) in self.listeners.iter().enumerate() {
            let _ = self.poller.add(listener.fd, LISTENERS + index as u64, Interest::Shared);
        }
    }

    /// Accepts whatever is queued on the listeners.
    pub(super) fn accept_queued(&mut self, now: Instant) {
        for index in 0..self.listeners.len() {
            while self.accept(index, now) {}
        }
    }

    /// Goes on with a connection as far as what it has sent allows.
    pub(super) fn advance(&mut self, token: u64, now: Instant) {
        let config = self.config;
        let Some(connection) = self.find(token) else { return };
        match connection.advance(&config, now) {
            Step::Wait => self.keep(token),
            Step::Ready => self.ready.push_back(token),
            Step::Refuse(reject) => self.refuse(token, reject, now),
            Step::NoRoom(error) => {
                log::error!("cannot keep a request's body: {error}");
                let full =
                    Reject { status: 503, why: "no room for the request's body", source: "RFC 9110 15.6.4" };
                self.refuse(token, full, now);
            }
            Step::Close => self.close(token),
        }
    }

    /// A connection stays: the poller and the timers know it.
    pub(super) fn keep(&mut self, token: u64) {
        let Self { poller, timers, connections, .. } = self;
        let place = place_of(token);
        let Some(connection) = connections.get_mut(place) else { return };
        timers.arm(token, &mut connection.armed, connection.deadline);
        if !connection.registered {
            use std::os::fd::AsFd;
            if let Err(error) = poller.add(connection.stream.as_fd(), token, Interest::Edge) {
                log::error!("cannot watch a connection: {error}");
                return self.close(token);
            }
            connection.registered = true;
        }
    }

    pub(super) fn close(&mut self, token: u64) {
        if self.find(token).is_some() {
            let place = place_of(token);
            // The poller forgets a descriptor that is closed.
            self.connections.remove(place);
            self.host.connections(self.connections.len());
        }
    }

    /// Answers the requests that are whole now; those that become whole meanwhile wait for the next turn.
    fn answer_ready(&mut self) {
        for _ in 0..self.ready.len() {
            if let Some(token) = self.ready.pop_front() {
                self.answer(token);
            }
            if self.host.phase() == Phase::Quitting {
                return;
            }
        }
    }

    fn answer(&mut self, token: u64) {
        let keep_alive = !self.config.timeouts.keep_alive.is_zero();
        let place = place_of(token);
        let Some(connection) = self.connections.get_mut(place).filter(|found| found.token == token) else {
            return;
        };
        let Some((head_bytes, body)) = connection.take_request() else { return };
        let began = Instant::now();
        let Connection { stream, outgoing, heads, incoming, peer, .. } = &mut *connection;
        let head = Connection::view(heads, incoming, &head_bytes);
        let asked = Asked {
            method: head.method(),
            version: head.version(),
            keep_alive: keep_alive && head.delimited().keep_alive,
            host: self.host,
            date: self.date.at(SystemTime::now()),
            write_timeout: self.config.timeouts.write,
        };
        let mut exchange = Exchange::new(stream, outgoing, asked, &mut self.sent);
        self.host.request_began();
        let verdict = self.app.call(Request { head, body, peer }, &mut exchange);
        let answered = exchange.finish(verdict);
        self.host.request_ended();
        let now = Instant::now();
        if let Some(access) = &mut self.access {
            let (remote, response, bytes) = (peer.remote, &self.sent, answered.bytes);
            access.note(&Entry { head: Some(head), remote, response, bytes, took: now - began });
        }
        self.after_answer(token, &head_bytes, answered, now);
    }

    fn after_answer(&mut self, token: u64, head: &HeadBytes, answered: Answered, now: Instant) {
        let write = self.config.timeouts.write;
        let Some(connection) = self.find(token) else { return };
        connection.forget_request(head);
        if answered.abort {
            connection.stream.abort();
            return self.close(token);
        }
        let unread = !connection.incoming.is_empty();
        let then = if answered.then == Then::Close && unread { Then::Linger } else { answered.then };
        connection.state = State::Flushing { then };
        connection.deadline = now + write;
        if connection.outgoing.is_empty() { self.proceed(token, then, now) } else { self.keep(token) }
    }

    /// Sends what a client has not taken yet.
    fn flush(&mut self, token: u64, now: Instant) {
        let write = self.config.timeouts.write;
        let Some(connection) = self.find(token) else { return };
        let State::Flushing { then } = connection.state else { return };
        match connection.stream.send(&mut connection.outgoing) {
            Progress::Ended => self.close(token),
            Progress::Blocked(sent) => {
                if sent > 0 {
                    connection.deadline = now + write;
                }
                self.keep(token);
            }
            Progress::More(_) => self.proceed(token, then, now),
        }
    }

    /// A response has left.
    fn proceed(&mut self, token: u64, then: Then, now: Instant) {
        let keep_alive = self.idle_time();
        let Some(connection) = self.find(token) else { return };
        match then {
            Then::Close => self.close(token),
            Then::Linger => {
                connection.stream.end();
                connection.state = State::Lingering { budget: LINGER_BYTES };
                connection.deadline = now + LINGER_TIME;
                self.advance(token, now);
            }
            Then::Next => {
                connection.idle(now + keep_alive);
                self.advance(token, now);
            }
        }
    }

    /// Answers what will not be served, and closes once the client had time to read it.
    fn refuse(&mut self, token: u64, reject: Reject, now: Instant) {
        let (date, write) = (self.date.at(SystemTime::now()), self.config.timeouts.write);
        let text = format!("{}\n", reject.why);
        let mut head = ResponseHead::new();
        // Constants that are in order.
        let _ = head.begin(reject.status, reason_of(reject.status).as_bytes());
        let _ = head.push(b"Content-Type", b"text/plain");
        let body = BodyFraming::Length(text.len() as u64);
        let finish = Finish { version: Version::Http11, body, keep_alive: false, date };
        let place = place_of(token);
        let Some(connection) = self.connections.get_mut(place) else { return };
        write_head(connection.outgoing.append(), &head, &finish);
        connection.outgoing.append().extend_from_slice(text.as_bytes());
        log::debug!("refused a request of {:?}: {reject}", connection.peer.remote);
        if let Some(access) = &mut self.access {
            let (remote, bytes, took) = (connection.peer.remote, text.len() as u64, Duration::ZERO);
            access.note(&Entry { head: None, remote, response: &head, bytes, took });
        }
        let length = connection.incoming.bytes().len();
        connection.incoming.consume(length);
        connection.state = State::Flushing { then: Then::Linger };
        connection.deadline = now + write;
        self.flush(token, now);
    }

    /// Ends what has waited too long.
    fn expire(&mut self, now: Instant) {
        if self.accept_rests_until.is_some_and(|until| until <= now) && self.phase == Phase::Serving {
            self.accept_again();
        }
        while let Some((at, token)) = self.timers.pop(now) {
            let Some(connection) = self.find(token) else { continue };
            if !connection.armed.fired(at) {
                continue;
            }
            if connection.deadline > now {
                self.keep(token);
                continue;
            }
            match connection.state {
                // Whole already: its answer has no deadline here.
                State::Ready { .. } => {}
                State::Head | State::Body { .. } => self.refuse(token, reject::TIMEOUT, now),
                State::Flushing { .. } => {
                    connection.stream.abort();
                    self.close(token);
                }
                State::Idle { .. } | State::Lingering { .. } => self.close(token),
            }
        }
    }

    fn follow_host(&mut self) {
        let epoch = self.host.log_epoch();
        if epoch != self.log_epoch {
            self.log_epoch = epoch;
            self.host.reopen_logs();
            if let Some(access) = &mut self.access {
                access.reopen();
            }
        }
        let phase = self.host.phase();
        if phase > self.phase {
            self.change_phase(phase, Instant::now());
        }
    }
}

/// Below [`LISTENERS`] for the first two thousand million connections; then serial numbers begin anew.
fn token_of(serial: u64, place: usize) -> u64 {
    (serial & 0x7fff_ffff) << PLACE_BITS | (place as u64 & ((1 << PLACE_BITS) - 1))
}

fn place_of(token: u64) -> usize {
    usize::try_from(token & ((1 << PLACE_BITS) - 1)).unwrap_or(usize::MAX)
}

/// The Date field's value, made once a second.
#[derive(Debug, Default)]
struct Date {
    second: u64,
    text: String,
}

impl Date {
    fn at(&mut self, now: SystemTime) -> &[u8] {
        let second = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        if self.second != second || self.text.is_empty() {
            self.second = second;
            self.text = httpdate::fmt_http_date(now);
        }
        self.text.as_bytes()
    }
}
