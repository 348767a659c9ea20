//! The state of one worker, and the phase of the pool. One enum each; what belongs to a state is in its variant.

use std::time::Duration;

use super::event::{Ask, Drain, Generation, KillReason, Moment};
use crate::error::ErrorKind;

/// Where a worker is in its life.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum State {
    /// Forked (or about to be), not ready yet.
    Booting {
        /// When it was asked for.
        since: Moment,
    },
    /// Serving.
    Ready {
        /// When it became ready.
        since: Moment,
        /// When it last showed that it moves.
        beat: Moment,
    },
    /// Told to show its stacks and die, because it gave no sign of life.
    Aborting {
        /// When it was ready, for the restart decision.
        ready_since: Moment,
        /// When patience ends.
        kill_at: Moment,
        /// The silence that was allowed.
        limit: Duration,
    },
    /// Asked to finish.
    Draining {
        /// In which way.
        how: Drain,
        /// When patience ends.
        kill_at: Moment,
    },
    /// Boot failed and it said so; its exit is on the way.
    Failed,
    /// Killed; its exit is on the way.
    Killed {
        /// Why.
        reason: KillReason,
        /// When it was ready, if it ever was, for the restart decision.
        ready_since: Option<Moment>,
    },
}

impl State {
    /// When it became ready, if it ever did.
    pub fn ready_since(&self) -> Option<Moment> {
        match *self {
            State::Ready { since, .. } => Some(since),
            State::Aborting { ready_since, .. } => Some(ready_since),
            State::Killed { ready_since, .. } => ready_since,
            State::Booting { .. } | State::Draining { .. } | State::Failed => None,
        }
    }

    /// Whether it serves and is meant to go on.
    pub fn is_ready(&self) -> bool {
        matches!(self, State::Ready { .. })
    }

    /// Whether it is on its way out.
    pub fn is_leaving(&self) -> bool {
        matches!(self, State::Aborting { .. } | State::Draining { .. } | State::Failed | State::Killed { .. })
    }
}

/// Where the pool is in its life.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Phase {
    /// The first generation is not complete yet.
    Starting,
    /// Serving.
    Serving,
    /// Serving with the old generation while a new one boots.
    Reloading {
        /// The new generation.
        generation: Generation,
        /// When it was begun.
        since: Moment,
    },
    /// Ending.
    Stopping {
        /// What was asked last.
        ask: Ask,
        /// How many were killed at the deadline of a graceful stop.
        killed: usize,
    },
    /// The first generation cannot boot; whoever is left is being reaped.
    Failing {
        /// What kind of failure ends it.
        kind: ErrorKind,
    },
    /// Over.
    Ended,
}
