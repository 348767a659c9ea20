//! When a new generation takes over, and when it is given up.
//!
//! A reload is a transaction. New workers boot beside the old ones, as many at once as the plan's surge allows. The
//! first of them must prove themselves: alive for the soak time after they were ready. Then each old worker retires as
//! soon as a new one is ready in its slot, and never before. If one fails, the new generation goes: the old workers that
//! are still there never stopped serving, and those that had retired already are booted anew before their successors go.

use std::time::Duration;

use super::effect::{Answer, Drain, Effect};
use super::event::{Generation, Moment, Slot, Ticket, WorkerId};
use super::exit::KillReason;
use super::machine::Machine;
use super::notice::{Notice, ReloadNotice, ScaleNotice};
use super::rules::Policy;
use super::status::{Phase, State};
use super::step::Step;
use super::table::Entry;
use super::under_way::{Rollback, Rollout};

/// How many generations may drain behind the serving one before a further reload waits: bounds what a storm of
/// reloads can pile up without cutting a request off.
const DRAINING_GENERATIONS: usize = 2;

/// All workers of a pool see that what they run has changed at about the same time.
const SAME_CHANGE: Duration = Duration::from_millis(150);

impl Machine {
    /// A reload was asked for: begun now, or as soon as it may be. The newest request wins.
    pub(super) fn ask_reload(&mut self, ticket: Option<Ticket>, step: &mut Step) {
        let older = self.queued_reload.replace(ticket.into_iter().collect());
        step.answer(older.into_iter().flatten(), &Answer::Superseded);
        let reason = match &self.phase {
            Phase::Starting => "no worker has been ready yet",
            Phase::Serving if self.drains_too_many() => "older generations are still draining",
            Phase::Reloading(rollout)
                if step.now < rollout.since.saturating_add(self.policy.reload_interval) =>
            {
                "another reload has only just begun"
            }
            Phase::RollingBack(_) => "a failed generation is still being rolled back",
            Phase::Upgrading { .. } => "an upgrade is under way",
            _ => return,
        };
        step.tell(Notice::Reload(ReloadNotice::Postponed { reason }));
    }

    /// A worker has seen a change; others are about to.
    pub(super) fn on_changed(&mut self, reason: String, step: &mut Step) {
        let ends = self.phase.is_ending() || matches!(self.phase, Phase::LameDuck { .. });
        if self.changed_at.is_none() && !ends {
            self.changed_at = Some(step.after(SAME_CHANGE));
            step.tell(Notice::Reload(ReloadNotice::Wanted { reason }));
        }
    }

    /// The settings of the generation that boots next.
    pub(super) fn on_prepared(
        &mut self,
        generation: Generation,
        (policy, closes_listeners): (Option<Box<Policy>>, bool),
        step: &mut Step,
    ) {
        let preloads = policy.as_ref().map_or(self.policy.preload, |policy| policy.preload);
        let rollout = match &mut self.phase {
            Phase::Reloading(rollout) if rollout.generation == generation => rollout,
            // What serves is not let go of, whoever says what.
            _ if generation == self.current => return,
            _ => return step.push(Effect::Discard { generation }),
        };
        if std::mem::replace(&mut rollout.is_prepared, true) {
            return;
        }
        rollout.closes_listeners = closes_listeners;
        if let Some(policy) = policy {
            // Scaling survives a reload, unless the settings name another number than they did.
            if policy.workers != self.configured {
                rollout.workers = policy.workers;
            }
            rollout.workers = policy.allowed(rollout.workers);
            rollout.before = Some(Box::new((self.policy.clone(), self.configured)));
            let configured = policy.workers;
            self.decide_by(*policy, configured, step.now);
        }
        if self.slots() > self.target {
            step.push(Effect::Resize { slots: self.slots() });
        }
        if preloads {
            self.molds.wanted_by.insert(generation);
        }
    }

    /// The settings cannot be read, or not be met.
    pub(super) fn on_not_prepared(&mut self, generation: Generation, reason: String, step: &mut Step) {
        if self.is_new(generation) {
            self.give_up(reason, None, step);
        }
    }

    /// Whether `generation` is on its way and has not taken over yet.
    pub(super) fn is_new(&self, generation: Generation) -> bool {
        matches!(&self.phase, Phase::Reloading(rollout) if rollout.generation == generation)
    }

    /// Goes on with what is under way, and begins what waits.
    pub(super) fn settle_rollout(&mut self, step: &mut Step) {
        if self.changed_at.is_some_and(|at| at <= step.now) {
            self.changed_at = None;
            if self.queued_reload.is_none() {
                self.ask_reload(None, step);
            }
        }
        // First: what is given up anyway does not go on.
        if self.next_supersession().is_some_and(|at| at <= step.now) {
            self.supersede(step);
            self.begin_reload(step);
        }
        self.advance_rollout(step);
        self.advance_rollback(step);
        if self.phase == Phase::Serving && self.queued_reload.is_some() && !self.drains_too_many() {
            self.begin_reload(step);
        }
    }

