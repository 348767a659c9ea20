//! Events of workers, and their deadlines.

use std::time::Duration;

use super::Machine;
use crate::error::ErrorKind;
use crate::policy::effect::{Drain, Effect, FailureReason};
use crate::policy::event::{Moment, WorkerId};
use crate::policy::exit::{BootFailure, Exit, ExitStatus, KillReason};
use crate::policy::notice::WorkerNotice;
use crate::policy::restart::Loss;
use crate::policy::state::State;
use crate::policy::status::PoolPhase;
use crate::policy::step::Step;
use crate::policy::table::Entry;

impl Machine {
    pub(super) fn on_spawned(&mut self, worker: WorkerId, pid: i32, step: &mut Step) {
        let Some(entry) = self.pool.table.get_mut(worker) else { return };
        entry.pid = Some(pid);
        let is_killed = match entry.state {
            State::Killed { reason, .. } | State::Unkillable { reason } => {
                entry.state = State::Killed { reason, since: step.now, ready_since: None };
                entry.mold.is_some()
            }
            _ => false,
        };
        let (slot, generation) = (entry.slot, entry.generation);
        self.refusals.end();
        step.log(WorkerNotice::Booting { slot, generation, pid });
        if is_killed {
            // It was killed before its mold had forked it, when it had no process.
            step.push(Effect::Kill { worker });
        }
    }

    pub(super) fn on_spawn_failed(&mut self, worker: WorkerId, reason: String, step: &mut Step) {
        let Some(entry) = self.pool.table.remove(worker) else { return };
        if self.pool.phase.is_ending() || entry.state.is_leaving() {
            // The policy has given it up already.
            return;
        }
        let (slot, why) = (entry.slot, FailureReason::new(format!("a worker could not be forked: {reason}")));
        if self.pool.is_new(entry.generation) {
            return self.new_worker_failed(why, step);
        }
        if !self.pool.ever_ready {
            step.log(WorkerNotice::SpawnFailed { slot, reason, retry_in: None });
            return self.fail_start(ErrorKind::System, step);
        }
        let retry_in = Some(self.refusals.note(entry.mold, &reason, step.now));
        if let Some(mold) = self.refusals.failing_mold() {
            self.kill_mold(mold, KillReason::Barren, step);
        }
        step.log(WorkerNotice::SpawnFailed { slot, reason, retry_in });
        self.note_failure(&entry, &why, step);
    }

    pub(super) fn on_ready(&mut self, worker: WorkerId, step: &mut Step) {
        let Some(entry) = self.pool.table.get_mut(worker) else { return };
        let State::Booting { since } = entry.state else { return };
        entry.state = State::Ready { since: step.now, beat: step.now };
        entry.boot = step.now.saturating_sub(since);
        let (pid, slot, generation, after) = (entry.shown_pid(), entry.slot, entry.generation, entry.boot);
        step.log(WorkerNotice::Ready { pid, slot, after });
        step.push(Effect::Begin { worker });
        self.pool.ever_ready = true;
        if generation == self.pool.current {
            self.starts.boot_worked(&self.pool, slot, after, step.now);
        }
        if matches!(self.pool.phase, PoolPhase::LameDuck { .. }) {
            step.push(Effect::LameDuck { worker });
        }
    }

    pub(super) fn on_boot_failed(&mut self, worker: WorkerId, failure: BootFailure, step: &mut Step) {
        let exit_limit = self.pool.exit_after_failure();
        let Some(entry) = self.pool.table.get_mut(worker) else { return };
        let State::Booting { since } = entry.state else { return };
        let took = step.now.saturating_sub(since);
        entry.state = State::Failed { kill_at: step.after(exit_limit) };
        let (entry, kind) = (entry.clone(), failure.kind);
        if self.pool.phase.is_ending() {
            return;
        }
        let why = FailureReason::from(&failure);
        step.log(WorkerNotice::BootFailed { pid: entry.shown_pid(), failure });
        if self.pool.is_new(entry.generation) {
            self.new_worker_failed(why, step);
        } else if !self.pool.ever_ready {
            self.fail_start(kind, step);
        } else {
            if entry.generation == self.pool.current {
                self.starts.boot_failed(entry.slot, took, step.now);
            }
            self.note_failure(&entry, &why, step);
        }
    }

