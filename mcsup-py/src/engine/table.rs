//! The state of the engine: connections, requests that wait for a permit, deadlines, listeners.
//!
//! One lock protects it; no code here waits.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::body_memory::BodyMemory;
use super::buffer_pool::BufferPool;
use super::coalescing::Coalesced;
use super::connection::{Connection, HeadBytes, State, Step, Then};
use super::connections::{Connections, HOST_WAKE, LISTENERS, Missed, WAKER};
use super::date::Date;
use super::exchange::Answered;
use super::health;
use super::large_heads::LargeHeads;
use super::leaving::Leaving;
use super::lingering::Lingering;
use super::refusal_log::RefusalLog;
use super::reserve::Reserve;
use super::turn::Queued;
use super::{EngineConfig, Host, Listening, Phase};
use crate::access::AccessLog;
use crate::app::Body;
use crate::http::head::Head;
use crate::http::reject;
use crate::net::poller::{Interest, Poller, Ready};
use crate::net::timers::after;
use crate::net::timers::{Armed, Timers};

/// A turn lasts no longer, so that beats go on.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// How long a request waits here before its connection is offered to the siblings again, or an idle connection where this
/// engine retires.
const OFFER_AGAIN: Duration = Duration::from_millis(2);

/// No more deadlines than this are looked at in one turn.
const MOST_EXPIRED: usize = 256;

/// The state.
pub(super) struct Table<'a> {
    pub(super) config: EngineConfig,
    pub(super) host: &'a dyn Host,
    pub(super) access: Option<AccessLog>,
    pub(super) poller: &'a Poller,
    pub(super) listeners: Vec<Listening<'a>>,
    /// The indexes of those at which accept(2) has failed for good.
    pub(super) broken: Vec<usize>,
    pub(super) accepting: Accepting,
    /// For how many turns in a row a connection was left to the siblings.
    pub(super) left_to_siblings: u32,
    /// All permits are in the application, and have been for a while.
    pub(super) lacks_permit: bool,
    pub(super) reserve: Reserve,
    /// How many connections in a row have failed before they were accepted.
    pub(super) lost: u32,
    /// How many connections are to be given away in this turn.
    pub(super) surplus: usize,
    /// How many the siblings had when some were given away, and when that was.
    pub(super) weighed: Option<(usize, Instant)>,
    /// Those who go to a sibling, since this engine retires.
    pub(super) leaving: Leaving,
    pub(super) connections: Connections,
    /// Connections with a whole request, in the order in which it became whole.
    pub(super) ready: VecDeque<u64>,
    /// The queue of turns, and that of turns that may wait for a disk.
    pub(super) queue: VecDeque<Queued>,
    pub(super) files: VecDeque<Queued>,
    coalesced: Coalesced,
    pub(super) buffer_pool: BufferPool,
    /// Bodies in memory that are not small.
    pub(super) body_memory: BodyMemory,
    pub(super) large_heads: LargeHeads,
    pub(super) timers: Timers,
    pub(super) date: Date,
    pub(super) refusals: RefusalLog,
    pub(super) phase: Phase,
    log_epoch: u32,
}

/// Whether the poller watches the listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accepting {
    Yes,
    /// Not while no permit is free: a worker with a free one accepts the connections.
    NoPermit,
    /// The same, but the listeners are watched for health checks.
    ForChecks,
    /// Not for a moment: others go first, or there is no descriptor left.
    Resting {
        until: Instant,
    },
    /// Not any more.
    Ended,
}

/// A request on its way to the application, with its connection.
pub(super) struct Job {
    pub(super) connection: Box<Connection>,
    pub(super) head: HeadBytes,
    pub(super) body: Body,
}

impl Job {
    /// The head of the request.
    pub(super) fn head(&self) -> Head<'_> {
        Connection::view(&self.connection.heads, &self.connection.incoming, &self.head)
    }
}

impl<'a> Table<'a> {
    pub(super) fn new(
        config: EngineConfig,
        listeners: Vec<Listening<'a>>,
        host: &'a dyn Host,
        poller: &'a Poller,
        access: Option<AccessLog>,
    ) -> Self {
        let mut table = Self {
            config,
            host,
            access,
            poller,
            listeners,
            broken: Vec::new(),
            accepting: Accepting::NoPermit,
            left_to_siblings: 0,
            lacks_permit: false,
            lost: 0,
            reserve: Reserve::of_this_process(host.wake_fd()),
            surplus: 0,
            weighed: None,
            leaving: Leaving::default(),
            connections: Connections::default(),
            ready: VecDeque::new(),
            queue: VecDeque::new(),
            files: VecDeque::new(),
            coalesced: Coalesced::default(),
            buffer_pool: BufferPool::default(),
            body_memory: BodyMemory::default(),
            large_heads: LargeHeads::default(),
            timers: Timers::default(),
            date: Date::default(),
            refusals: RefusalLog::default(),
            phase: Phase::Serving,
            log_epoch: host.log_epoch(),
        };
        table.permit_is_free();
        table
    }

