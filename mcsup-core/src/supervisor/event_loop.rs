//! The event loop: waits for events, passes them to the policy, applies its effects.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags};

use super::Supervisor;
use super::attributes::{ProcessAttributes, RestoreAttributes};
use super::config::{Children, Config};
use super::crew::Crew;
use super::effects::{Executor, Handles, rows_for};
use super::ending::Ending;
use super::generation_configs::GenerationConfig;
use super::history::History;
use super::hooks::SupervisorHooks;
use super::leftovers::Leftovers;
use super::operator::{OperatorRequest, Operators};
use super::report;
use super::resumption::{StartedPool, take_over};
use super::service::Service;
use super::signals::{SignalAction, SignalUse, Signals};
use super::slots::SlotSockets;
use super::spawning::ParentReport;
use crate::clock;
use crate::control::handle_end::HandleEnd;
use crate::control::server::ClientId;
use crate::control::{self, Reply};
use crate::error::{Error, Result};
use crate::host::descriptors;
use crate::host::pidfile::PidFile;
use crate::host::processes;
use crate::link::handover::Handover;
use crate::link::message::Order;
use crate::listener::activation;
use crate::listener::open::OpenSet;
use crate::listener::own;
use crate::listener::stored::{self, Adopted};
use crate::policy::{Ask, Effect, Event, Machine, Moment, Outcome, StopMode, Ticket};
use crate::sys::ancestry;
use crate::sys::signal::SharedUnblocked;
use crate::sys::title;
use crate::upgrade::Resumption;
use crate::worker::Worker;

/// A pool whose loop can run.
#[derive(Debug)]
pub(super) struct RunningPool<S> {
    // Dropped in this order: the mask is restored before the handlers of the host.
    _unblocked: Option<SharedUnblocked>,
    machine: Machine,
    executor: Executor<S>,
    _restore: RestoreAttributes,
    outcome: Option<Outcome>,
}

impl<S: Supervisor> RunningPool<S> {
    /// Opens the handles of a new pool and forks its first workers, or adopts the pool of the old image.
    ///
    /// `None`: this was a dry run.
    pub(super) fn begin(
        supervisor: S,
        config: Config,
        (call, resumption): (u32, Option<Resumption>),
        (handles, signal_use): (Vec<HandleEnd>, SignalUse),
    ) -> Result<Option<Self>> {
        let is_new = resumption.is_none();
        let (restore, attributes) = RestoreAttributes::hold();
        let begun = match resumption {
            Some(resumption) => take_over(supervisor, config, (resumption, signal_use))?,
            None => Some(begin(supervisor, config, (attributes, signal_use))?),
        };
        let Some(StartedPool { machine, mut executor, effects, events }) = begun else { return Ok(None) };
        executor.upgrader.set_call(call);
        handles.into_iter().for_each(|handles| executor.operators.serve(handles));
        restore.set(executor.attributes);
        if signal_use == SignalUse::Left {
            executor.crew.watch_children();
        }
        // A new image has already unblocked all signals.
        let unblocked = (is_new && signal_use != SignalUse::Left).then(Signals::unblock);
        let mut pool = Self { _unblocked: unblocked, machine, executor, _restore: restore, outcome: None };
        pool.begin_loop(effects, events);
        Ok(Some(pool))
    }

    fn begin_loop(&mut self, effects: Vec<Effect>, events: Vec<Event>) {
        let Self { machine, executor, .. } = self;
        let now = clock::now();
        executor.observe_phase(machine);
        let mut outcome = act(machine, executor, effects, now);
        for event in events {
            outcome = outcome.or_else(|| step(machine, executor, event, now));
        }
        executor.update_store();
        self.outcome = outcome;
    }

