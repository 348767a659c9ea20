//! What is under way, and not done yet: facts, and who waits for the outcome.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::event::{Generation, Moment, Slot, Ticket, WorkerId};
use super::rules::Policy;

/// A new generation on its way.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollout {
    /// The new generation.
    pub generation: Generation,
    /// When it was begun.
    pub since: Moment,
    /// Who waits for the answer.
    pub(super) tickets: Vec<Ticket>,
    /// Whether its settings have been read.
    pub(super) is_prepared: bool,
    /// How many workers there will be.
    pub(super) workers: usize,
    /// Whether some address is not listened on any more.
    pub(super) closes_listeners: bool,
    /// What was decided by before its settings were read.
    pub(super) before: Option<Box<(Policy, usize)>>,
    /// Whether its first workers have proved themselves.
    pub(super) is_proven: bool,
    /// How many of its workers have failed.
    pub(super) failures: usize,
}

/// A failed generation on its way out of slots that it had taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rollback {
    /// The generation that goes.
    pub generation: Generation,
    /// When it was begun.
    pub since: Moment,
}

/// A worker that is being replaced.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Replacing {
    pub(super) old: WorkerId,
    pub(super) new: WorkerId,
    pub(super) slot: Slot,
    pub(super) reason: String,
    /// What is known about a failure of the new one.
    pub(super) failure: Option<(String, Option<String>)>,
}

/// A change of size that has not arrived yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Scaling {
    /// How many there were before, and will be again if it fails.
    pub(super) from: usize,
    pub(super) tickets: Vec<Ticket>,
}

/// The system refuses forks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Refusal {
    /// When the next fork is tried.
    pub(super) again: Moment,
    pub(super) delay: Duration,
    /// How many were refused in a row.
    pub(super) times: u32,
    /// One was tried since the last answer.
    pub(super) is_tried: bool,
    /// The mold that could not fork; `None`: the supervisor.
    pub(super) mold: Option<WorkerId>,
    pub(super) reason: String,
}
