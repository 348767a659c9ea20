//! Reloads that are asked for and wait: by an operator, or by workers whose code has changed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::event::{Moment, Ticket};
use super::pool::Pool;
use super::status::PoolPhase;

/// All workers of a pool see the same change within this time.
const SAME_CHANGE: Duration = Duration::from_millis(150);

/// The reload that waits, and the change that will ask for one.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Reloads {
    /// The requests for it; `None`: no reload waits.
    queued: Option<Vec<Ticket>>,
    /// When a change that workers have seen begins a reload.
    changed_at: Option<Moment>,
}

impl Reloads {
    /// One is asked for. The newest request wins: returns the older ones.
    pub(super) fn ask(&mut self, ticket: Option<Ticket>) -> Vec<Ticket> {
        self.queued.replace(ticket.into_iter().collect()).unwrap_or_default()
    }

    /// Why the one that waits cannot begin now.
    pub(super) fn obstacle(pool: &Pool, now: Moment) -> Option<&'static str> {
        match &pool.phase {
            PoolPhase::Starting => Some("no worker has been ready yet"),
            PoolPhase::Serving if pool.drains_too_many() => Some("older generations are still draining"),
            PoolPhase::Reloading(rollout)
                if now < rollout.since.saturating_add(pool.policy.reload_interval) =>
            {
                Some("another reload has only just begun")
            }
            PoolPhase::RollingBack { .. } => Some("a failed generation is still being rolled back"),
            PoolPhase::Upgrading { .. } => Some("an upgrade is under way"),
            _ => None,
        }
    }

    /// A worker has seen a change, and others are about to; says whether it is the first.
    pub(super) fn note_change(&mut self, now: Moment) -> bool {
        let is_first = self.changed_at.is_none();
        self.changed_at.get_or_insert(now.saturating_add(SAME_CHANGE));
        is_first
    }

    /// Whether a change asks for a reload now, where none waits.
    pub(super) fn take_change(&mut self, now: Moment) -> bool {
        self.changed_at.take_if(|at| *at <= now).is_some() && self.queued.is_none()
    }

    /// Whether one waits that may begin in a pool that serves.
    pub(super) fn may_begin(&self, pool: &Pool) -> bool {
        pool.phase == PoolPhase::Serving && self.queued.is_some() && !pool.drains_too_many()
    }

    /// When the one that waits takes the place of the one under way.
    pub(super) fn next_supersession(&self, pool: &Pool) -> Option<Moment> {
        match &pool.phase {
            PoolPhase::Reloading(rollout) if self.queued.is_some() && !pool.drains_too_many() => {
                Some(rollout.since.saturating_add(pool.policy.reload_interval))
            }
            _ => None,
        }
    }

    /// When something of it is due.
    pub(super) fn next(&self, pool: &Pool) -> Option<Moment> {
        let proof = match &pool.phase {
            PoolPhase::Reloading(rollout) => rollout.next_proof(&pool.table, &pool.policy.plan),
            _ => None,
        };
        [self.changed_at, self.next_supersession(pool), proof].into_iter().flatten().min()
    }

    /// It begins: returns the requests for it.
    pub(super) fn take(&mut self) -> Vec<Ticket> {
        self.queued.take().unwrap_or_default()
    }

    /// The pool ends: returns the requests that wait.
    pub(super) fn stop(&mut self) -> Vec<Ticket> {
        self.changed_at = None;
        self.take()
    }
}
