//! How a new image takes over from the old one: all of its handles, and then its place.

use super::Supervisor;
use super::config::{Children, Config};
use super::crew::Crew;
use super::effects::{Executor, Handles};
use super::generation_configs::GenerationConfig;
use super::given::Given;
use super::leftovers::Leftovers;
use super::operator::Operators;
use super::signals::Signals;
use super::slots::{SlotSockets, SlotsRecord};
use super::upgrading::PoolRecord;
use crate::error::{Error, Result};
use crate::host::descriptors;
use crate::host::pidfile::PidFile;
use crate::host::relatives::Relative;
use crate::link::handover::Handover;
use crate::listener::open::OpenSet;
use crate::policy::{Effect, Event, Machine};
use crate::sys::{ancestry, signal};
use crate::upgrade::{self, Resumption};

/// A pool that goes on.
pub(super) struct Successor<S> {
    pub(super) machine: Machine,
    pub(super) executor: Executor<S>,
    /// What is to be done first,
    pub(super) effects: Vec<Effect>,
    /// and what has happened by then.
    pub(super) events: Vec<Event>,
}

/// Goes on where the old image stopped; `None`: it was only to be found out whether that can be.
///
/// Signals are blocked from the old image's last moment on until its handles are all taken over: none is lost, and none
/// meets a process that has no handler for it.
///
/// # Errors
/// It cannot be, and neither can the old image go on: the pool has no supervisor any more.
pub(super) fn take_over<S: Supervisor>(
    supervisor: S,
    config: Config,
    resumption: Resumption,
) -> Result<Option<Successor<S>>> {
    // Declared in this order, so that whatever goes wrong the way back is taken before a handle is closed.
    let mut taken = Taken::default();
    let resumption = resumption;
    if resumption.is_check() {
        resumption.pool::<PoolRecord>()?;
        resumption.affirm()?;
        return Ok(None);
    }
    let machine = match taken.take(&resumption, &config) {
        Ok(machine) => machine,
        Err(error) => {
            resumption.give_up(&error.to_string());
            return Err(error);
        }
    };
    let (by, failure) = (resumption.by().to_owned(), resumption.failure().map(str::to_owned));
    let Some(mut executor) = taken.executor(supervisor, config) else {
        return Err(Error::system("take over", std::io::Error::other("something is missing")));
    };
    if let Some(image) = resumption.complete() {
        // By its own path there may be another by now.
        executor.upgrader.set_image(image);
    }
    signal::unblock_all();
    executor.supervisor.taken_over();
    let events = happened(&mut executor, &by, failure);
    Ok(Some(Successor { machine, executor, effects: Vec::new(), events }))
}

/// The handles that have been taken over so far.
#[derive(Default)]
struct Taken {
    pid_file: Option<PidFile>,
    listeners: Option<OpenSet>,
    crew: Option<Crew>,
    handover: Option<Handover>,
    operators: Option<Operators>,
    signals: Option<Signals>,
    rest: Option<Rest>,
}

/// What needs no descriptor.
struct Rest {
    generation: u64,
    slots: SlotsRecord,
    given: Given,
    others: Option<Vec<Relative>>,
    history: super::history::History,
}

impl Taken {
    /// Takes all of it.
    fn take(&mut self, resumption: &Resumption, config: &Config) -> Result<Machine> {
        let failed = |step: &str| {
            let step = format!("take over {step}");
            move |error: std::io::Error| Error::system(step, error)
        };
        let record: PoolRecord = resumption.pool()?;
        self.crew = Some(Crew::adopt(record.crew).map_err(failed("the workers"))?);
        self.handover = Some(Handover::adopt(record.handover).map_err(failed("the handover queue"))?);
        self.listeners = Some(OpenSet::adopt(&record.listeners)?);
        self.pid_file = record.pid_file.map(PidFile::adopt).transpose().map_err(failed("the pid file"))?;
        self.operators = Some(Operators::adopt(record.operators).map_err(failed("the control socket"))?);
        self.signals = Some(Signals::install().map_err(failed("signals"))?);
        let machine = Machine::resume(record.machine, config.policy.clone());
        // An image that left nothing about it has what it was given.
        let now = Given::look();
        descriptors::raise();
        self.rest = Some(Rest {
            generation: machine.current(),
            slots: record.slots,
            given: Given {
                descriptors: record.descriptors.unwrap_or(now.descriptors),
                is_subreaper: record.is_subreaper.unwrap_or(now.is_subreaper),
            },
            others: record.others,
            history: record.history,
        });
        Ok(machine)
    }

    fn executor<S: Supervisor>(&mut self, supervisor: S, config: Config) -> Option<Executor<S>> {
        let Rest { generation, slots, given, others, history } = self.rest.take()?;
        let mut crew = self.crew.take()?;
        let (handover, listeners) = (self.handover.take()?, self.listeners.take()?);
        let (operators, signals) = (self.operators.take()?, self.signals.take()?);
        let children = config.children;
        if children != Children::Ignore {
            // The last image may not have wanted it. Where it cannot be, there is less to see.
            let _ = ancestry::adopt_orphans();
            crew.adopts();
        }
        Some(Executor::new(
            supervisor,
            Handles {
                given,
                generation,
                generation_config: GenerationConfig { config, listeners },
                slots: SlotSockets::adopt(slots),
                signals,
                crew,
                handover,
                pid_file: self.pid_file.take(),
                operators,
                history,
                leftovers: Leftovers::adopt(children, others),
            },
        ))
    }
}

/// The events of the meantime: processes that have ended are reaped, and the request for the upgrade is answered.
fn happened<S: Supervisor>(executor: &mut Executor<S>, by: &str, failure: Option<String>) -> Vec<Event> {
    let upgrade = match failure {
        None => Event::Upgraded { message: format!("{by} -> {}", upgrade::PROGRAM) },
        Some(reason) => Event::UpgradeFailed { reason },
    };
    let mut events = vec![executor.crew.beats(), upgrade];
    events.extend(executor.crew.reap());
    events
}
