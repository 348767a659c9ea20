//! The health check: whether clients should be sent to this worker, answered by the engine itself, without the application
//! and without a permit, from the table, in the leading thread.
//!
//! It says `ok` while the pool goes on, also in a worker that retires beside siblings that do not, and `draining` from the
//! lame duck on.

use std::time::Instant;

use super::connection::Connection;
use super::table::Table;
use super::{EngineConfig, Phase};
use crate::http::response::{BodyFraming, Finish, ResponseHead, write_head};
use crate::net::stream::Progress;
use crate::net::timers::after;

/// Largest number of pipelined health checks of a connection: they occupy the leading thread.
pub(super) const MOST_IN_A_ROW: u32 = 16;

/// Whether this is what the request asks for that has just become whole.
pub(super) fn is_asked_for(config: &EngineConfig, connection: &Connection) -> bool {
    let Some(path) = &config.health_path else { return false };
    connection
        .asked()
        .is_some_and(|head| head.path() == path.as_bytes() && matches!(head.method(), "GET" | "HEAD"))
}

/// The answer to a health check. `siblings`: the number of other workers that accept.
fn report(phase: Phase, siblings: usize) -> (ResponseHead, &'static [u8]) {
    let (status, text) = match phase {
        Phase::Serving => (200, &b"ok\n"[..]),
        // The check is about the pool: a load balancer must not take a reload for its end.
        Phase::Retiring if siblings > 0 => (200, &b"ok\n"[..]),
        _ => (503, &b"draining\n"[..]),
    };
    let mut head = ResponseHead::of_text(status);
    // A constant that is in order.
    let _ = head.push(b"Cache-Control", b"no-store");
    (head, text)
}

impl Table<'_> {
    /// Answers it; whether the connection waits for its next request. `may_go_on`: it may.
    pub(super) fn answer_health_check(&mut self, token: u64, may_go_on: bool, now: Instant) -> bool {
        let Self { config, connections, buffer_pool, access, date, host, .. } = self;
        let (phase, timeouts) = (host.phase(), &config.timeouts);
        let Some(connection) = connections.find(token) else { return false };
        let Some((request, _)) = connection.take_request() else { return false };
        buffer_pool.give_for_answer(connection);
        let Connection { stream, heads, incoming, outgoing, peer, .. } = &mut *connection;
        let asked = Connection::view(heads, incoming, &request);
        let keep_alive = may_go_on
            && phase.accepts()
            && asked.delimited().keep_alive
            && !timeouts.keep_alive.is_zero()
            && stream.may_go_on();
        let (head, text) = report(phase, host.siblings().count);
        let (version, body) = (asked.version(), BodyFraming::Length(text.len() as u64));
        let out = outgoing.append();
        write_head(out, &head, &Finish { version, body, keep_alive, stamp: date.at(now) });
        let sent = if asked.method() == "HEAD" { b"" } else { text };
        out.extend_from_slice(sent);
        if let Some(access) = access {
            access.note_own((asked, peer.remote), &head, sent.len() as u64);
        }
        connection.send_own_answer(&request, keep_alive, after(now, timeouts.write));
        self.release(token);
        if !keep_alive {
            self.flush(token, now);
            return false;
        }
        self.has_left(token, now)
    }

    /// Sends an answer that leaves the connection open. The next request, which may have been received already, is not
    /// looked at from here: that would be a call within a call for each.
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
