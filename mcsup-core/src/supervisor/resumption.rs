//! How a new image takes over: it adopts the handles of the old image and continues the pool.

use super::Supervisor;
use super::attributes::ProcessAttributes;
use super::config::{Children, Config};
use super::crew::Crew;
use super::effects::{Executor, Handles};
use super::generation_configs::GenerationConfig;
use super::leftovers::Leftovers;
use super::operator::Operators;
use super::service::Service;
use super::signals::{SignalUse, Signals};
use super::slots::{SlotSockets, SlotsRecord};
use super::upgrading::PoolRecord;
use crate::error::{Error, Result};
use crate::host::descriptors;
use crate::host::pidfile::PidFile;
use crate::host::relatives::Relative;
use crate::link::handover::Handover;
use crate::listener::activation;
use crate::listener::open::OpenSet;
use crate::listener::own::require_own;
use crate::policy::{Effect, Event, Machine};
use crate::sys::{ancestry, signal};
use crate::upgrade::{self, Resumption};
use crate::worker::Worker;

/// A pool whose loop can run: a new one, or an adopted one.
pub(super) struct StartedPool<S> {
    pub(super) machine: Machine,
    pub(super) executor: Executor<S>,
    /// The effects to apply first.
    pub(super) effects: Vec<Effect>,
    /// The events to handle after them.
    pub(super) events: Vec<Event>,
}

/// Adopts the pool of the old image; `None`: this was a dry run.
///
/// The old image blocks all signals before the exec, and they stay blocked until all handles are adopted. So no signal
/// is lost, and none arrives without a handler.
///
/// # Errors
/// Neither image can continue: the pool has no supervisor any more.
pub(super) fn take_over<S: Supervisor>(
    supervisor: S,
    config: Config,
    (resumption, signal_use): (Resumption, SignalUse),
) -> Result<Option<StartedPool<S>>> {
    // Dropped in the reverse order: an error returns to the old image before a handle is closed.
    let mut adopted = AdoptedHandles::default();
    let resumption = resumption;
    if resumption.is_check() {
        let record: PoolRecord = resumption.pool()?;
        require_own(&record.listeners, &config.listeners)?;
        resumption.affirm()?;
        return Ok(None);
    }
    let mut machine = match adopted.take(&resumption, &config, signal_use) {
        Ok(machine) => machine,
        Err(error) => {
            resumption.give_up(&error.to_string());
            return Err(error);
        }
    };
    machine.expect_service_while_booting(S::Worker::serves_while_booting());
    let (by, failure) = (resumption.by().to_owned(), resumption.failure().map(str::to_owned));
    let Some(mut executor) = adopted.executor(supervisor, config) else {
        return Err(Error::system("take over", std::io::Error::other("something is missing")));
    };
    if let Some(image) = resumption.complete() {
        // Its original path may lead to another image by now.
        executor.upgrader.set_image(image);
    }
    signal::unblock_all();
    let locals = executor.generation_configs.current().map(GenerationConfig::locals).unwrap_or_default();
    executor.supervisor.taken_over(&locals);
    let events = events_since_exec(&mut executor, &by, failure);
    Ok(Some(StartedPool { machine, executor, effects: Vec::new(), events }))
}

/// The handles that are adopted so far.
#[derive(Default)]
struct AdoptedHandles {
    pid_file: Option<PidFile>,
    listeners: Option<OpenSet>,
    crew: Option<Crew>,
    handover: Option<Handover>,
    operators: Option<Operators>,
    signals: Option<Signals>,
    rest: Option<AdoptedState>,
}

/// The adopted state that has no descriptor.
struct AdoptedState {
    generation: u64,
    slots: SlotsRecord,
    attributes: ProcessAttributes,
    others: Option<Vec<Relative>>,
    history: super::history::History,
}

impl AdoptedHandles {
    /// Adopts all of it.
    fn take(&mut self, resumption: &Resumption, config: &Config, signal_use: SignalUse) -> Result<Machine> {
        let failed = |step: &str| {
            let step = format!("take over {step}");
            move |error: std::io::Error| Error::system(step, error)
        };
        let record: PoolRecord = resumption.pool()?;
        self.crew = Some(Crew::adopt(record.crew).map_err(failed("the workers"))?);
        self.handover = Some(Handover::adopt(record.handover).map_err(failed("the handover queue"))?);
        self.listeners = Some(OpenSet::adopt(&record.listeners, &config.listeners)?);
        self.pid_file = record.pid_file.map(PidFile::adopt).transpose().map_err(failed("the pid file"))?;
        self.operators = Some(Operators::adopt(record.operators).map_err(failed("the control socket"))?);
        self.signals = Some(Signals::install(signal_use).map_err(failed("signals"))?);
        let machine = Machine::resume(record.machine, config.policy.clone());
        // An older image may not have recorded these attributes: then it has not changed them.
        let now = ProcessAttributes::current();
        descriptors::raise();
        self.rest = Some(AdoptedState {
            generation: machine.current(),
            slots: record.slots,
            attributes: ProcessAttributes {
                descriptors: record.descriptors.unwrap_or(now.descriptors),
                is_subreaper: record.is_subreaper.unwrap_or(now.is_subreaper),
            },
            others: record.others,
            history: record.history,
        });
        Ok(machine)
    }

    fn executor<S: Supervisor>(&mut self, supervisor: S, mut config: Config) -> Option<Executor<S>> {
        let AdoptedState { generation, slots, attributes, others, history } = self.rest.take()?;
        let mut crew = self.crew.take()?;
        let (handover, listeners) = (self.handover.take()?, self.listeners.take()?);
        let (operators, signals) = (self.operators.take()?, self.signals.take()?);
        let service = Service::new(std::mem::take(&mut config.service_manager), false);
        // After an error a reload names the address that has no socket.
        if let Ok(addresses) = activation::resolve_in(&config.addresses, service.manager(), &listeners) {
            config.addresses = addresses;
        }
        // The adopted ones instead of those that the program has made to adopt them.
        listeners.replace_own(&mut config.listeners);
        let children = config.children;
        if children != Children::Ignore {
            // The last image may not have adopted orphans. After an error fewer leftovers are found.
            let _ = ancestry::adopt_orphans();
            crew.adopts();
        }
        Some(Executor::new(
            supervisor,
            Handles {
                attributes,
                generation,
                generation_config: GenerationConfig { config, listeners },
                slots: SlotSockets::adopt(slots),
                signals,
                crew,
                handover,
                pid_file: self.pid_file.take(),
                operators,
                service,
                history,
                leftovers: Leftovers::adopt(children, others),
            },
        ))
    }
}

/// The events since the exec: the outcome of the upgrade, and the ends of processes.
fn events_since_exec<S: Supervisor>(
    executor: &mut Executor<S>,
    by: &str,
    failure: Option<String>,
) -> Vec<Event> {
    let upgrade = match failure {
        None => Event::Upgraded { message: format!("{by} -> {}", upgrade::PROGRAM) },
        Some(reason) => Event::UpgradeFailed { reason },
    };
    let mut events = vec![executor.crew.beats(), upgrade];
    events.extend(executor.crew.reap());
    events
}
