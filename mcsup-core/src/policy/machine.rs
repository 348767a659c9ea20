//! The pool as a value: [`Machine::step`] takes an event and the time, and answers with effects.
//!
//! One function for each event; after each event `Machine::settle` does whatever has become due, so that no
//! decision depends on which event came first.

use std::time::Duration;

use super::event::{
    Ask, BootFailure, Effect, Event, Exit, ExitStatus, Generation, KillReason, Moment, Notice, Outcome, Slot,
    WorkerId,
};
use super::restart::{RestartPolicy, Restarts};
use super::status::{Phase, State};
use super::table::{Entry, Table};
use crate::error::ErrorKind;

/// What the machine decides by. Durations; `None` where a limit is off.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// How many workers there should be.
    pub workers: usize,
    /// The most that scaling up reaches.
    pub max_workers: usize,
    /// How long a boot may take.
    pub boot_timeout: Duration,
    /// How long a ready worker may give no sign of life.
    pub timeout: Option<Duration>,
    /// How long a draining worker may take.
    pub graceful_timeout: Duration,
    /// How long a quick stop waits before it kills.
    pub quick_timeout: Duration,
    /// How long an aborted worker may take to show its stacks.
    pub abort_patience: Duration,
    /// The shortest time between two reloads: a storm of them is one.
    pub reload_interval: Duration,
    /// When dead workers are replaced.
    pub restart: RestartPolicy,
    /// Starts the jitter.
    pub seed: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            workers: 1,
            max_workers: 512,
            boot_timeout: Duration::from_secs(60),
            timeout: None,
            graceful_timeout: Duration::from_secs(30),
            quick_timeout: Duration::from_secs(1),
            abort_patience: Duration::from_secs(1),
            reload_interval: Duration::from_secs(1),
            restart: RestartPolicy::default(),
            seed: 0,
        }
    }
}

/// What every deadline is given on top, after the supervisor did not run: the workers may not have run either.
const AFTER_LATE: Duration = Duration::from_secs(1);

/// The pool's state and everything that it is decided from.
#[derive(Debug, Clone)]
pub struct Machine {
    pub(super) policy: Policy,
    pub(super) table: Table,
    pub(super) restarts: Restarts,
    pub(super) phase: Phase,
    pub(super) current: Generation,
    pub(super) newest: Generation,
    pub(super) target: usize,
    pub(super) queued_reload: Option<Option<usize>>,
    ever_ready: bool,
}

impl Machine {
    /// A pool that has not begun.
    pub fn new(policy: Policy) -> Self {
        let restarts = Restarts::new(policy.restart, policy.seed);
        let target = policy.workers;
        Self {
            policy,
            table: Table::default(),
            restarts,
            phase: Phase::Starting,
            current: 1,
            newest: 1,
            target,
            queued_reload: None,
            ever_ready: false,
        }
    }

    /// Forks the first generation.
    pub fn start(&mut self, now: Moment) -> Vec<Effect> {
        let mut effects = Vec::new();
        for slot in 0..self.target {
            self.spawn(slot, self.current, now, &mut effects);
        }
        effects
    }