    /// Longest wait of a turn. `answers`: the waiting thread answers complete requests; otherwise they are soon offered
    /// to a sibling again.
    pub(super) fn timeout(&self, answers: bool, now: Instant) -> Duration {
        // Without a permit it sees to the files as well.
        if !self.queue.is_empty() || !(answers || self.files.is_empty()) {
            return Duration::ZERO;
        }
        match (self.ready.is_empty(), answers) {
            (false, true) => return Duration::ZERO,
            (false, false) if self.host.siblings().count > 0 => return OFFER_AGAIN,
            _ if self.has_some_to_hand_on() => return OFFER_AGAIN,
            _ => {}
        }
        let next =
            [self.timers.next(), self.rests_until(), self.leaving.last_look, self.body_memory.next_start()]
                .into_iter()
                .flatten()
                .min();
        next.map_or(LONGEST_WAIT, |at| at.saturating_duration_since(now).min(LONGEST_WAIT))
    }

    /// Whether there is something to do without further news, now or at a time that has come to be known.
    pub(super) fn has_work(&self) -> bool {
        !self.ready.is_empty() || !self.queue.is_empty() || self.body_memory.next_start().is_some()
    }

    /// Something has become ready. `leads`: the thread that says so may accept.
    pub(super) fn on_news(&mut self, news: Ready, leads: bool, now: Instant) {
        match news.token {
            // Looked at in every turn.
            HOST_WAKE => self.host.acknowledge(),
            // For the thread that was waiting alone.
            WAKER => {}
            token if token >= LISTENERS => {
                if leads || self.accepting == Accepting::ForChecks {
                    self.on_listener(usize::try_from(token - LISTENERS).unwrap_or(usize::MAX), now);
                }
            }
            token => self.on_connection(token, news, now),
        }
    }

    fn on_connection(&mut self, token: u64, news: Ready, now: Instant) {
        let Some(connection) = self.connections.find(token) else { return self.connections.note(news) };
        if news.readable {
            connection.readable(news.ended);
        }
        if connection.queued {
            return;
        }
        if matches!(connection.state, State::Flushing { .. }) {
            if news.writable {
                self.queue(token);
            }
        } else if connection.has_long_head() {
            self.queue(token);
        } else if news.readable && (news.ended || !(self.hand_on(token) || self.hand_over_unread(token, now)))
        {
            self.advance(token, now);
        }
    }

    pub(super) fn find(&mut self, token: u64) -> Option<&mut Connection> {
        self.connections.find(token)
    }

    /// Goes on with a connection as far as what it has sent allows, and its turn; or puts it in the queue for one.
    pub(super) fn advance(&mut self, token: u64, now: Instant) {
        for checks in 1.. {
            let Self { config, connections, buffer_pool, .. } = self;
            let Some(connection) = connections.find(token) else { return };
            if connection.is_in_bulk() {
                return self.queue(token);
            }
            buffer_pool.equip(connection);
            let step = connection.advance(config, now);
            if !(matches!(step, Step::Ready) && health::is_asked_for(config, connection)) {
                return self.see_to(token, step, now);
            }
            if !self.answer_health_check(token, checks < health::MOST_IN_A_ROW, now) {
                return;
            }
        }
    }

    /// Sees to what came of an attempt to go on.
    pub(super) fn see_to(&mut self, token: u64, step: Step, now: Instant) {
        match step {
            Step::Wait => {
                if let Some(connection) = self.connections.find(token) {
                    self.buffer_pool.put_back_from(connection);
                }
                self.keep(token);
                // An error concerns whole requests.
                let _ = self.bound_heads(token, now);
            }
            Step::Later => {
                self.queue(token);
                let _ = self.bound_heads(token, now);
            }
            Step::Sent(then) => self.proceed(token, then, now),
            Step::Ready if self.ready.len() >= self.config.waiting => self.refuse(token, reject::BUSY, now),
            Step::Ready => match self.bound_heads(token, now) {
                Ok(()) => self.ready.push_back(token),
                Err(reject) => self.refuse(token, reject, now),
            },
            Step::Refuse(reject) => self.refuse(token, reject, now),
            Step::NoRoom(error) => {
                if !self.say_if_shortage(&error, now) {
                    log::error!("cannot keep a request's body: {error}");
                }
                self.refuse(token, reject::NO_ROOM, now);
            }
            Step::Close => self.close(token),
        }
    }

