//! The end of an engine: which connections it still serves, and for how long.
//!
//! A lame duck serves as before. A retiring engine has siblings that serve on: idle connections move to a sibling, and
//! active ones follow after their answer; their clients notice nothing. A connection by TLS stays, since its keys do; its
//! next answer is its last one. If no sibling takes a connection soon enough,
//! and in every drain, the next answer has `Connection: close`. Requests that have arrived are answered under the
//! ordinary deadlines; only silent connections get shorter ones. The engine checks the socket before it closes a
//! connection between two requests. A request that crosses the close is lost (RFC 9112 §9.5); its client may send it
//! again (§9.3.1).
//!
//! Queued connections are accepted until a whole pass has found none, and once more a moment later, when handshakes in
//! progress are over. The kernel resets connections that it makes between that and the close of the last copy of a
//! listener. The supervisor keeps new clients away meanwhile, if the kernel supports it. Workers that end together
//! share one queue; before its end each also takes back the connections that it handed over and no sibling has taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::connection::State;
use super::table::Table;
use super::{Host, Phase};
use crate::net::stream::Stream;
use crate::net::timers::after;

/// How long a connection that was accepted but has said nothing may still begin to.
const FRESH_TIME: Duration = Duration::from_secs(1);
/// How long a keep-alive client may still send a request, when other workers go on: it may have sent it before it could
/// know.
const RETIRING_TIME: Duration = Duration::from_secs(2);
/// The same without siblings. Busy clients get `Connection: close` in an answer, not a reset; handshakes end.
const DRAINING_TIME: Duration = Duration::from_millis(20);
/// For how long what is queued is accepted then, where clients connect without a pause, or no descriptor is left for them.
const LAST_LOOK_TIME: Duration = Duration::from_secs(1);

/// How long before the end of its process an application loses the connections that it has taken, and the largest part of
/// the time before that.
const END_OF_TAKEN: Duration = Duration::from_secs(1);
const PART_FOR_END_OF_TAKEN: u32 = 4;
/// How often those are ended that were taken since.
const END_TAKEN_AGAIN: Duration = Duration::from_millis(100);

/// Connections that are to go to a sibling, since this engine retires.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// Idle connections that could not go yet.
    pub(super) tokens: Vec<u64>,
    /// Until when it is tried.
    pub(super) until: Option<Instant>,
    /// The time of the last check and the close of the listeners, if no sibling serves their queue.
    pub(super) last_look: Option<Instant>,
    /// Until when a further look may follow it.
    pub(super) looks_until: Option<Instant>,
    /// When the connections that applications have taken are ended, since the process is.
    pub(super) end_of_taken: Option<Instant>,
    /// Whether no sibling took them: from now on an answer is a connection's last. Read without the lock.
    pub(super) gave_up: Arc<AtomicBool>,
}

