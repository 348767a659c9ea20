//! The pool as a value: [`Machine::step`] takes an event and the time, and answers with effects.
//!
//! Only the machine changes the facts ([`Pool`]). Each part has its own state, reads the facts, and returns its
//! decision, which the machine applies. After each event `Machine::settle` does all that is due, so no decision depends
//! on the order of events.
//!
//! A file here calls only its own methods and those of the files above it in this list; a test checks it.
//! - `acts`: changes of the table, each with its effects.
//! - `fill`: empty slots; `size`: the number of workers; `recycling`: workers that have reached a limit.
//! - `reload`: a new generation; `upgrade`: another image; `end`: the stop.
//! - `failure`: boots that fail; `mold` and `worker`: the events of each.

mod acts;
mod end;
mod failure;
mod fill;
mod mold;
mod record;
mod recycling;
mod reload;
mod size;
mod upgrade;
mod worker;

pub(crate) use record::MachineRecord;

use std::time::Duration;

use super::effect::{Answer, Effect, FailureReason};
use super::event::{Ask, Event, Generation, Moment, Slot, Ticket};
use super::exit::KillReason;
use super::molds::Molds;
use super::notice::PoolNotice;
use super::pool::Pool;
use super::recycle::Recycler;
use super::refusals::Refusals;
use super::reloads::Reloads;
use super::rules::Policy;
use super::scale::Scaler;
use super::starts::{Starts, Vacancy, Wait};
use super::state::State;
use super::status::PoolPhase;
use super::step::Step;
use super::stops::Stops;
use super::table::{Entry, Table};
use super::upgrades::Upgrades;

/// The addition to each deadline after a stall of the supervisor: the workers may have stalled as well.
const AFTER_LATE: Duration = Duration::from_secs(1);

/// The facts of the pool, and the parts.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pool: Pool,
    molds: Molds,
    starts: Starts,
    refusals: Refusals,
    reloads: Reloads,
    recycler: Recycler,
    scaler: Scaler,
    upgrades: Upgrades,
    stops: Stops,
}

impl Machine {
    /// A pool that has not begun.
    pub(crate) fn new(policy: Policy) -> Self {
        Self {
            molds: Molds::new(&policy),
            starts: Starts::new(&policy),
            refusals: Refusals::default(),
            reloads: Reloads::default(),
            recycler: Recycler::new(&policy),
            scaler: Scaler::default(),
            upgrades: Upgrades::default(),
            stops: Stops::default(),
            pool: Pool::new(policy),
        }
    }

    /// Whether workers may have clients while they boot: then they have time to finish, as ready ones.
    pub(crate) fn expect_service_while_booting(&mut self, serves_while_booting: bool) {
        self.pool.serves_while_booting = serves_while_booting;
    }

    /// Forks the first generation.
    pub(crate) fn start(&mut self, now: Moment) -> Vec<Effect> {
        let mut step = Step::at(now);
        if self.pool.target != self.pool.policy.workers {
            step.push(Effect::Resize { slots: self.pool.target });
        }
        self.settle(&mut step);
        step.into_effects()
    }

    /// Handles an event. Returns the effects in their order.
    pub(crate) fn step(&mut self, event: Event, now: Moment) -> Vec<Effect> {
        let mut step = Step::at(now);
        let is_round_over = matches!(event, Event::Tick);
        if !self.on_mold_event(&event, &mut step) {
            self.on_event(event, &mut step);
        }
        self.settle(&mut step);
        if self.next_deadline().is_some_and(|at| at <= now) {
            // An abandoned rollout restores the earlier settings, which may have other limits.
            self.settle(&mut step);
        }
        // Last: no effect after an exec is applied, and the next image gets no earlier event.
        if is_round_over {
            self.execute_image(&mut step);
        }
        step.into_effects()
    }

    /// The latest time of the next [`Event::Tick`]; `None`: there is no deadline.
    pub(crate) fn next_deadline(&self) -> Option<Moment> {
        if self.pool.phase == PoolPhase::Ended {
            return None;
        }
        let workers = self.pool.table.iter().filter_map(|entry| self.pool.deadline_of(entry));
        let lame_duck = match self.pool.phase {
            PoolPhase::LameDuck { until } => Some(until),
            _ => None,
        };
        let others = [
            self.next_fill(),
            self.reloads.next(&self.pool),
            self.next_mold_deadline(),
            self.recycler.next(&self.pool),
            self.next_upgrade_deadline(),
            lame_duck,
        ];
        workers.chain(others.into_iter().flatten()).min()
    }

    /// The reason and end of the wait of an empty slot; `None`: it has a worker, or the exit of one is awaited.
    pub(crate) fn wait_of(&self, slot: Slot) -> Option<Wait> {
        if !self.starts.is_waiting(&self.pool, slot) {
            return None;
        }
        if let Some(reason) = self.refusals.reason() {
            let why = Vacancy::Refused(reason.to_owned());
            return Some(Wait { why, until: self.refusals.again() });
        }
        if !self.molds.can_fork(self.pool.current) {
            return Some(Wait { why: Vacancy::NoMold, until: self.next_mold() });
        }
        let until = self.starts.start_of(&self.pool, slot);
        Some(Wait { why: self.starts.vacancy(slot), until })
    }

    /// The phase of the pool.
    pub(crate) fn phase(&self) -> &PoolPhase {
        &self.pool.phase
    }

    /// The workers.
    pub(crate) fn table(&self) -> &Table {
        &self.pool.table
    }

