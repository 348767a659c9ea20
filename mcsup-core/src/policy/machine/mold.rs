//! Molds: their boots, their events, and the consequences of their loss.

use super::Machine;
use crate::error::ErrorKind;
use crate::policy::effect::{Effect, FailureReason};
use crate::policy::event::{Event, Moment, WorkerId};
use crate::policy::exit::{BootFailure, Exit, KillReason};
use crate::policy::molds::{LoadedMold, Mold, Overdue};
use crate::policy::notice::MoldNotice;
use crate::policy::restart::Loss;
use crate::policy::state::State;
use crate::policy::step::Step;

impl Machine {
    /// Boots the missing molds.
    pub(super) fn settle_molds(&mut self, step: &mut Step) {
        let rests = self.next_mold().is_some_and(|at| at > step.now);
        if !rests {
            self.molds.end_rest();
        }
        while self.refusals.may_fork(step.now) {
            let Some(generation) = self.molds.missing(&self.pool, rests) else { return };
            self.refusals.note_tried(step.now);
            let mold = self.pool.table.next_id();
            self.molds.add(mold, generation, step.now);
            step.push(Effect::SpawnMold { mold, generation });
        }
    }

    /// The boot of a missing mold that waits.
    pub(super) fn next_mold(&self) -> Option<Moment> {
        self.molds.next(&self.pool, self.starts.unserved_since(&self.pool), self.refusals.again())
    }

    /// The next time at which something about a mold is due.
    pub(super) fn next_mold_deadline(&self) -> Option<Moment> {
        self.molds.next_deadline(&self.pool.policy).into_iter().chain(self.next_mold()).min()
    }

    /// Handles the passed deadlines of molds.
    pub(super) fn expire_molds(&mut self, step: &mut Step) {
        for id in self.molds.overdue(&self.pool.policy, step.now) {
            let Some((overdue, pid)) = self.molds.expire(id, step.now) else { continue };
            match overdue {
                Overdue::Boots => {
                    let limit = self.pool.policy.boot_timeout;
                    step.log(MoldNotice::BootTimeout { pid, after: limit });
                    self.kill_mold(id, KillReason::BootTimeout(limit), step);
                }
                Overdue::Unkillable { since } => {
                    step.log(MoldNotice::Unkillable { pid, since });
                    self.give_up_unforked(id, step);
                }
                Overdue::Fails => step.kill([id]),
            }
        }
    }

    /// Gives up the workers that an unkillable mold has not forked.
    fn give_up_unforked(&mut self, mold: WorkerId, step: &mut Step) {
        for worker in self.pool.table.select(|entry| entry.mold == Some(mold) && entry.pid.is_none()) {
            let Some(entry) = self.pool.table.get_mut(worker) else { continue };
            let was_wanted = !entry.state.is_leaving();
            entry.state = State::Unkillable { reason: KillReason::GivenUp };
            let entry = entry.clone();
            if was_wanted && !self.pool.phase.is_ending() {
                let why = FailureReason::new("its mold is still there after SIGKILL, and does not fork");
                self.note_failure(&entry, &why, step);
            }
        }
    }

    /// Kills a mold that hangs or cannot fork.
    pub(super) fn kill_mold(&mut self, id: WorkerId, reason: KillReason, step: &mut Step) {
        let Some(mold) = self.molds.killed(id, reason, step.now) else { return };
        step.kill([id]);
        let why = FailureReason::new(format!("mold {} was {reason}", mold.shown_pid()));
        self.lose_mold(&mold, ErrorKind::Boot, why, step);
    }

    /// Handles `event` if it is about a mold; `false`: it is not.
    pub(super) fn on_mold_event(&mut self, event: &Event, step: &mut Step) -> bool {
        let id = match event {
            Event::Spawned { worker, .. }
            | Event::SpawnFailed { worker, .. }
            | Event::Ready { worker }
            | Event::BootFailed { worker, .. }
            | Event::Exited { worker, .. } => *worker,
            _ => return false,
        };
        if self.molds.get(id).is_none() {
            return false;
        }
        match event {
            Event::Spawned { pid, .. } => {
                if let Some(generation) = self.molds.spawned(id, *pid) {
                    self.refusals.end();
                    step.log(MoldNotice::Booting { generation, pid: *pid });
                }
            }
            Event::SpawnFailed { reason, .. } => self.on_mold_refused(id, reason, step),
            Event::Ready { .. } => {
                if let Some(loaded) = self.molds.loaded(id, self.pool.current, step.now) {
                    let LoadedMold { pid, generation, after } = loaded;
                    step.log(MoldNotice::Ready { pid, generation, after });
                }
            }
            Event::BootFailed { failure, .. } => self.on_mold_boot_failed(id, failure, step),
            Event::Exited { exit, .. } => self.on_mold_exited(id, exit, step),
            _ => {}
        }
        true
    }

