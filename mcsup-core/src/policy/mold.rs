//! Molds: processes that have loaded what a generation's workers run, and fork them.
//!
//! A generation has at most one that is ready. Workers do not need it once they are forked, so a dead mold takes nothing
//! down: another is booted, and slots that become empty meanwhile wait for it.

use std::time::Duration;

use super::effect::Effect;
use super::event::{Event, Generation, Moment, Slot, WorkerId};
use super::exit::{BootFailure, Exit, KillReason};
use super::machine::{Machine, UNKILLABLE_AFTER};
use super::molds::Mold;
use super::notice::{MoldNotice, Notice, WorkerNotice};
use super::restart::Loss;
use super::status::State;
use super::step::Step;
use crate::error::ErrorKind;

/// The place that molds share in their record of losses.
const PLACE: Slot = 0;

impl Machine {
    /// Boots the molds that are wanted and not there.
    pub(super) fn settle_molds(&mut self, step: &mut Step) {
        let rests = self.next_mold().is_some_and(|at| at > step.now);
        if !rests {
            self.molds.again = None;
        }
        for generation in self.molds.wanted_by.clone() {
            // One that is new has not failed yet.
            let may = if generation == self.current { !rests } else { self.is_new(generation) };
            if may && self.may_fork(step.now) && !self.molds.has(generation) {
                self.boot_mold(generation, step);
            }
        }
    }

    fn boot_mold(&mut self, generation: Generation, step: &mut Step) {
        self.note_fork_tried(step.now);
        let (id, state) = (self.table.next_id(), State::Booting { since: step.now });
        let mold = Mold { generation, pid: 0, state, boot: Duration::ZERO };
        self.molds.molds.insert(id, mold);
        step.push(Effect::SpawnMold { mold: id, generation });
    }

    /// When the mold that is missing boots, if it waits: at the latest when the pool has rested, should it be dark.
    pub(super) fn next_mold(&self) -> Option<Moment> {
        let lacks = |generation: &Generation| {
            (*generation == self.current || self.is_new(*generation)) && !self.molds.has(*generation)
        };
        let refusal = self.refusal.as_ref().filter(|_| self.molds.wanted_by.iter().any(lacks));
        let own = self.molds.again.map(|at| {
            let at = at.max(self.mold_restarts.rest_after_failure_ends());
            match self.dark_from() {
                Some(from) if !self.molds.boots() => at.min(from.max(self.mold_restarts.rest_ends())),
                _ => at,
            }
        });
        own.max(refusal.map(|refusal| refusal.again))
    }

    /// When something about a mold is due.
    pub(super) fn next_mold_deadline(&self) -> Option<Moment> {
        let deadlines = self.molds.molds.values().filter_map(|mold| self.mold_deadline(mold));
        deadlines.chain(self.next_mold()).min()
    }

    fn mold_deadline(&self, mold: &Mold) -> Option<Moment> {
        match mold.state {
            State::Booting { since } => Some(since.saturating_add(self.policy.boot_timeout)),
            State::Failed { kill_at } => Some(kill_at),
            State::Killed { since, .. } => Some(since.saturating_add(UNKILLABLE_AFTER)),
            _ => None,
        }
    }

    /// Kills those whose time is up.
    pub(super) fn expire_molds(&mut self, step: &mut Step) {
        let due = |(_, mold): &(WorkerId, &Mold)| self.mold_deadline(mold).is_some_and(|at| at <= step.now);
        let due: Vec<WorkerId> = self.molds.iter().filter(due).map(|(id, _)| id).collect();
        for id in due {
            let limit = self.policy.boot_timeout;
            let Some(mold) = self.molds.molds.get_mut(&id) else { continue };
            match mold.state {
                State::Booting { .. } => {
                    step.tell(Notice::Worker(WorkerNotice::BootTimeout { pid: mold.pid, after: limit }));
                    self.kill_mold(id, KillReason::BootTimeout(limit), step);
                }
                State::Killed { since, .. } if since.saturating_add(UNKILLABLE_AFTER) > step.now => {
                    // Killed in this moment: the time of another one was up, which ended them all.
                }
                State::Killed { reason, since, .. } => {
                    mold.state = State::Unkillable { reason };
                    let (pid, since) = (mold.pid, step.now.saturating_sub(since));
                    step.tell(Notice::Mold(MoldNotice::Unkillable { pid, since }));
                    self.give_up_unforked(id, step);
                }
                _ => mold.kill(id, KillReason::QuickStop, step),
            }
        }
    }

