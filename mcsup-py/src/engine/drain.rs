//! How an engine ends: who is still served, and for how long.
//!
//! A lame duck serves as before. A retiring engine has siblings that go on: whoever is idle goes to one of them and
//! notices nothing, whoever is being answered follows after his answer. Where there is nobody to go to, or not soon
//! enough, and in every drain, the next answer says `Connection: close`. What has arrived is answered, under the ordinary
//! deadlines; only those of whom nothing has arrived are hurried. A connection is closed between two requests only after
//! a last look at its socket; a request that meets the close on its way cannot be helped (RFC 9112 §9.5), and its client
//! may send it again (§9.3.1).
//!
//! What is queued is accepted until a whole round has found nothing, and once more a moment later, when handshakes that
//! were under way are over; what the kernel connects between that and the close of the last copy of a listener is reset
//! by it. Whoever drains a pool keeps new clients away meanwhile, where the kernel lets it. Workers that end together empty one queue; each also looks for
//! what it has handed over itself and nobody has taken, before it ends.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::Phase;
use super::connection::State;
use super::table::Table;
use crate::net::timers::after;

/// How long a connection that was accepted but has said nothing may still begin to.
const FRESH_TIME: Duration = Duration::from_secs(1);
/// How long a keep-alive client may still send a request, when other workers go on: it may have sent it before it could
/// know.
const RETIRING_TIME: Duration = Duration::from_secs(2);
/// And when none does. Clients that ask without a pause are told in an answer, not by a reset; handshakes end.
const DRAINING_TIME: Duration = Duration::from_millis(20);
/// For how long what is queued is accepted then, where clients connect without a pause, or no descriptor is left for them.
const LAST_LOOK_TIME: Duration = Duration::from_secs(1);

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
            self.leaving.last_look = Some(now + DRAINING_TIME);
            self.leaving.looks_until = Some(now + DRAINING_TIME + LAST_LOOK_TIME);
        } else {
            self.leaving.until = Some(after(now, self.idle_time()));
            self.host.close_listeners();
        }
        self.hurry_all(now);
    }

    /// Takes whoever was still on his way into the line, and closes it.
    pub(super) fn look_for_the_last(&mut self, now: Instant) {
        let Some(_) = self.leaving.last_look.filter(|at| *at <= now) else { return };
        let has_all = self.accept_queued(now);
        let is_short = self.reserve.lacked == Some(now);
        if (is_short || !has_all) && self.leaving.looks_until.is_some_and(|until| now < until) {
            // There are more: in the next turn, or when one that is open may have ended.
            self.leaving.last_look = Some(if is_short { now + DRAINING_TIME } else { now });
            return;
        }
        self.leaving.last_look = None;
        self.host.close_listeners();
        // Those that were taken by this look as well.
        self.hurry_all(now);
    }

    /// Nothing is left to do.
    pub(super) fn is_over(&mut self, now: Instant) -> bool {
        if self.phase == Phase::Quitting {
            return true;
        }
        if self.phase.accepts() || self.connections.len() > 0 || self.leaving.last_look.is_some() {
            return false;
        }
        if self.host.siblings().count == 0 {
            // What is on its way among the workers is nobody else's.
            while self.take_over(now) {}
            self.hurry_all(now);
        }
        self.connections.len() == 0
    }

    fn hurry_all(&mut self, now: Instant) {
        for token in self.connections.tokens() {
            self.hurry(token, now);
        }
    }

    /// Lets a connection go on for as long as the phase still grants it.
    pub(super) fn hurry(&mut self, token: u64, now: Instant) {
        if self.hand_on(token) {
            return;
        }
        let Some(connection) = self.find(token) else { return };
        // The poller may not have told yet what came while the application was busy: only the socket knows.
        connection.readable(false);
        self.advance(token, now);
        let (phase, idle_time) = (self.phase, self.idle_time());
        let Some(connection) = self.connections.find(token) else { return };
        if let State::Lingering(lingering) = &mut connection.state {
            connection.deadline = connection.deadline.min(lingering.hurry());
            return self.keep(token);
        }
        let State::Idle { fresh } = connection.state else { return };
        let patience = match (phase, fresh) {
            (_, true) => FRESH_TIME,
            (Phase::Draining, false) => DRAINING_TIME.min(idle_time),
            (_, false) => idle_time,
        };
        connection.deadline = connection.deadline.min(after(now, patience));
        if phase == Phase::Retiring {
            self.leaving.tokens.push(token);
        }
        self.keep(token);
    }

    /// How long a keep-alive client may stay that was let down elsewhere.
    pub(super) fn idle_time(&self) -> Duration {
        self.config.timeouts.keep_alive.min(RETIRING_TIME)
    }

    /// Hands a connection that is idle to a sibling that goes on.
    pub(super) fn hand_on(&mut self, token: u64) -> bool {
        self.phase == Phase::Retiring
            && !self.leaving.gave_up.load(Relaxed)
            && self.connections.find(token).is_some_and(|connection| connection.is_unread())
            && self.host.siblings().fewest < usize::MAX
            && self.hand_over(token)
    }

    /// Hands those on that could not go before: the queue between the workers takes a few at a time.
    pub(super) fn hand_on_idle(&mut self, now: Instant) {
        while let Some(token) = self.leaving.tokens.pop() {
            let is_unread = self.connections.find(token).is_some_and(|connection| connection.is_unread());
            if is_unread && !self.hand_on(token) {
                self.leaving.tokens.push(token);
                break;
            }
        }
        if !self.leaving.tokens.is_empty() && self.leaving.until.is_some_and(|until| until <= now) {
            self.leaving.gave_up.store(true, Relaxed);
            self.leaving.tokens.clear();
        }
    }

    /// Whether there will soon be room for those that could not go yet.
    pub(super) fn has_some_to_hand_on(&self) -> bool {
        !self.leaving.tokens.is_empty() && self.host.siblings().count > 0
    }
}
