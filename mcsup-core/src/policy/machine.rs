//! The pool as a value: [`Machine::step`] takes an event and the time, and answers with effects.
//!
//! One function for each event; after each event `Machine::settle` does whatever has become due, so that no
//! decision depends on which event came first.

use std::collections::BTreeSet;
use std::time::Duration;

use super::event::{
    Answer, Ask, BootFailure, Drain, Effect, Event, Exit, ExitStatus, Generation, KillReason, Moment, Notice,
    Slot, Ticket, WorkerId,
};
use super::jitter::Jitter;
use super::molds::Molds;
use super::restart::{Loss, Restarts};
use super::rules::Policy;
use super::status::{Phase, State};
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
        let mut effects = Vec::new();
        if self.target != self.policy.workers {
            effects.push(Effect::Resize { slots: self.target });
        }
        self.settle(now, &mut effects);
        effects
    }

    /// Something happened: what is to be done about it, in this order.
    pub fn step(&mut self, event: Event, now: Moment) -> Vec<Effect> {
        let mut effects = Vec::new();
        let is_round_over = matches!(event, Event::Tick);
        if !self.on_mold_event(&event, now, &mut effects) {
            self.on_event(event, now, &mut effects);
        }
        self.settle(now, &mut effects);
        if self.next_deadline().is_some_and(|at| at <= now) {
            // Settings that hold again may bound what those given up did not.
            self.settle(now, &mut effects);
        }
        // Last: what follows an exec is not reached, and what has happened by then the next image cannot hear of.
        if is_round_over {
            self.take_over(&mut effects);
        }
        effects
    }

    fn on_event(&mut self, event: Event, now: Moment, effects: &mut Vec<Effect>) {
        match event {
            Event::Spawned { worker, pid } => self.on_spawned(worker, pid, now, effects),
            Event::SpawnFailed { worker, reason } => self.on_spawn_failed(worker, reason, now, effects),
            Event::MoldStuck { mold } => self.kill_mold(mold, KillReason::Barren, now, effects),
            Event::Ready { worker } => self.on_ready(worker, now, effects),
            Event::BootFailed { worker, failure } => self.on_boot_failed(worker, failure, now, effects),
            Event::Leaving { worker, reason } => self.on_leaving(worker, &reason, now, effects),
            Event::Enough { worker, requests } => self.on_enough(worker, requests, effects),
            Event::Memory(used) => self.on_memory(used, effects),
            Event::Changed { reason } => self.on_changed(reason, now, effects),
            Event::Prepared { generation, policy, closes_listeners } => {
                self.on_prepared(generation, (policy, closes_listeners), now, effects);
            }
            Event::NotPrepared { generation, reason } => {
                self.on_not_prepared(generation, reason, now, effects);
            }
            Event::ImageChecked => self.on_image_checked(),
            Event::UpgradeFailed { reason } => self.on_upgrade_failed(reason, effects),
            Event::Upgraded { message } => self.on_upgraded(&message, effects),
            Event::Beats(beats) => self.on_beats(beats),
            Event::Exited { worker, exit } => self.on_exited(worker, exit, now, effects),
            Event::Ask(ask, ticket) => self.on_ask(ask, ticket, now, effects),
            Event::Late { by } => self.on_late(by, now, effects),
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
    pub(super) fn spawn(
        &mut self,
        slot: Slot,
        generation: Generation,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) -> Option<WorkerId> {
        if !self.molds.can_fork(generation) {
            return None;
        }
        let mold = self.molds.ready(generation).filter(|_| self.molds.wanted_by.contains(&generation));
        let allowance = self.draw_allowance();
        let worker = self.table.add((slot, generation), mold, allowance, now);
        effects.push(Effect::Spawn { worker, slot, generation, mold, enough: allowance.requests });
        Some(worker)
    }

    pub(super) fn kill(
        &mut self,
        worker: WorkerId,
        reason: KillReason,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let Some(entry) = self.table.get_mut(worker) else { return };
        if !matches!(entry.state, State::Killed { .. } | State::Unkillable { .. }) {
            entry.state = State::Killed { reason, since: now, ready_since: entry.state.ready_since() };
            effects.push(Effect::Kill { worker });
        }
    }

    /// Answers everybody who waits for the same thing.
    pub(super) fn answer(
        &self,
        tickets: impl IntoIterator<Item = Ticket>,
        answer: &Answer,
        effects: &mut Vec<Effect>,
    ) {
        effects.extend(tickets.into_iter().map(|ticket| Effect::Answer { ticket, answer: answer.clone() }));
    }

    fn on_spawned(&mut self, worker: WorkerId, pid: i32, now: Moment, effects: &mut Vec<Effect>) {
        let Some(entry) = self.table.get_mut(worker) else { return };
        entry.pid = pid;
        let is_killed = match entry.state {
            State::Killed { reason, .. } | State::Unkillable { reason } => {
                entry.state = State::Killed { reason, since: now, ready_since: None };
                entry.mold.is_some()
            }
            _ => false,
        };
        let (slot, generation) = (entry.slot, entry.generation);
        self.refusal = None;
        effects.push(Effect::Tell(Notice::Booting { worker, slot, generation, pid }));
        if is_killed {
            // It was given up before its mold had forked it, when there was no process to kill.
            effects.push(Effect::Kill { worker });
        }
    }

    fn on_spawn_failed(&mut self, worker: WorkerId, reason: String, now: Moment, effects: &mut Vec<Effect>) {
        let Some(entry) = self.table.remove(worker) else { return };
        if self.phase.is_ending() || entry.state.is_leaving() {
            // Whoever counted on it learned already that it was given up.
            return;
        }
        let (slot, why) = (entry.slot, format!("a worker could not be forked: {reason}"));
        if self.is_new(entry.generation) {
            return self.newcomer_failed(why, None, now, effects);
        }
        if !self.ever_ready {
            effects.push(Effect::Tell(Notice::SpawnFailed { slot, reason, retry_in: Duration::ZERO }));
            return self.fail_start(ErrorKind::System, now, effects);
        }
        let retry_in = self.on_fork_refused(entry.mold, &reason, now);
        self.replace_barren_mold(now, effects);
        effects.push(Effect::Tell(Notice::SpawnFailed { slot, reason, retry_in }));
        self.note_failure(&entry, &why, None, now, effects);
    }

    fn on_ready(&mut self, worker: WorkerId, now: Moment, effects: &mut Vec<Effect>) {
        let Some(entry) = self.table.get_mut(worker) else { return };
        let State::Booting { since } = entry.state else { return };
        entry.state = State::Ready { since: now, beat: now };
        entry.boot = now.saturating_sub(since);
        let (pid, slot, generation, after) = (entry.pid, entry.slot, entry.generation, entry.boot);
        effects.push(Effect::Tell(Notice::Ready { pid, slot, after }));
        effects.push(Effect::Begin { worker });
        self.ever_ready = true;
        if generation == self.current {
            self.on_boot_worked(slot, after, now);
        }
        if matches!(self.phase, Phase::LameDuck { .. }) {
            effects.push(Effect::LameDuck { worker });
        }
    }

    fn on_boot_failed(
        &mut self,
        worker: WorkerId,
        failure: BootFailure,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let Some(entry) = self.table.get_mut(worker) else { return };
        let State::Booting { since } = entry.state else { return };
        let took = now.saturating_sub(since);
        entry.state =
            State::Failed { kill_at: now.saturating_add(self.policy.graceful_timeout.min(LAST_WORDS)) };
        let (entry, kind) = (entry.clone(), failure.kind);
        if self.phase.is_ending() {
            return;
        }
        let (reason, detail) = (failure.summary.clone(), failure.detail.clone());
        effects.push(Effect::Tell(Notice::BootFailed { pid: entry.pid, failure }));
        if self.is_new(entry.generation) {
            self.newcomer_failed(reason, detail, now, effects);
        } else if !self.ever_ready {
            self.fail_start(kind, now, effects);
        } else {
            if entry.generation == self.current {
                self.restarts.note_boot(entry.slot, took, false, now);
            }
            self.note_failure(&entry, &reason, detail, now, effects);
        }
    }

    /// A worker of the serving generation could not become ready, which fails the requests that wait for it.
    pub(super) fn note_failure(
        &mut self,
        entry: &Entry,
        reason: &str,
        detail: Option<String>,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        self.note_failed_successor(entry.id, reason, detail.clone());
        if entry.generation == self.current {
            self.note_failed_start(entry.slot, reason, detail.as_ref(), effects);
            self.note_failed_return(entry.slot, reason, effects);
            self.note_failed_addition(entry.slot, (reason, detail), now, effects);
        }
    }

    /// A worker asks to be replaced: its successor starts, and is ready before it leaves.
    fn on_leaving(&mut self, worker: WorkerId, reason: &str, now: Moment, effects: &mut Vec<Effect>) {
        let Some(entry) = self.table.get_mut(worker) else { return };
        let State::Ready { since, .. } = entry.state else { return };
        if entry.leaves {
            return;
        }
        entry.leaves = true;
        let entry = entry.clone();
        let Entry { slot, pid, generation, .. } = entry;
        let (is_new, reason) = (self.is_new(generation), reason.to_owned());
        let respawn_in = if is_new { None } else { self.succeed(&entry, since, now) };
        effects.push(Effect::Tell(Notice::Leaving { pid, slot, reason: reason.clone(), respawn_in }));
        if is_new {
            self.retire(worker, Drain::Retire, now, effects);
            let reason = format!("worker {pid} left before the new generation was complete: {reason}");
            self.newcomer_failed(reason, None, now, effects);
        }
    }

    fn on_beats(&mut self, beats: Vec<(WorkerId, Moment)>) {
        for (worker, at) in beats {
            if let Some(Entry { state: State::Ready { beat, .. }, .. }) = self.table.get_mut(worker) {
                *beat = (*beat).max(at);
            }
        }
    }

    fn on_exited(&mut self, worker: WorkerId, exit: Exit, now: Moment, effects: &mut Vec<Effect>) {
        let Some(entry) = self.table.remove(worker) else { return };
        let Entry { slot, generation, pid, state, .. } = entry;
        let killed = match state {
            State::Killed { reason, .. } | State::Unkillable { reason } => Some(reason),
            State::Aborting { limit, .. } => Some(KillReason::Silent(limit)),
            _ => None,
        };
        if let (State::Draining { .. }, ExitStatus::Code(0)) = (state, exit.status) {
            return effects.push(Effect::Tell(Notice::Retired { pid }));
        }
        let asked_for = matches!(killed, Some(KillReason::GivenUp | KillReason::QuickStop));
        let was_draining =
            matches!(state, State::Draining { .. }) || killed.is_some_and(KillReason::ends_a_drain);
        let is_late = matches!(state, State::Unkillable { .. });
        if self.phase.is_ending() || asked_for || was_draining || is_late {
            let quiet = asked_for || matches!(state, State::Failed { .. });
            if !quiet {
                effects.push(Effect::Tell(Notice::Died { pid, slot, exit, killed, respawn_in: None }));
            }
            return;
        }
        if !self.ever_ready && generation == self.current {
            effects.push(Effect::Tell(Notice::Died { pid, slot, exit, killed, respawn_in: None }));
            return self.fail_start(ErrorKind::Boot, now, effects);
        }
        let was_ready = state.ready_since();
        let is_new = self.is_new(generation);
        if let (State::Booting { since }, true) = (state, generation == self.current) {
            self.restarts.note_boot(slot, now.saturating_sub(since), false, now);
        }
        let respawn_in = self.respawn(&entry, was_ready.map_or(Loss::Boot, Loss::Ready), now);
        let status = exit.status;
        effects.push(Effect::Tell(Notice::Died { pid, slot, exit, killed, respawn_in }));
        // A boot that failed in its own words, or in ours, was told already.
        let told =
            matches!(state, State::Failed { .. }) || matches!(killed, Some(KillReason::BootTimeout(_)));
        if is_new && !told {
            let when = if was_ready.is_some() { "soon after it was ready" } else { "before it was ready" };
            self.newcomer_failed(format!("worker {pid} died {when}: {status}"), None, now, effects);
        } else if was_ready.is_none() && !told {
            let reason = format!("worker {pid} died before it was ready: {status}");
            self.note_failure(&entry, &reason, None, now, effects);
        }
    }

    fn on_ask(&mut self, ask: Ask, ticket: Option<Ticket>, now: Moment, effects: &mut Vec<Effect>) {
        match ask {
            Ask::StopGraceful | Ask::StopQuick => self.ask_stop(ask, ticket, now, effects),
            Ask::ReopenLogs => {
                self.reopen_logs(effects);
                self.answer(ticket, &Answer::Done("log files are opened anew".to_owned()), effects);
            }
            _ if self.phase.is_ending() || matches!(self.phase, Phase::LameDuck { .. }) => {
                self.answer(ticket, &Answer::Refused("the pool is stopping".to_owned()), effects);
            }
            Ask::Reload => self.ask_reload(ticket, now, effects),
            Ask::Upgrade => self.ask_upgrade(ticket, effects),
            Ask::Scale(workers) => self.ask_scale(workers, ticket, now, effects),
            Ask::ScaleUp => self.ask_scale(self.target + 1, ticket, now, effects),
            Ask::ScaleDown => self.ask_scale(self.target - 1, ticket, now, effects),
            Ask::Recycle(slot) => self.ask_recycle(slot, ticket, now, effects),
        }
    }

    /// Whoever lives opens its log files anew; molds as well, whose workers inherit them.
    fn reopen_logs(&self, effects: &mut Vec<Effect>) {
        let lives = |entry: &Entry| {
            entry.pid != 0 && !matches!(entry.state, State::Killed { .. } | State::Unkillable { .. })
        };
        for worker in self.table.select(lives).into_iter().chain(self.molds.living()) {
            effects.push(Effect::ReopenLogs { worker });
        }
    }

    fn on_late(&mut self, by: Duration, now: Moment, effects: &mut Vec<Effect>) {
        let allowed = by.saturating_add(AFTER_LATE);
        self.table.forgive(allowed, now);
        self.forgive_molds(allowed);
        self.forgive_newcomers(allowed);
        if let Phase::Upgrading { until, .. } = &mut self.phase {
            *until = until.saturating_add(allowed);
        }
        effects.push(Effect::Tell(Notice::Woke { by }));
    }

    /// Does everything that has become due.
    fn settle(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        if self.phase == Phase::Ended {
            return;
        }
        self.expire_workers(now, effects);
        self.expire_molds(now, effects);
        self.expire_upgrade(now, effects);
        self.settle_lame_duck(now, effects);
        if self.phase.is_ending() {
            return self.settle_end(effects);
        }
        self.settle_molds(now, effects);
        self.fill(now, effects);
        self.retire_replaced(now, effects);
        self.settle_starts(effects);
        if self.phase == Phase::Starting && self.ever_ready {
            self.phase = Phase::Serving;
            let ready = self.table.iter().filter(|entry| entry.state.is_ready()).count();
            effects.push(Effect::PoolReady { ready, target: self.target });
        }
        self.settle_rollout(now, effects);
        // A reload may have begun, whose mold is wanted at once.
        self.settle_molds(now, effects);
        self.settle_recycling(now, effects);
        self.settle_scaling(now, effects);
        self.settle_upgrade(now, effects);
        self.settle_looks(now, effects);
    }

    /// Does to each worker what its deadline asks for. One may be the end of others, whose deadlines count no more.
    fn expire_workers(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        for worker in self.table.select(|entry| self.deadline_of(entry).is_some_and(|at| at <= now)) {
            let Some(entry) = self.table.get(worker).cloned() else { continue };
            if self.deadline_of(&entry).is_some_and(|at| at <= now) {
                self.on_deadline(&entry, now, effects);
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

    fn on_deadline(&mut self, entry: &Entry, now: Moment, effects: &mut Vec<Effect>) {
        let &Entry { id, pid, .. } = entry;
        match entry.state {
            State::Booting { .. } => self.on_boot_timeout(entry, now, effects),
            State::Ready { since, beat } => {
                let Some(limit) = self.policy.timeout else { return };
                effects.push(Effect::Tell(Notice::Silent { pid, since: now.saturating_sub(beat) }));
                effects.push(Effect::Abort { worker: id });
                if let Some(entry) = self.table.get_mut(id) {
                    let kill_at = now.saturating_add(self.policy.abort_patience);
                    entry.state = State::Aborting { ready_since: since, kill_at, limit };
                }
            }
            State::Aborting { limit, .. } => self.kill(id, KillReason::Silent(limit), now, effects),
            State::Draining { .. } => self.on_overdue(entry, now, effects),
            // That its boot failed was told, and its slot is filled after its exit.
            State::Failed { .. } => {
                self.kill(id, KillReason::BootTimeout(self.policy.boot_timeout), now, effects);
            }
            State::Killed { .. } => self.on_unkillable(entry, now, effects),
            State::Unkillable { .. } => {}
        }
    }

    /// A killed worker is still there: its slot no longer waits for its exit, nor does the end of the pool.
    fn on_unkillable(&mut self, entry: &Entry, now: Moment, effects: &mut Vec<Effect>) {
        let &Entry { id, pid, slot, state, .. } = entry;
        let State::Killed { reason, since, ready_since } = state else { return };
        if let Some(entry) = self.table.get_mut(id) {
            entry.state = State::Unkillable { reason };
        }
        let respawn_in = match state.is_missed() {
            true => self.respawn(entry, ready_since.map_or(Loss::Boot, Loss::Ready), now),
            false => None,
        };
        let since = now.saturating_sub(since);
        effects.push(Effect::Tell(Notice::Unkillable { pid, slot, since, respawn_in }));
        if self.is_new(entry.generation) && matches!(reason, KillReason::Silent(_)) {
            let why = format!("worker {pid} was {reason}, and is still there after SIGKILL");
            self.newcomer_failed(why, None, now, effects);
        }
    }

    fn on_boot_timeout(&mut self, entry: &Entry, now: Moment, effects: &mut Vec<Effect>) {
        let limit = self.policy.boot_timeout;
        let reason = KillReason::BootTimeout(limit);
        effects.push(Effect::Tell(Notice::BootTimeout { pid: entry.pid, after: limit }));
        self.kill(entry.id, reason, now, effects);
        let why = format!("worker {} was {reason}", entry.pid);
        if self.phase.is_ending() {
            return;
        }
        if let Some(mold) = entry.mold.filter(|_| entry.pid == 0) {
            // It has not even been forked; there is no process whose exit would be seen.
            self.kill_mold(mold, reason, now, effects);
        }
        if self.is_new(entry.generation) {
            self.newcomer_failed(why, None, now, effects);
        } else if !self.ever_ready {
            self.fail_start(ErrorKind::Boot, now, effects);
        } else {
            if entry.generation == self.current && entry.pid != 0 {
                self.restarts.note_timeout(entry.slot, limit, now);
            }
            self.note_failure(entry, &why, None, now, effects);
        }
    }
}