    /// A mold cannot even be killed: it owes forks that nothing waits for any more.
    fn give_up_unforked(&mut self, mold: WorkerId, step: &mut Step) {
        for worker in self.table.select(|entry| entry.mold == Some(mold) && entry.pid == 0) {
            let Some(entry) = self.table.get_mut(worker) else { continue };
            let was_wanted = !entry.state.is_leaving();
            entry.state = State::Unkillable { reason: KillReason::GivenUp };
            let entry = entry.clone();
            if was_wanted && !self.phase.is_ending() {
                let why = "its mold is still there after SIGKILL, and does not fork";
                self.note_failure(&entry, why, None, step);
            }
        }
    }

    /// Kills a mold that does not do its work.
    pub(super) fn kill_mold(&mut self, id: WorkerId, reason: KillReason, step: &mut Step) {
        let Some(mold) = self.molds.molds.get_mut(&id) else { return };
        if mold.state.is_leaving() {
            return;
        }
        let state = mold.state;
        mold.kill(id, reason, step);
        let mold = mold.clone();
        let told = (format!("mold {} was {reason}", mold.pid), None);
        self.lose_mold(&mold, state, ErrorKind::Boot, told, step);
    }

    /// Notes the cost of a mold that is lost in `state`, and settles everything that depends on it.
    fn lose_mold(
        &mut self,
        mold: &Mold,
        state: State,
        kind: ErrorKind,
        told: (String, Option<String>),
        step: &mut Step,
    ) {
        let loss = match state {
            State::Booting { since } => {
                let took = step.now.saturating_sub(since);
                if mold.generation == self.current {
                    match took < self.policy.boot_timeout {
                        true => self.mold_restarts.note_boot(PLACE, took, false, step.now),
                        false => self.mold_restarts.note_timeout(PLACE, took, step.now),
                    }
                }
                Loss::Boot
            }
            _ => state.ready_since().map_or(Loss::Boot, Loss::Ready),
        };
        self.mold_failed((mold, loss), kind, told, step);
    }

    /// Whether `event` is about a mold; if so, it is dealt with.
    pub(super) fn on_mold_event(&mut self, event: &Event, step: &mut Step) -> bool {
        let id = match event {
            Event::Spawned { worker, .. }
            | Event::SpawnFailed { worker, .. }
            | Event::Ready { worker }
            | Event::BootFailed { worker, .. }
            | Event::Exited { worker, .. } => *worker,
            _ => return false,
        };
        let Some(mold) = self.molds.molds.get_mut(&id) else { return false };
        let generation = mold.generation;
        match event {
            Event::Spawned { pid, .. } => {
                mold.pid = *pid;
                self.refusal = None;
                step.tell(Notice::Mold(MoldNotice::Booting { generation, pid: *pid }));
            }
            Event::SpawnFailed { reason, .. } => {
                self.on_mold_refused(id, reason, step);
            }
            Event::Ready { .. } => self.on_mold_ready(id, step),
            Event::BootFailed { failure, .. } => self.on_mold_boot_failed(id, failure, step),
            Event::Exited { exit, .. } => self.on_mold_exited(id, exit, step),
            _ => {}
        }
        true
    }

    /// The system refused to fork a mold.
    fn on_mold_refused(&mut self, id: WorkerId, reason: &str, step: &mut Step) {
        let Some(mold) = self.molds.molds.remove(&id) else { return };
        let generation = mold.generation;
        let why = format!("a mold could not be forked: {reason}");
        let is_lacking = generation == self.current && !self.molds.has(generation);
        if self.phase.is_ending() || self.is_new(generation) || !self.ever_ready || !is_lacking {
            return self.mold_failed((&mold, Loss::Boot), ErrorKind::System, (why, None), step);
        }
        self.rollback_failed(&why, step);
        self.note_missing_mold(&why, None, step);
        let again_in = self.on_fork_refused(None, reason, step.now);
        step.tell(Notice::Mold(MoldNotice::Failed { generation, reason: why, again_in }));
    }

    fn on_mold_ready(&mut self, id: WorkerId, step: &mut Step) {
        let Some(mold) = self.molds.molds.get_mut(&id) else { return };
        let State::Booting { since } = mold.state else { return };
        mold.state = State::Ready { since: step.now, beat: step.now };
        let (generation, pid, after) = (mold.generation, mold.pid, step.now.saturating_sub(since));
        mold.boot = after;
        if generation == self.current {
            self.mold_restarts.note_boot(PLACE, after, true, step.now);
        }
        step.tell(Notice::Mold(MoldNotice::Ready { pid, generation, after }));
    }

