//! A reload: its beginning, its steps slot by slot, its commit, or its rollback.

use super::Machine;
use crate::policy::effect::{Answer, Drain, Effect, FailureReason};
use crate::policy::event::{Generation, Moment, Place, Slot, Ticket};
use crate::policy::notice::{ReloadNotice, ScaleNotice};
use crate::policy::reloads::Reloads;
use crate::policy::rollout::{Rollout, RolloutStep, Settings};
use crate::policy::rules::Policy;
use crate::policy::status::PoolPhase;
use crate::policy::step::Step;
use crate::policy::table::Entry;

impl Machine {
    /// Handles a request to reload: the reload begins as soon as possible. The newest request wins.
    pub(super) fn ask_reload(&mut self, ticket: Option<Ticket>, step: &mut Step) {
        step.answer(self.reloads.ask(ticket), &Answer::Superseded);
        if let Some(reason) = Reloads::obstacle(&self.pool, step.now) {
            step.log(ReloadNotice::Postponed { reason });
        }
    }

    /// Handles a change of files that a worker has detected.
    pub(super) fn on_changed(&mut self, reason: String, step: &mut Step) {
        if !self.pool.is_about_to_end() && self.reloads.note_change(step.now) {
            step.log(ReloadNotice::Wanted { reason });
        }
    }

    /// Applies the settings of the new generation. `policy`: `None` if they have not changed.
    pub(super) fn on_prepared(
        &mut self,
        generation: Generation,
        policy: Option<Policy>,
        closes_listeners: bool,
        step: &mut Step,
    ) {
        let preloads = policy.as_ref().unwrap_or(&self.pool.policy).preload;
        let rollout = match &mut self.pool.phase {
            PoolPhase::Reloading(rollout) if rollout.generation == generation => rollout,
            // The settings that serve stay.
            _ if generation == self.pool.current => return,
            _ => return step.push(Effect::Discard { generation }),
        };
        if std::mem::replace(&mut rollout.is_prepared, true) {
            return;
        }
        rollout.closes_listeners = closes_listeners;
        if let Some(policy) = policy {
            // Scaling survives a reload, unless the settings name another number than they did.
            if policy.workers != self.pool.configured {
                rollout.workers = policy.workers;
            }
            rollout.workers = policy.allowed(rollout.workers);
            let before = Settings { policy: self.pool.policy.clone(), configured: self.pool.configured };
            rollout.before = Some(Box::new(before));
            self.apply_settings(Settings { configured: policy.workers, policy }, step.now);
        }
        if self.pool.slots() > self.pool.target {
            step.push(Effect::Resize { slots: self.pool.slots() });
        }
        if preloads {
            self.molds.want(generation);
        }
    }

    /// Ends the reload, because its settings are invalid or its listeners cannot be opened.
    pub(super) fn on_not_prepared(&mut self, generation: Generation, why: &FailureReason, step: &mut Step) {
        if self.pool.is_new(generation) {
            self.give_up(why, step);
        }
    }

    /// Advances the reload in progress, and begins a waiting one.
    pub(super) fn settle_rollout(&mut self, step: &mut Step) {
        if self.reloads.take_change(step.now) {
            self.ask_reload(None, step);
        }
        // First: a reload that is superseded takes no further step.
        if self.reloads.next_supersession(&self.pool).is_some_and(|at| at <= step.now) {
            self.supersede(step);
            self.begin_reload(step);
        }
        self.advance_rollout(step);
        self.advance_rollback(step);
        if self.reloads.may_begin(&self.pool) {
            self.begin_reload(step);
        }
    }

    fn begin_reload(&mut self, step: &mut Step) {
        let tickets = self.reloads.take();
        self.stop_recycling(step);
        self.pool.newest += 1;
        let generation = self.pool.newest;
        self.enter(PoolPhase::Reloading(Rollout::new(generation, self.pool.target, tickets, step.now)));
        step.log(ReloadNotice::Begun { generation });
        step.push(Effect::Prepare { generation });
    }

