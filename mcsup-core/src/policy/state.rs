//! The state of one worker: one enum, with the data of a state in its variant.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::effect::Drain;
use super::event::Moment;
use super::exit::KillReason;

/// The state of a worker or mold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) enum State {
    /// Forked (or about to be), not ready yet.
    Booting {
        /// When it was asked for.
        since: Moment,
    },
    /// Serving.
    Ready {
        /// When it became ready.
        since: Moment,
        /// Its last beat.
        beat: Moment,
    },
    /// Aborted, because it did not beat.
    Aborting {
        /// When it was ready, for the restart decision.
        ready_since: Moment,
        /// The time of SIGKILL.
        kill_at: Moment,
        /// The timeout that it exceeded.
        limit: Duration,
    },
    /// Draining.
    Draining {
        /// In which way.
        how: Drain,
        /// The time of SIGKILL.
        kill_at: Moment,
    },
    /// Its boot failed; its exit is awaited.
    Failed {
        /// The time of SIGKILL.
        kill_at: Moment,
    },
    /// Killed; its exit is awaited.
    Killed {
        /// Why.
        reason: KillReason,
        /// When.
        since: Moment,
        /// When it was ready, if it ever was, for the restart decision.
        ready_since: Option<Moment>,
    },
    /// Not ended by SIGKILL: frozen, or in a system call that no signal ends. Nothing waits for its exit.
    Unkillable {
        /// Why it was killed.
        reason: KillReason,
    },
}

impl State {
    /// When it became ready, if it ever did.
    pub(crate) fn ready_since(&self) -> Option<Moment> {
        match *self {
            State::Ready { since, .. } => Some(since),
            State::Aborting { ready_since, .. } => Some(ready_since),
            State::Killed { ready_since, .. } => ready_since,
            State::Booting { .. }
            | State::Draining { .. }
            | State::Failed { .. }
            | State::Unkillable { .. } => None,
        }
    }

    /// Whether it serves and does not drain.
    pub(crate) fn is_ready(&self) -> bool {
        matches!(self, State::Ready { .. })
    }

    /// Whether it will end, or has ended.
    pub(crate) fn is_leaving(&self) -> bool {
        !matches!(self, State::Booting { .. } | State::Ready { .. })
    }

    /// Whether its slot gets a successor after its exit: no order ended it.
    pub(crate) fn is_missed(&self) -> bool {
        match self {
            State::Aborting { .. } | State::Failed { .. } => true,
            State::Killed { reason, .. } => {
                matches!(reason, KillReason::BootTimeout(_) | KillReason::Silent(_))
            }
            State::Booting { .. }
            | State::Ready { .. }
            | State::Draining { .. }
            | State::Unkillable { .. } => false,
        }
    }
}
