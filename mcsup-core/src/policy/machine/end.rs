//! The end of a pool: lame duck, graceful stop, quick stop, kill.

use super::Machine;
use crate::error::ErrorKind;
use crate::policy::effect::{Answer, Drain, Effect};
use crate::policy::event::{Moment, StopMode, Ticket};
use crate::policy::exit::{KillReason, Outcome};
use crate::policy::notice::{PoolNotice, WorkerNotice};
use crate::policy::state::State;
use crate::policy::status::PoolPhase;
use crate::policy::step::Step;
use crate::policy::table::Entry;

impl Machine {
    /// Handles a request to stop. The first may be graceful; a second is quick; a third kills.
    pub(super) fn ask_stop(&mut self, mode: StopMode, ticket: Option<Ticket>, step: &mut Step) {
        let is_first = self.stops.has_none();
        let is_further = self.stops.ask(mode, ticket, step.now);
        match self.pool.phase {
            PoolPhase::Ended => step.answer(self.stops.take(), &Answer::Done("stopped".to_owned())),
            _ if !is_further => {}
            PoolPhase::Failing { .. } => {}
            // The end of the program has begun this stop, and the request asks for the same.
            PoolPhase::LameDuck { .. } | PoolPhase::Stopping { mode: StopMode::Graceful, .. }
                if is_first && mode == StopMode::Graceful => {}
            PoolPhase::Stopping { mode: StopMode::Quick, killed, .. } => {
                step.log(PoolNotice::Escalated);
                self.stop_quickly(step.now, killed, step);
            }
            PoolPhase::Stopping { killed, .. } => {
                step.log(PoolNotice::Escalated);
                self.stop_quickly(step.after(self.pool.policy.quick_timeout), killed, step);
            }
            PoolPhase::LameDuck { .. } => self.begin_stop(mode, step),
            _ => self.begin_end(mode, step),
        }
    }

    /// Begins a graceful stop at the end of the program that has spawned the pool. It is no request, and hurries no
    /// stop.
    pub(super) fn stop_with_program(&mut self, step: &mut Step) {
        if !self.pool.is_about_to_end() {
            self.begin_end(StopMode::Graceful, step);
        }
    }

    /// Begins the end of a pool: the lame duck phase where there is one, otherwise the stop.
    fn begin_end(&mut self, mode: StopMode, step: &mut Step) {
        let has_lame_duck = mode == StopMode::Graceful && !self.pool.policy.drain_delay.is_zero();
        if has_lame_duck && self.pool.phase != PoolPhase::Starting {
            self.begin_lame_duck(step);
        } else {
            self.begin_stop(mode, step);
        }
    }

    /// Begins the stop at the end of the lame duck phase.
    pub(super) fn settle_lame_duck(&mut self, step: &mut Step) {
        if matches!(self.pool.phase, PoolPhase::LameDuck { until } if until <= step.now) {
            self.begin_stop(StopMode::Graceful, step);
        }
    }

    /// Begins the lame duck phase: the workers serve, and a load balancer can detect the coming stop.
    fn begin_lame_duck(&mut self, step: &mut Step) {
        let lasts = self.pool.policy.drain_delay;
        self.supersede(step);
        self.end_everything_else(step);
        self.enter(PoolPhase::LameDuck { until: step.after(lasts) });
        step.log(PoolNotice::LameDuck { lasts });
        for worker in self.pool.table.select(|entry| entry.state.is_ready()) {
            step.push(Effect::LameDuck { worker });
        }
    }

    fn begin_stop(&mut self, mode: StopMode, step: &mut Step) {
        step.log(PoolNotice::Stopping { mode });
        self.end_everything_else(step);
        self.starts.cancel_all();
        step.kill(self.molds.end_all(step.now));
        let has_none =
            |entry: &Entry| matches!(entry.state, State::Booting { .. }) && !self.pool.may_serve(entry);
        for worker in self.pool.table.select(has_none) {
            self.kill(worker, KillReason::GivenUp, step);
        }
        if mode == StopMode::Graceful {
            step.push(Effect::RefuseNew);
        }
        self.enter(PoolPhase::Stopping { mode, killed: 0 });
        for worker in self.pool.table.select(|entry| self.pool.may_serve(entry)) {
            self.drain(worker, Drain::Stop, step);
        }
        step.push(Effect::CloseListeners);
        if mode == StopMode::Quick {
            self.stop_quickly(step.after(self.pool.policy.quick_timeout), 0, step);
        }
    }

