//! Changes of the number of workers, within the limit of the settings, and their reversal after a failure.

use super::Machine;
use crate::policy::effect::{Answer, FailureReason};
use crate::policy::event::{Slot, Ticket};
use crate::policy::notice::ScaleNotice;
use crate::policy::scale::Scaling;
use crate::policy::status::PoolPhase;
use crate::policy::step::Step;

impl Machine {
    /// Handles a request for `target` workers.
    pub(super) fn ask_scale(&mut self, target: usize, ticket: Option<Ticket>, step: &mut Step) {
        if target < 1 || target > self.pool.policy.max_workers {
            let reason = format!("{target} workers: expected 1 to {}", self.pool.policy.max_workers);
            return step.answer(ticket, &Answer::Refused(reason));
        }
        let superseded = self.scaler.begin(&self.pool, ticket);
        step.answer(superseded, &Answer::Superseded);
        self.scale(target, step);
        // A booting generation follows, even if its settings name another number: the newest request wins.
        self.scale_rollout(target, step);
    }

    /// Changes the number of workers of the serving generation. A booting one follows, unless its settings name another
    /// number.
    fn scale(&mut self, target: usize, step: &mut Step) {
        let (from, target) = (self.pool.target, self.pool.policy.allowed(target));
        if target == from {
            return;
        }
        step.log(ScaleNotice::Begun { from, to: target });
        self.pool.target = target;
        self.starts.resize(from, target);
        match &self.pool.phase {
            PoolPhase::Reloading(rollout) if rollout.workers == from => self.scale_rollout(target, step),
            _ => self.leave_slots(step),
        }
    }

    /// Changes the number of workers of the booting generation.
    fn scale_rollout(&mut self, workers: usize, step: &mut Step) {
        match &mut self.pool.phase {
            PoolPhase::Reloading(rollout) if rollout.workers != workers => {
                rollout.workers = workers;
                self.leave_slots(step);
            }
            _ => {}
        }
    }

    /// Answers requests for the reached size, and brings the size within a changed limit.
    pub(super) fn settle_size(&mut self, step: &mut Step) {
        let target = self.pool.target;
        if self.pool.phase == PoolPhase::Serving && self.pool.policy.allowed(target) != target {
            self.scale(target, step);
            // Fork now: no event may follow that would fill the slots.
            self.fill(step);
        }
        step.reply(self.scaler.settle(&self.pool));
    }

    /// Reverses the change of size that has added `slot`, because its worker failed.
    pub(super) fn note_failed_addition(&mut self, slot: Slot, why: &FailureReason, step: &mut Step) {
        if self.pool.table.are_served(slot..slot + 1) {
            return;
        }
        let Some(Scaling { from, tickets }) = self.scaler.take_failed(slot) else { return };
        let to = self.pool.target;
        self.scale(from, step);
        step.log(ScaleNotice::Failed { from, to, reason: why.reason.clone() });
        step.answer(tickets, &why.answer());
    }
}