    fn on_mold_boot_failed(&mut self, id: WorkerId, failure: &BootFailure, step: &mut Step) {
        let Some(mold) = self.molds.molds.get_mut(&id) else { return };
        let state @ State::Booting { .. } = mold.state else { return };
        mold.state = State::Failed { kill_at: step.after(self.policy.graceful_timeout) };
        let mold = mold.clone();
        if self.phase.is_ending() {
            return;
        }
        step.tell(Notice::Worker(WorkerNotice::BootFailed { pid: mold.pid, failure: failure.clone() }));
        let told = (failure.summary.clone(), failure.detail.clone());
        self.lose_mold(&mold, state, failure.kind, told, step);
    }

    fn on_mold_exited(&mut self, id: WorkerId, exit: &Exit, step: &mut Step) {
        let Some(mold) = self.molds.molds.remove(&id) else { return };
        let Mold { generation, pid, state, .. } = mold;
        // What it did not fork is forked by the next one.
        self.refusal.take_if(|refusal| refusal.mold == Some(id));
        let killed = match state {
            State::Killed { reason, .. } => Some(reason),
            _ => None,
        };
        match state {
            // Told already.
            State::Failed { .. } => {}
            State::Killed { reason: KillReason::GivenUp | KillReason::QuickStop, .. }
            | State::Unkillable { .. } => {}
            _ => {
                let exit = exit.clone();
                step.tell(Notice::Mold(MoldNotice::Died { pid, generation, exit, killed, again_in: None }));
                if killed.is_none() {
                    let reason = format!("mold {pid} died");
                    self.lose_mold(&mold, state, ErrorKind::Boot, (reason, None), step);
                }
            }
        }
    }

    /// A mold cannot do its work. What that means depends on who needs it.
    fn mold_failed(
        &mut self,
        (mold, loss): (&Mold, Loss),
        kind: ErrorKind,
        (reason, detail): (String, Option<String>),
        step: &mut Step,
    ) {
        let generation = mold.generation;
        if self.phase.is_ending() {
            return;
        }
        if self.is_new(generation) {
            return self.give_up(reason, detail, step);
        }
        if !self.ever_ready {
            return self.fail_start(kind, step);
        }
        if generation == self.current && !self.molds.has(generation) {
            // A rollback would wait for it, and each reload for the rollback.
            self.rollback_failed(&reason, step);
            let at = match loss {
                Loss::Ready(since) => self.mold_restarts.after_death(PLACE, (since, mold.boot), step.now),
                Loss::Boot => self.mold_restarts.after_failed_boot(PLACE, step.now),
            };
            self.molds.again = Some(at);
            if loss == Loss::Boot {
                self.note_missing_mold(&reason, detail.as_ref(), step);
            }
            let again_in = self.next_mold().unwrap_or(at).saturating_sub(step.now);
            step.tell(Notice::Mold(MoldNotice::Failed { generation, reason, again_in }));
        }
    }

    /// A generation needs its mold no more.
    pub(super) fn drop_mold(&mut self, generation: Generation, step: &mut Step) {
        self.molds.wanted_by.remove(&generation);
        self.end_molds(|mold| mold.generation == generation, step);
    }

    /// Only `generation` needs a mold from step.now on.
    pub(super) fn drop_molds_but(&mut self, generation: Generation, step: &mut Step) {
        self.molds.wanted_by.retain(|other| *other == generation);
        self.molds.again = None;
        self.end_molds(|mold| mold.generation != generation, step);
    }

    /// All molds end.
    pub(super) fn end_all_molds(&mut self, step: &mut Step) {
        self.molds.wanted_by.clear();
        self.molds.again = None;
        self.end_molds(|_| true, step);
    }

    /// Molds have nothing to finish.
    fn end_molds(&mut self, which: impl Fn(&Mold) -> bool, step: &mut Step) {
        for (id, mold) in self.molds.molds.iter_mut().filter(|(_, mold)| which(mold)) {
            if !matches!(mold.state, State::Killed { .. } | State::Unkillable { .. }) {
                mold.kill(*id, KillReason::GivenUp, step);
            }
        }
    }

    /// Nobody is blamed for the time in which the supervisor did not run.
    pub(super) fn forgive_molds(&mut self, by: Duration) {
        for mold in self.molds.molds.values_mut() {
            match &mut mold.state {
                State::Booting { since } => *since = since.saturating_add(by),
                State::Failed { kill_at } => *kill_at = kill_at.saturating_add(by),
                State::Killed { since, .. } => *since = since.saturating_add(by),
                _ => {}
            }
        }
    }
}

impl Mold {
    fn kill(&mut self, id: WorkerId, reason: KillReason, step: &mut Step) {
        self.state = State::Killed { reason, since: step.now, ready_since: self.state.ready_since() };
        step.push(Effect::Kill { worker: id });
    }
}