    /// Abandons the reload, recycling, scaling, starts and upgrade in progress, and answers their requests.
    fn end_everything_else(&mut self, step: &mut Step) {
        self.abandon_rollout(step);
        self.stop_recycling(step);
        let waiting = [self.scaler.stop(), self.starts.stop(), self.upgrades.end()];
        step.answer(waiting.into_iter().flatten(), &Answer::Superseded);
    }

    /// Orders every worker to end now, and sets the time of SIGKILL to `kill_at`.
    fn stop_quickly(&mut self, kill_at: Moment, killed: usize, step: &mut Step) {
        self.enter(PoolPhase::Stopping { mode: StopMode::Quick, killed });
        for worker in self.pool.table.select(|entry| entry.state.is_leaving()) {
            let Some(entry) = self.pool.table.get_mut(worker) else { continue };
            let is_draining = matches!(entry.state, State::Draining { .. });
            if let State::Draining { kill_at: at, .. } | State::Failed { kill_at: at } = &mut entry.state {
                *at = (*at).min(kill_at);
            }
            if is_draining && kill_at > step.now {
                step.push(Effect::Quit { worker });
            }
        }
    }

    /// Kills a worker whose drain has exceeded its deadline.
    pub(super) fn on_overdue(&mut self, entry: &Entry, step: &mut Step) {
        let graceful = KillReason::GracefulTimeout(self.pool.policy.graceful_timeout);
        let is_crowded = self.pool.is_crowded(entry);
        let reason = match &mut self.pool.phase {
            PoolPhase::Stopping { mode: StopMode::Quick, .. } => KillReason::QuickStop,
            PoolPhase::Stopping { killed, .. } => {
                *killed += 1;
                graceful
            }
            _ if is_crowded => KillReason::Crowded,
            _ => graceful,
        };
        step.log(WorkerNotice::Overdue { pid: entry.shown_pid(), reason });
        self.kill(entry.id, reason, step);
    }

    /// Ends the pool, because the first generation cannot boot.
    pub(super) fn fail_start(&mut self, kind: ErrorKind, step: &mut Step) {
        self.end_everything_else(step);
        self.enter(PoolPhase::Failing { kind });
        self.starts.cancel_all();
        step.kill(self.molds.end_all(step.now));
        for worker in self.pool.table.select(|entry| !entry.state.is_leaving()) {
            self.kill(worker, KillReason::GivenUp, step);
        }
    }

    /// Ends the pool once all processes have ended or are unkillable.
    pub(super) fn settle_end(&mut self, step: &mut Step) {
        let is_unkillable = |state: &State| matches!(state, State::Unkillable { .. });
        let workers = self.pool.table.iter().map(|entry| (entry.state, entry.pid));
        let molds = self.molds.iter().map(|(_, mold)| (mold.state, mold.pid));
        let left: Vec<(State, Option<i32>)> = workers.chain(molds).collect();
        if !left.iter().all(|(state, _)| is_unkillable(state)) {
            return;
        }
        // A worker that its mold has never forked is no process.
        let left: Vec<i32> = left.into_iter().filter_map(|(_, pid)| pid).collect();
        let outcome = match self.pool.phase {
            _ if !left.is_empty() => Outcome::Unkillable { left: left.len() },
            PoolPhase::Failing { kind } => Outcome::BootFailed(kind),
            PoolPhase::Stopping { killed, .. } if killed > 0 => Outcome::Forced { killed },
            _ => Outcome::Stopped,
        };
        self.enter(PoolPhase::Ended);
        let answer = match outcome {
            Outcome::Forced { killed } => Answer::Done(format!("stopped; {killed} workers had to be killed")),
            Outcome::Unkillable { .. } => {
                let pids: Vec<String> = left.iter().map(i32::to_string).collect();
                let reason = format!("stopped, but cannot be killed: pid {}", pids.join(", "));
                Answer::Failed { reason, detail: None }
            }
            Outcome::Stopped | Outcome::BootFailed(_) => Answer::Done("stopped".to_owned()),
        };
        step.answer(self.stops.take(), &answer);
        step.log(PoolNotice::Ended { outcome });
        step.push(Effect::End(outcome));
    }
}