    /// Waits for an event, or until the deadline.
    pub(super) fn wait(&mut self) {
        let now = clock::now();
        self.executor.stall_detector.check(now);
        let timeout = self.deadline(now).map(|deadline| deadline.saturating_sub(now));
        let sources = sources(&self.executor).into_iter();
        let mut sources: Vec<_> = sources.map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags)).collect();
        self.executor.waiting.wait(&mut sources, timeout);
    }

    /// Handles the events since the last call. Returns the outcome of the pool at its end.
    pub(super) fn turn(&mut self) -> Option<Outcome> {
        if self.outcome.is_some() {
            return self.outcome;
        }
        let Self { machine, executor, .. } = self;
        let deadline = machine.next_deadline();
        // One time for the whole iteration: no deadline passes between reading the beats and comparing them.
        let now = clock::now();
        let mut outcome = None;
        for event in poll_events(machine, executor, deadline, now) {
            outcome = outcome.or_else(|| step(machine, executor, event, now));
        }
        executor.slots.update(&mut executor.generation_configs, &executor.handover, machine);
        executor.update_leftovers(now);
        executor.update_store();
        executor.call_by = executor.supervisor.before_wait().and_then(|wait| clock::now().checked_add(wait));
        self.outcome = outcome;
        outcome
    }

    /// The time of the next turn without an event.
    pub(super) fn deadline(&self, now: Moment) -> Option<Moment> {
        let executor = &self.executor;
        let looks = [
            self.machine.next_deadline(),
            executor.operators.deadline(),
            executor.slots.deadline(&executor.generation_configs, now),
            executor.crew.deadline(now),
            executor.leftovers.deadline(),
            executor.upgrader.deadline(now),
            executor.preparing.deadline(),
            executor.service.deadline(now),
            executor.call_by,
        ];
        looks.into_iter().flatten().min()
    }

    /// The descriptors whose events need a turn.
    pub(super) fn sources(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        sources(&self.executor)
    }

    /// Notes that the program, and not the supervisor, decides when the next turn is. It may step another pool before.
    pub(super) fn leave_to_the_program(&mut self) {
        self.executor.leftovers.are_beside_a_program();
        self.executor.stall_detector.check(clock::now());
        self.executor.withhold();
    }

    /// Marks the present descriptors for the forks of other pools.
    pub(super) fn withhold(&mut self) {
        self.executor.withhold();
    }

    /// Takes requests of a further handle.
    pub(super) fn serve(&mut self, handles: HandleEnd) {
        self.executor.operators.serve(handles);
    }

    /// Orders a quick stop.
    pub(super) fn stop(&mut self) {
        let (event, now) = (Event::Ask(Ask::Stop(StopMode::Quick), None), clock::now());
        self.outcome = self.outcome.or_else(|| step(&mut self.machine, &mut self.executor, event, now));
    }

    /// Runs the pool until it ends.
    pub(super) fn run(mut self) -> Ending {
        self.show_title();
        loop {
            if let Some(outcome) = self.turn() {
                return self.finish(outcome);
            }
            self.wait();
        }
    }

    /// Shows the title of this process, with its own command line behind it.
    fn show_title(&self) {
        let current = self.executor.generation_configs.current();
        if let Some(title) = current.and_then(|current| current.config.title.as_ref()) {
            let (title, words) = (title.replacen("{}", "supervisor", 1), title::words());
            let words: Vec<&[u8]> =
                [title.as_bytes()].into_iter().chain(words.iter().map(Vec::as_slice)).collect();
            title::set(&words);
        }
    }

    /// Ends a pool that has an outcome: no new client connects, and each request that was begun gets its reply.
    pub(super) fn finish(mut self, outcome: Outcome) -> Ending {
        self.executor.generation_configs.close();
        self.executor.operators.finish();
        self.executor.service.finish();
        let ending = Ending::of(outcome, self.executor.failed_start.reason_of(outcome));
        self.executor.operators.report(&ParentReport::ended(&ending).into_line());
        ending
    }
}

/// Begins a new pool.
fn begin<S: Supervisor>(
    supervisor: S,
    config: Config,
    process: (ProcessAttributes, SignalUse),
) -> Result<StartedPool<S>> {
    let mut machine = Machine::new(config.policy.clone());
    machine.expect_service_while_booting(S::Worker::serves_while_booting());
    let mut executor = open(supervisor, config, process)?;
    let locals = executor.generation_configs.current().map(GenerationConfig::locals).unwrap_or_default();
    executor.supervisor.listening(&locals);
    let effects = machine.start(clock::now());
    Ok(StartedPool { machine, executor, effects, events: Vec::new() })
}

