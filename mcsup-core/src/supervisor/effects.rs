//! Applies the effects of the policy: one function for each effect of more than a line.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use rustix::process::{Pid, Signal, getpid};

use super::Supervisor;
use super::attributes::ProcessAttributes;
use super::crew::{Crew, CrewRecord};
use super::failed_start::FailedStart;
use super::generation_configs::{GenerationConfig, GenerationConfigs};
use super::history::History;
use super::hooks::SupervisorHooks;
use super::journal;
use super::leftovers::Leftovers;
use super::observations::Observations;
use super::operator::Operators;
use super::preparing::Preparing;
use super::service::Service;
use super::signals::Signals;
use super::slots::SlotSockets;
use super::stall_detector::StallDetector;
use super::upgrading::Upgrader;
use super::waiting::Waiting;
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::host::helper;
use crate::host::pidfile::PidFile;
use crate::link::handover::Handover;
use crate::link::message::Order;
use crate::link::scoreboard::ScoreboardRows;
use crate::policy::{Answer, Effect, Event, Machine, Moment, Notice, Outcome, Place, Policy, Ticket};
use crate::spawn::reap;
use crate::sys::unshared::Marks;
use crate::worker::Worker;

/// The supervisor's handles, and the functions that apply effects by them.
#[derive(Debug)]
pub(crate) struct Executor<S> {
    pub(crate) supervisor: SupervisorHooks<S>,
    /// This process.
    pub(crate) pid: Pid,
    /// The attributes of the process before the pool.
    pub(super) attributes: ProcessAttributes,
    pub(crate) generation_configs: GenerationConfigs,
    pub(crate) slots: SlotSockets,
    pub(crate) signals: Option<Signals>,
    pub(crate) crew: Crew,
    /// The queue between the workers. The supervisor keeps it open, and gives orphaned connections to it.
    pub(crate) handover: Arc<Handover>,
    pub(crate) pid_file: Option<PidFile>,
    pub(crate) operators: Operators,
    pub(crate) service: Service,
    pub(crate) history: History,
    pub(crate) leftovers: Leftovers,
    pub(crate) stall_detector: StallDetector,
    pub(crate) waiting: Waiting,
    pub(crate) upgrader: Upgrader,
    /// The reason why the first generation could not boot, for the caller of the library.
    pub(crate) failed_start: FailedStart,
    pub(super) observations: Observations,
    pub(super) preparing: Preparing,
    /// When the embedder wants its next call at the latest.
    pub(super) call_by: Option<Moment>,
    /// Marks on the descriptors that workers of other pools in this process must not have.
    pub(super) withheld: Marks,
}

/// The handles that a supervisor opens, or adopts from the last image.
pub(super) struct Handles {
    pub(super) attributes: ProcessAttributes,
    /// The generation that serves, and its settings and listeners.
    pub(super) generation: u64,
    pub(super) generation_config: GenerationConfig,
    pub(super) slots: SlotSockets,
    pub(super) signals: Signals,
    pub(super) crew: Crew,
    pub(super) handover: Handover,
    pub(super) pid_file: Option<PidFile>,
    pub(super) operators: Operators,
    pub(super) service: Service,
    pub(super) history: History,
    pub(super) leftovers: Leftovers,
}

impl<S: Supervisor> Executor<S> {
    /// An executor with all handles, and nothing in progress.
    pub(super) fn new(supervisor: S, mut handles: Handles) -> Self {
        handles.crew.count_descendants(S::Worker::adopts_descendants());
        handles.leftovers.expect_adoption(S::Worker::adopts_descendants());
        let Handles { generation, generation_config, .. } = handles;
        Self {
            supervisor: SupervisorHooks(supervisor),
            pid: getpid(),
            attributes: handles.attributes,
            upgrader: Upgrader::new(generation_config.config.image.clone()),
            generation_configs: GenerationConfigs::new(generation, generation_config),
            slots: handles.slots,
            signals: Some(handles.signals),
            crew: handles.crew,
            handover: Arc::new(handles.handover),
            pid_file: handles.pid_file,
            operators: handles.operators,
            service: handles.service,
            history: handles.history,
            leftovers: handles.leftovers,
            stall_detector: StallDetector::new(clock::now()),
            waiting: Waiting::default(),
            failed_start: FailedStart::default(),
            observations: Observations::default(),
            preparing: Preparing::default(),
            call_by: None,
            withheld: Marks::default(),
        }
    }
}

