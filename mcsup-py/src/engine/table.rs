//! The state of the engine: connections, requests that wait for a permit, deadlines, listeners.
//!
//! One lock protects it; no code here waits.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::acceptor::{Accepting, Acceptor};
use super::body_memory::BodyMemory;
use super::buffer_pool::BufferPool;
use super::coalescing::Coalesced;
use super::connection::{Connection, State};
use super::connections::{Connections, HOST_WAKE, LISTENERS, Missed, WAKER};
use super::date::Date;
use super::drain::Leaving;
use super::handover::Surplus;
use super::large_heads::LargeHeads;
use super::refusal_log::RefusalLog;
use super::reserve::Reserve;
use super::turns::{Queued, Turns};
use super::{EngineConfig, Host, Listening, Phase};
use crate::access::AccessLog;
use crate::http::reject;
use crate::net::poller::{Interest, Poller, Ready};
use crate::net::timers::{Armed, Timers, after};

/// The longest wait of a round. The worker beats once in each round.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// The time between two offers of a connection to the siblings: one with a request, or an idle one of a retiring engine.
const OFFER_AGAIN: Duration = Duration::from_millis(2);

/// The most deadlines that are handled in one round.
const MOST_EXPIRED: usize = 256;

/// Why a handshake of TLS is given up after the deadline of a head.
const LATE_HANDSHAKE: &str = "it did not end in time";

/// The state.
pub(super) struct Table<'a> {
    pub(super) config: EngineConfig,
    pub(super) host: &'a dyn Host,
    pub(super) access: Option<AccessLog>,
    pub(super) poller: &'a Poller,
    pub(super) acceptor: Acceptor<'a>,
    pub(super) reserve: Reserve,
    pub(super) surplus: Surplus,
    pub(super) leaving: Leaving,
    pub(super) connections: Connections,
    /// Connections with a whole request, in the order in which it became whole.
    pub(super) ready: VecDeque<u64>,
    pub(super) turns: Turns,
    pub(super) coalesced: Coalesced,
    pub(super) buffer_pool: BufferPool,
    pub(super) body_memory: BodyMemory,
    pub(super) large_heads: LargeHeads,
    pub(super) timers: Timers,
    pub(super) date: Date,
    pub(super) refusals: RefusalLog,
    pub(super) phase: Phase,
    log_epoch: u32,
}

impl<'a> Table<'a> {
    pub(super) fn new(
        config: EngineConfig,
        listeners: Vec<Listening<'a>>,
        host: &'a dyn Host,
        poller: &'a Poller,
        access: Option<AccessLog>,
    ) -> Self {
        Self {
            acceptor: Acceptor::new(listeners, config.answers_itself(), host, poller),
            reserve: Reserve::of_this_process(config.connections, host.wake_fd()),
            date: Date::new(&config.server),
            config,
            host,
            access,
            poller,
            surplus: Surplus::default(),
            leaving: Leaving::default(),
            connections: Connections::default(),
            ready: VecDeque::new(),
            turns: Turns::default(),
            coalesced: Coalesced::default(),
            buffer_pool: BufferPool::default(),
            body_memory: BodyMemory::default(),
            large_heads: LargeHeads::default(),
            timers: Timers::default(),
            refusals: RefusalLog::default(),
            phase: Phase::Serving,
            log_epoch: host.log_epoch(),
        }
    }

    /// Longest wait of a round. `answers`: the waiting thread answers complete requests; otherwise they are soon offered
    /// to a sibling again.
    pub(super) fn timeout(&self, answers: bool, now: Instant) -> Duration {
        // Without a permit it sees to the files as well.
        if self.turns.has_for_permits() || !answers && self.turns.has_for_spare() {
            return Duration::ZERO;
        }
        match (self.ready.is_empty(), answers) {
            (false, true) => return Duration::ZERO,
            (false, false) if self.host.siblings().count > 0 => return OFFER_AGAIN,
            _ if self.waits_for_siblings() => return OFFER_AGAIN,
            _ => {}
        }
        let next = [
            self.timers.next(),
            self.acceptor.rests_until(),
            self.leaving.last_look,
            self.leaving.end_of_taken,
            self.body_memory.next_start(),
        ]
        .into_iter()
        .flatten()
        .min();
        next.map_or(LONGEST_WAIT, |at| at.saturating_duration_since(now).min(LONGEST_WAIT))
    }

    /// Whether there is something to do without a further event, now or at a time that has come to be known.
    pub(super) fn has_work(&self) -> bool {
        !self.ready.is_empty() || self.turns.has_for_permits() || self.body_memory.next_start().is_some()
    }

