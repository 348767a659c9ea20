//! The facts that every part decides from. Only the machine changes them.

use std::time::Duration;

use super::event::{Generation, Moment, Slot, WorkerId};
use super::rules::Policy;
use super::state::State;
use super::status::PoolPhase;
use super::table::{Entry, Table};

/// The longest time from a failed boot to the exit.
const EXIT_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// The number of draining generations at which a further reload waits.
///
/// It bounds the processes of many reloads without aborting requests.
const DRAINING_GENERATIONS: usize = 2;

/// The number of workers of a slot that may drain together after requests for replacement.
const FINISHING: usize = 2;

/// The longest time from SIGKILL to the exit. A later process is frozen, or in a system call that no signal ends.
pub(super) const UNKILLABLE_AFTER: Duration = Duration::from_secs(5);

/// The facts of a pool: settings, workers, phase, generations and size.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    pub(super) policy: Policy,
    pub(super) table: Table,
    pub(super) phase: PoolPhase,
    /// The generation that serves.
    pub(super) current: Generation,
    /// The last generation that was begun.
    pub(super) newest: Generation,
    /// The intended number of workers.
    pub(super) target: usize,
    /// The number of workers in the settings when they were last read.
    pub(super) configured: usize,
    /// Whether some worker has been ready.
    pub(super) ever_ready: bool,
    /// Whether workers may have clients while they boot.
    pub(super) serves_while_booting: bool,
}

impl Pool {
    /// A pool that has not begun.
    pub(super) fn new(policy: Policy) -> Self {
        Self {
            target: policy.allowed(policy.workers),
            configured: policy.workers,
            policy,
            table: Table::default(),
            phase: PoolPhase::Starting,
            current: 1,
            newest: 1,
            ever_ready: false,
            serves_while_booting: false,
        }
    }

    /// Whether it is a lame duck or ending.
    pub(super) fn is_about_to_end(&self) -> bool {
        self.phase.is_ending() || matches!(self.phase, PoolPhase::LameDuck { .. })
    }

    /// Whether `generation` is the one of the current rollout.
    pub(super) fn is_new(&self, generation: Generation) -> bool {
        matches!(&self.phase, PoolPhase::Reloading(rollout) if rollout.generation == generation)
    }

    /// Whether a worker may have clients.
    pub(super) fn may_serve(&self, entry: &Entry) -> bool {
        match entry.state {
            State::Ready { .. } => true,
            // One that is not forked yet has none.
            State::Booting { .. } => self.serves_while_booting && entry.pid.is_some(),
            _ => false,
        }
    }

    /// Whether a worker boots or is ready in neither the serving nor the new generation.
    pub(super) fn is_stale(&self, entry: &Entry) -> bool {
        let generation = entry.generation;
        generation != self.current && !self.is_new(generation) && !entry.state.is_leaving()
    }

    /// The stale worker that holds `slot`.
    pub(super) fn stale_worker(&self, slot: Slot) -> Option<WorkerId> {
        self.table.in_slot(slot).find(|entry| self.is_stale(entry)).map(|entry| entry.id)
    }

    /// Whether a further generation must wait until older ones have drained.
    pub(super) fn drains_too_many(&self) -> bool {
        self.table.draining_generations(self.current) >= DRAINING_GENERATIONS
    }

    /// The number of slots that the serving and the booting generation need.
    pub(super) fn slots(&self) -> usize {
        self.slots_of(self.current).max(match &self.phase {
            PoolPhase::Reloading(rollout) => rollout.workers,
            _ => 0,
        })
    }

    /// The number of slots that `generation` needs.
    pub(super) fn slots_of(&self, generation: Generation) -> usize {
        match &self.phase {
            PoolPhase::Reloading(rollout) if rollout.generation == generation => rollout.workers,
            _ => self.target,
        }
    }

    /// The deadline of a worker in its state; `None`: there is none.
    pub(super) fn deadline_of(&self, entry: &Entry) -> Option<Moment> {
        match entry.state {
            State::Booting { since } => Some(since.saturating_add(self.policy.boot_timeout)),
            State::Ready { beat, .. } => self.policy.timeout.map(|timeout| beat.saturating_add(timeout)),
            State::Aborting { kill_at, .. } | State::Draining { kill_at, .. } | State::Failed { kill_at } => {
                Some(kill_at)
            }
            // A worker that is not forked yet is killed after its fork.
            State::Killed { since, .. } => entry.pid.map(|_| since.saturating_add(UNKILLABLE_AFTER)),
            State::Unkillable { .. } => None,
        }
    }

    /// The workers whose deadline has passed.
    pub(super) fn overdue(&self, now: Moment) -> Vec<WorkerId> {
        self.table.select(|entry| self.deadline_of(entry).is_some_and(|at| at <= now))
    }

    /// The longest time that a process of which the boot has failed may take to exit.
    pub(super) fn exit_after_failure(&self) -> Duration {
        self.policy.graceful_timeout.min(EXIT_AFTER_FAILURE)
    }

    /// Whether a leaving worker must end early: [`FINISHING`] later workers of its slot drain as well.
    pub(super) fn is_crowded(&self, entry: &Entry) -> bool {
        let finishes = |other: &&Entry| other.leaves && matches!(other.state, State::Draining { .. });
        let later = |other: &&Entry| other.slot == entry.slot && other.id > entry.id;
        entry.leaves && self.table.iter().filter(later).filter(finishes).count() >= FINISHING
    }

    /// The leaving workers whose successor is ready.
    pub(super) fn replaced(&self) -> Vec<WorkerId> {
        self.table.select(|entry| {
            let mut others = self.table.in_slot(entry.slot);
            let is_asked_for = entry.leaves && entry.state.is_ready();
            is_asked_for && others.any(|other| other.state.is_ready() && !other.leaves)
        })
    }

    /// The crowded workers whose deadline is later than `soon`.
    pub(super) fn crowded(&self, soon: Moment) -> Vec<WorkerId> {
        self.table.select(|entry| {
            let waits = matches!(entry.state, State::Draining { kill_at, .. } if kill_at > soon);
            waits && self.is_crowded(entry)
        })
    }

    /// Whether stale workers hold slots.
    pub(super) fn has_stale_workers(&self) -> bool {
        self.table.iter().any(|entry| self.is_stale(entry))
    }

    /// The slots of stale workers that the serving generation boots a worker in now, within the surge.
    ///
    /// `starts` fills the empty slots.
    pub(super) fn returned(&self) -> Vec<Slot> {
        let batch = self.policy.plan.surge.batch(self.target);
        let is_held = |slot: &Slot| self.table.holder(*slot, self.current).is_some();
        let taken = (0..self.target).filter(|slot| self.stale_worker(*slot).is_some());
        let (booting, waiting): (Vec<Slot>, Vec<Slot>) = taken.partition(is_held);
        waiting.into_iter().take(batch.saturating_sub(booting.len())).collect()
    }
}