    /// Handles a refused fork of a mold.
    fn on_mold_refused(&mut self, id: WorkerId, reason: &str, step: &mut Step) {
        let Some(mold) = self.molds.remove(id) else { return };
        let generation = mold.generation;
        let why = FailureReason::new(format!("a mold could not be forked: {reason}"));
        let is_lacking = generation == self.pool.current && !self.molds.has(generation);
        if !is_lacking || self.pool.phase.is_ending() || !self.pool.ever_ready {
            return self.mold_failed(&mold, Loss::Boot, ErrorKind::System, why, step);
        }
        self.rollback_failed(&why.reason, step);
        self.note_missing_mold(&why, step);
        let again_in = self.refusals.note(None, reason, step.now);
        step.log(MoldNotice::Failed { generation, reason: why.reason, again_in });
    }

    fn on_mold_boot_failed(&mut self, id: WorkerId, failure: &BootFailure, step: &mut Step) {
        let kill_at = step.after(self.pool.exit_after_failure());
        let Some(mold) = self.molds.failed(id, kill_at) else { return };
        if self.pool.phase.is_ending() {
            return;
        }
        step.log(MoldNotice::BootFailed { pid: mold.shown_pid(), failure: failure.clone() });
        self.lose_mold(&mold, failure.kind, FailureReason::from(failure), step);
    }

    fn on_mold_exited(&mut self, id: WorkerId, exit: &Exit, step: &mut Step) {
        let Some(mold) = self.molds.remove(id) else { return };
        let (&Mold { generation, state, .. }, pid) = (&mold, mold.shown_pid());
        self.refusals.mold_ended(id);
        let killed = match state {
            State::Killed { reason, .. } | State::Unkillable { reason } => Some(reason),
            State::Booting { .. }
            | State::Ready { .. }
            | State::Aborting { .. }
            | State::Draining { .. }
            | State::Failed { .. } => None,
        };
        let is_asked_for = matches!(killed, Some(KillReason::GivenUp | KillReason::QuickStop));
        if is_asked_for || matches!(state, State::Failed { .. } | State::Unkillable { .. }) {
            return step.log(MoldNotice::Gone { pid, generation, exit: exit.clone(), killed });
        }
        step.log(MoldNotice::Died { pid, generation, exit: exit.clone(), killed });
        if killed.is_none() {
            let why = FailureReason::of_exit(format_args!("mold {pid} died"), exit);
            self.lose_mold(&mold, ErrorKind::Boot, why, step);
        }
    }

    /// Notes the loss of a mold, and fails the requests that depend on it.
    fn lose_mold(&mut self, mold: &Mold, kind: ErrorKind, why: FailureReason, step: &mut Step) {
        let loss = self.molds.lost(&self.pool, mold, step.now);
        self.mold_failed(mold, loss, kind, why, step);
    }

    /// Handles a failed mold: ends the reload or the start that needs it, or begins its back-off.
    fn mold_failed(&mut self, mold: &Mold, loss: Loss, kind: ErrorKind, why: FailureReason, step: &mut Step) {
        let generation = mold.generation;
        if self.pool.phase.is_ending() {
            return;
        }
        if self.pool.is_new(generation) {
            return self.give_up(&why, step);
        }
        if !self.pool.ever_ready {
            return self.fail_start(kind, step);
        }
        if generation == self.pool.current && !self.molds.has(generation) {
            // A rollback would wait for it, and each reload for the rollback.
            self.rollback_failed(&why.reason, step);
            let at = self.molds.rest(loss, mold.boot, step.now);
            if loss == Loss::Boot {
                self.note_missing_mold(&why, step);
            }
            let again_in = self.next_mold().unwrap_or(at).saturating_sub(step.now);
            step.log(MoldNotice::Failed { generation, reason: why.reason, again_in });
        }
    }
}
