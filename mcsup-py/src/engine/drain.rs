//! How an engine ends: who is still served, and for how long.
//!
//! A lame duck serves as before. From the next change of phase on, every answer says `Connection: close`. What has arrived is answered, under the
//! ordinary deadlines; only those of whom nothing has arrived are hurried.

use std::time::{Duration, Instant};

use super::Phase;
use super::connection::State;
use super::table::Table;

/// How long a connection that was accepted but has said nothing may still begin to.
const FRESH_TIME: Duration = Duration::from_secs(1);
/// How long a keep-alive client may still send a request that then is answered with `Connection: close`, when other
/// workers go on: it may have sent it before it could know.
const RETIRING_TIME: Duration = Duration::from_secs(2);

impl Table<'_> {
    /// The host wants something else from now on.
    pub(super) fn change_phase(&mut self, phase: Phase, now: Instant) {
        self.phase = phase;
        if phase.accepts() || phase == Phase::Quitting {
            return;
        }
        self.end_accepting();
        if phase == Phase::Draining {
            self.accept_queued(now);
        }
        self.host.close_listeners();
        for token in self.connections.tokens() {
            self.hurry(token, now);
        }
    }

    /// Lets a connection go on for as long as the phase still grants it.
    pub(super) fn hurry(&mut self, token: u64, now: Instant) {
        let (phase, idle_time) = (self.phase, self.config.timeouts.keep_alive.min(RETIRING_TIME));
        let Some(connection) = self.find(token) else { return };
        // The poller may not have told yet what came while the application was busy: only the socket knows.
        connection.readable(false);
        self.advance(token, now);
        let Some(connection) = self.find(token) else { return };
        let State::Idle { fresh } = connection.state else { return };
        let patience = match (phase, fresh) {
            (_, true) => FRESH_TIME,
            (Phase::Draining, false) => return self.close(token),
            (_, false) => idle_time,
        };
        connection.deadline = connection.deadline.min(now + patience);
        self.keep(token);
    }
}
