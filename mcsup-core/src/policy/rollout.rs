//! The rollout of a new generation, and its next step.
//!
//! A reload is a transaction. New workers boot beside the old ones, at most the plan's surge at once. The first of them
//! must live for the soak time after they were ready. Then each old worker retires once a new one is ready in its slot.
//! If a new worker fails, the new generation ends. The remaining old workers have served throughout. The retired ones
//! are booted again before their successors end.

use super::event::{Generation, Moment, Slot, Ticket, WorkerId};
use super::rules::{Plan, Policy};
use super::state::State;
use super::table::{Entry, Table};

/// The rollout of a new generation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rollout {
    /// The new generation.
    pub(crate) generation: Generation,
    /// When it was begun.
    pub(crate) since: Moment,
    /// The requests that wait for the answer.
    pub(super) tickets: Vec<Ticket>,
    /// Whether its settings have been read.
    pub(super) is_prepared: bool,
    /// The number of its workers.
    pub(super) workers: usize,
    /// Whether some address is no longer configured.
    pub(super) closes_listeners: bool,
    /// The settings before its own.
    pub(super) before: Option<Box<Settings>>,
    /// Whether its first workers have lived for the soak time.
    pub(super) is_proven: bool,
    /// The number of its workers that have failed.
    pub(super) failures: usize,
}

/// A policy, and the number of workers that the settings named with it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settings {
    pub(super) policy: Policy,
    pub(super) configured: usize,
}

/// The next step of a rollout.
#[derive(Debug)]
pub(super) enum RolloutStep {
    /// Every slot has a worker of the new generation, which is proven.
    Commit,
    /// Old workers retire in slots with a ready new one; slots without a new one boot it.
    Replace { retired: Vec<WorkerId>, booted: Vec<Slot> },
}

impl Rollout {
    /// A rollout whose settings are not read yet.
    pub(super) fn new(generation: Generation, workers: usize, tickets: Vec<Ticket>, now: Moment) -> Self {
        Self {
            generation,
            since: now,
            tickets,
            is_prepared: false,
            workers,
            closes_listeners: false,
            before: None,
            is_proven: false,
            failures: 0,
        }
    }

    /// The next step at `now`.
    pub(super) fn advance(&mut self, table: &Table, plan: &Plan, now: Moment) -> RolloutStep {
        self.is_proven = self.is_proven || self.proven_at(table, plan).is_some_and(|at| at <= now);
        if self.is_proven && table.is_complete(self.generation, self.workers) {
            return RolloutStep::Commit;
        }
        let retired = if self.is_proven { self.replaced(table) } else { Vec::new() };
        RolloutStep::Replace { retired, booted: self.booted(table, plan) }
    }

    /// The end of the soak of the first batch. `None`: the batch is not complete, or already proven.
    pub(super) fn next_proof(&self, table: &Table, plan: &Plan) -> Option<Moment> {
        if self.is_proven { None } else { self.proven_at(table, plan) }
    }

    fn proven_at(&self, table: &Table, plan: &Plan) -> Option<Moment> {
        let batch = plan.surge.batch(self.workers);
        let mine = table.iter().filter(|entry| entry.generation == self.generation);
        let ready: Vec<Moment> = mine
            .filter(|entry| entry.state.is_ready())
            .filter_map(|entry| entry.state.ready_since())
            .collect();
        let last = ready.iter().max().filter(|_| ready.len() >= batch)?;
        Some(last.saturating_add(plan.soak))
    }

    /// The old workers in slots with a ready new one.
    fn replaced(&self, table: &Table) -> Vec<WorkerId> {
        let held = (0..self.workers).filter(|slot| table.is_held(*slot, self.generation));
        let others = held.flat_map(|slot| table.in_slot(slot));
        others.filter(|entry| entry.generation != self.generation).map(|entry| entry.id).collect()
    }

    /// The slots that boot a new worker now, within the surge.
    fn booted(&self, table: &Table, plan: &Plan) -> Vec<Slot> {
        let batch = plan.surge.batch(self.workers);
        let counts = |entry: &&Entry| {
            let on_its_way = matches!(entry.state, State::Booting { .. });
            entry.generation == self.generation && (on_its_way || !self.is_proven && entry.state.is_ready())
        };
        let room = batch.saturating_sub(table.iter().filter(counts).count());
        let lacks = |slot: &Slot| table.holder(*slot, self.generation).is_none();
        (0..self.workers).filter(lacks).take(room).collect()
    }

    /// Notes a failed worker. Returns the number that may still fail; `None`: too many have failed.
    pub(super) fn note_failure(&mut self, plan: &Plan) -> Option<usize> {
        self.failures += 1;
        plan.retries.checked_sub(self.failures)
    }
}
