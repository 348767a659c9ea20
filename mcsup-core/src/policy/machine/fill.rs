//! Empty slots: filled after their back-off, or at once on request.

use super::Machine;
use crate::policy::event::{Moment, Place, Slot, Ticket};
use crate::policy::step::Step;

impl Machine {
    /// Starts workers in the empty slots whose start is due.
    pub(super) fn fill(&mut self, step: &mut Step) {
        self.starts.cancel_covered(&self.pool, step.now);
        if !self.molds.can_fork(self.pool.current) {
            // Due slots are filled once there is a mold.
            return self.starts.cancel_due(step.now);
        }
        for slot in self.starts.take_hurried(&self.pool) {
            self.start_in(slot, step);
        }
        while self.refusals.may_fork(step.now) {
            let Some(slot) = self.starts.next_due(&self.pool, step.now) else {
                // No fork is needed.
                return self.refusals.end();
            };
            self.start_in(slot, step);
        }
    }

    /// The time of the next start.
    pub(super) fn next_fill(&self) -> Option<Moment> {
        if self.pool.phase.is_ending() || !self.molds.can_fork(self.pool.current) {
            return None;
        }
        self.refusals.again().or_else(|| self.starts.next(&self.pool))
    }

    /// Handles a request for a worker in an empty slot.
    pub(super) fn ask_start(&mut self, slot: Slot, ticket: Option<Ticket>, step: &mut Step) {
        self.starts.ask(slot, ticket);
        self.refusals.end();
        self.molds.end_rest();
        self.fill(step);
    }

    /// Starts a worker in an empty slot without further checks.
    fn start_in(&mut self, slot: Slot, step: &mut Step) {
        self.starts.begun(slot);
        self.refusals.note_tried(step.now);
        self.spawn(Place { slot, generation: self.pool.current }, step);
    }
}
