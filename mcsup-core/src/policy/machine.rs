//! The pool as a value: [`Machine::step`] takes an event and the time, and answers with effects.
//!
//! One function for each event; after each event `Machine::settle` does whatever has become due, so that no
//! decision depends on which event came first.

use std::collections::BTreeSet;
use std::time::Duration;

use super::effect::{Answer, Drain, Effect};
use super::event::{Ask, Event, Generation, Moment, Slot, Ticket, WorkerId};
use super::exit::{BootFailure, Exit, ExitStatus, KillReason};
use super::jitter::Jitter;
use super::molds::Molds;
use super::notice::{Notice, PoolNotice, WorkerNotice};
use super::restart::{Loss, Restarts};
use super::rules::Policy;
use super::status::{Phase, State};
use super::step::Step;
use super::table::{Entry, Table};
use super::under_way::{Refusal, Replacing, Scaling};
use crate::error::ErrorKind;

/// What every deadline is given on top, after the supervisor did not run: the workers may not have run either.
const AFTER_LATE: Duration = Duration::from_secs(1);

/// How long a worker whose boot has failed may take to end by itself.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A process that is there so long after SIGKILL is frozen, or in a system call that no signal ends.
pub(super) const UNKILLABLE_AFTER: Duration = Duration::from_secs(5);

/// The pool's state and everything that it is decided from.
#[derive(Debug, Clone)]
pub struct Machine {
    pub(super) policy: Policy,
    pub(super) table: Table,
    pub(super) molds: Molds,
    /// The losses of each slot.
    pub(super) restarts: Restarts,
    /// The losses of the mold's place.
    pub(super) mold_restarts: Restarts,
    /// While the system refuses to fork.
    pub(super) refusal: Option<Refusal>,
    pub(super) jitter: Jitter,
    pub(super) phase: Phase,
    pub(super) current: Generation,
    pub(super) newest: Generation,
    /// How many workers there should be,
    pub(super) target: usize,
    /// and how many the settings named when they were last read.
    pub(super) configured: usize,
    pub(super) ever_ready: bool,
    pub(super) queued_reload: Option<Vec<Ticket>>,
    /// When a change that workers have seen begins a reload.
    pub(super) changed_at: Option<Moment>,
    pub(super) scaling: Option<Scaling>,
    pub(super) next_look: Option<Moment>,
    pub(super) replacing: Option<Replacing>,
    pub(super) recycle_tickets: Vec<(Ticket, WorkerId)>,
    pub(super) recycle_again: Option<Moment>,
    pub(super) wants_upgrade: bool,
    pub(super) upgrade_tickets: Vec<Ticket>,
    /// Gone on from a record, and not told yet what came of the upgrade.
    pub(super) is_resumed: bool,
    pub(super) stop_tickets: Vec<Ticket>,
    /// The stop that was asked for last, and when.
    pub(super) stop_asked: Option<(Ask, Moment)>,
    /// Those that wait for a worker in an empty slot.
    pub(super) slot_tickets: Vec<(Ticket, Slot)>,
    /// Slots that are filled without waiting for their time, because an operator has asked for it.
    pub(super) hurried: BTreeSet<Slot>,
}

impl Machine {
    /// A pool that has not begun.
    pub fn new(policy: Policy) -> Self {
        let restarts = Restarts::new(policy.restart, policy.seed);
        let mold_restarts = Restarts::new(policy.restart, policy.seed.wrapping_add(1));
        let jitter = Jitter::new(policy.seed.wrapping_add(2));
        let (target, configured) = (policy.allowed(policy.workers), policy.workers);
        let mut molds = Molds::default();
        if policy.preload {
            molds.wanted_by.insert(1);
        }
        Self {
            policy,
            table: Table::default(),
            molds,
            restarts,
            mold_restarts,
            refusal: None,
            jitter,
            phase: Phase::Starting,
            current: 1,
            newest: 1,
            target,
            configured,
            ever_ready: false,
            queued_reload: None,
            changed_at: None,
            scaling: None,
            next_look: None,
            replacing: None,
            recycle_tickets: Vec::new(),
            recycle_again: None,
            wants_upgrade: false,
            upgrade_tickets: Vec::new(),
            is_resumed: false,
            stop_tickets: Vec::new(),
            stop_asked: None,
            slot_tickets: Vec::new(),
            hurried: BTreeSet::new(),
        }
    }