    fn advance_rollout(&mut self, step: &mut Step) {
        let PoolPhase::Reloading(rollout) = &mut self.pool.phase else { return };
        let generation = rollout.generation;
        if !rollout.is_prepared || !self.molds.can_fork(generation) {
            return;
        }
        match rollout.advance(&self.pool.table, &self.pool.policy.plan, step.now) {
            RolloutStep::Commit => self.commit(step),
            RolloutStep::Replace { retired, booted } => {
                for worker in retired {
                    self.retire(worker, Drain::Retire, step);
                }
                for slot in booted {
                    self.spawn(Place { slot, generation }, step);
                }
            }
        }
    }

    fn commit(&mut self, step: &mut Step) {
        let PoolPhase::Reloading(rollout) = self.enter(PoolPhase::Serving) else {
            return;
        };
        let Rollout { generation, since, tickets, workers, closes_listeners, .. } = rollout;
        let took = step.now.saturating_sub(since);
        self.pool.current = generation;
        self.starts.forget();
        self.molds.forget();
        step.log(ReloadNotice::Done { generation, took });
        // Before the last old worker drains: no connection may join a queue that no worker will serve.
        step.push(Effect::Commit { generation });
        if workers != self.pool.target {
            step.log(ScaleNotice::Begun { from: self.pool.target, to: workers });
            self.pool.target = workers;
            step.push(Effect::Resize { slots: workers });
        }
        // The old workers empty the queue of a listener that the new ones do not have.
        let how = if closes_listeners { Drain::Stop } else { Drain::Retire };
        for worker in
            self.pool.table.select(|entry| entry.generation != generation && !entry.state.is_leaving())
        {
            self.retire(worker, how, step);
        }
        step.kill(self.molds.keep_only(generation, step.now));
        let message = format!("generation {generation} serves after {:.3} s", took.as_secs_f64());
        step.answer(tickets, &Answer::Done(message));
    }

    /// Handles a failed worker of the new generation.
    pub(super) fn new_worker_failed(&mut self, why: FailureReason, step: &mut Step) {
        let PoolPhase::Reloading(rollout) = &mut self.pool.phase else { return };
        let generation = rollout.generation;
        match rollout.note_failure(&self.pool.policy.plan) {
            Some(left) => step.log(ReloadNotice::NewWorkerFailed { generation, reason: why.reason, left }),
            None => self.give_up(&why, step),
        }
    }

    /// Ends the failed rollout, and rolls back.
    pub(super) fn give_up(&mut self, why: &FailureReason, step: &mut Step) {
        let Some(rollout) = self.end_rollout(step.now) else { return };
        let generation = rollout.generation;
        step.log(ReloadNotice::Failed { generation, reason: why.reason.clone() });
        if self.pool.policy.development {
            let text = why.detail.as_ref().unwrap_or(&why.reason);
            let serves = |entry: &Entry| entry.state.is_ready() && entry.generation != generation;
            for worker in self.pool.table.select(serves) {
                step.push(Effect::Broken { worker, text: text.clone() });
            }
        }
        self.withdraw(generation, step);
        // This includes slots of a superseded generation, or of one that could not be rolled back.
        let is_stale = |slot: &Slot| self.pool.stale_worker(*slot).is_some();
        let stale = (0..self.pool.target).filter(is_stale).count();
        let state = match stale {
            0 => "the old generation goes on serving".to_owned(),
            slots => format!("slots that are rolled back to the old generation: {slots}"),
        };
        step.answer(rollout.tickets, &why.and(&state).answer());
        match stale {
            0 => step.push(Effect::Discard { generation }),
            slots => {
                step.log(ReloadNotice::RollingBack { slots });
                self.enter(PoolPhase::RollingBack { generation });
            }
        }
    }

    /// Ends the rollout in favour of a newer one. Its ready workers serve their slots until those of the newer one do.
    pub(super) fn supersede(&mut self, step: &mut Step) {
        let Some(rollout) = self.end_rollout(step.now) else { return };
        let generation = rollout.generation;
        step.log(ReloadNotice::Superseded { generation });
        step.answer(rollout.tickets, &Answer::Superseded);
        self.withdraw(generation, step);
        step.push(Effect::Discard { generation });
    }

