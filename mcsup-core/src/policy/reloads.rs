//! Requested reloads that wait: from an operator, or from workers that have detected a change.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::event::{Moment, Ticket};
use super::pool::Pool;
use super::status::PoolPhase;

/// All workers of a pool detect the same change within this time.
const SAME_CHANGE: Duration = Duration::from_millis(150);

/// The waiting reload, and the detected change that will request one.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Reloads {
    /// The requests for it; `None`: no reload waits.
    queued: Option<Vec<Ticket>>,
    /// The time at which a detected change requests a reload.
    changed_at: Option<Moment>,
}

impl Reloads {
    /// Notes a request. Returns the older ones, which it replaces.
    pub(super) fn ask(&mut self, ticket: Option<Ticket>) -> Vec<Ticket> {
        self.queued.replace(ticket.into_iter().collect()).unwrap_or_default()
    }

    /// Whether a reload waits.
    pub(super) fn is_queued(&self) -> bool {
        self.queued.is_some()
    }

    /// The reason why the waiting reload cannot begin now.
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

    /// Notes a change that a worker has detected; `true`: it is the first such report.
    pub(super) fn note_change(&mut self, now: Moment) -> bool {
        let is_first = self.changed_at.is_none();
        self.changed_at.get_or_insert(now.saturating_add(SAME_CHANGE));
        is_first
    }

    /// Whether a change requests a reload now. Takes the change; `false` also if a reload waits already.
    pub(super) fn take_change(&mut self, now: Moment) -> bool {
        self.changed_at.take_if(|at| *at <= now).is_some() && self.queued.is_none()
    }

    /// Whether a waiting reload may begin in a serving pool.
    pub(super) fn may_begin(&self, pool: &Pool) -> bool {
        pool.phase == PoolPhase::Serving && self.queued.is_some() && !pool.drains_too_many()
    }

    /// The time at which the waiting reload replaces the one in progress.
    pub(super) fn next_supersession(&self, pool: &Pool) -> Option<Moment> {
        match &pool.phase {
            PoolPhase::Reloading(rollout) if self.queued.is_some() && !pool.drains_too_many() => {
                Some(rollout.since.saturating_add(pool.policy.reload_interval))
            }
            _ => None,
        }
    }

    /// The next time at which something about a reload is due.
    pub(super) fn next(&self, pool: &Pool) -> Option<Moment> {
        let proof = match &pool.phase {
            PoolPhase::Reloading(rollout) => rollout.next_proof(&pool.table, &pool.policy.plan),
            _ => None,
        };
        [self.changed_at, self.next_supersession(pool), proof].into_iter().flatten().min()
    }

    /// Takes the requests for the waiting reload, which begins.
    pub(super) fn take(&mut self) -> Vec<Ticket> {
        self.queued.take().unwrap_or_default()
    }

    /// Takes all requests, because the pool ends.
    pub(super) fn stop(&mut self) -> Vec<Ticket> {
        self.changed_at = None;
        self.take()
    }
}