    /// Forks the first generation.
    pub fn start(&mut self, now: Moment) -> Vec<Effect> {
        let mut step = Step::at(now);
        if self.target != self.policy.workers {
            step.push(Effect::Resize { slots: self.target });
        }
        self.settle(&mut step);
        step.into_effects()
    }

    /// Something happened: what is to be done about it, in this order.
    pub fn step(&mut self, event: Event, now: Moment) -> Vec<Effect> {
        let mut step = Step::at(now);
        let is_round_over = matches!(event, Event::Tick);
        if !self.on_mold_event(&event, &mut step) {
            self.on_event(event, &mut step);
        }
        self.settle(&mut step);
        if self.next_deadline().is_some_and(|at| at <= now) {
            // Settings that hold again may bound what those given up did not.
            self.settle(&mut step);
        }
        // Last: what follows an exec is not reached, and what has happened by then the next image cannot hear of.
        if is_round_over {
            self.take_over(&mut step);
        }
        step.into_effects()
    }

    fn on_event(&mut self, event: Event, step: &mut Step) {
        match event {
            Event::Spawned { worker, pid } => self.on_spawned(worker, pid, step),
            Event::SpawnFailed { worker, reason } => self.on_spawn_failed(worker, reason, step),
            Event::MoldStuck { mold } => self.kill_mold(mold, KillReason::Barren, step),
            Event::Ready { worker } => self.on_ready(worker, step),
            Event::BootFailed { worker, failure } => self.on_boot_failed(worker, failure, step),
            Event::Leaving { worker, reason } => self.on_leaving(worker, &reason, step),
            Event::Enough { worker, requests } => self.on_enough(worker, requests, step),
            Event::Memory(used) => self.on_memory(used, step),
            Event::Changed { reason } => self.on_changed(reason, step),
            Event::Prepared { generation, policy, closes_listeners } => {
                self.on_prepared(generation, (policy, closes_listeners), step);
            }
            Event::NotPrepared { generation, reason } => {
                self.on_not_prepared(generation, reason, step);
            }
            Event::ImageChecked => self.on_image_checked(),
            Event::UpgradeFailed { reason } => self.on_upgrade_failed(reason, step),
            Event::Upgraded { message } => self.on_upgraded(&message, step),
            Event::Beats(beats) => self.on_beats(beats),
            Event::Exited { worker, exit } => self.on_exited(worker, exit, step),
            Event::Ask(ask, ticket) => self.on_ask(ask, ticket, step),
            Event::Late { by } => self.on_late(by, step),
            Event::Tick => {}
        }
    }

    /// When [`Event::Tick`] is due at the latest; `None`: nothing waits for time.
    pub fn next_deadline(&self) -> Option<Moment> {
        if self.phase == Phase::Ended {
            return None;
        }
        let workers = self.table.iter().filter_map(|entry| self.deadline_of(entry));
        let lame_duck = match self.phase {
            Phase::LameDuck { until } => Some(until),
            _ => None,
        };
        let others = [
            self.next_fill(),
            self.next_rollout_deadline(),
            self.next_mold_deadline(),
            self.next_recycling(),
            self.next_look(),
            self.next_upgrade_deadline(),
            lame_duck,
        ];
        workers.chain(others.into_iter().flatten()).min()
    }

    /// Where the pool is in its life.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// The facts.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The molds.
    pub fn molds(&self) -> &Molds {
        &self.molds
    }

    /// How many workers there should be.
    pub fn target(&self) -> usize {
        self.target
    }

    /// The generation that serves.
    pub fn current(&self) -> Generation {
        self.current
    }

