//! Accepts connections, and so decides the balance of a pool: a connection stays with the worker that accepts it.
//!
//! The kernel wakes the first of the processes that wait at a listener. A worker that has accepted a connection and is
//! not the least loaded moves to the end of the kernel's order, which is so sorted by load. A worker without a free
//! permit does not wait. The kernel wakes no busy worker, so the order means little in a burst; `handover` corrects that.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use mcsup_core::listener::AcceptFailure;

use super::acceptor::Accepting;
use super::connection::Connection;
use super::table::Table;
use crate::app::Peer;
use crate::net::stream;
use crate::net::timers::after;

/// How long accepting rests while many requests wait, and behind many connections that have failed.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// How long accepting rests while many handshakes wait: about as long as some of them take.
const HANDSHAKES_REST: Duration = Duration::from_millis(5);
/// A waiting connection is accepted after this number of rounds in which siblings might have accepted it.
const MOST_LEFT_TO_SIBLINGS: u32 = 4;
/// The number of connections that are accepted at once while others have turns.
const MOST_BETWEEN_TURNS: usize = 16;
/// The number of queued connections that are accepted without a look at anything else.
const MOST_QUEUED: usize = 512;

impl Table<'_> {
    /// A connection waits at a listener.
    pub(super) fn on_listener(&mut self, index: usize, now: Instant) {
        if !self.acceptor.is_watched() {
            return;
        }
        if self.acceptor.lacks_permit && self.ready.len() > self.config.waiting / 2 {
            return self.acceptor.rest(now + ACCEPT_REST);
        }
        if self.turns.has_many_handshakes() {
            return self.acceptor.rest(now + HANDSHAKES_REST);
        }
        if self.is_for_a_sibling() {
            self.acceptor.left_to_siblings += 1;
            return;
        }
        self.acceptor.left_to_siblings = 0;
        // Where others have turns it is a while until the next poll.
        let most = if self.turns.queue.is_empty() { 1 } else { MOST_BETWEEN_TURNS };
        for _ in 0..most {
            let accepted = self.has_room(now) && self.accept(index, now);
            if accepted && self.acceptor.accepting == Accepting::Yes {
                self.move_to_end_of_order(now);
            }
            if !accepted || self.acceptor.accepting != Accepting::Yes || self.host.siblings().free > 0 {
                return;
            }
        }
    }

    /// Whether a sibling should have the waiting connection, since requests wait here.
    ///
    /// Only for some rounds: the siblings may be slower than they look.
    fn is_for_a_sibling(&self) -> bool {
        !self.ready.is_empty()
            && self.acceptor.left_to_siblings < MOST_LEFT_TO_SIBLINGS
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
            self.acceptor.leave_to_siblings(now);
        } else {
            self.acceptor.move_to_end_of_order(now);
        }
    }

    /// Takes one connection from a listener, and whatever it has sent already; `false`: there is none.
    pub(super) fn accept(&mut self, index: usize, now: Instant) -> bool {
        let Some(listener) = self.acceptor.listeners.get(index) else { return self.take_over(now) };
        match stream::accept(listener.fd) {
            Ok((stream, remote)) => {
                self.acceptor.lost = 0;
                self.reserve.accepted(stream.as_fd());
                let stream = match &self.config.tls {
                    None => stream,
                    Some(tls) => stream.by_tls(tls),
                };
                let peer = Peer { remote, local: listener.local.clone(), proxied: None };
                if !peer.is_known() {
                    // Reset before its turn. An application would not learn whose request it has.
                    return true;
                }
                let deadline = after(now, self.config.timeouts.head);
                let trust = &self.config.trust;
                let token = self
                    .connections
                    .add(|token| Connection::new(stream, peer, token, now, deadline).trusted_by(trust, true));
                self.host.connections(self.connections.len());
                if !(self.acceptor.lacks_permit && self.hand_over_unread(token, now)) {
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
                self.acceptor.lost += 1;
                if self.acceptor.lost % AcceptFailure::MOST_LOST == 0 {
                    self.acceptor.rest(now + ACCEPT_REST);
                }
                self.acceptor.lost % AcceptFailure::MOST_LOST != 0
            }
            AcceptFailure::Short => self.has_room_after(error, now),
            // This process has closed its listeners.
            AcceptFailure::Broken if !self.host.phase().accepts() => false,
            // Shut down.
            AcceptFailure::Broken => {
                self.acceptor.give_up(index, error);
                false
            }
        }
    }

    /// Accepts all queued connections of the listeners; also those of the handover queue, if no sibling does.
    ///
    /// `true`: a whole pass has found none. `false`: after [`MOST_QUEUED`] other connections have a turn. With siblings
    /// the handover queue never ends.
    pub(super) fn accept_queued(&mut self, now: Instant) -> bool {
        let mut accepted = 0;
        loop {
            let before = accepted;
            let alone = usize::from(self.host.siblings().count == 0);
            for index in (0..self.acceptor.listeners.len() + alone).rev() {
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
