//! The table of workers, each with its slot, generation and state.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::event::{Generation, Moment, Place, Slot, WorkerId};
use super::state::State;

/// One worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Its serial number.
    pub(crate) id: WorkerId,
    /// Its place.
    pub(crate) slot: Slot,
    /// Its version.
    pub(crate) generation: Generation,
    /// The mold that forks it; `None`: the supervisor itself.
    pub(crate) mold: Option<WorkerId>,
    /// Its process; `None`: it has not been forked yet.
    pub(crate) pid: Option<i32>,
    /// Its state.
    pub(crate) state: State,
    /// How long its boot took; zero until it is ready.
    pub(crate) boot: Duration,
    /// It has requested its replacement, and serves until its successor is ready.
    pub(crate) leaves: bool,
    /// The limits at which it is replaced.
    pub(crate) allowance: Allowance,
    /// The reason to recycle it.
    pub(crate) recycle: Option<String>,
}

impl Entry {
    /// Its process id for a notice; 0 for one that has not been forked.
    pub(super) fn shown_pid(&self) -> i32 {
        self.pid.unwrap_or(0)
    }

    /// Its name in a reason.
    pub(super) fn name(&self) -> String {
        match self.pid {
            Some(pid) => format!("worker {pid}"),
            None => "a worker that its mold had not forked".to_owned(),
        }
    }
}

/// The limits at which a worker is replaced: drawn once, when it is forked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Allowance {
    /// Requests; `None`: any number.
    pub(crate) requests: Option<u64>,
    /// Time since it was ready; `None`: any.
    pub(crate) lifetime: Option<Duration>,
    /// Bytes of memory; `None`: any number.
    pub(crate) rss: Option<u64>,
}

/// All workers, by serial number, so by age.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Table {
    entries: BTreeMap<WorkerId, Entry>,
    serial: u64,
}

impl Table {
    /// Adds a worker that is about to be forked.
    pub(super) fn add(
        &mut self,
        Place { slot, generation }: Place,
        mold: Option<WorkerId>,
        allowance: Allowance,
        now: Moment,
    ) -> WorkerId {
        let id = self.next_id();
        let state = State::Booting { since: now };
        let entry = Entry {
            id,
            slot,
            generation,
            mold,
            pid: None,
            state,
            allowance,
            boot: Duration::ZERO,
            leaves: false,
            recycle: None,
        };
        self.entries.insert(id, entry);
        id
    }

    /// A serial number that was never used.
    pub(crate) fn next_id(&mut self) -> WorkerId {
        self.serial += 1;
        WorkerId(self.serial)
    }

    /// The worker, if it still exists.
    pub(crate) fn get(&self, id: WorkerId) -> Option<&Entry> {
        self.entries.get(&id)
    }

    /// The worker, to change its state.
    pub(crate) fn get_mut(&mut self, id: WorkerId) -> Option<&mut Entry> {
        self.entries.get_mut(&id)
    }

    /// Takes a reaped worker out.
    pub(crate) fn remove(&mut self, id: WorkerId) -> Option<Entry> {
        self.entries.remove(&id)
    }

    /// All workers, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// The serial numbers of the workers for which `wanted` holds, oldest first.
    pub(crate) fn select(&self, wanted: impl Fn(&Entry) -> bool) -> Vec<WorkerId> {
        self.iter().filter(|entry| wanted(entry)).map(|entry| entry.id).collect()
    }

    /// The worker of `generation` in `slot` that boots or is ready.
    pub(crate) fn holder(&self, slot: Slot, generation: Generation) -> Option<&Entry> {
        self.iter()
            .find(|entry| entry.slot == slot && entry.generation == generation && !entry.state.is_leaving())
    }

    /// Whether the first `slots` slots of `generation` are all ready.
    pub(crate) fn is_complete(&self, generation: Generation, slots: usize) -> bool {
        (0..slots).all(|slot| self.is_held(slot, generation))
    }

    /// Whether a ready worker of `generation` holds `slot`.
    pub(crate) fn is_held(&self, slot: Slot, generation: Generation) -> bool {
        self.in_slot(slot).any(|entry| entry.generation == generation && entry.state.is_ready())
    }

    /// Whether ready workers of any generation hold the first `slots` slots.
    pub(crate) fn is_full(&self, slots: usize) -> bool {
        self.are_served(0..slots)
    }

    /// Whether ready workers of any generation hold these slots.
    pub(crate) fn are_served(&self, slots: Range<Slot>) -> bool {
        slots.into_iter().all(|slot| self.in_slot(slot).any(|entry| entry.state.is_ready()))
    }

    /// The booting and ready workers of a slot, oldest first.
    pub(crate) fn in_slot(&self, slot: Slot) -> impl Iterator<Item = &Entry> {
        self.iter().filter(move |entry| entry.slot == slot && !entry.state.is_leaving())
    }

    /// Whether `slot` has a ready worker, or a booting one of `current`, that has not requested its replacement.
    ///
    /// A booting worker of another generation does not count: it may never serve.
    pub(crate) fn is_covered(&self, slot: Slot, current: Generation) -> bool {
        let covers = |entry: &Entry| entry.state.is_ready() || entry.generation == current;
        self.in_slot(slot).any(|entry| covers(entry) && !entry.leaves)
    }

    /// Whether `slot` has no worker, also none whose exit is awaited.
    pub(crate) fn is_vacant(&self, slot: Slot, current: Generation) -> bool {
        let is_missed =
            |entry: &Entry| entry.slot == slot && entry.generation == current && entry.state.is_missed();
        !self.is_covered(slot, current) && !self.iter().any(is_missed)
    }

    /// The number of generations besides `current` with ending workers.
    pub(crate) fn draining_generations(&self, current: Generation) -> usize {
        let leaving = self.iter().filter(|entry| entry.generation != current && entry.state.is_leaving());
        leaving.map(|entry| entry.generation).collect::<BTreeSet<_>>().len()
    }

    /// Whether some fork has neither succeeded nor failed yet.
    pub(crate) fn awaits_forks(&self) -> bool {
        self.iter().any(|entry| entry.pid.is_none())
    }

    /// Counts the timeout of every ready worker from `now`.
    pub(crate) fn restart_silences(&mut self, now: Moment) {
        for entry in self.entries.values_mut() {
            if let State::Ready { beat, .. } = &mut entry.state {
                *beat = now;
            }
        }
    }

    /// Moves every deadline by `by`, and counts every timeout from `now`.
    ///
    /// The supervisor did not run for a time, and may have missed beats.
    pub(crate) fn postpone_deadlines(&mut self, by: Duration, now: Moment) {
        for entry in self.entries.values_mut() {
            match &mut entry.state {
                State::Booting { since } => *since = since.saturating_add(by),
                State::Ready { beat, .. } => *beat = now,
                State::Aborting { kill_at, .. }
                | State::Draining { kill_at, .. }
                | State::Failed { kill_at } => *kill_at = kill_at.saturating_add(by),
                State::Killed { since, .. } => *since = since.saturating_add(by),
                State::Unkillable { .. } => {}
            }
        }
    }
}