    /// Handles a request for replacement: the successor is ready before the worker drains.
    pub(super) fn on_leaving(&mut self, worker: WorkerId, reason: String, step: &mut Step) {
        let Some(entry) = self.pool.table.get_mut(worker).filter(|entry| !entry.leaves) else { return };
        let State::Ready { since, .. } = entry.state else { return };
        entry.leaves = true;
        let entry = entry.clone();
        let (&Entry { slot, generation, .. }, pid) = (&entry, entry.shown_pid());
        if !self.pool.is_new(generation) {
            let respawn_in = self.starts.leaves(&self.pool, &entry, since, step.now);
            return step.log(WorkerNotice::Leaving { pid, slot, reason, respawn_in });
        }
        step.log(WorkerNotice::Leaving { pid, slot, reason: reason.clone(), respawn_in: None });
        self.retire(worker, Drain::Retire, step);
        let why = format!("worker {pid} left before the new generation was complete: {reason}");
        self.new_worker_failed(FailureReason::new(why), step);
    }

    pub(super) fn on_beats(&mut self, beats: Vec<(WorkerId, Moment)>) {
        for (worker, at) in beats {
            if let Some(Entry { state: State::Ready { beat, .. }, .. }) = self.pool.table.get_mut(worker) {
                *beat = (*beat).max(at);
            }
        }
    }

    pub(super) fn on_exited(&mut self, worker: WorkerId, exit: Exit, step: &mut Step) {
        let Some(entry) = self.pool.table.remove(worker) else { return };
        let (&Entry { slot, generation, state, .. }, pid) = (&entry, entry.shown_pid());
        let killed = match state {
            State::Killed { reason, .. } | State::Unkillable { reason } => Some(reason),
            State::Aborting { limit, .. } => Some(KillReason::Silent(limit)),
            _ => None,
        };
        if let (State::Draining { .. }, ExitStatus::Code(0)) = (state, exit.status) {
            return step.log(WorkerNotice::Retired { pid });
        }
        let asked_for = matches!(killed, Some(KillReason::GivenUp | KillReason::QuickStop));
        let was_draining =
            matches!(state, State::Draining { .. }) || killed.is_some_and(KillReason::ends_a_drain);
        let is_late = matches!(state, State::Unkillable { .. });
        if self.pool.phase.is_ending() || asked_for || was_draining || is_late {
            return match asked_for || matches!(state, State::Failed { .. }) {
                true if entry.pid.is_none() => {}
                true => step.log(WorkerNotice::Gone { pid, slot, exit, killed }),
                false => step.log(WorkerNotice::Died { pid, slot, exit, killed, respawn_in: None }),
            };
        }
        if !self.pool.ever_ready && generation == self.pool.current {
            step.log(WorkerNotice::Died { pid, slot, exit, killed, respawn_in: None });
            return self.fail_start(ErrorKind::Boot, step);
        }
        let was_ready = state.ready_since();
        if let (State::Booting { since }, true) = (state, generation == self.pool.current) {
            self.starts.boot_failed(slot, step.now.saturating_sub(since), step.now);
        }
        let loss = was_ready.map_or(Loss::Boot, Loss::Ready);
        let respawn_in = self.starts.lost(&self.pool, &entry, loss, step.now);
        step.log(WorkerNotice::Died { pid, slot, exit: exit.clone(), killed, respawn_in });
        // The log has the reason of a failed boot already.
        if matches!(state, State::Failed { .. }) || matches!(killed, Some(KillReason::BootTimeout(_))) {
            return;
        }
        if self.pool.is_new(generation) {
            let when = if was_ready.is_some() { "soon after it was ready" } else { "before it was ready" };
            self.new_worker_failed(
                FailureReason::of_exit(format_args!("{} died {when}", entry.name()), &exit),
                step,
            );
        } else if was_ready.is_none() {
            let why =
                FailureReason::of_exit(format_args!("{} died before it was ready", entry.name()), &exit);
            self.note_failure(&entry, &why, step);
        }
    }

    /// Handles passed deadlines. One may change the deadlines of other workers.
    pub(super) fn expire_workers(&mut self, step: &mut Step) {
        for worker in self.pool.overdue(step.now) {
            let Some(entry) = self.pool.table.get(worker).cloned() else { continue };
            if self.pool.deadline_of(&entry).is_some_and(|at| at <= step.now) {
                self.on_deadline(&entry, step);
            }
        }
    }

