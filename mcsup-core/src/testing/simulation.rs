//! A pool with simulated processes and a simulated clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::behaviour::Behaviour;
use super::world::World;
use crate::control::Reply;
use crate::error::{Error, Result, one_line};
use crate::policy::{Ask, Effect, Event, ExitStatus, Machine, Moment, Outcome, StopMode, Ticket, WorkerId};
use crate::supervisor::config::Config;
use crate::supervisor::observations::Observations;
use crate::supervisor::{ForkSide, PoolProcess, Supervisor, operator, report};
use crate::worker::Worker;

/// The simulated time at which a pool begins.
const START: Moment = Duration::from_secs(1000);

/// A [`Supervisor`] in a pool with simulated processes and a simulated clock.
///
/// The decisions are those of a real pool. No process is forked and no socket is opened. The methods of the supervisor
/// are called as in the process of a real one: [`Supervisor::worker`] is not, and those around the forks of a mold are
/// not. A panic in one fails the test. Between two calls of [`pass`](Self::pass) no time passes.
#[derive(Debug)]
pub struct Simulation<S> {
    machine: Machine,
    supervisor: S,
    world: World,
    observations: Observations,
    now: Moment,
    /// The generations that workers may still be made of.
    generations: BTreeSet<u64>,
    replies: BTreeMap<Ticket, Reply>,
    last_request: u64,
    outcome: Option<Outcome>,
}

/// A request to a simulated pool, for its [reply](Simulation::reply).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId(Ticket);

/// A simulated worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SimulatedWorker {
    /// Its process id. It is always known: a simulated mold forks at once.
    pub pid: Option<i32>,
    /// Its slot, counted from 0.
    pub slot: usize,
    /// Its generation, counted from 1.
    pub generation: u64,
    /// Its state, as [`WorkerStatus::state`](crate::control::WorkerStatus::state).
    pub state: &'static str,
}

impl<S: Supervisor> Simulation<S> {
    /// Starts a pool of [sound](Behaviour::sound) processes. None is ready before time passes.
    ///
    /// # Errors
    /// The settings that a real pool refuses.
    pub fn start(supervisor: S, config: Config) -> Result<Self> {
        Self::start_with(supervisor, config, |_| Behaviour::sound())
    }

    /// The same with processes that behave as `choose` says.
    ///
    /// # Errors
    /// As those of [`start`](Self::start).
    pub fn start_with(
        supervisor: S,
        config: Config,
        choose: impl FnMut(&PoolProcess) -> Behaviour + 'static,
    ) -> Result<Self> {
        if let Some(mistake) = config.mistake() {
            return Err(mistake);
        }
        let mut simulation = Self {
            machine: Machine::new(config.policy),
            supervisor,
            world: World::new(choose),
            observations: Observations::default(),
            now: START,
            generations: BTreeSet::from([1]),
            replies: BTreeMap::new(),
            last_request: 0,
            outcome: None,
        };
        simulation.machine.expect_service_while_booting(S::Worker::serves_while_booting());
        simulation.supervisor.starting();
        simulation.supervisor.listening(&[]);
        simulation.observe_phase();
        let effects = simulation.machine.start(START);
        simulation.apply_all(effects);
        Ok(simulation)
    }

    /// Chooses the behaviour of processes that are forked from now on.
    pub fn behave(&mut self, choose: impl FnMut(&PoolProcess) -> Behaviour + 'static) {
        self.world.behave(choose);
    }