impl<S: Supervisor> Executor<S> {
    /// Applies `effect`, and adds the events that it causes to `events`. Returns the outcome of the pool at its end.
    ///
    /// `machine` is the state after the step that returned `effect`.
    pub(crate) fn apply(
        &mut self,
        effect: Effect,
        machine: &Machine,
        events: &mut Vec<Event>,
    ) -> Option<Outcome> {
        match effect {
            Effect::Spawn { worker, slot, generation, mold, max_requests } => {
                let place = Place { slot, generation };
                events.extend(self.spawn(worker, place, mold, max_requests));
            }
            Effect::SpawnMold { mold, generation } => {
                let event = self.spawn_mold(mold, generation);
                self.failed_start.note_mold(&event);
                events.push(event);
            }
            Effect::Drain { worker, how } => self.crew.send(worker, Order::Drain(how)),
            Effect::Begin { worker } => self.crew.send(worker, Order::Begin),
            Effect::LameDuck { worker } => self.crew.send(worker, Order::LameDuck),
            Effect::Quit { worker } => self.crew.send(worker, Order::Quit),
            Effect::ReopenLogs { worker } => self.crew.send(worker, Order::ReopenLogs),
            Effect::Broken { worker, text } => self.crew.send(worker, Order::Broken(text)),
            Effect::Abort { worker } => events.extend(self.crew.signal(worker, Signal::ABORT)),
            Effect::Kill { worker } => events.extend(self.crew.signal(worker, Signal::KILL)),
            Effect::Prepare { generation } => events.extend(self.begin_to_prepare(generation)),
            Effect::Commit { generation } => {
                let gone = self.generation_configs.commit(generation);
                self.forget(&gone);
            }
            Effect::Discard { generation } => {
                self.give_up_preparing(generation);
                let gone = self.generation_configs.discard(generation);
                self.forget(&gone);
            }
            Effect::Resize { slots } => self.resize(slots),
            Effect::RefuseNew => self.generation_configs.refuse_new(),
            Effect::CloseListeners => self.generation_configs.close(),
            Effect::PoolReady { ready, target } => self.supervisor.ready(ready, target),
            Effect::Measure => events.push(self.measure()),
            Effect::CheckImage => events.extend(self.check_image(machine)),
            Effect::Exec => events.push(self.exec(machine)),
            Effect::Answer { ticket, answer } => self.answer(ticket, answer),
            Effect::Log(notice) => self.log_notice(&notice, machine),
            Effect::End(outcome) => return Some(outcome),
        }
        None
    }

    fn answer(&mut self, ticket: Ticket, answer: Answer) {
        let answer = match (answer, self.leftovers.survivors_text()) {
            // The answer to a stop names the processes that outlive it.
            (Answer::Done(message), Some(survivors)) => Answer::Done(format!("{message}; {survivors}")),
            (answer, _) => answer,
        };
        self.operators.answer(ticket, &answer);
    }

    /// Marks the descriptors of this pool for the forks of other pools in this process.
    ///
    /// Due before the program can step another pool.
    pub(super) fn withhold(&mut self) {
        let signals = self.signals.iter().flat_map(Signals::descriptors).map(|fd| fd.as_raw_fd());
        let links = self.crew.links().map(|fd| fd.as_raw_fd());
        let (crew, operators) = (self.crew.describe(), self.operators.describe());
        let (give, take) = self.handover.describe();
        let pid_file = self.pid_file.as_ref().map(|file| file.describe().fd);
        let upgrader = self.upgrader.descriptors().map(|fd| fd.as_raw_fd());
        let memory = self.crew.memory_source().map(|(fd, _)| fd.as_raw_fd());
        let all: Vec<RawFd> = signals
            .chain(links)
            .chain(crew.iter().flat_map(CrewRecord::descriptors))
            .chain(operators.descriptors())
            .chain([give, take])
            .chain(pid_file)
            .chain(upgrader)
            .chain(memory)
            .chain(self.preparing.number())
            .chain(self.generation_configs.descriptors())
            .chain(self.slots.descriptors())
            .collect();
        // First the old marks: their drop would remove new ones.
        self.withheld = Marks::default();
        self.withheld = Marks::withholding(all);
    }