    /// A connection stays: the poller and the timers know it.
    pub(super) fn keep(&mut self, token: u64) {
        let Self { poller, timers, connections, .. } = self;
        let Some(connection) = connections.find(token) else { return };
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
        self.release(token);
        if let Some(mut connection) = self.connections.remove(token) {
            self.buffer_pool.take_apart(&mut connection);
        }
        let Self { timers, connections, .. } = self;
        timers.ended(|token| connections.has(token));
        self.host.connections(self.connections.len());
    }

    /// A connection's request is answered, refused or given up: what it was granted is free again. The pages of a file are
    /// given back in turns of the spare, since that may wait for a disk.
    pub(super) fn release(&mut self, token: u64) {
        let Self { connections, body_memory, large_heads, files, .. } = self;
        let Some(connection) = connections.find(token) else { return };
        body_memory.give_back(token, std::mem::take(&mut connection.body_memory));
        large_heads.change(token, std::mem::take(&mut connection.head_memory), 0);
        connection.has_made_room = false;
        files.extend(connection.spooled.take().map(Queued::File));
    }

    /// Takes the request out that has waited longest.
    pub(super) fn take_job(&mut self) -> Option<Job> {
        while let Some(token) = self.ready.pop_front() {
            let Some(mut connection) = self.connections.take(token) else { continue };
            // What stands in the queue for it is about the request before.
            connection.queued = false;
            match connection.take_request() {
                Some((head, body)) => {
                    self.buffer_pool.equip_to_answer(&mut connection);
                    return Some(Job { connection, head, body });
                }
                None => {
                    self.put_back(connection);
                }
            }
        }
        None
    }

    /// An answered connection comes back. `coalesce`: its answer may wait for others.
    pub(super) fn give_back(&mut self, job: Job, answered: Answered, coalesce: bool, now: Instant) {
        let Job { mut connection, head, .. } = job;
        let (token, write) = (connection.token, self.config.timeouts.write);
        connection.forget_request(&head);
        let then = match answered.then {
            Then::Close if connection.has_unread() => Then::Linger,
            then => then,
        };
        connection.state = State::Flushing { then };
        connection.deadline = after(now, write);
        let (all_sent, aborts) = (connection.outgoing.is_empty(), answered.abort);
        let waits = coalesce && !all_sent && connection.outgoing.tail().is_none();
        if aborts {
            connection.stream.abort();
        }
        let missed = self.put_back(connection);
        self.release(token);
        match (aborts, all_sent) {
            (true, _) => self.close(token),
            (false, false) if waits => self.coalesced.add(token, now),
            (false, true) => self.proceed(token, then, now),
            (false, false) if answered.blocked && !missed.writable => self.keep(token),
            (false, false) => self.queue(token),
        }
    }

    /// Whether an answer may wait for others: some are about to be given, and none has waited for long.
    pub(super) fn may_coalesce(&self, now: Instant) -> bool {
        !self.ready.is_empty() && self.coalesced.has_time(now)
    }

    /// Sends the answers that have waited for one another.
    pub(super) fn send_coalesced(&mut self, now: Instant) {
        let mut answers = self.coalesced.take();
        for token in answers.drain(..) {
            self.flush(token, now);
        }
        self.coalesced.keep_room(answers);
    }

    /// A connection that was away is here again; returns what it has missed.
    pub(super) fn put_back(&mut self, connection: Box<Connection>) -> Missed {
        let token = connection.token;
        let missed = self.connections.put_back(connection);
        if let Some(connection) = self.connections.find(token) {
            if missed.readable {
                connection.readable(missed.ended);
            }
            if missed.timer {
                connection.armed = Armed::default();
            }
        }
        missed
    }

    /// Sends what is small and has not left yet.
    pub(super) fn flush(&mut self, token: u64, now: Instant) {
        let Some(connection) = self.connections.find(token) else { return };
        let State::Flushing { then } = connection.state else { return };
        let step = connection.send(then, &self.config, now);
        self.see_to(token, step, now);
    }

    /// A response has left.
    fn proceed(&mut self, token: u64, then: Then, now: Instant) {
        let (phase, keep_alive) = (self.phase, self.config.timeouts.keep_alive);
        let Some(connection) = self.connections.find(token) else { return };
        match then {
            Then::Close => self.close(token),
            Then::Linger => {
                connection.stream.end();
                let mut lingering = Lingering::new(now, phase.accepts());
                connection.deadline = lingering.received(0, now).unwrap_or(now);
                connection.state = State::Lingering(lingering);
                connection.since = now;
                self.advance(token, now);
            }
            Then::Next => {
                connection.idle(now, after(now, keep_alive));
                self.buffer_pool.put_back_from(connection);
                if phase.accepts() { self.advance(token, now) } else { self.hurry(token, now) }
            }
        }
    }