    /// Lets `time` pass, with all that happens in it.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now.saturating_add(time);
        while self.outcome.is_none() {
            let next = self.world.next().into_iter().chain(self.machine.next_deadline()).min();
            let Some(at) = next.filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            while let Some(events) = self.world.act(self.now) {
                events.into_iter().for_each(|event| self.step(event));
            }
            if self.machine.next_deadline().is_some_and(|deadline| deadline <= self.now) {
                // A deadline is compared with the latest beats.
                self.step(self.world.beats(self.now));
            }
            self.step(Event::Tick);
        }
        self.now = end;
    }

    /// The simulated time since the start.
    pub fn now(&self) -> Duration {
        self.now.saturating_sub(START)
    }

    fn step(&mut self, event: Event) {
        if self.outcome.is_none() {
            let effects = self.machine.step(event, self.now);
            self.observe_phase();
            self.apply_all(effects);
        }
    }

    fn observe_phase(&mut self) {
        if let Some(event) = self.observations.phase_event(&self.machine) {
            self.supervisor.observe(&event);
        }
    }

    /// Applies effects, and then handles the events that they cause.
    fn apply_all(&mut self, effects: Vec<Effect>) {
        let events: Vec<Event> = effects.into_iter().filter_map(|effect| self.apply(effect)).collect();
        events.into_iter().for_each(|event| self.step(event));
    }

    fn apply(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Spawn { worker, slot, generation, mold: None, .. } => {
                Some(self.fork(worker, Some(slot), generation))
            }
            Effect::Spawn { worker, slot, generation, mold: Some(_), .. } => {
                // The methods around this fork would run in the mold.
                let pid = self.world.fork(worker, Some(slot), generation, self.now);
                Some(Event::Spawned { worker, pid })
            }
            Effect::SpawnMold { mold, generation } => Some(self.fork(mold, None, generation)),
            Effect::Drain { worker, .. } | Effect::Quit { worker } => {
                self.world.drain(worker, self.now);
                None
            }
            Effect::Abort { worker } => self.world.end(worker, ExitStatus::Signal(libc::SIGABRT), None),
            Effect::Kill { worker } => self.world.end(worker, ExitStatus::Signal(libc::SIGKILL), None),
            Effect::Prepare { generation } => Some(self.prepare(generation)),
            Effect::Commit { generation } => {
                self.forget(|other| other < generation);
                None
            }
            Effect::Discard { generation } => {
                self.forget(|other| other == generation);
                None
            }
            Effect::PoolReady { ready, target } => {
                self.supervisor.ready(ready, target);
                None
            }
            Effect::Measure => Some(self.world.memory()),
            Effect::CheckImage | Effect::Exec => {
                Some(Event::UpgradeFailed { reason: "a simulated pool has no other image".to_owned() })
            }
            Effect::Answer { ticket, answer } => {
                self.replies.insert(ticket, operator::reply(&answer));
                None
            }
            Effect::End(outcome) => {
                self.outcome = Some(outcome);
                None
            }
            Effect::Log(notice) => {
                let event = self.observations.event(&notice, &self.machine);
                self.supervisor.observe(&event);
                None
            }
            Effect::Begin { .. }
            | Effect::LameDuck { .. }
            | Effect::Broken { .. }
            | Effect::ReopenLogs { .. }
            | Effect::Resize { .. }
            | Effect::RefuseNew
            | Effect::CloseListeners => None,
        }
    }

    fn fork(&mut self, worker: WorkerId, slot: Option<usize>, generation: u64) -> Event {
        self.supervisor.before_fork();
        let pid = self.world.fork(worker, slot, generation, self.now);
        self.supervisor.after_fork(ForkSide::Supervisor);
        Event::Spawned { worker, pid }
    }

    fn prepare(&mut self, generation: u64) -> Event {
        let prepared = self.supervisor.reload(generation).and_then(|config: Option<Config>| {
            match config.as_ref().and_then(Config::mistake) {
                Some(mistake) => Err::<_, Error>(mistake),
                None => Ok(config.map(|config| Box::new(config.policy))),
            }
        });
        match prepared {
            Ok(policy) => {
                self.generations.insert(generation);
                Event::Prepared { generation, policy, closes_listeners: false }
            }
            Err(error) => {
                self.supervisor.forget(generation);
                let detail = error.detail().map(str::to_owned);
                Event::NotPrepared { generation, reason: one_line(&error.to_string()), detail }
            }
        }
    }

    fn forget(&mut self, which: impl Fn(u64) -> bool) {
        let gone: Vec<u64> =
            self.generations.iter().copied().filter(|generation| which(*generation)).collect();
        for generation in gone {
            self.generations.remove(&generation);
            self.supervisor.forget(generation);
        }
    }
}

/// Requests and injuries.
impl<S: Supervisor> Simulation<S> {
    /// Requests a reload.
    pub fn reload(&mut self) -> RequestId {
        self.ask(Ask::Reload)
    }

