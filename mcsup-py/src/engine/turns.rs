//! Turns limit the work for one connection before the others have theirs. A client that sends or reads as fast as the
//! engine would otherwise occupy the leading thread permanently.
//!
//! A connection that could continue after its turn is queued, and its events are only noted. A large transfer is queued
//! from the start: a body, an answer that the client has not received, the input of a refused client. A round polls,
//! answers the requests that are complete, gives turns to the queue for [`QUEUE_TIME`] at most, and polls again without a
//! wait.
//!
//! The file of a large body is truncated in turns as well: freeing a gibibyte takes a tenth of a second.
//!
//! During a turn of a large transfer the connection is out of the table and the lock is free, as during a request. Other
//! threads receive, answer and lead meanwhile. A turn that reads or writes a file may wait for a disk. It is in a queue of
//! its own for the spare thread, because a permit that waits would delay all requests.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection::{Connection, State, Step};
use super::connections::Missed;
use super::health;
use super::table::Table;
use super::turn::Work;
use crate::http::reject;

/// For how long those in the queue have their turns between two polls.
pub(super) const QUEUE_TIME: Duration = Duration::from_micros(500);

/// While more handshakes wait than these, the permits do some as well,
const MOST_FOR_SPARE: usize = 32;
/// and while more wait than these, connections wait in the listener's queue: clients that leave at once would otherwise take
/// all descriptors, faster than their handshakes can fail.
const MOST_HANDSHAKES: usize = 256;

/// The queue of turns, and those of the spare.
#[derive(Debug, Default)]
pub(super) struct Turns {
    pub(super) queue: VecDeque<u64>,
    /// Turns that may wait for a disk.
    pub(super) files: VecDeque<Queued>,
    /// Handshakes of TLS: a signature takes up to a millisecond, which a permit has better uses for.
    handshakes: VecDeque<u64>,
    /// The last turn of the spare was a handshake.
    was_handshake: bool,
    /// The spare has a turn that may wait for a disk: meanwhile the permits do the handshakes.
    spare_waits: bool,
    /// The last turn of a permit was a handshake.
    permit_had_handshake: bool,
}

/// An entry of a queue of turns.
#[derive(Debug)]
pub(super) enum Queued {
    /// The connection with this token.
    Connection(u64),
    /// A file that is to be given back.
    File(Arc<File>),
}

impl Turns {
    fn push(&mut self, token: u64, needs_file: bool) {
        if needs_file { self.files.push_back(Queued::Connection(token)) } else { self.queue.push_back(token) }
    }

    /// Whether there is a turn for the spare.
    pub(super) fn has_for_spare(&self) -> bool {
        !self.files.is_empty() || !self.handshakes.is_empty()
    }

    /// The next turn of the spare. Handshakes and files alternate: either may never end.
    pub(super) fn next_for_spare(&mut self) -> Option<Queued> {
        let file_first = std::mem::take(&mut self.was_handshake);
        let file = if file_first { self.files.pop_front() } else { None };
        if file.is_none() {
            if let Some(token) = self.handshakes.pop_front() {
                self.was_handshake = true;
                return Some(Queued::Connection(token));
            }
        }
        let file = file.or_else(|| self.files.pop_front())?;
        self.spare_waits = true;
        Some(file)
    }

    /// The spare has had its turn.
    pub(super) fn spare_is_back(&mut self) {
        self.spare_waits = false;
    }

    /// Whether a permit has something to do.
    pub(super) fn has_for_permits(&self) -> bool {
        !self.queue.is_empty() || self.has_handshakes_for_permits()
    }

    /// Whether handshakes wait that the spare has no time for.
    fn has_handshakes_for_permits(&self) -> bool {
        self.handshakes.len() > if self.spare_waits { 0 } else { MOST_FOR_SPARE }
    }

    /// The next handshake of a permit. Handshakes and large transfers alternate: either may never end.
    fn next_handshake_for_permit(&mut self) -> Option<u64> {
        let transfer_first = std::mem::take(&mut self.permit_had_handshake) && !self.queue.is_empty();
        if transfer_first || !self.has_handshakes_for_permits() {
            return None;
        }
        self.permit_had_handshake = true;
        self.handshakes.pop_front()
    }

    /// Whether too many handshakes wait for a further connection.
    pub(super) fn has_many_handshakes(&self) -> bool {
        self.handshakes.len() >= MOST_HANDSHAKES
    }
}