    /// Something has become ready. `leads`: the thread that says so may accept.
    pub(super) fn on_event(&mut self, event: Ready, leads: bool, now: Instant) {
        match event.token {
            // Looked at in every round.
            HOST_WAKE => self.host.acknowledge(),
            // For the thread that was waiting alone.
            WAKER => {}
            token if token >= LISTENERS => {
                if leads || self.acceptor.accepting == Accepting::ForOwnAnswers {
                    self.on_listener(usize::try_from(token - LISTENERS).unwrap_or(usize::MAX), now);
                }
            }
            token => self.on_connection(token, event, now),
        }
    }

    fn on_connection(&mut self, token: u64, event: Ready, now: Instant) {
        let Some(connection) = self.connections.find(token) else { return self.connections.note(event) };
        if event.readable {
            connection.readable(event.ended);
        }
        if connection.queued {
            return;
        }
        if matches!(connection.state, State::Flushing { .. }) {
            if event.writable {
                self.queue(token);
            }
        } else if connection.has_long_head() || connection.is_shaking_hands() {
            self.queue(token);
        } else if event.readable
            && (event.ended || !(self.hand_on(token) || self.hand_over_unread(token, now)))
        {
            self.advance(token, now);
        }
    }

    pub(super) fn find(&mut self, token: u64) -> Option<&mut Connection> {
        self.connections.find(token)
    }

    /// A connection stays: the poller and the timers know it.
    pub(super) fn keep(&mut self, token: u64) {
        let Self { poller, timers, connections, .. } = self;
        let Some(connection) = connections.find(token) else { return };
        timers.arm(token, &mut connection.armed, connection.deadline);
        if !connection.registered {
            if let Err(error) = poller.add(connection.stream.as_fd(), token, Interest::Edge) {
                log::error!("cannot watch a connection: {error}");
                return self.close(token);
            }
            connection.registered = true;
        }
    }

    pub(super) fn close(&mut self, token: u64) {
        self.release(token);
        let found = self.connections.find(token);
        if let Some((fault, remote)) = found.and_then(|it| Some((it.stream.take_fault()?, it.peer.remote))) {
            self.refusals.note_fault(remote, &fault, Instant::now());
        }
        if let Some(mut connection) = self.connections.remove(token) {
            connection.say_goodbye();
            self.buffer_pool.take_back(&mut connection);
            if connection.is_taken {
                // A close of one descriptor of several would end nothing.
                connection.stream.shut_down();
            }
        }
        let Self { timers, connections, .. } = self;
        timers.ended(|token| connections.has(token));
        self.host.connections(self.connections.len());
    }

    /// A connection's request is answered, refused or given up: what it was granted is free again. The pages of a file are
    /// given back in turns of the spare, since that may wait for a disk.
    pub(super) fn release(&mut self, token: u64) {
        let Self { connections, body_memory, large_heads, turns, .. } = self;
        let Some(connection) = connections.find(token) else { return };
        let granted = std::mem::take(&mut connection.granted);
        body_memory.give_back(token, granted.body_memory);
        large_heads.change(token, granted.head_memory, 0);
        turns.files.extend(granted.spooled.map(Queued::File));
    }

    /// Puts a connection back that was taken out; returns what it has missed.
    pub(super) fn put_back(&mut self, connection: Box<Connection>) -> Missed {
        let token = connection.token;
        let missed = self.connections.put_back(connection);
        if let Some(connection) = self.connections.find(token) {
            if missed.readable {
                connection.readable(missed.ended);
            }
            if missed.timer {
                connection.armed = Armed::default();
            }
        }
        missed
    }

    /// Ends what has waited too long. Of very many the rest waits for the next turn.
    pub(super) fn expire(&mut self, now: Instant) {
        self.acceptor.end_rest(now);
        self.refusals.log_count(now);
        self.reserve.end_shortage(self.connections.len(), self.host.wake_fd(), now);
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
                // Sent in the last moment: the poller has not reported it yet.
                State::Idle { .. } if connection.stream.has_unread() => {
                    connection.readable(false);
                    connection.deadline = after(now, self.config.timeouts.head);
                    self.advance(token, now);
                }
                State::Handshake { begun: true } => {
                    self.refusals.note_handshake(connection.peer.remote, LATE_HANDSHAKE, now);
                    self.close(token);
                }
                State::Handshake { .. } | State::Idle { .. } | State::Lingering(_) => self.close(token),
            }
        }
    }

    /// Applies a new phase of the host.
    pub(super) fn apply_phase(&mut self) {
        let epoch = self.host.log_epoch();
        if epoch != self.log_epoch {
            self.log_epoch = epoch;
            self.host.reopen_logs();
            if let Some(access) = &mut self.access {
                access.reopen();
            }
        }
        let phase = self.host.phase();
        if phase > self.phase {
            self.change_phase(phase, Instant::now());
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
