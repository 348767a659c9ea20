//! The loop: wait for something to happen, ask the policy what to do about it, do it.

use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags};

use super::Supervisor;
use super::config::{Children, Config};
use super::crew::Crew;
use super::effects::{Executor, Handles, lines_for};
use super::generation_configs::GenerationConfig;
use super::given::{Given, PutBack};
use super::history::History;
use super::leftovers::Leftovers;
use super::operator::{Operators, Wish};
use super::report;
use super::resumption::{Successor, take_over};
use super::signals::{Meaning, Signals};
use super::slots::SlotSockets;
use crate::clock;
use crate::control::server::ClientId;
use crate::control::{self, Reply};
use crate::error::{Error, ErrorKind, Result};
use crate::host::descriptors;
use crate::host::pidfile::PidFile;
use crate::host::processes;
use crate::link::handover::Handover;
use crate::link::message::Order;
use crate::listener::open::OpenSet;
use crate::policy::{Ask, BootFailure, Effect, Event, Machine, Moment, Outcome, Ticket};
use crate::sys::ancestry;
use crate::upgrade::Resumption;

/// Runs a pool until it ends; one that another image had before, where there is a resumption.
pub(crate) fn run<S: Supervisor>(
    supervisor: S,
    config: Config,
    resumption: Option<Resumption>,
) -> Result<(Outcome, Option<BootFailure>)> {
    let is_new = resumption.is_none();
    let given = Given::look();
    let mut put_back = PutBack(given);
    let begun = match resumption {
        Some(resumption) => take_over(supervisor, config, resumption)?,
        None => Some(begin(supervisor, config, given)?),
    };
    // A dry run is over.
    let Some(begun) = begun else { return Ok((Outcome::Stopped, None)) };
    let Successor { mut machine, mut executor, effects, events } = begun;
    put_back.0 = executor.given;
    // Put back before the host has its handlers again. A new image has unblocked all of them already.
    let _unblocked = is_new.then(Signals::unblock);
    let outcome = run_loop(&mut machine, &mut executor, effects, events);
    // However it ends: no new client comes, and every request is answered.
    executor.generation_configs.close();
    executor.operators.finish();
    let outcome = outcome?;
    Ok((outcome, executor.failed_start.reason_of(outcome)))
}

/// The loop itself.
fn run_loop<S: Supervisor>(
    machine: &mut Machine,
    executor: &mut Executor<S>,
    effects: Vec<Effect>,
    events: Vec<Event>,
) -> Result<Outcome> {
    let now = clock::now();
    let mut outcome = act(machine, executor, effects, now);
    for event in events {
        outcome = outcome.or_else(|| step(machine, executor, event, now));
    }
    loop {
        if let Some(outcome) = outcome {
            return Ok(outcome);
        }
        let deadline = machine.next_deadline();
        wait(executor, deadline);
        // One moment for the whole round: no deadline passes between a look at the workers and the judgement on them.
        let now = clock::now();
        for event in poll_events(machine, executor, deadline, now) {
            outcome = outcome.or_else(|| step(machine, executor, event, now));
        }
        executor.slots.tend(&mut executor.generation_configs, &executor.handover, machine);
        executor.tend_leftovers(now);
    }
}

/// A pool that is new.
fn begin<S: Supervisor>(supervisor: S, config: Config, given: Given) -> Result<Successor<S>> {
    if config.addresses.is_empty() {
        return Err(Error::new(ErrorKind::Setting, "there is no address to listen on"));
    }
    let mut machine = Machine::new(config.policy.clone());
    let mut executor = open(supervisor, config, given)?;
    let generation_config = executor.generation_configs.current();
    let locals: Vec<_> = generation_config
        .into_iter()
        .flat_map(|generation_config| generation_config.listeners.locals())
        .collect();
    executor.supervisor.listening(&locals);
    drop(locals);
    let effects = machine.start(clock::now());
    Ok(Successor { machine, executor, effects, events: Vec::new() })
}

/// Takes what a supervisor holds for life, in the order in which a second one should be refused.
fn open<S: Supervisor>(supervisor: S, config: Config, given: Given) -> Result<Executor<S>> {
    descriptors::raise();
    let user = config.run_as.as_ref().map(|run_as| run_as.0.uid);
    let pid_file = config.pid_file.as_deref().map(|path| PidFile::hold_beside(path, user)).transpose()?;
    let listeners = OpenSet::open(&config.addresses, &config.listener, config.policy.workers)?;
    let opened = listeners.clone();
    open_rest(supervisor, config, (given, pid_file, listeners)).inspect_err(|_| opened.put_back())
}