impl Table<'_> {
    /// Puts a connection behind those that wait for a turn.
    pub(super) fn queue(&mut self, token: u64) {
        let Self { connections, timers, body_memory, turns, .. } = self;
        let Some(connection) = connections.find(token) else { return };
        // Its deadline counts also where its client never pauses.
        timers.arm(token, &mut connection.armed, connection.deadline);
        if std::mem::replace(&mut connection.queued, true) {
            return;
        }
        if let State::Handshake { .. } = connection.state {
            turns.handshakes.push_back(token);
        } else if let Some(length) = connection.wants_memory() {
            body_memory.growth.wait(token, length, Instant::now());
        } else {
            turns.push(token, connection.needs_file());
        }
    }

    fn needs_file(&mut self, token: u64) -> bool {
        self.find(token).is_some_and(|connection| connection.needs_file())
    }

    /// The next turn among the others.
    pub(super) fn next_in_queue(&mut self) -> Option<Queued> {
        if self.body_memory.next_start().is_some() {
            self.begin_bodies(Instant::now());
        }
        if let Some(token) = self.turns.next_handshake_for_permit() {
            return Some(Queued::Connection(token));
        }
        loop {
            let token = self.turns.queue.pop_front()?;
            if !self.needs_file(token) {
                return Some(Queued::Connection(token));
            }
            // It was queued for the request before. Its next one has a file, and the spare may wait for the disk.
            self.turns.push(token, true);
        }
    }

    /// Puts large bodies into the queue as far as there are places for them.
    fn begin_bodies(&mut self, now: Instant) {
        while let Some(token) = self.body_memory.next(now) {
            let Self { connections, config, body_memory, .. } = self;
            match connections.find(token) {
                Some(connection) if connection.wants_memory().is_some() => {
                    connection.begin_body(config, body_memory, now);
                }
                // It was given up meanwhile.
                _ => body_memory.growth.leave(token),
            }
            let needs_file = self.needs_file(token);
            self.turns.push(token, needs_file);
        }
    }

    /// Begins its turn, or has it, if it is in a head: then `None`.
    pub(super) fn begin_turn(&mut self, next: Queued, now: Instant) -> Option<Work> {
        let token = match next {
            Queued::File(file) => return Some(Work::File(Some(file))),
            Queued::Connection(token) => token,
        };
        let connection = self.connections.find(token)?;
        connection.queued = false;
        if connection.is_in_bulk() {
            return self.connections.take(token).map(|connection| Work::Connection(connection, Step::Later));
        }
        self.advance(token, now);
        None
    }

    /// Sees to what came of a turn.
    pub(super) fn end_turn(&mut self, work: Work, now: Instant) {
        match work {
            Work::Connection(connection, step) => self.come_back(connection, step, now),
            Work::File(file) => self.turns.files.extend(file.map(Queued::File)),
        }
    }

    fn come_back(&mut self, connection: Box<Connection>, step: Step, now: Instant) {
        let token = connection.token;
        let Missed { readable, writable, .. } = self.put_back(connection);
        if let Step::Found(answer) = &step {
            if answer.descriptor().is_some_and(|number| !self.may_keep(number, now)) {
                return self.refuse(token, reject::FILE, now);
            }
        }
        if matches!(step, Step::Wait | Step::Later | Step::Ready) && !self.may_spool(token, now) {
            // At once: it is small still, and its descriptor is the application's.
            if let Some(connection) = self.connections.find(token) {
                connection.granted.spooled = None;
            }
            return self.refuse(token, reject::NO_ROOM, now);
        }
        if !self.phase.accepts() {
            // The engine has begun to end while the connection was taken out.
            self.shorten_wait(token, now);
        }
        let Some(connection) = self.connections.find(token) else { return };
        self.body_memory.growth.fed(token, now);
        let is_check = matches!(step, Step::Ready) && health::is_asked_for(&self.config, connection);
        let missed = match connection.state {
            State::Flushing { .. } => writable,
            State::Handshake { .. } => readable || writable,
            _ => readable,
        };
        match step {
            Step::Wait if missed => self.queue(token),
            _ if is_check => {
                if self.answer_health_check(token, true, now) {
                    self.advance(token, now);
                }
            }
            step => self.apply(token, step, now),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io::{Read, Write};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::app::{Local, Peer};
    use crate::engine::EngineConfig;
    use crate::engine::connection::Then;
    use crate::engine::turn::MOST_SENT;
    use crate::net::buffer::{BlockPart, Tail};
    use crate::net::stream::Stream;

    #[test]
    fn while_the_spare_may_wait_for_a_disk_handshakes_are_for_the_permits() {
        let handshakes = VecDeque::from([1, 2]);
        let mut turns = Turns { handshakes, ..Turns::default() };
        turns.push(3, true);
        assert!(matches!(turns.next_for_spare(), Some(Queued::Connection(1))));
        assert!(!turns.has_for_permits());
        assert!(matches!(turns.next_for_spare(), Some(Queued::Connection(3))));
        assert!(turns.has_for_permits());
        turns.spare_is_back();
        assert!(!turns.has_for_permits());
    }

    #[test]
    fn handshakes_that_the_spare_has_no_time_for_take_turns_with_transfers_of_the_permits() {
        crate::engine::table::tests::with_table(|table| {
            table.turns.handshakes = (1..=MOST_FOR_SPARE as u64).collect();
            assert!(!table.turns.has_for_permits() && table.next_in_queue().is_none());
            table.turns.handshakes.extend([101, 102, 103]);
            table.turns.queue.extend([201, 202]);
            let mut next = || match table.next_in_queue() {
                Some(Queued::Connection(token)) => token,
                _ => 0,
            };
            assert_eq!([next(), next(), next(), next(), next(), next()], [1, 201, 2, 202, 3, 0]);
        });
    }

    #[test]
    fn while_many_handshakes_wait_no_connection_is_accepted() {
        use crate::engine::acceptor::Accepting;
        crate::engine::table::tests::with_table(|table| {
            let now = Instant::now();
            table.turns.handshakes = (1..MOST_HANDSHAKES as u64).collect();
            table.on_listener(0, now);
            assert_eq!(table.acceptor.accepting, Accepting::Yes);
            table.turns.handshakes.push_back(0);
            table.on_listener(0, now);
            assert!(matches!(table.acceptor.accepting, Accepting::Resting { .. }));
        });
    }

    /// A connection, and its client.
    fn connection() -> (Connection, UnixStream) {
        let (ours, client) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let peer = Peer { remote: None, local: Local::Unix("s".to_owned()), proxied: None };
        let now = Instant::now();
        (Connection::new(Stream::from(OwnedFd::from(ours)), peer, 1, now, now), client)
    }

    fn advance(connection: &mut Connection) -> Step {
        connection.advance(&EngineConfig::default(), Instant::now())
    }

    /// How many turns it takes until the client must do something.
    fn turns(connection: &mut Connection) -> usize {
        let mut count = 1;
        loop {
            match connection.take_turn(&EngineConfig::default(), Instant::now()) {
                Step::Later => count += 1,
                Step::Wait => return count,
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn many_small_chunks_take_more_turns_than_one_large_chunk() {
        let large = [&b"10000\r\n"[..], &[b'x'; 65536], b"\r\n"].concat();
        let [small, large] = [b"1\r\nx\r\n".repeat(large.len() / 6), large].map(|chunks| {
            let (mut connection, mut client) = connection();
            client.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
            assert!(matches!(advance(&mut connection), Step::Wait));
            client.write_all(&chunks).unwrap();
            connection.readable(false);
            turns(&mut connection)
        });
        assert!(large < small && small < 20, "{large}, {small}");
    }

    #[test]
    fn a_turn_sends_its_share_and_no_more_however_fast_the_client_reads() {
        let (mut connection, mut client) = connection();
        let reader = std::thread::spawn(move || client.read_to_end(&mut Vec::new()).unwrap());
        connection.state = State::Flushing { then: Then::Close };
        connection.outgoing.set_tail(Tail::Block(BlockPart::new(Box::new(vec![b'x'; 4 << 20]), 4 << 20)));
        let left = |connection: &Connection| match connection.outgoing.tail() {
            Some(Tail::Block(part)) => part.bytes().len(),
            _ => 0,
        };
        loop {
            let before = left(&connection);
            let step = connection.take_turn(&EngineConfig::default(), Instant::now());
            let sent = before - left(&connection);
            match step {
                Step::Sent(Then::Close) => break,
                Step::Later => assert_eq!(sent, MOST_SENT),
                Step::Wait => assert!(sent < MOST_SENT),
                other => panic!("{other:?}"),
            }
        }
        drop(connection);
        assert_eq!(reader.join().unwrap(), 4 << 20);
    }
}