    /// What it decides by.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Has a worker forked; `None`: the mold that would do it is not ready, and its slot stays empty until it is.
    pub(super) fn spawn(&mut self, slot: Slot, generation: Generation, step: &mut Step) -> Option<WorkerId> {
        if !self.molds.can_fork(generation) {
            return None;
        }
        let mold = self.molds.ready(generation).filter(|_| self.molds.wanted_by.contains(&generation));
        let allowance = self.draw_allowance();
        let worker = self.table.add((slot, generation), mold, allowance, step.now);
        step.push(Effect::Spawn { worker, slot, generation, mold, enough: allowance.requests });
        Some(worker)
    }

    pub(super) fn kill(&mut self, worker: WorkerId, reason: KillReason, step: &mut Step) {
        let Some(entry) = self.table.get_mut(worker) else { return };
        if !matches!(entry.state, State::Killed { .. } | State::Unkillable { .. }) {
            entry.state = State::Killed { reason, since: step.now, ready_since: entry.state.ready_since() };
            step.push(Effect::Kill { worker });
        }
    }

    fn on_spawned(&mut self, worker: WorkerId, pid: i32, step: &mut Step) {
        let Some(entry) = self.table.get_mut(worker) else { return };
        entry.pid = pid;
        let is_killed = match entry.state {
            State::Killed { reason, .. } | State::Unkillable { reason } => {
                entry.state = State::Killed { reason, since: step.now, ready_since: None };
                entry.mold.is_some()
            }
            _ => false,
        };
        let (slot, generation) = (entry.slot, entry.generation);
        self.refusal = None;
        step.tell(Notice::Worker(WorkerNotice::Booting { worker, slot, generation, pid }));
        if is_killed {
            // It was given up before its mold had forked it, when there was no process to kill.
            step.push(Effect::Kill { worker });
        }
    }

    fn on_spawn_failed(&mut self, worker: WorkerId, reason: String, step: &mut Step) {
        let Some(entry) = self.table.remove(worker) else { return };
        if self.phase.is_ending() || entry.state.is_leaving() {
            // Whoever counted on it learned already that it was given up.
            return;
        }
        let (slot, why) = (entry.slot, format!("a worker could not be forked: {reason}"));
        if self.is_new(entry.generation) {
            return self.newcomer_failed(why, None, step);
        }
        if !self.ever_ready {
            step.tell(Notice::Worker(WorkerNotice::SpawnFailed { slot, reason, retry_in: Duration::ZERO }));
            return self.fail_start(ErrorKind::System, step);
        }
        let retry_in = self.on_fork_refused(entry.mold, &reason, step.now);
        self.replace_barren_mold(step);
        step.tell(Notice::Worker(WorkerNotice::SpawnFailed { slot, reason, retry_in }));
        self.note_failure(&entry, &why, None, step);
    }

    fn on_ready(&mut self, worker: WorkerId, step: &mut Step) {
        let Some(entry) = self.table.get_mut(worker) else { return };
        let State::Booting { since } = entry.state else { return };
        entry.state = State::Ready { since: step.now, beat: step.now };
        entry.boot = step.now.saturating_sub(since);
        let (pid, slot, generation, after) = (entry.pid, entry.slot, entry.generation, entry.boot);
        step.tell(Notice::Worker(WorkerNotice::Ready { pid, slot, after }));
        step.push(Effect::Begin { worker });
        self.ever_ready = true;
        if generation == self.current {
            self.on_boot_worked(slot, after, step.now);
        }
        if matches!(self.phase, Phase::LameDuck { .. }) {
            step.push(Effect::LameDuck { worker });
        }
    }

    fn on_boot_failed(&mut self, worker: WorkerId, failure: BootFailure, step: &mut Step) {
        let Some(entry) = self.table.get_mut(worker) else { return };
        let State::Booting { since } = entry.state else { return };
        let took = step.now.saturating_sub(since);
        entry.state = State::Failed { kill_at: step.after(self.policy.graceful_timeout.min(LAST_WORDS)) };
        let (entry, kind) = (entry.clone(), failure.kind);
        if self.phase.is_ending() {
            return;
        }
        let (reason, detail) = (failure.summary.clone(), failure.detail.clone());
        step.tell(Notice::Worker(WorkerNotice::BootFailed { pid: entry.pid, failure }));
        if self.is_new(entry.generation) {
            self.newcomer_failed(reason, detail, step);
        } else if !self.ever_ready {
            self.fail_start(kind, step);
        } else {
            if entry.generation == self.current {
                self.restarts.note_boot(entry.slot, took, false, step.now);
            }
            self.note_failure(&entry, &reason, detail, step);
        }
    }