    /// Takes one event at the time `now` and says what is to be done.
    pub fn step(&mut self, event: Event, now: Moment) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Spawned { worker, pid } => self.on_spawned(worker, pid, &mut effects),
            Event::SpawnFailed { worker, reason } => self.on_spawn_failed(worker, reason, now, &mut effects),
            Event::Ready { worker } => self.on_ready(worker, now, &mut effects),
            Event::BootFailed { worker, failure } => self.on_boot_failed(worker, failure, now, &mut effects),
            Event::Leaving { worker, reason } => self.on_leaving(worker, reason, now, &mut effects),
            Event::Beats(beats) => self.on_beats(beats),
            Event::Exited { worker, exit } => self.on_exited(worker, exit, now, &mut effects),
            Event::Ask(ask) => self.on_ask(ask, now, &mut effects),
            Event::Late { by } => self.on_late(by, now, &mut effects),
            Event::Tick => {}
        }
        self.settle(now, &mut effects);
        effects
    }

    /// When [`Event::Tick`] is due at the latest; `None`: nothing waits for time.
    pub fn next_deadline(&self) -> Option<Moment> {
        if self.phase == Phase::Ended {
            return None;
        }
        let workers = self.table.iter().filter_map(|entry| self.deadline_of(entry));
        workers.chain(self.table.next_respawn()).chain(self.next_reload_attempt()).min()
    }

    /// Where the pool is in its life.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The facts.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// How many workers there should be.
    pub fn target(&self) -> usize {
        self.target
    }

    /// The generation that serves.
    pub fn current(&self) -> Generation {
        self.current
    }

    /// What the machine decides by, to be replaced by a reload's new settings.
    pub fn policy_mut(&mut self) -> &mut Policy {
        &mut self.policy
    }

    pub(super) fn spawn(
        &mut self,
        slot: Slot,
        generation: Generation,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let worker = self.table.add(slot, generation, now);
        effects.push(Effect::Spawn { worker, slot, generation });
    }

    pub(super) fn kill(&mut self, worker: WorkerId, reason: KillReason, effects: &mut Vec<Effect>) {
        if let Some(entry) = self.table.get_mut(worker) {
            entry.state = State::Killed { reason, ready_since: entry.state.ready_since() };
            effects.push(Effect::Kill { worker });
        }
    }

    pub(super) fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Stopping { .. } | Phase::Failing { .. } | Phase::Ended)
    }

    fn on_spawned(&mut self, worker: WorkerId, pid: i32, effects: &mut Vec<Effect>) {
        if let Some(entry) = self.table.get_mut(worker) {
            entry.pid = pid;
            let (slot, generation) = (entry.slot, entry.generation);
            effects.push(Effect::Tell(Notice::Booting { worker, slot, generation, pid }));
        }
    }

    fn on_spawn_failed(&mut self, worker: WorkerId, reason: String, now: Moment, effects: &mut Vec<Effect>) {
        let Some(entry) = self.table.remove(worker) else { return };
        if self.is_ending() {
            return;
        }
        if entry.generation != self.current {
            return self.give_up(format!("a worker could not be forked: {reason}"), now, effects);
        }
        if !self.ever_ready {
            effects.push(Effect::Tell(Notice::SpawnFailed {
                slot: entry.slot,
                reason,
                retry_in: Duration::ZERO,
            }));
            return self.fail_start(ErrorKind::System, effects);
        }
        let retry_in = self.restarts.delay(entry.slot, None);
        self.table.respawn_later(entry.slot, now + retry_in);
        effects.push(Effect::Tell(Notice::SpawnFailed { slot: entry.slot, reason, retry_in }));
    }

    fn on_ready(&mut self, worker: WorkerId, now: Moment, effects: &mut Vec<Effect>) {
        let Some(entry) = self.table.get_mut(worker) else { return };
        let State::Booting { since } = entry.state else { return };
        entry.state = State::Ready { since: now, beat: now };
        let (pid, slot) = (entry.pid, entry.slot);
        effects.push(Effect::Tell(Notice::Ready { pid, slot, after: now.saturating_sub(since) }));
        self.ever_ready = true;
    }

    fn on_boot_failed(
        &mut self,
        worker: WorkerId,
        failure: BootFailure,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let Some(entry) = self.table.get_mut(worker) else { return };
        if !matches!(entry.state, State::Booting { .. }) {
            return;
        }
        entry.state = State::Failed;
        let (pid, generation, kind) = (entry.pid, entry.generation, failure.kind);
        if self.is_ending() {
            return;
        }
        let reason = failure.summary.clone();
        effects.push(Effect::Tell(Notice::BootFailed { pid, failure }));
        if generation != self.current {
            self.give_up(reason, now, effects);
        } else if !self.ever_ready {
            self.fail_start(kind, effects);
        }
    }

    /// A worker cannot go on: it is replaced at once, since it accepts no more, and has the time of any retiring one to
    /// finish what it has.
    fn on_leaving(&mut self, worker: WorkerId, reason: String, now: Moment, effects: &mut Vec<Effect>) {
        let Some(&Entry { slot, pid, generation, state, .. }) = self.table.get(worker) else { return };
        let State::Ready { since, .. } = state else { return };
        let wanted = generation == self.current && slot < self.target && !self.is_ending();
        let respawn_in = wanted.then(|| self.restarts.delay(slot, Some(now.saturating_sub(since))));
        if let Some(delay) = respawn_in {
            self.table.respawn_later(slot, now + delay);
        }
        effects.push(Effect::Tell(Notice::Leaving { pid, slot, reason, respawn_in }));
        self.retire(worker, now, effects);
        if matches!(self.phase, Phase::Reloading { generation: new, .. } if new == generation) {
            self.give_up(format!("worker {pid} left before the new generation was complete"), now, effects);
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
            State::Killed { reason, .. } => Some(reason),
            State::Aborting { limit, .. } => Some(KillReason::Silent(limit)),
            _ => None,
        };
        if let (State::Draining { .. }, ExitStatus::Code(0)) = (state, exit.status) {
            effects.push(Effect::Tell(Notice::Retired { pid }));
            return;
        }
        let asked_for = matches!(killed, Some(KillReason::GivenUp | KillReason::QuickStop));
        let leaving = matches!(state, State::Draining { .. });
        if self.is_ending() || asked_for || leaving || generation != self.current {
            let quiet = asked_for || state == State::Failed;
            if !quiet {
                effects.push(Effect::Tell(Notice::Died { pid, slot, exit, killed, respawn_in: None }));
            }
            if matches!(self.phase, Phase::Reloading { generation: new, .. } if new == generation) {
                self.give_up(
                    format!("worker {pid} died before the new generation was complete"),
                    now,
                    effects,
                );
            }
            return;
        }
        self.on_unexpected_exit(&entry, exit, killed, now, effects);
    }

    /// A worker of the serving generation ended without being asked to.
    fn on_unexpected_exit(
        &mut self,
        entry: &Entry,
        exit: Exit,
        killed: Option<KillReason>,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let &Entry { slot, pid, state, .. } = entry;
        if !self.ever_ready {
            effects.push(Effect::Tell(Notice::Died { pid, slot, exit, killed, respawn_in: None }));
            return self.fail_start(ErrorKind::Boot, effects);
        }
        let ready_for = state.ready_since().map(|since| now.saturating_sub(since));
        let wanted = slot < self.target;
        let respawn_in = wanted.then(|| self.restarts.delay(slot, ready_for));
        if let Some(delay) = respawn_in {
            self.table.respawn_later(slot, now + delay);
        }
        effects.push(Effect::Tell(Notice::Died { pid, slot, exit, killed, respawn_in }));
    }

    fn on_ask(&mut self, ask: Ask, now: Moment, effects: &mut Vec<Effect>) {
        match ask {
            Ask::StopGraceful | Ask::StopQuick => self.stop(ask, now, effects),
            Ask::ReopenLogs => {
                for worker in self.table.select(|_| true) {
                    effects.push(Effect::ReopenLogs { worker });
                }
            }
            _ if self.is_ending() => {}
            Ask::Reload { workers } => self.ask_reload(workers, now, effects),
            Ask::ScaleUp => self.scale(self.target + 1, now, effects),
            Ask::ScaleDown => self.scale(self.target - 1, now, effects),
        }
    }

    /// Goes to `target` workers, in the serving generation and in the one that boots.
    pub(super) fn scale(&mut self, target: usize, now: Moment, effects: &mut Vec<Effect>) {
        let target = target.clamp(1, self.policy.max_workers);
        if target == self.target {
            return;
        }
        effects.push(Effect::Tell(Notice::Scaled { from: self.target, to: target }));
        let from = std::mem::replace(&mut self.target, target);
        self.table.cancel_respawns(target);
        for worker in self.table.select(|entry| entry.slot >= target && !entry.state.is_leaving()) {
            self.retire(worker, now, effects);
        }
        let mut generations = vec![self.current];
        if let Phase::Reloading { generation, .. } = self.phase {
            generations.push(generation);
        }
        for slot in from..target {
            for generation in &generations {
                self.spawn(slot, *generation, now, effects);
            }
        }
    }

    fn on_late(&mut self, by: Duration, now: Moment, effects: &mut Vec<Effect>) {
        self.table.forgive(by + AFTER_LATE, now);
        effects.push(Effect::Tell(Notice::Woke { by }));
    }

    /// Does everything that has become due.
    fn settle(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        if self.phase == Phase::Ended {
            return;
        }
        for entry in self.table.iter().cloned().collect::<Vec<_>>() {
            if self.deadline_of(&entry).is_some_and(|deadline| deadline <= now) {
                self.on_deadline(&entry, now, effects);
            }
        }
        if self.is_ending() {
            return self.settle_end(effects);
        }
        for slot in self.table.take_due(now) {
            if slot < self.target && self.table.holder(slot, self.current).is_none() {
                self.spawn(slot, self.current, now, effects);
            }
        }
        if self.phase == Phase::Starting && self.table.is_complete(self.current, self.target) {
            self.phase = Phase::Serving;
            effects.push(Effect::PoolReady);
        }
        self.settle_rollout(now, effects);
    }

    /// When this worker's patience ends, if it is bounded.
    fn deadline_of(&self, entry: &Entry) -> Option<Moment> {
        match entry.state {
            State::Booting { since } => Some(since + self.policy.boot_timeout),
            State::Ready { beat, .. } => self.policy.timeout.map(|timeout| beat + timeout),
            State::Aborting { kill_at, .. } | State::Draining { kill_at, .. } => Some(kill_at),
            State::Failed | State::Killed { .. } => None,
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
                    let kill_at = now + self.policy.abort_patience;
                    entry.state = State::Aborting { ready_since: since, kill_at, limit };
                }
            }
            State::Aborting { limit, .. } => self.kill(id, KillReason::Silent(limit), effects),
            State::Draining { .. } => self.on_overdue(id, pid, effects),
            State::Failed | State::Killed { .. } => {}
        }
    }

    fn on_boot_timeout(&mut self, entry: &Entry, now: Moment, effects: &mut Vec<Effect>) {
        let limit = self.policy.boot_timeout;
        let reason = KillReason::BootTimeout(limit);
        effects.push(Effect::Tell(Notice::BootTimeout { pid: entry.pid, after: limit }));
        self.kill(entry.id, reason, effects);
        if matches!(self.phase, Phase::Reloading { generation, .. } if generation == entry.generation) {
            self.give_up(format!("worker {} was {reason}", entry.pid), now, effects);
        } else if !self.ever_ready && !self.is_ending() {
            self.fail_start(ErrorKind::Boot, effects);
        }
    }

    fn on_overdue(&mut self, worker: WorkerId, pid: i32, effects: &mut Vec<Effect>) {
        let reason = match &mut self.phase {
            Phase::Stopping { ask: Ask::StopQuick, .. } => KillReason::QuickStop,
            Phase::Stopping { killed, .. } => {
                *killed += 1;
                KillReason::GracefulTimeout(self.policy.graceful_timeout)
            }
            _ => KillReason::GracefulTimeout(self.policy.graceful_timeout),
        };
        effects.push(Effect::Tell(Notice::Overdue { pid, reason }));
        self.kill(worker, reason, effects);
    }

    /// The first generation cannot boot: ends everything, whatever the number of workers.
    fn fail_start(&mut self, kind: ErrorKind, effects: &mut Vec<Effect>) {
        self.phase = Phase::Failing { kind };
        self.table.cancel_respawns(0);
        for worker in self.table.select(|entry| !entry.state.is_leaving()) {
            self.kill(worker, KillReason::GivenUp, effects);
        }
    }

    fn settle_end(&mut self, effects: &mut Vec<Effect>) {
        if !self.table.is_empty() {
            return;
        }
        let outcome = match self.phase {
            Phase::Failing { kind } => Outcome::BootFailed(kind),
            Phase::Stopping { killed, .. } if killed > 0 => Outcome::Forced { killed },
            _ => Outcome::Stopped,
        };
        self.phase = Phase::Ended;
        effects.push(Effect::Tell(Notice::Ended { outcome }));
        effects.push(Effect::End(outcome));
    }
}