    /// Lets the next fork have the descriptors of this pool.
    pub(super) fn share(&mut self) {
        self.withheld = Marks::default();
        // A pool that has not started may have marked a listener that it shares with this one.
        drop(Marks::withholding(self.generation_configs.descriptors()));
    }

    /// Searches for leftovers and ends them, as far as due.
    pub(super) fn update_leftovers(&mut self, now: Moment) {
        if let Some(children) =
            self.generation_configs.current().map(|generation_config| generation_config.config.children)
        {
            if self.leftovers.is_changed(children) {
                self.leftovers.set(children, &self.members());
            }
        }
        self.leftovers.note_gone(self.crew.take_gone(), now);
        if self.crew.is_awaiting() {
            self.leftovers.postpone(now);
        }
        if self.leftovers.deadline().is_some_and(|at| at <= now) {
            self.leftovers.run_due(&self.members(), now);
            self.stall_detector.note_work(clock::now());
        }
    }

    /// The pids of the pool.
    fn members(&self) -> Vec<i32> {
        // Workers of other pools in this process are no leftovers either.
        let others = reap::of_all_pools().into_iter().chain(helper::pids());
        self.crew.pids().chain(self.upgrader.pids()).chain(others).collect()
    }

    /// Names or ends the leftovers at the end of the pool.
    pub(super) fn finish_leftovers(&mut self) {
        let gone = self.crew.take_gone();
        self.leftovers.note_gone(gone, clock::now());
        self.leftovers.finish(&self.members(), self.signals.as_ref());
        // The policy waits for no process any more.
        drop(self.crew.reap());
    }

    fn log_notice(&mut self, notice: &Notice, machine: &Machine) {
        self.failed_start.note(notice);
        self.history.note(notice, clock::now());
        journal::write(notice);
        let event = self.observations.event(notice, machine);
        self.supervisor.observe(&event);
    }

    /// Passes a change of the phase to the observer.
    pub(super) fn observe_phase(&mut self, machine: &Machine) {
        let event = self.observations.phase_event(machine);
        for event in self.observations.adoptions().chain(event) {
            self.supervisor.observe(&event);
        }
    }

    /// Stores the listeners of the serving generation in the service manager.
    pub(super) fn update_store(&mut self) {
        if let Some(current) = self.generation_configs.current() {
            self.service.store(&current.listeners, clock::now());
        }
    }

    fn forget(&mut self, generations: &[u64]) {
        for generation in generations {
            self.supervisor.forget(*generation);
        }
    }

    /// Opens listeners for further slots before their workers boot. On an error the workers share the existing ones.
    fn resize(&mut self, slots: usize) {
        self.slots.set_count(slots);
        if let Err(error) = self.generation_configs.resize(slots) {
            log::error!("cannot listen for {slots} slots: {error}");
        }
    }

    fn measure(&mut self) -> Event {
        self.stall_detector.check(clock::now());
        let measured = Event::Memory(self.crew.memory());
        self.stall_detector.note_work(clock::now());
        measured
    }
}

/// The number of scoreboard rows of a pool: for the serving, the booting and two draining generations.
pub(super) fn rows_for(policy: &Policy) -> usize {
    policy.max_workers.saturating_mul(4)
}

/// Checks that the scoreboard has enough rows: their number is fixed at the start.
pub(super) fn require_rows(board: &ScoreboardRows, current: &Policy, wanted: &Policy) -> Result<()> {
    if wanted.max_workers <= current.max_workers || board.row(rows_for(wanted)).is_some() {
        return Ok(());
    }
    let why = format!(
        "at most {} workers: the pool was started with room for fewer, restart it",
        wanted.max_workers
    );
    Err(Error::new(ErrorKind::Setting, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_to_more_workers_than_there_is_room_for_is_refused() {
        let most = |max_workers| Policy { max_workers, ..Policy::default() };
        let crew = Crew::new(rows_for(&most(4))).unwrap();
        let judge = |current, wanted| require_rows(&crew.board(), &most(current), &most(wanted));
        assert!(judge(4, 4).is_ok() && judge(4, 2).is_ok());
        // The limit was lower for a time.
        assert!(judge(2, 4).is_ok());
        let refused = judge(4, 5).unwrap_err().to_string();
        assert!(refused.contains("at most 5 workers"), "{refused}");
    }
}