    /// When the reload that waits takes the place of the one that is under way.
    fn next_supersession(&self) -> Option<Moment> {
        match &self.phase {
            Phase::Reloading(rollout) if self.queued_reload.is_some() && !self.drains_too_many() => {
                Some(rollout.since.saturating_add(self.policy.reload_interval))
            }
            _ => None,
        }
    }

    /// When something of it is due.
    pub(super) fn next_rollout_deadline(&self) -> Option<Moment> {
        let rollout = match &self.phase {
            Phase::Reloading(rollout) => rollout,
            _ => return self.changed_at,
        };
        let proof = if rollout.is_proven { None } else { self.proven_at(rollout) };
        [self.changed_at, self.next_supersession(), proof].into_iter().flatten().min()
    }

    /// One of the new generation's workers failed.
    pub(super) fn newcomer_failed(&mut self, reason: String, detail: Option<String>, step: &mut Step) {
        let retries = self.policy.plan.retries;
        let Phase::Reloading(rollout) = &mut self.phase else { return };
        rollout.failures += 1;
        if rollout.failures > retries {
            return self.give_up(reason, detail, step);
        }
        let (generation, left) = (rollout.generation, retries - rollout.failures);
        step.tell(Notice::Reload(ReloadNotice::NewcomerFailed { generation, reason, left }));
    }

    /// The new generation failed: it goes, and nothing has changed.
    pub(super) fn give_up(&mut self, reason: String, detail: Option<String>, step: &mut Step) {
        let Some(rollout) = self.end_rollout(step.now) else { return };
        let generation = rollout.generation;
        step.tell(Notice::Reload(ReloadNotice::Failed { generation, reason: reason.clone() }));
        if self.policy.development {
            let text = detail.clone().unwrap_or_else(|| reason.clone());
            for worker in self.table.select(|entry| entry.state.is_ready() && entry.generation != generation)
            {
                step.push(Effect::Broken { worker, text: text.clone() });
            }
        }
        let answer = Answer::Failed { reason, detail };
        step.answer(rollout.tickets, &answer);
        self.withdraw(generation, step);
        // Also those that a generation had taken over which this one superseded, or which could not be rolled back.
        let taken_over = |slot: &Slot| self.foreigner(*slot).is_some();
        match (0..self.target).filter(taken_over).count() {
            0 => step.push(Effect::Discard { generation }),
            slots => {
                step.tell(Notice::Reload(ReloadNotice::RollingBack { slots }));
                self.phase = Phase::RollingBack(Rollback { generation, since: step.now });
            }
        }
    }

    /// The pool ends: so does whatever is on its way.
    pub(super) fn abandon_rollout(&mut self, step: &mut Step) {
        self.changed_at = None;
        let queued = self.queued_reload.take().unwrap_or_default();
        let under_way = self.end_rollout(step.now).map(|rollout| rollout.tickets).unwrap_or_default();
        step.answer(queued.into_iter().chain(under_way), &Answer::Superseded);
    }

    /// Asks a worker to finish while others go on; one that is not ready yet has nothing to finish.
    pub(super) fn retire(&mut self, worker: WorkerId, how: Drain, step: &mut Step) {
        let kill_at = step.after(self.policy.graceful_timeout);
        let Some(entry) = self.table.get_mut(worker) else { return };
        match entry.state {
            State::Ready { since, .. } => {
                entry.state = State::Draining { how, kill_at };
                let (slot, is_current) = (entry.slot, entry.generation == self.current);
                step.push(Effect::Drain { worker, how });
                if is_current {
                    self.restarts.note_served(slot, step.now.saturating_sub(since));
                }
            }
            State::Booting { .. } => self.kill(worker, KillReason::GivenUp, step),
            _ => {}
        }
    }

    fn begin_reload(&mut self, step: &mut Step) {
        let tickets = self.queued_reload.take().unwrap_or_default();
        self.stop_recycling(step);
        self.newest += 1;
        let generation = self.newest;
        self.phase = Phase::Reloading(Rollout {
            generation,
            since: step.now,
            tickets,
            is_prepared: false,
            workers: self.target,
            closes_listeners: false,
            before: None,
            is_proven: false,
            failures: 0,
        });
        step.tell(Notice::Reload(ReloadNotice::Begun { generation }));
        step.push(Effect::Prepare { generation });
    }

