//! Requests on their way to the application, and answers on their way back.

use std::time::Instant;

use super::connection::{Connection, HeadBytes, State, Then};
use super::exchange::Answered;
use super::table::Table;
use crate::app::Body;
use crate::http::head::Head;
use crate::http::reject;
use crate::net::timers::after;

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

impl Table<'_> {
    /// Takes the request out that has waited longest.
    pub(super) fn take_job(&mut self) -> Option<Job> {
        while let Some(token) = self.ready.pop_front() {
            let Some(mut connection) = self.connections.take(token) else { continue };
            // Its entry in the queue, if there is one, is about the request before.
            connection.queued = false;
            match connection.take_request() {
                Some((head, body)) => {
                    self.buffer_pool.give_for_answer(&mut connection);
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
        if answered.taken {
            connection.is_taken = true;
            // The application has these bytes.
            connection.incoming.clear();
        }
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
        while let Some(token) = self.coalesced.next() {
            self.flush(token, now);
        }
    }

    /// No permit becomes free again: hands waiting requests to siblings, or refuses them.
    pub(super) fn give_up_waiting(&mut self, now: Instant) {
        self.offer_waiting(true);
        for token in std::mem::take(&mut self.ready) {
            self.refuse(token, reject::STUCK, now);
        }
    }
}