    fn on_deadline(&mut self, entry: &Entry, step: &mut Step) {
        let (id, pid) = (entry.id, entry.shown_pid());
        match entry.state {
            State::Booting { .. } => self.on_boot_timeout(entry, step),
            State::Ready { since, beat } => {
                let Some(limit) = self.pool.policy.timeout else { return };
                step.log(WorkerNotice::Silent { pid, since: step.now.saturating_sub(beat) });
                step.push(Effect::Abort { worker: id });
                if let Some(entry) = self.pool.table.get_mut(id) {
                    let kill_at = step.after(self.pool.policy.abort_patience);
                    entry.state = State::Aborting { ready_since: since, kill_at, limit };
                }
            }
            State::Aborting { limit, .. } => self.kill(id, KillReason::Silent(limit), step),
            State::Draining { .. } => self.on_overdue(entry, step),
            // The log has the failure of its boot already, and its slot is filled after its exit.
            State::Failed { .. } => {
                self.kill(id, KillReason::BootTimeout(self.pool.policy.boot_timeout), step);
            }
            State::Killed { .. } => self.on_unkillable(entry, step),
            State::Unkillable { .. } => {}
        }
    }

    /// Handles an unkillable worker: neither its slot nor the end of the pool waits for its exit.
    fn on_unkillable(&mut self, entry: &Entry, step: &mut Step) {
        let (&Entry { id, slot, state, .. }, pid) = (entry, entry.shown_pid());
        let State::Killed { reason, since, ready_since } = state else { return };
        if let Some(entry) = self.pool.table.get_mut(id) {
            entry.state = State::Unkillable { reason };
        }
        let loss = ready_since.map_or(Loss::Boot, Loss::Ready);
        let respawn_in = match state.is_missed() {
            true => self.starts.lost(&self.pool, entry, loss, step.now),
            false => None,
        };
        let since = step.now.saturating_sub(since);
        step.log(WorkerNotice::Unkillable { pid, slot, since, respawn_in });
        if self.pool.is_new(entry.generation) && matches!(reason, KillReason::Silent(_)) {
            let why = format!("{} was {reason}, and is still there after SIGKILL", entry.name());
            self.new_worker_failed(FailureReason::new(why), step);
        }
    }

    fn on_boot_timeout(&mut self, entry: &Entry, step: &mut Step) {
        let (limit, pid) = (self.pool.policy.boot_timeout, entry.shown_pid());
        let reason = KillReason::BootTimeout(limit);
        step.log(WorkerNotice::BootTimeout { pid, after: limit });
        self.kill(entry.id, reason, step);
        let why = FailureReason::new(format!("{} was {reason}", entry.name()));
        if self.pool.phase.is_ending() {
            return;
        }
        if let Some(mold) = entry.mold.filter(|_| entry.pid.is_none()) {
            // Its mold has not forked it, so no exit will follow.
            self.kill_mold(mold, reason, step);
        }
        if self.pool.is_new(entry.generation) {
            self.new_worker_failed(why, step);
        } else if !self.pool.ever_ready {
            self.fail_start(ErrorKind::Boot, step);
        } else {
            if entry.generation == self.pool.current && entry.pid.is_some() {
                self.starts.boot_timed_out(entry.slot, limit, step.now);
            }
            self.note_failure(entry, &why, step);
        }
    }

    /// Retires leaving workers whose successor is ready.
    pub(super) fn retire_replaced(&mut self, step: &mut Step) {
        for worker in self.pool.replaced() {
            self.retire(worker, Drain::Retire, step);
        }
        // Only the latest leaving workers of a slot may drain for the full time. Otherwise repeated slow requests would
        // accumulate workers. The oldest one ends early, since its requests are the oldest.
        let soon = step.after(self.pool.policy.quick_timeout);
        for worker in self.pool.crowded(soon) {
            if let Some(Entry { state: State::Draining { kill_at, .. }, .. }) =
                self.pool.table.get_mut(worker)
            {
                *kill_at = soon;
                step.push(Effect::Quit { worker });
            }
        }
    }

    /// Extends the soak of the first new workers by `by`.
    ///
    /// The supervisor did not run, and may not know of their deaths yet.
    pub(super) fn extend_soak(&mut self, by: Duration) {
        let PoolPhase::Reloading(rollout) = &self.pool.phase else { return };
        let generation = rollout.generation;
        if rollout.is_proven {
            return;
        }
        for worker in self.pool.table.select(|entry| entry.generation == generation) {
            if let Some(Entry { state: State::Ready { since, .. }, .. }) = self.pool.table.get_mut(worker) {
                *since = since.saturating_add(by);
            }
        }
    }
}
