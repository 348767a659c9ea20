//! The number of workers: as asked, within the bound of the settings, and back where new ones cannot boot.

use super::Machine;
use crate::policy::effect::{Answer, Why};
use crate::policy::event::{Slot, Ticket};
use crate::policy::notice::ScaleNotice;
use crate::policy::scale::Scaling;
use crate::policy::status::PoolPhase;
use crate::policy::step::Step;

impl Machine {
    /// An operator wants `target` workers.
    pub(super) fn ask_scale(&mut self, target: usize, ticket: Option<Ticket>, step: &mut Step) {
        if target < 1 || target > self.pool.policy.max_workers {
            let reason = format!("{target} workers: expected 1 to {}", self.pool.policy.max_workers);
            return step.answer(ticket, &Answer::Refused(reason));
        }
        let superseded = self.scaler.begin(&self.pool, ticket);
        step.answer(superseded, &Answer::Superseded);
        self.scale(target, step);
        // One that boots goes there as well, whatever its settings say: the newest request wins.
        self.scale_rollout(target, step);
    }

    /// Goes to `target` workers, in the generation that serves. One that boots goes there as well, unless its settings
    /// name a number of their own.
    fn scale(&mut self, target: usize, step: &mut Step) {
        let (from, target) = (self.pool.target, self.pool.policy.allowed(target));
        if target == from {
            return;
        }
        step.tell(ScaleNotice::Begun { from, to: target });
        self.pool.target = target;
        self.starts.resize(from, target);
        match &self.pool.phase {
            PoolPhase::Reloading(rollout) if rollout.workers == from => self.scale_rollout(target, step),
            _ => self.leave_slots(step),
        }
    }

    /// The generation that boots goes to `workers`.
    fn scale_rollout(&mut self, workers: usize, step: &mut Step) {
        match &mut self.pool.phase {
            PoolPhase::Reloading(rollout) if rollout.workers != workers => {
                rollout.workers = workers;
                self.leave_slots(step);
            }
            _ => {}
        }
    }

    /// Answers requests for a size that the pool has by now. Brings the size back within a bound that has changed.
    pub(super) fn settle_size(&mut self, step: &mut Step) {
        let target = self.pool.target;
        if self.pool.phase == PoolPhase::Serving && self.pool.policy.allowed(target) != target {
            self.scale(target, step);
            // Its workers are forked when this is settled next, which must not wait for something to happen.
            self.fill(step);
        }
        step.reply(self.scaler.settle(&self.pool));
    }

    /// A new worker failed: the pool goes back to its size, where a change of size added the worker.
    pub(super) fn note_failed_addition(&mut self, slot: Slot, why: &Why, step: &mut Step) {
        if self.pool.table.are_served(slot..slot + 1) {
            return;
        }
        let Some(Scaling { from, tickets }) = self.scaler.take_failed(slot) else { return };
        let to = self.pool.target;
        self.scale(from, step);
        step.tell(ScaleNotice::Failed { from, to, reason: why.reason.clone() });
        step.answer(tickets, &why.answer());
    }
}