/// Opens the handles of a supervisor, in the order in which a second one should be refused.
fn open<S: Supervisor>(
    supervisor: S,
    mut config: Config,
    process: (ProcessAttributes, SignalUse),
) -> Result<Executor<S>> {
    descriptors::raise();
    let user = config.run_as.as_ref().map(|run_as| run_as.0.uid);
    let pid_file = config.pid_file.as_deref().map(|path| PidFile::hold_beside(path, user)).transpose()?;
    let mut hooks = SupervisorHooks(supervisor);
    hooks.starting();
    let supervisor = hooks.0;
    activation::activate(&config.addresses, &mut config.service_manager)?;
    config.addresses = activation::resolve(&config.addresses, &config.service_manager)?;
    own::prepare(&config.listeners)?;
    let mut service = Service::new(std::mem::take(&mut config.service_manager), true);
    let listeners = open_listeners(&config, &mut service)?.with_own(&config.listeners);
    let opened = listeners.clone();
    open_rest(supervisor, config, process, (pid_file, listeners, service)).inspect_err(|_| opened.put_back())
}

/// Opens the listeners. Those that an earlier supervisor has stored go on with their queues.
fn open_listeners(config: &Config, service: &mut Service) -> Result<OpenSet> {
    let (addresses, options, slots) = (&config.addresses, &config.listener, config.policy.workers);
    if service.manager().stored().is_empty() {
        return OpenSet::open(addresses, options, slots);
    }
    let Adopted { set, unusable } = stored::adopt(service.manager().stored());
    service.remove(&unusable);
    let mut listeners = OpenSet::open_beside(&set, addresses, options, slots)?;
    listeners.apply(options);
    set.withdraw_unless_in(&listeners);
    Ok(listeners)
}

/// Opens the other handles after the listeners.
fn open_rest<S: Supervisor>(
    supervisor: S,
    config: Config,
    (attributes, signal_use): (ProcessAttributes, SignalUse),
    (pid_file, listeners, service): (Option<PidFile>, OpenSet, Service),
) -> Result<Executor<S>> {
    let slots = config.policy.workers;
    let children = config.children;
    if children != Children::Ignore {
        ancestry::adopt_orphans().map_err(|error| Error::system("adopt what workers leave behind", error))?;
    }
    let crew =
        Crew::new(rows_for(&config.policy)).map_err(|error| Error::system("map the scoreboard", error))?;
    let handover = Handover::new().map_err(|error| Error::system("make the handover queue", error))?;
    let operators = Operators::listen(config.control_socket.as_deref());
    let signals = Signals::install(signal_use).map_err(|error| Error::system("take over signals", error))?;
    Ok(Executor::new(
        supervisor,
        Handles {
            attributes,
            generation: 1,
            generation_config: GenerationConfig { config, listeners },
            slots: SlotSockets::new(slots),
            signals,
            crew,
            handover,
            pid_file,
            operators,
            service,
            history: History::new(clock::now()),
            leftovers: Leftovers::new(children),
        },
    ))
}

/// Passes an event to the policy, and applies the effects.
fn step<S: Supervisor>(
    machine: &mut Machine,
    executor: &mut Executor<S>,
    event: Event,
    now: Moment,
) -> Option<Outcome> {
    executor.service.note_event(&event);
    let effects = machine.step(event, now);
    executor.observe_phase(machine);
    act(machine, executor, effects, now)
}

/// Applies `effects`, and handles the events that they cause.
fn act<S: Supervisor>(
    machine: &mut Machine,
    executor: &mut Executor<S>,
    effects: Vec<Effect>,
    now: Moment,
) -> Option<Outcome> {
    let mut events = Vec::new();
    executor.service.update(machine, &effects, now);
    if effects.iter().any(|effect| matches!(effect, Effect::End(_))) {
        executor.finish_leftovers();
    }
    for effect in effects {
        if let Some(outcome) = executor.apply(effect, machine, &mut events) {
            return Some(outcome);
        }
    }
    events.into_iter().find_map(|event| step(machine, executor, event, now))
}

