//! How a pool ends: after a while in which it only says so, gracefully, quickly, or at once. Each order to stop escalates
//! the one before, unless it is the same one again.

use std::time::Duration;

use super::effect::{Answer, Drain, Effect, Outcome};
use super::event::{Ask, Moment, Ticket};
use super::exit::KillReason;
use super::machine::Machine;
use super::notice::{Notice, PoolNotice, WorkerNotice};
use super::status::{Phase, State};
use super::step::Step;
use super::table::Entry;
use crate::error::ErrorKind;

/// The same order again within this time is the same order: a service manager signals a process and then its group, and a
/// terminal and a script may both pass on what a person did once.
pub(super) const SAME_ORDER: Duration = Duration::from_millis(250);

impl Machine {
    /// A stop was asked for. The first may be graceful; a second is quick; a third kills.
    pub(super) fn ask_stop(&mut self, ask: Ask, ticket: Option<Ticket>, step: &mut Step) {
        self.stop_tickets.extend(ticket);
        if self.is_same_order(ask, step.now) {
            return;
        }
        self.stop_asked = Some((ask, step.now));
        match self.phase {
            Phase::Ended => {
                let tickets = std::mem::take(&mut self.stop_tickets);
                step.answer(tickets, &Answer::Done("stopped".to_owned()));
            }
            Phase::Failing { .. } => {}
            Phase::Stopping { ask: Ask::StopQuick, killed, .. } => {
                step.tell(Notice::Pool(PoolNotice::Escalated));
                self.hurry(step.now, killed, step);
            }
            Phase::Stopping { killed, .. } => {
                step.tell(Notice::Pool(PoolNotice::Escalated));
                self.hurry(step.after(self.policy.quick_timeout), killed, step);
            }
            Phase::Serving | Phase::Reloading(_) | Phase::RollingBack(_) | Phase::Upgrading { .. }
                if ask == Ask::StopGraceful && !self.policy.drain_delay.is_zero() =>
            {
                self.begin_lame_duck(step);
            }
            _ => self.begin_stop(ask, step),
        }
    }

    /// Whether the stop that was asked for last has just asked for this, or for more.
    fn is_same_order(&self, ask: Ask, now: Moment) -> bool {
        let is_ended = self.phase == Phase::Ended;
        self.stop_asked.is_some_and(|(last, at)| {
            let asks_for_more = ask == Ask::StopQuick && last == Ask::StopGraceful;
            !is_ended && !asks_for_more && now.saturating_sub(at) < SAME_ORDER
        })
    }

    /// Ends the time in which it only says that it will end.
    pub(super) fn settle_lame_duck(&mut self, step: &mut Step) {
        if matches!(self.phase, Phase::LameDuck { until } if until <= step.now) {
            self.begin_stop(Ask::StopGraceful, step);
        }
    }

    /// Everybody says that the pool will end, and goes on serving: whoever balances load may learn of it first.
    fn begin_lame_duck(&mut self, step: &mut Step) {
        let lasts = self.policy.drain_delay;
        self.supersede(step);
        self.end_everything_else(step);
        self.phase = Phase::LameDuck { until: step.after(lasts) };
        step.tell(Notice::Pool(PoolNotice::LameDuck { lasts }));
        for worker in self.table.select(|entry| entry.state.is_ready()) {
            step.push(Effect::LameDuck { worker });
        }
    }

    fn begin_stop(&mut self, ask: Ask, step: &mut Step) {
        step.tell(Notice::Pool(PoolNotice::Stopping { ask }));
        self.end_everything_else(step);
        self.table.cancel_respawns(0);
        self.end_all_molds(step);
        for worker in self.table.select(|entry| matches!(entry.state, State::Booting { .. })) {
            self.kill(worker, KillReason::GivenUp, step);
        }
        if ask == Ask::StopGraceful {
            step.push(Effect::RefuseNew);
        }
        let kill_at = step.after(self.policy.graceful_timeout);
        self.phase = Phase::Stopping { ask, killed: 0 };
        for worker in self.table.select(|entry| entry.state.is_ready()) {
            if let Some(entry) = self.table.get_mut(worker) {
                entry.state = State::Draining { how: Drain::Stop, kill_at };
                step.push(Effect::Drain { worker, how: Drain::Stop });
            }
        }
        step.push(Effect::CloseListeners);
        if ask == Ask::StopQuick {
            self.hurry(step.after(self.policy.quick_timeout), 0, step);
        }
    }

