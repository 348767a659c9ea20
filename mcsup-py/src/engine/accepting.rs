//! Accepts connections, and so decides the balance of a pool: a connection stays with the worker that accepts it.
//!
//! The kernel wakes the first of the processes that wait at a listener. A worker that has accepted a connection and is
//! not the least loaded moves to the end of the kernel's order, which is so sorted by load. A worker without a free
//! permit does not wait. The kernel wakes no busy worker, so the order means little in a burst; `handover` corrects that.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use mcsup_core::listener::AcceptFailure;

use super::connection::Connection;
use super::connections::LISTENERS;
use super::table::{Accepting, Table};
use crate::app::Peer;
use crate::net::poller::Interest;
use crate::net::stream;
use crate::net::timers::after;

/// How long accepting rests while many requests wait, and behind many connections that have failed.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// How long a worker leaves a connection to a sibling that has fewer: about what it takes to schedule one.
const SIBLINGS_TIME: Duration = Duration::from_micros(150);
/// A waiting connection is accepted after this number of turns in which siblings might have accepted it.
const MOST_LEFT_TO_SIBLINGS: u32 = 4;
/// The number of connections that are accepted at once while others have turns.
const MOST_BETWEEN_TURNS: usize = 16;
/// The number of queued connections that are accepted without a look at anything else.
const MOST_QUEUED: usize = 512;