    /// The molds.
    pub(crate) fn molds(&self) -> &Molds {
        &self.molds
    }

    /// Whether a requested reload has not begun yet.
    pub(crate) fn awaits_reload(&self) -> bool {
        self.reloads.is_queued()
    }

    /// The intended number of workers.
    pub(crate) fn target(&self) -> usize {
        self.pool.target
    }

    /// The serving generation.
    pub(crate) fn current(&self) -> Generation {
        self.pool.current
    }

    /// The current settings.
    pub(crate) fn policy(&self) -> &Policy {
        &self.pool.policy
    }

    fn on_event(&mut self, event: Event, step: &mut Step) {
        match event {
            Event::Spawned { worker, pid } => self.on_spawned(worker, pid, step),
            Event::SpawnFailed { worker, reason } => self.on_spawn_failed(worker, reason, step),
            Event::MoldStuck { mold } => self.kill_mold(mold, KillReason::Barren, step),
            Event::Ready { worker } => self.on_ready(worker, step),
            Event::BootFailed { worker, failure } => self.on_boot_failed(worker, failure, step),
            Event::Leaving { worker, reason } => self.on_leaving(worker, reason, step),
            Event::Enough { worker, requests } => self.on_enough(worker, requests, step),
            Event::Memory(used) => self.on_memory(used, step),
            Event::Changed { reason } => self.on_changed(reason, step),
            Event::Prepared { generation, policy, closes_listeners } => {
                self.on_prepared(generation, policy.map(|policy| *policy), closes_listeners, step);
            }
            Event::NotPrepared { generation, reason, detail } => {
                self.on_not_prepared(generation, &FailureReason { reason, detail }, step);
            }
            Event::ImageChecked => self.on_image_checked(),
            Event::UpgradeFailed { reason } => self.on_upgrade_failed(reason, step),
            Event::Upgraded { message } => self.on_upgraded(message, step),
            Event::Beats(beats) => self.on_beats(beats),
            Event::Exited { worker, exit } => self.on_exited(worker, exit, step),
            Event::Ask(ask, ticket) => self.on_ask(ask, ticket, step),
            Event::Late { by } => self.on_late(by, step),
            Event::Tick => {}
        }
    }

    fn on_ask(&mut self, ask: Ask, ticket: Option<Ticket>, step: &mut Step) {
        match ask {
            Ask::Stop(mode) => self.ask_stop(mode, ticket, step),
            Ask::StopWithProgram => self.stop_with_program(step),
            Ask::ReopenLogs => {
                self.reopen_logs(step);
                step.answer(ticket, &Answer::Done("log files are opened again".to_owned()));
            }
            _ if self.pool.is_about_to_end() => {
                step.answer(ticket, &Answer::Refused("the pool is stopping".to_owned()));
            }
            Ask::Reload => self.ask_reload(ticket, step),
            Ask::Upgrade => self.ask_upgrade(ticket, step),
            Ask::Scale(workers) => self.ask_scale(workers, ticket, step),
            Ask::ScaleUp => self.ask_scale(self.pool.target + 1, ticket, step),
            Ask::ScaleDown => self.ask_scale(self.pool.target - 1, ticket, step),
            Ask::Recycle(slot) => self.ask_recycle(slot, ticket, step),
        }
    }

    /// Orders every process to reopen its log files; molds as well, because their workers inherit them.
    fn reopen_logs(&self, step: &mut Step) {
        let lives = |entry: &Entry| {
            entry.pid.is_some() && !matches!(entry.state, State::Killed { .. } | State::Unkillable { .. })
        };
        for worker in self.pool.table.select(lives).into_iter().chain(self.molds.living()) {
            step.push(Effect::ReopenLogs { worker });
        }
    }

    fn on_late(&mut self, by: Duration, step: &mut Step) {
        let allowed = by.saturating_add(AFTER_LATE);
        self.pool.table.postpone_deadlines(allowed, step.now);
        self.starts.postpone_deadlines(allowed);
        self.molds.postpone_deadlines(allowed);
        self.extend_soak(allowed);
        if let PoolPhase::Upgrading { until, .. } = &mut self.pool.phase {
            *until = until.saturating_add(allowed);
        }
        step.log(PoolNotice::Woke { by });
    }

    /// Does everything that is due.
    fn settle(&mut self, step: &mut Step) {
        if self.pool.phase == PoolPhase::Ended {
            return;
        }
        self.expire_workers(step);
        self.expire_molds(step);
        self.expire_upgrade(step);
        self.settle_lame_duck(step);
        if self.pool.phase.is_ending() {
            return self.settle_end(step);
        }
        self.settle_molds(step);
        self.fill(step);
        self.retire_replaced(step);
        step.reply(self.starts.settle(&self.pool));
        if self.pool.phase == PoolPhase::Starting && self.pool.ever_ready {
            self.enter(PoolPhase::Serving);
            let ready = self.pool.table.iter().filter(|entry| entry.state.is_ready()).count();
            step.push(Effect::PoolReady { ready, target: self.pool.target });
        }
        self.settle_rollout(step);
        // A rollout that has just begun may need a mold at once.
        self.settle_molds(step);
        self.settle_recycling(step);
        self.settle_size(step);
        self.settle_upgrade(step);
        if self.recycler.begin_measurement(&self.pool, step.now) {
            step.push(Effect::Measure);
        }
    }
}

#[cfg(test)]
impl Machine {
    /// Slots that are filled without waiting for their time.
    pub(super) fn hurried(&self) -> &std::collections::BTreeSet<Slot> {
        self.starts.hurried()
    }
}
