//! The facts that every part decides from. Only the machine changes them.

use std::time::Duration;

use super::event::{Generation, Moment, Slot, WorkerId};
use super::rules::Policy;
use super::state::State;
use super::status::PoolPhase;
use super::table::{Entry, Table};

/// How many generations may drain before a further reload waits. Bounds the processes of a storm of reloads without
/// cutting a request off.
const DRAINING_GENERATIONS: usize = 2;

/// How many workers of a slot that ask to be replaced may finish together.
const FINISHING: usize = 2;

/// How long SIGKILL takes at most. A process that is left then is frozen, or in a system call that no signal ends.
pub(super) const UNKILLABLE_AFTER: Duration = Duration::from_secs(5);

/// Settings, workers, phase, generations and size of a pool.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    pub(super) policy: Policy,
    pub(super) table: Table,
    pub(super) phase: PoolPhase,
    /// The generation that serves.
    pub(super) current: Generation,
    /// The last one that was begun.
    pub(super) newest: Generation,
    /// How many workers there should be.
    pub(super) target: usize,
    /// How many the settings named when they were last read.
    pub(super) configured: usize,
    /// Whether some worker has been ready.
    pub(super) ever_ready: bool,
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
        }
    }

    /// Whether it has been asked to stop, or has failed.
    pub(super) fn is_about_to_end(&self) -> bool {
        self.phase.is_ending() || matches!(self.phase, PoolPhase::LameDuck { .. })
    }

    /// Whether `generation` is on its way and does not serve alone yet.
    pub(super) fn is_new(&self, generation: Generation) -> bool {
        matches!(&self.phase, PoolPhase::Reloading(rollout) if rollout.generation == generation)
    }

    /// Whether a worker goes on that is of neither the serving nor the new generation.
    pub(super) fn is_foreign(&self, entry: &Entry) -> bool {
        let generation = entry.generation;
        generation != self.current && !self.is_new(generation) && !entry.state.is_leaving()
    }

    /// The worker of such a generation that holds `slot`.
    pub(super) fn foreigner(&self, slot: Slot) -> Option<WorkerId> {
        self.table.in_slot(slot).find(|entry| self.is_foreign(entry)).map(|entry| entry.id)
    }

    /// Whether a further generation has to wait until older ones have drained.
    pub(super) fn drains_too_many(&self) -> bool {
        self.table.draining_generations(self.current) >= DRAINING_GENERATIONS
    }

    /// How many slots the generation that serves and the one that boots need.
    pub(super) fn slots(&self) -> usize {
        self.slots_of(self.current).max(match &self.phase {
            PoolPhase::Reloading(rollout) => rollout.workers,
            _ => 0,
        })
    }

    /// How many slots `generation` needs.
    pub(super) fn slots_of(&self, generation: Generation) -> usize {
        match &self.phase {
            PoolPhase::Reloading(rollout) if rollout.generation == generation => rollout.workers,
            _ => self.target,
        }
    }

    /// When this worker's patience ends, if it is bounded.
    pub(super) fn deadline_of(&self, entry: &Entry) -> Option<Moment> {
        match entry.state {
            State::Booting { since } => Some(since.saturating_add(self.policy.boot_timeout)),
            State::Ready { beat, .. } => self.policy.timeout.map(|timeout| beat.saturating_add(timeout)),
            State::Aborting { kill_at, .. } | State::Draining { kill_at, .. } | State::Failed { kill_at } => {
                Some(kill_at)
            }
            // One that has not been forked yet is killed when it is.
            State::Killed { since, .. } => entry.pid.map(|_| since.saturating_add(UNKILLABLE_AFTER)),
            State::Unkillable { .. } => None,
        }
    }

    /// The workers whose deadline has passed.
    pub(super) fn overdue(&self, now: Moment) -> Vec<WorkerId> {
        self.table.select(|entry| self.deadline_of(entry).is_some_and(|at| at <= now))
    }

    /// Whether enough later workers of its slot finish as well as this one, which has asked to be replaced.
    pub(super) fn is_crowded(&self, entry: &Entry) -> bool {
        let finishes = |other: &&Entry| other.leaves && matches!(other.state, State::Draining { .. });
        let later = |other: &&Entry| other.slot == entry.slot && other.id > entry.id;
        entry.leaves && self.table.iter().filter(later).filter(finishes).count() >= FINISHING
    }

    /// The workers that have asked to be replaced and whose slot another one serves.
    pub(super) fn replaced(&self) -> Vec<WorkerId> {
        self.table.select(|entry| {
            let mut others = self.table.in_slot(entry.slot);
            let is_asked_for = entry.leaves && entry.state.is_ready();
            is_asked_for && others.any(|other| other.state.is_ready() && !other.leaves)
        })
    }

    /// The crowded workers that may finish for longer than until `soon`.
    pub(super) fn crowded(&self, soon: Moment) -> Vec<WorkerId> {
        self.table.select(|entry| {
            let waits = matches!(entry.state, State::Draining { kill_at, .. } if kill_at > soon);
            waits && self.is_crowded(entry)
        })
    }

    /// Whether workers of another generation than the serving and the new one hold slots.
    pub(super) fn has_foreigners(&self) -> bool {
        self.table.iter().any(|entry| self.is_foreign(entry))
    }

    /// Slots that are given back to the generation that serves now, within the surge. Empty slots are filled in their own
    /// time.
    pub(super) fn returned(&self) -> Vec<Slot> {
        let batch = self.policy.plan.surge.batch(self.target);
        let is_held = |slot: &Slot| self.table.holder(*slot, self.current).is_some();
        let taken = (0..self.target).filter(|slot| self.foreigner(*slot).is_some());
        let (booting, waiting): (Vec<Slot>, Vec<Slot>) = taken.partition(is_held);
        waiting.into_iter().take(batch.saturating_sub(booting.len())).collect()
    }
}