    /// A worker of the serving generation could not become ready, which fails the requests that wait for it.
    pub(super) fn note_failure(
        &mut self,
        entry: &Entry,
        reason: &str,
        detail: Option<String>,
        step: &mut Step,
    ) {
        self.note_failed_successor(entry.id, reason, detail.clone());
        if entry.generation == self.current {
            self.note_failed_start(entry.slot, reason, detail.as_ref(), step);
            self.note_failed_return(entry.slot, reason, step);
            self.note_failed_addition(entry.slot, (reason, detail), step);
        }
    }

    /// A worker asks to be replaced: its successor starts, and is ready before it leaves.
    fn on_leaving(&mut self, worker: WorkerId, reason: &str, step: &mut Step) {
        let Some(entry) = self.table.get_mut(worker) else { return };
        let State::Ready { since, .. } = entry.state else { return };
        if entry.leaves {
            return;
        }
        entry.leaves = true;
        let entry = entry.clone();
        let Entry { slot, pid, generation, .. } = entry;
        let (is_new, reason) = (self.is_new(generation), reason.to_owned());
        let respawn_in = if is_new { None } else { self.succeed(&entry, since, step.now) };
        step.tell(Notice::Worker(WorkerNotice::Leaving { pid, slot, reason: reason.clone(), respawn_in }));
        if is_new {
            self.retire(worker, Drain::Retire, step);
            let reason = format!("worker {pid} left before the new generation was complete: {reason}");
            self.newcomer_failed(reason, None, step);
        }
    }

    fn on_beats(&mut self, beats: Vec<(WorkerId, Moment)>) {
        for (worker, at) in beats {
            if let Some(Entry { state: State::Ready { beat, .. }, .. }) = self.table.get_mut(worker) {
                *beat = (*beat).max(at);
            }
        }
    }

    fn on_exited(&mut self, worker: WorkerId, exit: Exit, step: &mut Step) {
        let Some(entry) = self.table.remove(worker) else { return };
        let Entry { slot, generation, pid, state, .. } = entry;
        let killed = match state {
            State::Killed { reason, .. } | State::Unkillable { reason } => Some(reason),
            State::Aborting { limit, .. } => Some(KillReason::Silent(limit)),
            _ => None,
        };
        if let (State::Draining { .. }, ExitStatus::Code(0)) = (state, exit.status) {
            return step.tell(Notice::Worker(WorkerNotice::Retired { pid }));
        }
        let asked_for = matches!(killed, Some(KillReason::GivenUp | KillReason::QuickStop));
        let was_draining =
            matches!(state, State::Draining { .. }) || killed.is_some_and(KillReason::ends_a_drain);
        let is_late = matches!(state, State::Unkillable { .. });
        if self.phase.is_ending() || asked_for || was_draining || is_late {
            let quiet = asked_for || matches!(state, State::Failed { .. });
            if !quiet {
                step.tell(Notice::Worker(WorkerNotice::Died { pid, slot, exit, killed, respawn_in: None }));
            }
            return;
        }
        if !self.ever_ready && generation == self.current {
            step.tell(Notice::Worker(WorkerNotice::Died { pid, slot, exit, killed, respawn_in: None }));
            return self.fail_start(ErrorKind::Boot, step);
        }
        let was_ready = state.ready_since();
        let is_new = self.is_new(generation);
        if let (State::Booting { since }, true) = (state, generation == self.current) {
            self.restarts.note_boot(slot, step.now.saturating_sub(since), false, step.now);
        }
        let respawn_in = self.respawn(&entry, was_ready.map_or(Loss::Boot, Loss::Ready), step.now);
        let status = exit.status;
        step.tell(Notice::Worker(WorkerNotice::Died { pid, slot, exit, killed, respawn_in }));
        // A boot that failed in its own words, or in ours, was told already.
        let told =
            matches!(state, State::Failed { .. }) || matches!(killed, Some(KillReason::BootTimeout(_)));
        if is_new && !told {
            let when = if was_ready.is_some() { "soon after it was ready" } else { "before it was ready" };
            self.newcomer_failed(format!("worker {pid} died {when}: {status}"), None, step);
        } else if was_ready.is_none() && !told {
            let reason = format!("worker {pid} died before it was ready: {status}");
            self.note_failure(&entry, &reason, None, step);
        }
    }

