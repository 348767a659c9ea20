//! A new generation on its way, and its next steps.
//!
//! A reload is a transaction. New workers boot beside the old ones, as many at once as the plan's surge allows. The
//! first of them must prove themselves: alive for the soak time after they were ready. Then each old worker retires as
//! soon as a new one is ready in its slot, and never before. If one fails, the new generation goes: the old workers that
//! are still there never stopped serving, and those that had retired already are booted again before their successors go.

use super::event::{Generation, Moment, Slot, Ticket, WorkerId};
use super::rules::{Plan, Policy};
use super::state::State;
use super::table::{Entry, Table};

/// A new generation on its way.
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
    /// How many workers there will be.
    pub(super) workers: usize,
    /// Whether some address is not listened on any more.
    pub(super) closes_listeners: bool,
    /// The settings before its own were read.
    pub(super) before: Option<Box<Settings>>,
    /// Whether its first workers have proved themselves.
    pub(super) is_proven: bool,
    /// How many of its workers have failed.
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
pub(super) enum Next {
    /// Every slot has a worker of the new generation, which is proven.
    Commit,
    /// Old workers retire where a new one is ready; slots without one get it.
    Replace { retired: Vec<WorkerId>, booted: Vec<Slot> },
}

impl Rollout {
    /// A new generation of which nothing is known.
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

    /// Goes on, at `now`: returns the next step.
    pub(super) fn advance(&mut self, table: &Table, plan: &Plan, now: Moment) -> Next {
        self.is_proven = self.is_proven || self.proven_at(table, plan).is_some_and(|at| at <= now);
        if self.is_proven && table.is_complete(self.generation, self.workers) {
            return Next::Commit;
        }
        let retired = if self.is_proven { self.replaced(table) } else { Vec::new() };
        Next::Replace { retired, booted: self.booted(table, plan) }
    }

    /// When the first batch is proven, if it lives. `None`: it is not complete, or is proven.
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

    /// A slot with a ready worker of the new generation needs no other.
    fn replaced(&self, table: &Table) -> Vec<WorkerId> {
        let held = (0..self.workers).filter(|slot| table.is_held(*slot, self.generation));
        let others = held.flat_map(|slot| table.in_slot(slot));
        others.filter(|entry| entry.generation != self.generation).map(|entry| entry.id).collect()
    }

    /// Slots that have no worker of the new generation, within the surge.
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

    /// One of its workers failed: says how many more may, or `None` where this was one too many.
    pub(super) fn note_failure(&mut self, plan: &Plan) -> Option<usize> {
        self.failures += 1;
        plan.retries.checked_sub(self.failures)
    }
}
