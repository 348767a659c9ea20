//! The consequence of a step of a connection: it waits, has a turn, is ready, is refused, or ends.

use std::time::Instant;

use super::connection::{State, Step, Then};
use super::health;
use super::lingering::Lingering;
use super::table::Table;
use crate::http::reject;
use crate::net::timers::after;

impl Table<'_> {
    /// Continues a connection as far as its received bytes and its turn allow, or queues it for a turn.
    pub(super) fn advance(&mut self, token: u64, now: Instant) {
        for checks in 1.. {
            let Self { config, connections, buffer_pool, .. } = self;
            let Some(connection) = connections.find(token) else { return };
            if connection.is_in_bulk() {
                return self.queue(token);
            }
            buffer_pool.give_for_request(connection);
            let step = connection.advance(config, now);
            if !matches!(step, Step::Ready) {
                return self.apply(token, step, now);
            }
            if !health::is_asked_for(config, connection) {
                return self.apply(token, step, now);
            }
            if !self.answer_health_check(token, checks < health::MOST_IN_A_ROW, now) {
                return;
            }
        }
    }

    /// Applies the result of a step.
    pub(super) fn apply(&mut self, token: u64, step: Step, now: Instant) {
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
            Step::Ready if self.may_be_for_file(token) => self.queue(token),
            Step::Ready | Step::NoFile if self.ready.len() >= self.config.waiting => {
                self.refuse(token, reject::BUSY, now);
            }
            Step::Ready | Step::NoFile => match self.bound_heads(token, now) {
                Ok(()) => self.ready.push_back(token),
                Err(reject) => self.refuse(token, reject, now),
            },
            Step::Found(answer) => self.answer_from_file(token, *answer, now),
            Step::Refuse(reject) => self.refuse(token, reject, now),
            Step::NotSecured(reason) => {
                if let Some(connection) = self.connections.find(token) {
                    self.refusals.note_handshake(connection.peer.remote, &reason, now);
                }
                self.proceed(token, Then::Linger, now);
            }
            Step::NoRoom(error) => {
                self.say_what_fails("keep a request's body", &error, now);
                self.refuse(token, reject::NO_ROOM, now);
            }
            Step::NotOpened(error) => {
                self.say_what_fails("open a static file", &error, now);
                self.refuse(token, reject::FILE, now);
            }
            Step::Close => self.close(token),
        }
    }

    /// Sends what is small and has not left yet.
    pub(super) fn flush(&mut self, token: u64, now: Instant) {
        let Some(connection) = self.connections.find(token) else { return };
        let State::Flushing { then } = connection.state else { return };
        let step = connection.send(then, &self.config, now);
        self.apply(token, step, now);
    }

    /// A response has left.
    pub(super) fn proceed(&mut self, token: u64, then: Then, now: Instant) {
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
                if phase.accepts() { self.advance(token, now) } else { self.shorten(token, now) }
            }
        }
    }
}