    /// Whatever else is under way, or waits, does not happen any more.
    pub(super) fn end_everything_else(&mut self, step: &mut Step) {
        self.abandon_rollout(step);
        self.stop_recycling(step);
        self.stop_scaling(step);
        self.stop_filling(step);
        self.end_upgrade(&Answer::Superseded, step);
    }

    /// Asks everybody to end step.now, and kills whoever is left at `kill_at`.
    fn hurry(&mut self, kill_at: Moment, killed: usize, step: &mut Step) {
        self.phase = Phase::Stopping { ask: Ask::StopQuick, killed };
        for worker in self.table.select(|entry| entry.state.is_leaving()) {
            let Some(entry) = self.table.get_mut(worker) else { continue };
            let is_draining = matches!(entry.state, State::Draining { .. });
            if let State::Draining { kill_at: at, .. } | State::Failed { kill_at: at } = &mut entry.state {
                *at = (*at).min(kill_at);
            }
            if is_draining && kill_at > step.now {
                step.push(Effect::Quit { worker });
            }
        }
    }

    /// Kills a worker that has not finished in its time.
    pub(super) fn on_overdue(&mut self, entry: &Entry, step: &mut Step) {
        let graceful = KillReason::GracefulTimeout(self.policy.graceful_timeout);
        let is_crowded = self.is_crowded(entry);
        let reason = match &mut self.phase {
            Phase::Stopping { ask: Ask::StopQuick, .. } => KillReason::QuickStop,
            Phase::Stopping { killed, .. } => {
                *killed += 1;
                graceful
            }
            _ if is_crowded => KillReason::Crowded,
            _ => graceful,
        };
        step.tell(Notice::Worker(WorkerNotice::Overdue { pid: entry.pid, reason }));
        self.kill(entry.id, reason, step);
    }

    /// The first generation cannot boot: ends everything, whatever the number of workers.
    pub(super) fn fail_start(&mut self, kind: ErrorKind, step: &mut Step) {
        self.end_everything_else(step);
        self.phase = Phase::Failing { kind };
        self.table.cancel_respawns(0);
        self.end_all_molds(step);
        for worker in self.table.select(|entry| !entry.state.is_leaving()) {
            self.kill(worker, KillReason::GivenUp, step);
        }
    }

    /// Ends the pool once every process has ended, but for those that SIGKILL does not end.
    pub(super) fn settle_end(&mut self, step: &mut Step) {
        let is_unkillable = |state: &State| matches!(state, State::Unkillable { .. });
        let workers = self.table.iter().map(|entry| (entry.state, entry.pid));
        let molds = self.molds.iter().map(|(_, mold)| (mold.state, mold.pid));
        let left: Vec<(State, i32)> = workers.chain(molds).collect();
        if !left.iter().all(|(state, _)| is_unkillable(state)) {
            return;
        }
        // One that a mold was to fork and never has is no process.
        let left: Vec<i32> = left.into_iter().map(|(_, pid)| pid).filter(|pid| *pid != 0).collect();
        let outcome = match self.phase {
            _ if !left.is_empty() => Outcome::Unkillable { left: left.len() },
            Phase::Failing { kind } => Outcome::BootFailed(kind),
            Phase::Stopping { killed, .. } if killed > 0 => Outcome::Forced { killed },
            _ => Outcome::Stopped,
        };
        self.phase = Phase::Ended;
        let answer = match outcome {
            Outcome::Forced { killed } => Answer::Done(format!("stopped; {killed} workers had to be killed")),
            Outcome::Unkillable { .. } => {
                let pids: Vec<String> = left.iter().map(i32::to_string).collect();
                let reason = format!("stopped, but cannot be killed: pid {}", pids.join(", "));
                Answer::Failed { reason, detail: None }
            }
            _ => Answer::Done("stopped".to_owned()),
        };
        let tickets = std::mem::take(&mut self.stop_tickets);
        step.answer(tickets, &answer);
        step.tell(Notice::Pool(PoolNotice::Ended { outcome }));
        step.push(Effect::End(outcome));
    }
}