    /// A newer reload takes its place; what it has taken over already serves on until the newer one does.
    pub(super) fn supersede(&mut self, step: &mut Step) {
        let Some(rollout) = self.end_rollout(step.now) else { return };
        let generation = rollout.generation;
        step.tell(Notice::Reload(ReloadNotice::Superseded { generation }));
        step.answer(rollout.tickets, &Answer::Superseded);
        self.withdraw(generation, step);
        step.push(Effect::Discard { generation });
    }

    /// Other settings hold from step.now on. Whoever was never asked for signs of life is not blamed for having given none.
    fn decide_by(&mut self, policy: Policy, configured: usize, now: Moment) {
        if policy.timeout != self.policy.timeout {
            self.table.begin_silences(now);
        }
        (self.policy, self.configured) = (policy, configured);
    }

    /// Ends what is under way without a word, as if its settings had never been read.
    fn end_rollout(&mut self, now: Moment) -> Option<Rollout> {
        if !matches!(self.phase, Phase::Reloading(_)) {
            return None;
        }
        let Phase::Reloading(mut rollout) = std::mem::replace(&mut self.phase, Phase::Serving) else {
            return None;
        };
        if let Some(before) = rollout.before.take() {
            let (policy, configured) = *before;
            self.decide_by(policy, configured, now);
        }
        Some(rollout)
    }

    /// Takes a generation's workers out of every slot that does not need them.
    fn withdraw(&mut self, generation: Generation, step: &mut Step) {
        self.drop_mold(generation, step);
        self.leave_slots(step);
        for worker in self.table.select(|entry| entry.generation == generation && !entry.state.is_leaving()) {
            let Some(entry) = self.table.get(worker) else { continue };
            let slot = entry.slot;
            let others = self.table.in_slot(slot).any(|other| other.id != worker && other.state.is_ready());
            if others || !entry.state.is_ready() {
                // Those that are ready have accepted connections, and finish them.
                self.retire(worker, Drain::Retire, step);
            }
        }
    }

    fn advance_rollout(&mut self, step: &mut Step) {
        let Phase::Reloading(rollout) = &self.phase else { return };
        let (generation, slots) = (rollout.generation, rollout.workers);
        if !rollout.is_prepared || !self.molds.can_fork(generation) {
            return;
        }
        if !rollout.is_proven {
            let is_proven = self.proven_at(rollout).is_some_and(|at| at <= step.now);
            if let Phase::Reloading(rollout) = &mut self.phase {
                rollout.is_proven = is_proven;
            }
        }
        let is_proven = matches!(&self.phase, Phase::Reloading(rollout) if rollout.is_proven);
        if is_proven && self.table.is_complete(generation, slots) {
            return self.commit(step);
        }
        if is_proven {
            self.retire_predecessors(generation, slots, step);
        }
        self.boot_successors(generation, slots, is_proven, step);
    }

    /// When the first batch will have proved itself, if all of it lives that long; `None`: it is not complete.
    fn proven_at(&self, rollout: &Rollout) -> Option<Moment> {
        let batch = self.policy.plan.surge.batch(rollout.workers);
        let mine = self.table.iter().filter(|entry| entry.generation == rollout.generation);
        let ready: Vec<Moment> = mine
            .filter(|entry| entry.state.is_ready())
            .filter_map(|entry| entry.state.ready_since())
            .collect();
        let last = ready.iter().max().filter(|_| ready.len() >= batch)?;
        Some(last.saturating_add(self.policy.plan.soak))
    }

    /// Each slot with a ready worker of `generation` needs no other.
    fn retire_predecessors(&mut self, generation: Generation, slots: usize, step: &mut Step) {
        for slot in (0..slots).filter(|slot| self.table.is_held(*slot, generation)).collect::<Vec<_>>() {
            let others = |entry: &&Entry| entry.generation != generation;
            for worker in self.table.in_slot(slot).filter(others).map(|entry| entry.id).collect::<Vec<_>>() {
                self.retire(worker, Drain::Retire, step);
            }
        }
    }

    /// Boots workers of `generation` in slots that have none, within the surge.
    fn boot_successors(&mut self, generation: Generation, slots: usize, is_proven: bool, step: &mut Step) {
        let batch = self.policy.plan.surge.batch(slots);
        let counts = |entry: &Entry| {
            let on_its_way = matches!(entry.state, State::Booting { .. });
            entry.generation == generation && (on_its_way || !is_proven && entry.state.is_ready())
        };
        let mut room = batch.saturating_sub(self.table.iter().filter(|entry| counts(entry)).count());
        for slot in 0..slots {
            if room == 0 {
                break;
            }
            if self.table.holder(slot, generation).is_none() {
                room -= 1;
                self.spawn(slot, generation, step);
            }
        }
    }