impl Table<'_> {
    /// A connection waits at a listener.
    pub(super) fn on_listener(&mut self, index: usize, now: Instant) {
        if !matches!(self.accepting, Accepting::Yes | Accepting::ForChecks) {
            return;
        }
        if self.lacks_permit && self.ready.len() > self.config.waiting / 2 {
            return self.rest(now + ACCEPT_REST);
        }
        if self.is_for_a_sibling() {
            self.left_to_siblings += 1;
            return;
        }
        self.left_to_siblings = 0;
        // Where others have turns it is a while until the next poll.
        let most = if self.queue.is_empty() { 1 } else { MOST_BETWEEN_TURNS };
        for _ in 0..most {
            let accepted = self.has_room(now) && self.accept(index, now);
            if accepted && self.accepting == Accepting::Yes {
                self.move_to_end_of_order(now);
            }
            if !accepted || self.accepting != Accepting::Yes || self.host.siblings().free > 0 {
                return;
            }
        }
    }

    /// Whether a sibling should have the waiting connection, since requests wait here.
    ///
    /// Only for some turns: the siblings may be slower than they look.
    fn is_for_a_sibling(&self) -> bool {
        !self.ready.is_empty()
            && self.left_to_siblings < MOST_LEFT_TO_SIBLINGS
            && self.host.siblings().free > 0
    }

    /// After an accept: leaves the next connection to a sibling, unless this worker still has the fewest.
    fn move_to_end_of_order(&mut self, now: Instant) {
        let siblings = self.host.siblings();
        if siblings.count == 0 || self.connections.len() < siblings.fewest {
            return;
        }
        if siblings.free > 0 && self.ready.is_empty() {
            // The client has not asked yet, so this worker would be back before a sibling that was woken for the next
            // one is even scheduled.
            return self.leave_to_siblings(now);
        }
        self.stop_accepting(Accepting::Resting { until: now });
        self.accept_again();
    }

    /// Takes one connection from a listener, and whatever it has sent already; `false`: there is none.
    pub(super) fn accept(&mut self, index: usize, now: Instant) -> bool {
        let Some(listener) = self.listeners.get(index) else { return self.take_over(now) };
        match stream::accept(listener.fd) {
            Ok((stream, remote)) => {
                self.lost = 0;
                self.reserve.accepted(stream.as_fd());
                let peer = Peer { remote, local: listener.local.clone() };
                if !peer.is_known() {
                    // Reset before its turn. An application would not learn whose request it has.
                    return true;
                }
                let deadline = after(now, self.config.timeouts.head);
                let token = self.connections.add(|token| Connection::new(stream, peer, token, now, deadline));
                self.host.connections(self.connections.len());
                if !(self.lacks_permit && self.hand_over_unread(token, now)) {
                    self.advance(token, now);
                }
                true
            }
            Err(error) => self.on_accept_error(index, &error, now),
        }
    }

    /// Whether the next one may be had all the same.
    fn on_accept_error(&mut self, index: usize, error: &io::Error, now: Instant) -> bool {
        match AcceptFailure::of(error) {
            AcceptFailure::Empty => false,
            AcceptFailure::Lost => {
                self.lost += 1;
                if self.lost % AcceptFailure::MOST_LOST == 0 {
                    self.rest(now + ACCEPT_REST);
                }
                self.lost % AcceptFailure::MOST_LOST != 0
            }
            AcceptFailure::Short => self.has_room_after(error, now),
            // This process has closed its listeners.
            AcceptFailure::Broken if !self.host.phase().accepts() => false,
            // Shut down. Polled on, it would be ready for ever.
            AcceptFailure::Broken => {
                if let Some(listener) = self.listeners.get(index) {
                    log::warn!("no more connections are accepted at {:?}: {error}", listener.local);
                    let _ = self.poller.delete(listener.fd);
                    self.broken.push(index);
                }
                false
            }
        }
    }

    /// Stays away from the listeners for a little.
    pub(super) fn leave_to_siblings(&mut self, now: Instant) {
        self.rest(now + SIBLINGS_TIME);
    }

    pub(super) fn rest(&mut self, until: Instant) {
        match self.accepting {
            Accepting::Yes | Accepting::ForChecks => self.stop_accepting(Accepting::Resting { until }),
            _ => {}
        }
    }

    /// When accepting goes on, where it rests.
    pub(super) fn rests_until(&self) -> Option<Instant> {
        match self.accepting {
            Accepting::Resting { until } => Some(until),
            _ => None,
        }
    }

    /// Accepts again where the rest is over.
    pub(super) fn end_rest(&mut self, now: Instant) {
        if self.rests_until().is_none_or(|until| until > now) {
            return;
        }
        if self.lacks_permit {
            self.no_permit_is_free();
        } else {
            self.accept_again();
        }
    }

    /// No permit is free for a while: whatever arrives is left to others, and what has arrived is offered to them. Who asks
    /// for the health must be accepted to be heard; others that come along go to a sibling that is free, or wait.
    pub(super) fn no_permit_is_free(&mut self) {
        self.lacks_permit = true;
        if !matches!(self.accepting, Accepting::Yes | Accepting::Resting { .. }) {
            return;
        }
        self.stop_accepting(Accepting::NoPermit);
        if self.config.health_path.is_some() {
            self.accepting = Accepting::ForChecks;
            self.watch(self.listeners.len());
        }
    }

    /// A permit is free again.
    pub(super) fn permit_is_free(&mut self) {
        self.lacks_permit = false;
        match self.accepting {
            Accepting::NoPermit => self.accept_again(),
            Accepting::ForChecks => {
                self.stop_accepting(Accepting::NoPermit);
                self.accept_again();
            }
            _ => {}
        }
    }

    /// Nothing will be accepted any more.
    pub(super) fn end_accepting(&mut self) {
        self.stop_accepting(Accepting::Ended);
        self.host.accepting(0);
    }

    fn stop_accepting(&mut self, why: Accepting) {
        if matches!(self.accepting, Accepting::Yes | Accepting::ForChecks) {
            for listener in
                self.listeners.iter().map(|listener| listener.fd).chain(self.host.handed_over_fd())
            {
                // Closed because the supervisor is dead: no error.
                let _ = self.poller.delete(listener);
            }
        }
        self.accepting = why;
    }

    fn accept_again(&mut self) {
        self.accepting = Accepting::Yes;
        self.watch(self.listeners.len() + 1);
    }

    /// Watches the first `count` listeners, except for broken ones. The queue among the workers is the last listener.
    fn watch(&self, count: usize) {
        let listeners = self.listeners.iter().map(|listener| listener.fd).chain(self.host.handed_over_fd());
        for (index, (fd, token)) in listeners.take(count).zip(LISTENERS..).enumerate() {
            if self.broken.contains(&index) {
                continue;
            }
            if let Err(error) = self.poller.add(fd, token, Interest::Shared) {
                log::error!("cannot watch a listener: {error}");
            }
        }
    }

    /// Accepts all queued connections of the listeners; also those of the handover queue, if no sibling does.
    ///
    /// `true`: a whole round has found none. `false`: after [`MOST_QUEUED`] other connections have a turn. With siblings
    /// the handover queue never ends.
    pub(super) fn accept_queued(&mut self, now: Instant) -> bool {
        let mut accepted = 0;
        loop {
            let before = accepted;
            let alone = usize::from(self.host.siblings().count == 0);
            for index in (0..self.listeners.len() + alone).rev() {
                while accepted < MOST_QUEUED && self.accept(index, now) {
                    accepted += 1;
                }
            }
            if accepted == before || accepted == MOST_QUEUED {
                return accepted < MOST_QUEUED;
            }
        }
    }
}
