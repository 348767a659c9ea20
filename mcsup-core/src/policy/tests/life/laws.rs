//! What holds at any time of any life.

use std::collections::{BTreeMap, BTreeSet};

use super::Life;
use crate::policy::event::Slot;
use crate::policy::*;

impl Life {
    /// The slots that are served, a bit each.
    pub(super) fn covered(&self) -> u64 {
        let ready = self.machine.table().iter().filter(|entry| entry.state.is_ready());
        ready.fold(0, |slots, entry| slots | 1 << entry.slot)
    }

    /// The worker or mold whose end `event` reports.
    pub(super) fn slot_of(&self, event: &Event) -> Option<Slot> {
        match event {
            Event::Exited { worker, .. } | Event::Leaving { worker, .. } => {
                self.machine.table().get(*worker).map(|entry| entry.slot)
            }
            _ => None,
        }
    }

    /// No decision takes a slot's last ready worker away, other than to be smaller or to end.
    pub(super) fn check_capacity(&self, before: u64, target: usize, own_end: Option<Slot>) {
        if self.machine.phase().is_ending() {
            return;
        }
        let lost = before & !self.covered();
        let target = target.min(self.machine.target());
        for slot in (0..target).filter(|slot| lost & 1 << slot != 0) {
            let is_silent = |entry: &table::Entry| {
                entry.slot == slot
                    && matches!(entry.state, State::Aborting { kill_at, .. } if kill_at > self.now)
            };
            let excused = own_end == Some(slot) || self.machine.table().iter().any(is_silent);
            assert!(excused, "slot {slot} lost its worker");
        }
    }

    /// What holds whenever nothing is half done.
    pub(in super::super) fn check(&self) {
        let (machine, table) = (&self.machine, self.machine.table());
        let known: BTreeSet<WorkerId> = table.iter().map(|entry| entry.id).collect();
        let molds: BTreeSet<WorkerId> = machine.molds().iter().map(|(id, _)| id).collect();
        let left = match self.outcome {
            None => usize::MAX,
            Some(Outcome::Unkillable { left }) => left,
            Some(_) => 0,
        };
        assert!(self.processes().count() <= left, "ended with processes alive");
        let there: BTreeSet<WorkerId> = self.living.keys().chain(self.unforked.keys()).copied().collect();
        assert_eq!(there, known, "workers that are, and workers that are known");
        assert_eq!(self.molds.keys().copied().collect::<BTreeSet<_>>(), molds, "molds");
        if machine.phase().is_ending() {
            assert_eq!(self.staying(), 0);
            return;
        }
        let (mut booting, mut holders) = (BTreeSet::new(), BTreeMap::<_, usize>::new());
        for entry in table.iter().filter(|entry| !entry.state.is_leaving()) {
            if !entry.state.is_ready() {
                booting.insert(entry.generation);
            }
            if entry.leaves {
                // It has asked to be replaced, and its successor is made on top.
                continue;
            }
            *holders.entry((entry.slot, entry.generation)).or_default() += 1;
        }
        assert!(booting.len() <= 2, "more than two generations boot");
        let doubles = holders.values().filter(|count| **count > 1).count();
        assert!(doubles <= 1, "more than one slot is recycled at a time");
        // The serving generation's own losses are made good on top of the slots that another holds.
        let is_beside = |entry: &table::Entry| {
            table.in_slot(entry.slot).any(|other| other.generation != entry.generation)
        };
        let is_respawn = |entry: &table::Entry| {
            let boots = matches!(entry.state, State::Booting { .. });
            entry.generation == machine.current() && boots && is_beside(entry)
        };
        let staying =
            |entry: &&table::Entry| !entry.state.is_leaving() && !entry.leaves && !is_respawn(entry);
        let (count, bound) = (table.iter().filter(staying).count(), self.bound());
        assert!(count <= bound, "{count} workers, of at most {bound}");
    }

    /// How many workers there may be that are not on their way out.
    fn bound(&self) -> usize {
        let surge = |surge: Surge, workers: usize| match surge {
            Surge::Extra(extra) => extra.clamp(1, workers),
            Surge::All => workers,
        };
        let plan = self.machine.policy().plan.surge;
        let target = self.machine.target();
        match self.machine.phase() {
            PoolPhase::Reloading(rollout) => {
                let workers = rollout.workers.max(target);
                workers + surge(plan, workers)
            }
            PoolPhase::Starting | PoolPhase::Upgrading { .. } | PoolPhase::Serving => {
                target + surge(plan, target)
            }
            _ => target + surge(plan, target) + 1,
        }
    }
}