/// The descriptors to poll, each for its event; the most urgent one is the first.
fn sources<S>(executor: &Executor<S>) -> Vec<(BorrowedFd<'_>, PollFlags)> {
    let signals = executor.signals.iter().map(AsFd::as_fd);
    let read = signals.chain(executor.crew.links()).chain(executor.upgrader.descriptors());
    let read = read.chain(executor.preparing.descriptor());
    let mut sources: Vec<_> = read.map(|fd| (fd, PollFlags::IN)).collect();
    for (fd, wants_write) in executor.operators.descriptors() {
        sources.push((fd, if wants_write { PollFlags::OUT } else { PollFlags::IN }));
    }
    sources.extend(executor.crew.memory_source());
    sources
}

/// The events since the last call.
fn poll_events<S: Supervisor>(
    machine: &Machine,
    executor: &mut Executor<S>,
    deadline: Option<Moment>,
    now: Moment,
) -> Vec<Event> {
    let mut events = Vec::new();
    if let Some(by) = executor.stall_detector.on_wake(deadline, now) {
        events.push(Event::Late { by });
    }
    if deadline.is_some_and(|deadline| deadline <= now) {
        // A deadline is compared with the workers' latest beats.
        events.push(executor.crew.beats());
    }
    executor.crew.on_wake(now);
    events.extend(executor.crew.reports());
    if executor.signals.as_ref().is_some_and(Signals::lacks_child) || executor.crew.has_reaped() {
        events.extend(executor.crew.reap());
    }
    let arrived = executor.signals.as_ref().map(Signals::take).unwrap_or_default();
    for signal in arrived {
        match signal.action {
            SignalAction::Child => events.extend(executor.crew.reap()),
            SignalAction::Nothing => log::info!("Signal {} has no meaning here", signal.name),
            SignalAction::Ask(ask) => {
                let sender = signal.sender.map(|pid| format!(" from {}", processes::name(pid)));
                log::info!("Handling signal: {}{}", signal.name, sender.unwrap_or_default());
                events.push(ask_event(executor, ask, None));
            }
        }
    }
    // After the reaping above and before any fork: no other child can have the pid of a dry run.
    events.extend(executor.poll_dry_run(machine, now));
    events.extend(executor.poll_preparing(machine, now));
    let mut status_clients = Vec::new();
    for request in executor.operators.receive() {
        match request {
            OperatorRequest::Change(ask, ticket) => events.push(ask_event(executor, ask, ticket)),
            OperatorRequest::Status(client) => status_clients.push(client),
        }
    }
    answer_status(machine, executor, &status_clients);
    events.push(Event::Tick);
    events
}

/// Sends the status to all of `clients`: one report for all, because reading the usage of every worker takes time.
fn answer_status<S: Supervisor>(machine: &Machine, executor: &mut Executor<S>, clients: &[ClientId]) {
    if clients.is_empty() {
        return;
    }
    executor.stall_detector.check(clock::now());
    let reply = report(machine, executor);
    for client in clients {
        executor.operators.answer_client(*client, &reply);
    }
    executor.stall_detector.note_work(clock::now());
}

/// The event of a request. The embedder reopens its log files before the pool does.
fn ask_event<S: Supervisor>(executor: &mut Executor<S>, ask: Ask, ticket: Option<Ticket>) -> Event {
    if ask == Ask::ReopenLogs {
        executor.supervisor.reopen_logs();
        executor.crew.send_to_molds(&Order::ReopenLogs);
    }
    Event::Ask(ask, ticket)
}

fn report<S: Supervisor>(machine: &Machine, executor: &Executor<S>) -> Reply {
    let generation_config = executor.generation_configs.current();
    let listeners =
        generation_config.into_iter().flat_map(|generation_config| generation_config.listeners.locals());
    let listeners = listeners.map(|local| local.to_string()).collect();
    let status = report::status(machine, &executor.crew, &executor.history, listeners, clock::now());
    Reply::new(control::Outcome::Done, machine.phase().name()).with_status(status)
}
