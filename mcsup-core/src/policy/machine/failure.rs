//! Failed boots of the serving generation: they fail the requests that wait for them.

use super::Machine;
use crate::policy::effect::FailureReason;
use crate::policy::event::Slot;
use crate::policy::step::Step;
use crate::policy::table::Entry;

impl Machine {
    /// Handles a failed boot of a worker that is not of a new generation.
    pub(super) fn note_failure(&mut self, entry: &Entry, why: &FailureReason, step: &mut Step) {
        self.recycler.note_failure(entry.id, why);
        if entry.generation == self.pool.current {
            self.note_failed_start(entry.slot, why, step);
            self.note_failed_return(entry.slot, &why.reason, step);
            self.note_failed_addition(entry.slot, why, step);
        }
    }

    /// Handles a missing mold: the empty slots get no worker.
    pub(super) fn note_missing_mold(&mut self, why: &FailureReason, step: &mut Step) {
        for slot in 0..self.pool.target {
            if !self.pool.table.are_served(slot..slot + 1) {
                self.note_failed_start(slot, why, step);
                self.note_failed_addition(slot, why, step);
            }
        }
    }

    fn note_failed_start(&mut self, slot: Slot, why: &FailureReason, step: &mut Step) {
        step.answer(self.starts.take_waiting(slot), &why.answer());
    }
}