    fn commit(&mut self, step: &mut Step) {
        let Phase::Reloading(rollout) = std::mem::replace(&mut self.phase, Phase::Serving) else { return };
        let Rollout { generation, since, tickets, workers, closes_listeners, .. } = rollout;
        let took = step.now.saturating_sub(since);
        self.current = generation;
        self.restarts.forget();
        self.mold_restarts.forget();
        self.table.cancel_respawns(0);
        step.tell(Notice::Reload(ReloadNotice::Done { generation, took }));
        // Before the last of the old workers is asked to finish: nothing may join a queue that nobody will serve.
        step.push(Effect::Commit { generation });
        if workers != self.target {
            step.tell(Notice::Scale(ScaleNotice::Begun { from: self.target, to: workers }));
            self.target = workers;
            step.push(Effect::Resize { slots: workers });
        }
        // What nobody else will listen on is drained first.
        let how = if closes_listeners { Drain::Stop } else { Drain::Retire };
        for worker in self.table.select(|entry| entry.generation != generation && !entry.state.is_leaving()) {
            self.retire(worker, how, step);
        }
        self.drop_molds_but(generation, step);
        let message = format!("generation {generation} serves after {:.3} s", took.as_secs_f64());
        step.answer(tickets, &Answer::Done(message));
    }

    /// Gives slots back to the generation that serves, one batch after the other.
    fn advance_rollback(&mut self, step: &mut Step) {
        self.retire_foreigners(step);
        let Phase::RollingBack(Rollback { generation, .. }) = self.phase else { return };
        if !self.table.iter().any(|entry| self.is_foreign(entry)) {
            self.phase = Phase::Serving;
            step.push(Effect::Discard { generation });
            return step.tell(Notice::Reload(ReloadNotice::RolledBack));
        }
        self.boot_returning(step);
    }

    /// Boots workers of the generation that serves in slots that others hold, within the surge. Empty slots are filled
    /// in their own time.
    fn boot_returning(&mut self, step: &mut Step) {
        let current = self.current;
        let batch = self.policy.plan.surge.batch(self.target);
        let is_held = |slot: &Slot| self.table.holder(*slot, current).is_some();
        let taken: Vec<Slot> = (0..self.target).filter(|slot| self.foreigner(*slot).is_some()).collect();
        let (booting, waiting): (Vec<Slot>, Vec<Slot>) = taken.into_iter().partition(is_held);
        for slot in waiting.into_iter().take(batch.saturating_sub(booting.len())) {
            self.spawn(slot, current, step);
        }
    }

    /// Whoever holds a slot beside a ready worker of the generation that serves is not needed: also where a rollback had
    /// to be given up, or another reload has begun by step.now.
    fn retire_foreigners(&mut self, step: &mut Step) {
        let is_over = |entry: &Entry| self.is_foreign(entry) && self.table.is_held(entry.slot, self.current);
        for worker in self.table.select(is_over) {
            self.retire(worker, Drain::Retire, step);
        }
    }

    /// Whether a worker is of a generation that neither serves nor is on its way, and is meant to go on: it holds a slot
    /// that nobody could be found for.
    fn is_foreign(&self, entry: &Entry) -> bool {
        let generation = entry.generation;
        generation != self.current && !self.is_new(generation) && !entry.state.is_leaving()
    }

    /// The worker of such a generation that holds `slot`.
    fn foreigner(&self, slot: Slot) -> Option<WorkerId> {
        self.table.in_slot(slot).find(|entry| self.is_foreign(entry)).map(|entry| entry.id)
    }

    /// A worker of the generation that serves could not boot in `slot`.
    pub(super) fn note_failed_return(&mut self, slot: Slot, reason: &str, step: &mut Step) {
        if self.foreigner(slot).is_some() {
            self.rollback_failed(reason, step);
        }
    }

    /// A worker of the old generation cannot be had back: whatever serves its slot goes on.
    pub(super) fn rollback_failed(&mut self, reason: &str, step: &mut Step) {
        let Phase::RollingBack(Rollback { generation, .. }) = self.phase else { return };
        self.phase = Phase::Serving;
        step.push(Effect::Discard { generation });
        step.tell(Notice::Reload(ReloadNotice::RollbackFailed { reason: reason.to_owned() }));
    }

    /// The first new workers have to prove themselves anew for the time in which the supervisor did not run: it has not
    /// heard yet of those that died in it.
    pub(super) fn forgive_newcomers(&mut self, by: Duration) {
        let Phase::Reloading(Rollout { generation, is_proven: false, .. }) = self.phase else { return };
        for worker in self.table.select(|entry| entry.generation == generation) {
            if let Some(Entry { state: State::Ready { since, .. }, .. }) = self.table.get_mut(worker) {
                *since = since.saturating_add(by);
            }
        }
    }

    fn drains_too_many(&self) -> bool {
        self.table.draining_generations(self.current) >= DRAINING_GENERATIONS
    }
}
