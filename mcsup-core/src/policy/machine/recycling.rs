//! Recycling: workers that have reached a limit or that an operator names get a successor.

use super::Machine;
use crate::policy::effect::{Answer, Drain};
use crate::policy::event::{Place, Slot, Ticket, WorkerId};
use crate::policy::notice::RecycleNotice;
use crate::policy::recycle::{Marked, Recycler, Replaced};
use crate::policy::status::PoolPhase;
use crate::policy::step::Step;

impl Machine {
    /// Handles a worker that has served its maximum of requests.
    pub(super) fn on_enough(&mut self, worker: WorkerId, requests: u64, step: &mut Step) {
        let entry = self.pool.table.get(worker);
        if let Some(reason) = entry.and_then(|entry| Recycler::judge_requests(entry, requests)) {
            self.mark(worker, reason, step);
        }
    }

    /// Handles a measurement of memory.
    pub(super) fn on_memory(&mut self, used: Vec<(WorkerId, u64)>, step: &mut Step) {
        for (worker, bytes) in used {
            let entry = self.pool.table.get(worker);
            if let Some(reason) = entry.and_then(|entry| Recycler::judge_memory(entry, bytes)) {
                self.mark(worker, reason, step);
            }
        }
    }

    /// Handles a request to recycle a slot; in an empty slot it starts a worker now.
    pub(super) fn ask_recycle(&mut self, slot: Slot, ticket: Option<Ticket>, step: &mut Step) {
        self.recycler.retry_now();
        let mut workers = self.pool.table.in_slot(slot);
        let ready = workers.find(|entry| entry.state.is_ready()).map(|entry| entry.id);
        drop(workers);
        match ready {
            Some(worker) => {
                self.recycler.wait(ticket, worker);
                self.mark(worker, "somebody asked for it".to_owned(), step);
            }
            None if slot < self.pool.target => self.ask_start(slot, ticket, step),
            None => {
                let reason = format!("there is no slot {slot}: they are 0 to {}", self.pool.target - 1);
                step.answer(ticket, &Answer::Refused(reason));
            }
        }
    }

    /// Marks workers at the end of their lifetime, and advances the replacement in progress.
    pub(super) fn settle_recycling(&mut self, step: &mut Step) {
        for Marked { worker, reason } in Recycler::aged(&self.pool, step.now) {
            self.mark(worker, reason, step);
        }
        if self.pool.phase != PoolPhase::Serving {
            return;
        }
        if let Some(replaced) = self.recycler.advance(&self.pool, step.now) {
            self.end_replacement(replaced, step);
        }
        if !self.upgrades.is_wanted() && !self.refusals.is_refused() {
            self.begin_replacement(step);
        }
        let answer = Answer::Done("the worker had left its slot already".to_owned());
        step.answer(self.recycler.take_gone(&self.pool), &answer);
    }

    fn begin_replacement(&mut self, step: &mut Step) {
        let Some(entry) = self.recycler.candidate(&self.pool) else { return };
        let generation = self.pool.current;
        if !self.molds.can_fork(generation) {
            return;
        }
        let (old, slot, pid) = (entry.id, entry.slot, entry.shown_pid());
        let reason = entry.recycle.clone().unwrap_or_default();
        step.log(RecycleNotice::Begun { pid, slot, reason });
        if let Some(new) = self.spawn(Place { slot, generation }, step) {
            self.recycler.begin(old, new, slot);
        }
    }

    fn end_replacement(&mut self, replaced: Replaced, step: &mut Step) {
        match replaced {
            Replaced::Done { old, slot, tickets } => {
                self.retire(old, Drain::Retire, step);
                step.log(RecycleNotice::Done { slot });
                step.answer(tickets, &Answer::Done(format!("slot {slot} has a new worker")));
            }
            Replaced::Failed { slot, why, tickets } => {
                let (reason, again_in) = (why.reason.clone(), self.pool.policy.restart.cap);
                step.log(RecycleNotice::Failed { slot, reason, again_in });
                step.answer(tickets, &why.answer());
            }
        }
    }
}