/// Takes the rest, once the listeners are open.
fn open_rest<S: Supervisor>(
    supervisor: S,
    config: Config,
    (given, pid_file, listeners): (Given, Option<PidFile>, OpenSet),
) -> Result<Executor<S>> {
    let slots = config.policy.workers;
    let children = config.children;
    if children != Children::Ignore {
        ancestry::adopt_orphans().map_err(|error| Error::system("adopt what workers leave behind", error))?;
    }
    let crew =
        Crew::new(lines_for(&config.policy)).map_err(|error| Error::system("map the scoreboard", error))?;
    let handover = Handover::new().map_err(|error| Error::system("make the handover queue", error))?;
    let operators = Operators::listen(config.control_socket.as_deref());
    let signals = Signals::install().map_err(|error| Error::system("take over signals", error))?;
    Ok(Executor::new(
        supervisor,
        Handles {
            given,
            generation: 1,
            generation_config: GenerationConfig { config, listeners },
            slots: SlotSockets::new(slots),
            signals,
            crew,
            handover,
            pid_file,
            operators,
            history: History::new(clock::now()),
            leftovers: Leftovers::new(children),
        },
    ))
}

/// Asks the policy what to do about an event, and does it.
fn step<S: Supervisor>(
    machine: &mut Machine,
    executor: &mut Executor<S>,
    event: Event,
    now: Moment,
) -> Option<Outcome> {
    let effects = machine.step(event, now);
    act(machine, executor, effects, now)
}

/// Does all of `effects` and whatever follows from them at once.
fn act<S: Supervisor>(
    machine: &mut Machine,
    executor: &mut Executor<S>,
    effects: Vec<Effect>,
    now: Moment,
) -> Option<Outcome> {
    let mut events = Vec::new();
    if effects.iter().any(|effect| matches!(effect, Effect::End(_))) {
        executor.see_leftovers_off();
    }
    for effect in effects {
        if let Some(outcome) = executor.apply(effect, machine, &mut events) {
            return Some(outcome);
        }
    }
    events.into_iter().find_map(|event| step(machine, executor, event, now))
}

/// Waits until something can have happened, or until `deadline`.
fn wait<S: Supervisor>(executor: &mut Executor<S>, deadline: Option<Moment>) {
    let now = clock::now();
    executor.stall_detector.looks(now);
    let signals = executor.signals.iter().map(AsFd::as_fd);
    let read = signals.chain(executor.crew.links()).chain(executor.upgrader.descriptors());
    let mut sources: Vec<PollFd<'_>> = read.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    for (fd, wants_write) in executor.operators.descriptors() {
        let flags = if wants_write { PollFlags::OUT } else { PollFlags::IN };
        sources.push(PollFd::from_borrowed_fd(fd, flags));
    }
    sources.extend(executor.crew.memory_news().map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags)));
    let looks = [
        executor.operators.deadline(),
        executor.slots.deadline(&executor.generation_configs, now),
        executor.crew.deadline(),
        executor.leftovers.deadline(),
        executor.upgrader.deadline(now),
    ];
    let deadline = deadline.into_iter().chain(looks.into_iter().flatten()).min();
    let timeout = deadline.map(|deadline| deadline.saturating_sub(now));
    executor.waiting.wait(&mut sources, timeout);
}

/// Everything that has happened since the last call.
fn poll_events<S: Supervisor>(
    machine: &Machine,
    executor: &mut Executor<S>,
    deadline: Option<Moment>,
    now: Moment,
) -> Vec<Event> {
    let mut events = Vec::new();
    if let Some(by) = executor.stall_detector.wakes(deadline, now) {
        events.push(Event::Late { by });
    }
    if deadline.is_some_and(|deadline| deadline <= now) {
        // A deadline is judged by the workers' latest signs of life.
        events.push(executor.crew.beats());
    }
    executor.crew.wakes(now);
    events.extend(executor.crew.reports());
    let arrived = executor.signals.as_ref().map(Signals::take).unwrap_or_default();
    for signal in arrived {
        match signal.meaning {
            Meaning::Child => events.extend(executor.crew.reap()),
            Meaning::Nothing => log::info!("Signal {} has no meaning here", signal.name),
            Meaning::Ask(ask) => {
                let sender = signal.sender.map(|pid| format!(" from {}", processes::name(pid)));
                log::info!("Handling signal: {}{}", signal.name, sender.unwrap_or_default());
                events.push(asked(executor, ask, None));
            }
        }
    }
    // After the reaping above and before any fork: no other child has a dry run's number.
    events.extend(executor.poll_dry_run(machine, now));
    let mut curious = Vec::new();
    for wish in executor.operators.hear() {
        match wish {
            Wish::Change(ask, ticket) => events.push(asked(executor, ask, ticket)),
            Wish::Status(client) => curious.push(client),
        }
    }
    tell_all(machine, executor, &curious);
    events.push(Event::Tick);
    events
}

/// Tells all of `clients` how everything is: by one report, because a look at what every worker uses takes its time.
fn tell_all<S: Supervisor>(machine: &Machine, executor: &mut Executor<S>, clients: &[ClientId]) {
    if clients.is_empty() {
        return;
    }
    executor.stall_detector.looks(clock::now());
    let reply = report(machine, executor);
    for client in clients {
        executor.operators.tell(*client, &reply);
    }
    executor.stall_detector.has_worked(clock::now());
}

/// The event of a request. The embedder reopens its log files before the pool does.
fn asked<S: Supervisor>(executor: &mut Executor<S>, ask: Ask, ticket: Option<Ticket>) -> Event {
    if ask == Ask::ReopenLogs {
        executor.supervisor.reopen_logs();
        executor.crew.say_to_molds(&Order::ReopenLogs);
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