impl Table<'_> {
    /// Changes to the phase that the host requests.
    pub(super) fn change_phase(&mut self, phase: Phase, now: Instant) {
        self.phase = phase;
        if phase.accepts() || phase == Phase::Quitting {
            return;
        }
        self.acceptor.end();
        self.leaving.end_of_taken = self
            .host
            .graceful_timeout()
            .map(|graceful| after(now, graceful - END_OF_TAKEN.min(graceful / PART_FOR_END_OF_TAKEN)));
        if phase == Phase::Draining {
            self.accept_queued(now);
            self.leaving.last_look = Some(now + DRAINING_TIME);
            self.leaving.looks_until = Some(now + DRAINING_TIME + LAST_LOOK_TIME);
        } else {
            self.leaving.until = Some(after(now, self.idle_time()));
            self.host.close_listeners();
        }
        self.shorten_all(now);
    }

    /// Accepts the last connections of the queue, and closes the listeners.
    pub(super) fn accept_last(&mut self, now: Instant) {
        let Some(_) = self.leaving.last_look.filter(|at| *at <= now) else { return };
        let has_all = self.accept_queued(now);
        let is_short = self.reserve.lacked == Some(now);
        if (is_short || !has_all) && self.leaving.looks_until.is_some_and(|until| now < until) {
            // There are more: in the next round, or when one that is open may have ended.
            self.leaving.last_look = Some(if is_short { now + DRAINING_TIME } else { now });
            return;
        }
        self.leaving.last_look = None;
        self.host.close_listeners();
        // Those that were taken by this look as well.
        self.shorten_all(now);
    }

    /// Ends the connections that applications have taken, if the process is about to end: a conversation that ends is better
    /// than a process that is killed. `taken`: their tokens.
    pub(super) fn end_taken(&mut self, taken: impl Iterator<Item = u64>, now: Instant) {
        let Some(_) = self.leaving.end_of_taken.filter(|at| *at <= now) else { return };
        self.leaving.end_of_taken = Some(now + END_TAKEN_AGAIN);
        for token in taken {
            if let Some(stream) = self.connections.stream_of(token) {
                stream.shut_down();
            }
        }
    }

    /// Whether the engine has ended.
    pub(super) fn is_over(&mut self, now: Instant) -> bool {
        if self.phase == Phase::Quitting {
            return true;
        }
        if self.phase.accepts() || self.connections.len() > 0 || self.leaving.last_look.is_some() {
            return false;
        }
        if self.host.siblings().count == 0 {
            // No sibling takes connections of the handover queue.
            while self.take_over(now) {}
            self.shorten_all(now);
        }
        self.connections.len() == 0
    }

    fn shorten_all(&mut self, now: Instant) {
        let tokens: Vec<_> = self.connections.iter().map(|connection| connection.token).collect();
        for token in tokens {
            self.shorten(token, now);
        }
    }

    /// Lets a connection go on for as long as the phase still grants it.
    pub(super) fn shorten(&mut self, token: u64, now: Instant) {
        if self.hand_on(token) {
            return;
        }
        let Some(connection) = self.find(token) else { return };
        // The poller may not have reported yet what came while the application was busy: only the socket knows.
        connection.readable(false);
        self.advance(token, now);
        self.shorten_wait(token, now);
    }

    /// Lets a client be silent for as long as the phase still grants it.
    pub(super) fn shorten_wait(&mut self, token: u64, now: Instant) {
        let (phase, idle_time) = (self.phase, self.idle_time());
        let Some(connection) = self.connections.find(token) else { return };
        if let State::Lingering(lingering) = &mut connection.state {
            connection.deadline = connection.deadline.min(lingering.shorten());
            return self.keep(token);
        }
        let fresh = match connection.state {
            State::Handshake { .. } => true,
            State::Idle { fresh } => fresh,
            _ => return,
        };
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

    /// The idle time of a connection that no sibling has taken.
    pub(super) fn idle_time(&self) -> Duration {
        self.config.timeouts.keep_alive.min(RETIRING_TIME)
    }

    /// Hands a connection that is idle to a sibling that goes on.
    pub(super) fn hand_on(&mut self, token: u64) -> bool {
        self.phase == Phase::Retiring
            && !self.leaving.gave_up.load(Relaxed)
            && self.is_unread(token)
            && self.host.siblings().fewest < usize::MAX
            && self.hand_over(token)
    }

    /// Hands those on that could not go before: the queue between the workers takes a few at a time.
    pub(super) fn hand_on_idle(&mut self, now: Instant) {
        while let Some(token) = self.leaving.tokens.pop() {
            if self.is_unread(token) && !self.hand_on(token) {
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
    pub(super) fn waits_for_siblings(&self) -> bool {
        !self.leaving.tokens.is_empty() && self.host.siblings().count > 0
    }
}

/// Whether an answer that begins now may leave its connection open.
pub(super) fn may_keep_open(host: &dyn Host, stream: &Stream, gave_up: &AtomicBool) -> bool {
    match host.phase() {
        Phase::Serving | Phase::LameDuck => stream.may_go_on(),
        // No sibling can take a connection by TLS.
        Phase::Retiring => !stream.is_tls() && !gave_up.load(Relaxed) && host.siblings().count > 0,
        Phase::Draining | Phase::Quitting => false,
    }
}