    /// No permit becomes free again: hands waiting requests to siblings, or refuses them.
    pub(super) fn give_up_waiting(&mut self, now: Instant) {
        self.offer_waiting(true);
        for token in std::mem::take(&mut self.ready) {
            self.refuse(token, reject::BUSY, now);
        }
    }

    /// Ends what has waited too long. Of very many the rest waits for the next turn.
    pub(super) fn expire(&mut self, now: Instant) {
        self.end_rest(now);
        self.refusals.log_count(now);
        self.end_shortage(now);
        for _ in 0..MOST_EXPIRED {
            let Some((at, token)) = self.timers.pop(now) else { return };
            let Some(connection) = self.connections.find(token) else {
                self.connections.note_timer(token);
                continue;
            };
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
                // It is for this engine to go on, and not for the client.
                State::Body { .. } if connection.queued => {
                    connection.deadline = after(now, self.config.timeouts.body);
                    self.keep(token);
                }
                State::Flushing { .. } if connection.queued => {
                    connection.deadline = after(now, self.config.timeouts.write);
                    self.keep(token);
                }
                State::Head | State::Body { .. } => self.refuse(token, reject::TIMEOUT, now),
                State::Flushing { .. } => {
                    connection.stream.abort();
                    self.close(token);
                }
                // Sent in the last moment: the poller has not told yet.
                State::Idle { .. } if connection.stream.has_unread() => {
                    connection.readable(false);
                    connection.deadline = after(now, self.config.timeouts.head);
                    self.advance(token, now);
                }
                State::Idle { .. } | State::Lingering(_) => self.close(token),
            }
        }
    }

    /// Applies a new phase of the host.
    pub(super) fn follow_host(&mut self) {
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

#[cfg(test)]
pub(super) mod tests {
    use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::app::{Local, Peer};
    use crate::net::stream::Stream;

    pub(in crate::engine) struct NoHost(pub UnixStream);

    impl Host for NoHost {
        fn wake_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
        fn acknowledge(&self) {}
        fn phase(&self) -> Phase {
            Phase::Serving
        }
        fn log_epoch(&self) -> u32 {
            0
        }
        fn beat(&self) {}
        fn request_began(&self) {}
        fn request_ended(&self) {}
        fn connections(&self, _: usize) {}
        fn close_listeners(&self) {}
    }

    /// Calls `check` with a table.
    pub(in crate::engine) fn with_table(check: impl FnOnce(&mut Table<'_>)) {
        let (host, _) = UnixStream::pair().unwrap();
        let (host, poller) = (NoHost(host), Poller::new().unwrap());
        check(&mut Table::new(EngineConfig::default(), Vec::new(), &host, &poller, None));
    }

    /// Adds a connection; its token, the table's end and its client.
    pub(in crate::engine) fn add_connection(
        table: &mut Table<'_>,
        now: Instant,
    ) -> (u64, UnixStream, UnixStream) {
        let (ours, client) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let peer = Peer { remote: None, local: Local::Unix("s".to_owned()) };
        let stream = Stream::from(OwnedFd::from(ours.try_clone().unwrap()));
        (table.connections.add(|token| Connection::new(stream, peer, token, now, now)), ours, client)
    }

    /// Calls `check` with a table that has one connection, and with its client.
    fn with_connection(check: impl FnOnce(&mut Table<'_>, u64, UnixStream)) {
        with_table(|table| {
            let (token, _, client) = add_connection(table, Instant::now());
            check(table, token, client);
        });
    }

    #[test]
    fn a_connection_that_was_queued_when_its_request_was_taken_can_be_queued_again() {
        use std::io::Write;
        with_connection(|table, token, mut client| {
            client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
            table.queue(token);
            table.advance(token, Instant::now());
            let job = table.take_job().unwrap();
            // A turn, while the application has the request.
            let next = table.next_in_queue().unwrap();
            assert!(table.begin_turn(next, Instant::now()).is_none());
            table.put_back(job.connection);
            table.queue(token);
            assert_eq!(table.queue.len(), 1);
        });
    }

    #[test]
    fn the_deadline_of_a_body_does_not_pass_while_it_waits_for_its_place() {
        use std::io::Write;
        with_connection(|table, token, mut client| {
            client.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 70000\r\n\r\n").unwrap();
            table.advance(token, Instant::now());
            assert!(table.has_work() && table.queue.is_empty());
            let much_later = table.connections.find(token).unwrap().deadline + Duration::from_secs(1);
            table.expire(much_later);
            let connection = table.connections.find(token).unwrap();
            assert!(matches!(connection.state, State::Body { .. }) && connection.deadline > much_later);
        });
    }
}
