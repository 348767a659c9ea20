//! The end of what has waited too long.

use std::time::Instant;

use super::connection::State;
use super::table::Table;
use crate::http::reject;
use crate::net::timers::after;

/// No more deadlines than this are looked at in one round.
const MOST_EXPIRED: usize = 256;

impl Table<'_> {
    /// Ends what has waited too long. Of very many the rest waits for the next turn.
    pub(super) fn expire(&mut self, now: Instant) {
        self.acceptor.end_rest(now);
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
}