    /// Requests another number of workers.
    pub fn scale(&mut self, workers: usize) -> RequestId {
        self.ask(Ask::Scale(workers))
    }

    /// Requests a new worker for a slot.
    pub fn recycle(&mut self, slot: usize) -> RequestId {
        self.ask(Ask::Recycle(slot))
    }

    /// Requests a graceful stop. A second request is quick, and a third kills.
    pub fn stop(&mut self) -> RequestId {
        self.ask(Ask::Stop(StopMode::Graceful))
    }

    /// Requests to reopen log files.
    pub fn reopen_logs(&mut self) -> RequestId {
        self.supervisor.reopen_logs();
        self.ask(Ask::ReopenLogs)
    }

    fn ask(&mut self, ask: Ask) -> RequestId {
        self.last_request += 1;
        let ticket = Ticket(self.last_request);
        self.step(Event::Ask(ask, Some(ticket)));
        RequestId(ticket)
    }

    /// The reply to a request; `None`: it is in progress.
    pub fn reply(&self, request: RequestId) -> Option<&Reply> {
        self.replies.get(&request.0)
    }

    /// Sends a signal to a process. A worker drains at SIGTERM; each other signal ends the process. Returns whether it was
    /// there.
    pub fn kill(&mut self, pid: i32, signal: i32) -> bool {
        if signal == libc::SIGTERM {
            if let Some(worker) = self.world.find(pid).filter(|id| self.machine.table().get(*id).is_some()) {
                self.world.drain(worker, self.now);
                return true;
            }
        }
        self.end(pid, ExitStatus::Signal(signal), None)
    }

    /// Ends a process with an error of its [`run`](crate::Worker::run). Returns whether it was there.
    pub fn fail(&mut self, pid: i32, error: &str) -> bool {
        self.end(pid, ExitStatus::Code(1), Some(error.to_owned()))
    }

    fn end(&mut self, pid: i32, status: ExitStatus, error: Option<String>) -> bool {
        let ended = self.world.find(pid).and_then(|worker| self.world.end(worker, status, error));
        let was_there = ended.is_some();
        ended.into_iter().for_each(|event| self.step(event));
        was_there
    }

    /// Lets a worker ask to be replaced, as [`WorkerContext::leave`](crate::WorkerContext::leave) does. Returns whether
    /// it was there.
    pub fn leave(&mut self, pid: i32, reason: &str) -> bool {
        let worker = self.world.find(pid);
        if let Some(worker) = worker {
            self.step(Event::Leaving { worker, reason: reason.to_owned() });
        }
        worker.is_some()
    }

    /// Lets a worker ask for a reload, as [`WorkerContext::ask_reload`](crate::WorkerContext::ask_reload) does.
    pub fn ask_reload(&mut self, reason: &str) {
        self.step(Event::Changed { reason: reason.to_owned() });
    }
}

/// The state of the pool.
impl<S: Supervisor> Simulation<S> {
    /// The workers, in the order of their forks.
    pub fn workers(&self) -> Vec<SimulatedWorker> {
        let entries = self.machine.table().iter();
        let worker = entries.map(|entry| SimulatedWorker {
            pid: entry.pid,
            slot: entry.slot,
            generation: entry.generation,
            state: report::state_of(entry),
        });
        worker.collect()
    }

    /// The number of workers that serve.
    pub fn ready(&self) -> usize {
        self.machine.table().iter().filter(|entry| entry.state.is_ready()).count()
    }

    /// The phase of the pool, as [`Status::phase`](crate::control::Status::phase).
    pub fn phase(&self) -> &'static str {
        self.machine.phase().name()
    }

    /// The serving generation.
    pub fn generation(&self) -> u64 {
        self.machine.current()
    }

    /// The intended number of workers.
    pub fn target(&self) -> usize {
        self.machine.target()
    }

    /// The outcome of the pool; `None`: it runs.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome
    }

    /// The supervisor under test.
    pub fn supervisor(&self) -> &S {
        &self.supervisor
    }

    /// The supervisor under test, for a change.
    pub fn supervisor_mut(&mut self) -> &mut S {
        &mut self.supervisor
    }
}

#[cfg(test)]
#[path = "simulation_tests.rs"]
mod tests;
