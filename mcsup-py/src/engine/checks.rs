//! Answers health checks from the table, in the leading thread.

use std::time::{Duration, Instant};

use super::connection::{Connection, State, Then};
use super::health::report;
use super::table::Table;
use crate::access::Entry;
use crate::http::response::{BodyFraming, Finish, write_head};
use crate::net::stream::Progress;
use crate::net::timers::after;

impl Table<'_> {
    /// Answers it; whether the connection waits for its next request. `may_go_on`: it may.
    pub(super) fn answer_health_check(&mut self, token: u64, may_go_on: bool, now: Instant) -> bool {
        let Self { config, connections, buffer_pool, access, date, host, .. } = self;
        let (phase, timeouts) = (host.phase(), &config.timeouts);
        let Some(connection) = connections.find(token) else { return false };
        let Some((request, _)) = connection.take_request() else { return false };
        buffer_pool.equip_to_answer(connection);
        let Connection { heads, incoming, outgoing, peer, .. } = &mut *connection;
        let asked = Connection::view(heads, incoming, &request);
        let keep_alive =
            may_go_on && phase.accepts() && asked.delimited().keep_alive && !timeouts.keep_alive.is_zero();
        let (head, text) = report(phase, host.siblings().count);
        let (version, body) = (asked.version(), BodyFraming::Length(text.len() as u64));
        let out = outgoing.append();
        write_head(out, &head, &Finish { version, body, keep_alive, date: date.at(now) });
        let sent = if asked.method() == "HEAD" { b"" } else { text };
        out.extend_from_slice(sent);
        if let Some(access) = access {
            let (remote, bytes, took) = (peer.remote, sent.len() as u64, Duration::ZERO);
            access.note(&Entry { head: Some(asked), remote, response: &head, bytes, took });
        }
        connection.forget_request(&request);
        let then = match keep_alive {
            true => Then::Next,
            false if connection.has_unread() => Then::Linger,
            false => Then::Close,
        };
        connection.state = State::Flushing { then };
        connection.deadline = after(now, timeouts.write);
        self.release(token);
        if !keep_alive {
            self.flush(token, now);
            return false;
        }
        self.has_left(token, now)
    }

    /// Sends what leaves the connection open. What follows it was perhaps received already, and is not looked at from here:
    /// that would be a call within a call for each.
    fn has_left(&mut self, token: u64, now: Instant) -> bool {
        let Self { config, connections, buffer_pool, .. } = self;
        let Some(connection) = connections.find(token) else { return false };
        match connection.stream.send(&mut connection.outgoing) {
            Progress::More(_) => {
                connection.idle(now, after(now, config.timeouts.keep_alive));
                buffer_pool.put_back_from(connection);
                return true;
            }
            Progress::Blocked(_) => self.keep(token),
            Progress::Ended => self.close(token),
        }
        false
    }
}