    fn on_ask(&mut self, ask: Ask, ticket: Option<Ticket>, step: &mut Step) {
        match ask {
            Ask::StopGraceful | Ask::StopQuick => self.ask_stop(ask, ticket, step),
            Ask::ReopenLogs => {
                self.reopen_logs(step);
                step.answer(ticket, &Answer::Done("log files are opened anew".to_owned()));
            }
            _ if self.phase.is_ending() || matches!(self.phase, Phase::LameDuck { .. }) => {
                step.answer(ticket, &Answer::Refused("the pool is stopping".to_owned()));
            }
            Ask::Reload => self.ask_reload(ticket, step),
            Ask::Upgrade => self.ask_upgrade(ticket, step),
            Ask::Scale(workers) => self.ask_scale(workers, ticket, step),
            Ask::ScaleUp => self.ask_scale(self.target + 1, ticket, step),
            Ask::ScaleDown => self.ask_scale(self.target - 1, ticket, step),
            Ask::Recycle(slot) => self.ask_recycle(slot, ticket, step),
        }
    }

    /// Whoever lives opens its log files anew; molds as well, whose workers inherit them.
    fn reopen_logs(&self, step: &mut Step) {
        let lives = |entry: &Entry| {
            entry.pid != 0 && !matches!(entry.state, State::Killed { .. } | State::Unkillable { .. })
        };
        for worker in self.table.select(lives).into_iter().chain(self.molds.living()) {
            step.push(Effect::ReopenLogs { worker });
        }
    }

    fn on_late(&mut self, by: Duration, step: &mut Step) {
        let allowed = by.saturating_add(AFTER_LATE);
        self.table.forgive(allowed, step.now);
        self.forgive_molds(allowed);
        self.forgive_newcomers(allowed);
        if let Phase::Upgrading { until, .. } = &mut self.phase {
            *until = until.saturating_add(allowed);
        }
        step.tell(Notice::Pool(PoolNotice::Woke { by }));
    }

    /// Does everything that has become due.
    fn settle(&mut self, step: &mut Step) {
        if self.phase == Phase::Ended {
            return;
        }
        self.expire_workers(step);
        self.expire_molds(step);
        self.expire_upgrade(step);
        self.settle_lame_duck(step);
        if self.phase.is_ending() {
            return self.settle_end(step);
        }
        self.settle_molds(step);
        self.fill(step);
        self.retire_replaced(step);
        self.settle_starts(step);
        if self.phase == Phase::Starting && self.ever_ready {
            self.phase = Phase::Serving;
            let ready = self.table.iter().filter(|entry| entry.state.is_ready()).count();
            step.push(Effect::PoolReady { ready, target: self.target });
        }
        self.settle_rollout(step);
        // A reload may have begun, whose mold is wanted at once.
        self.settle_molds(step);
        self.settle_recycling(step);
        self.settle_scaling(step);
        self.settle_upgrade(step);
        self.settle_looks(step);
    }

    /// Does to each worker what its deadline asks for. One may be the end of others, whose deadlines count no more.
    fn expire_workers(&mut self, step: &mut Step) {
        for worker in self.table.select(|entry| self.deadline_of(entry).is_some_and(|at| at <= step.now)) {
            let Some(entry) = self.table.get(worker).cloned() else { continue };
            if self.deadline_of(&entry).is_some_and(|at| at <= step.now) {
                self.on_deadline(&entry, step);
            }
        }
    }

