//! Changes of the table, each with the effects that it needs.

use super::Machine;
use crate::policy::Answer;
use crate::policy::effect::{Drain, Effect};
use crate::policy::event::{Place, WorkerId};
use crate::policy::exit::KillReason;
use crate::policy::notice::RecycleNotice;
use crate::policy::recycle::AbandonedReplacement;
use crate::policy::state::State;
use crate::policy::status::PoolPhase;
use crate::policy::step::Step;
use crate::policy::table::Entry;

impl Machine {
    /// Forks a worker; `None`: its mold is not ready, and the slot stays empty until then.
    pub(super) fn spawn(&mut self, place: Place, step: &mut Step) -> Option<WorkerId> {
        let Place { slot, generation } = place;
        if !self.molds.can_fork(generation) {
            return None;
        }
        let mold = self.molds.ready(generation).filter(|_| self.molds.wants(generation));
        let allowance = self.recycler.draw(&self.pool.policy.recycling);
        let worker = self.pool.table.add(place, mold, allowance, step.now);
        step.push(Effect::Spawn { worker, slot, generation, mold, max_requests: allowance.requests });
        Some(worker)
    }

    /// Changes the phase of the pool. Returns the earlier one.
    pub(super) fn enter(&mut self, phase: PoolPhase) -> PoolPhase {
        std::mem::replace(&mut self.pool.phase, phase)
    }

    /// Kills a worker, once.
    pub(super) fn kill(&mut self, worker: WorkerId, reason: KillReason, step: &mut Step) {
        let Some(entry) = self.pool.table.get_mut(worker) else { return };
        if !matches!(entry.state, State::Killed { .. } | State::Unkillable { .. }) {
            entry.state = State::Killed { reason, since: step.now, ready_since: entry.state.ready_since() };
            step.push(Effect::Kill { worker });
        }
    }

    /// Drains a worker while others serve. Kills one that has no clients yet.
    pub(super) fn retire(&mut self, worker: WorkerId, how: Drain, step: &mut Step) {
        let Some(entry) = self.pool.table.get(worker) else { return };
        let (slot, is_current) = (entry.slot, entry.generation == self.pool.current);
        match entry.state {
            State::Ready { since, .. } => {
                self.drain(worker, how, step);
                if is_current {
                    self.starts.served(slot, step.now.saturating_sub(since));
                }
            }
            State::Booting { .. } if self.pool.may_serve(entry) => self.drain(worker, how, step),
            State::Booting { .. } => self.kill(worker, KillReason::GivenUp, step),
            _ => {}
        }
    }

    /// Orders a worker to finish within the graceful timeout.
    pub(super) fn drain(&mut self, worker: WorkerId, how: Drain, step: &mut Step) {
        let kill_at = step.after(self.pool.policy.graceful_timeout);
        if let Some(entry) = self.pool.table.get_mut(worker) {
            entry.state = State::Draining { how, kill_at };
            step.push(Effect::Drain { worker, how });
        }
    }

    /// Marks a worker for recycling.
    pub(super) fn mark(&mut self, worker: WorkerId, reason: String, step: &mut Step) {
        let is_postponed = self.pool.phase != PoolPhase::Serving;
        let Some(entry) = self.pool.table.get_mut(worker).filter(|entry| entry.state.is_ready()) else {
            return;
        };
        if entry.recycle.is_none() {
            entry.recycle = Some(reason.clone());
            if is_postponed {
                step.log(RecycleNotice::Postponed { slot: entry.slot, reason });
            }
        }
    }

    /// Adjusts the listeners to the needed slots, and retires the workers of others.
    pub(super) fn leave_slots(&mut self, step: &mut Step) {
        step.push(Effect::Resize { slots: self.pool.slots() });
        let is_left = |entry: &Entry| entry.slot >= self.pool.slots_of(entry.generation);
        for worker in self.pool.table.select(|entry| is_left(entry) && !entry.state.is_leaving()) {
            // The supervisor hands connections on the slot's own sockets to other workers.
            self.retire(worker, Drain::Retire, step);
        }
    }

    /// Abandons the replacement of a worker, because a reload begins or the pool ends.
    pub(super) fn stop_recycling(&mut self, step: &mut Step) {
        let AbandonedReplacement { superfluous, tickets } = self.recycler.stop(&self.pool);
        if let Some(worker) = superfluous {
            self.retire(worker, Drain::Retire, step);
        }
        step.answer(tickets, &Answer::Superseded);
    }
}