    /// Abandons the reload in progress and the waiting one, because the pool ends.
    pub(super) fn abandon_rollout(&mut self, step: &mut Step) {
        let queued = self.reloads.stop();
        let under_way = self.end_rollout(step.now).map(|rollout| rollout.tickets).unwrap_or_default();
        step.answer(queued.into_iter().chain(under_way), &Answer::Superseded);
    }

    /// Ends the reload in progress without a notice, and restores the settings.
    fn end_rollout(&mut self, now: Moment) -> Option<Rollout> {
        if !matches!(self.pool.phase, PoolPhase::Reloading(_)) {
            return None;
        }
        let PoolPhase::Reloading(mut rollout) = self.enter(PoolPhase::Serving) else {
            return None;
        };
        if let Some(before) = rollout.before.take() {
            self.apply_settings(*before, now);
        }
        Some(rollout)
    }

    /// Applies other settings. A changed timeout counts from now on: without one the beats were not compared.
    fn apply_settings(&mut self, settings: Settings, now: Moment) {
        let Settings { policy, configured } = settings;
        if policy.timeout != self.pool.policy.timeout {
            self.pool.table.restart_silences(now);
        }
        (self.pool.policy, self.pool.configured) = (policy, configured);
    }

    /// Ends the workers of a generation, except the only ready one of a slot.
    fn withdraw(&mut self, generation: Generation, step: &mut Step) {
        step.kill(self.molds.drop_for(generation, step.now));
        self.leave_slots(step);
        let goes_on = |entry: &Entry| entry.generation == generation && !entry.state.is_leaving();
        for worker in self.pool.table.select(goes_on) {
            let Some(entry) = self.pool.table.get(worker) else { continue };
            let mut others = self.pool.table.in_slot(entry.slot);
            let has_other = others.any(|other| other.id != worker && other.state.is_ready());
            if has_other || !entry.state.is_ready() {
                drop(others);
                // A ready worker has accepted connections, and finishes them.
                self.retire(worker, Drain::Retire, step);
            }
        }
    }

    /// Advances a rollback: boots workers of the serving generation, one batch after the other.
    fn advance_rollback(&mut self, step: &mut Step) {
        self.retire_stale(step);
        let PoolPhase::RollingBack { generation } = self.pool.phase else { return };
        if !self.pool.has_stale_workers() {
            self.enter(PoolPhase::Serving);
            step.push(Effect::Discard { generation });
            return step.log(ReloadNotice::RolledBack);
        }
        let generation = self.pool.current;
        for slot in self.pool.returned() {
            self.spawn(Place { slot, generation }, step);
        }
    }

    /// Retires stale workers beside a ready one of the serving generation.
    ///
    /// They may also be left after a failed rollback, or during another reload.
    fn retire_stale(&mut self, step: &mut Step) {
        let is_over = |entry: &Entry| {
            self.pool.is_stale(entry) && self.pool.table.is_held(entry.slot, self.pool.current)
        };
        for worker in self.pool.table.select(is_over) {
            self.retire(worker, Drain::Retire, step);
        }
    }

    /// Ends the rollback if the failed boot in `slot` was part of it.
    pub(super) fn note_failed_return(&mut self, slot: Slot, reason: &str, step: &mut Step) {
        if self.pool.stale_worker(slot).is_some() {
            self.rollback_failed(reason, step);
        }
    }

    /// Ends a failed rollback: the new workers continue to serve their slots.
    pub(super) fn rollback_failed(&mut self, reason: &str, step: &mut Step) {
        let PoolPhase::RollingBack { generation } = self.pool.phase else { return };
        self.enter(PoolPhase::Serving);
        step.push(Effect::Discard { generation });
        step.log(ReloadNotice::RollbackFailed { reason: reason.to_owned() });
    }
}