    /// When this worker's patience ends, if it is bounded.
    fn deadline_of(&self, entry: &Entry) -> Option<Moment> {
        match entry.state {
            State::Booting { since } => Some(since.saturating_add(self.policy.boot_timeout)),
            State::Ready { beat, .. } => self.policy.timeout.map(|timeout| beat.saturating_add(timeout)),
            State::Aborting { kill_at, .. } | State::Draining { kill_at, .. } | State::Failed { kill_at } => {
                Some(kill_at)
            }
            // One that has not been forked yet is killed when it is.
            State::Killed { since, .. } => (entry.pid != 0).then(|| since.saturating_add(UNKILLABLE_AFTER)),
            State::Unkillable { .. } => None,
        }
    }

    fn on_deadline(&mut self, entry: &Entry, step: &mut Step) {
        let &Entry { id, pid, .. } = entry;
        match entry.state {
            State::Booting { .. } => self.on_boot_timeout(entry, step),
            State::Ready { since, beat } => {
                let Some(limit) = self.policy.timeout else { return };
                step.tell(Notice::Worker(WorkerNotice::Silent { pid, since: step.now.saturating_sub(beat) }));
                step.push(Effect::Abort { worker: id });
                if let Some(entry) = self.table.get_mut(id) {
                    let kill_at = step.after(self.policy.abort_patience);
                    entry.state = State::Aborting { ready_since: since, kill_at, limit };
                }
            }
            State::Aborting { limit, .. } => self.kill(id, KillReason::Silent(limit), step),
            State::Draining { .. } => self.on_overdue(entry, step),
            // That its boot failed was told, and its slot is filled after its exit.
            State::Failed { .. } => {
                self.kill(id, KillReason::BootTimeout(self.policy.boot_timeout), step);
            }
            State::Killed { .. } => self.on_unkillable(entry, step),
            State::Unkillable { .. } => {}
        }
    }

    /// A killed worker is still there: its slot no longer waits for its exit, nor does the end of the pool.
    fn on_unkillable(&mut self, entry: &Entry, step: &mut Step) {
        let &Entry { id, pid, slot, state, .. } = entry;
        let State::Killed { reason, since, ready_since } = state else { return };
        if let Some(entry) = self.table.get_mut(id) {
            entry.state = State::Unkillable { reason };
        }
        let respawn_in = match state.is_missed() {
            true => self.respawn(entry, ready_since.map_or(Loss::Boot, Loss::Ready), step.now),
            false => None,
        };
        let since = step.now.saturating_sub(since);
        step.tell(Notice::Worker(WorkerNotice::Unkillable { pid, slot, since, respawn_in }));
        if self.is_new(entry.generation) && matches!(reason, KillReason::Silent(_)) {
            let why = format!("worker {pid} was {reason}, and is still there after SIGKILL");
            self.newcomer_failed(why, None, step);
        }
    }

    fn on_boot_timeout(&mut self, entry: &Entry, step: &mut Step) {
        let limit = self.policy.boot_timeout;
        let reason = KillReason::BootTimeout(limit);
        step.tell(Notice::Worker(WorkerNotice::BootTimeout { pid: entry.pid, after: limit }));
        self.kill(entry.id, reason, step);
        let why = format!("worker {} was {reason}", entry.pid);
        if self.phase.is_ending() {
            return;
        }
        if let Some(mold) = entry.mold.filter(|_| entry.pid == 0) {
            // It has not even been forked; there is no process whose exit would be seen.
            self.kill_mold(mold, reason, step);
        }
        if self.is_new(entry.generation) {
            self.newcomer_failed(why, None, step);
        } else if !self.ever_ready {
            self.fail_start(ErrorKind::Boot, step);
        } else {
            if entry.generation == self.current && entry.pid != 0 {
                self.restarts.note_timeout(entry.slot, limit, step.now);
            }
            self.note_failure(entry, &why, None, step);
        }
    }
}
