//! The upgrade to another image: its dry run, the record of the pool, and the exec.

use std::os::fd::{AsFd, BorrowedFd, RawFd};

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::Supervisor;
use super::crew::CrewRecord;
use super::effects::Executor;
use super::history::History;
use super::operator::OperatorsRecord;
use super::signals::Signals;
use super::slots::SlotsRecord;
use super::spawning;
use crate::error::{Error, ErrorKind, Result};
use crate::host::descriptors;
use crate::host::pidfile::{PidFile, PidFileRecord};
use crate::host::processes;
use crate::host::relatives::Relative;
use crate::listener::record::ListenerRecord;
use crate::policy::{Event, ExitStatus, Machine, MachineRecord, Moment, PoolPhase};
use crate::spawn::reap;
use crate::sys::descriptor;
use crate::sys::signal::AllBlocked;
use crate::upgrade::dry_run::DryRun;
use crate::upgrade::state::UpgradeState;
use crate::upgrade::{Image, calls};

/// A whole pool, for the next image. The version of the handoff state covers its format.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PoolRecord {
    /// The number of the call that began the pool ([`calls`](crate::upgrade::calls)). [`Resumption::call`] reads it.
    ///
    /// [`Resumption::call`]: crate::upgrade::Resumption::call
    #[serde(default)]
    call: u32,
    pub(super) machine: MachineRecord,
    pub(super) crew: CrewRecord,
    pub(super) handover: (RawFd, RawFd),
    pub(super) listeners: Vec<ListenerRecord>,
    pub(super) slots: SlotsRecord,
    #[serde(default)]
    pub(super) descriptors: Option<descriptors::Limit>,
    /// Whether the process adopted orphans before the pool.
    #[serde(default)]
    pub(super) is_subreaper: Option<bool>,
    /// Processes beside the pool before the first search for leftovers.
    #[serde(default)]
    pub(super) others: Option<Vec<Relative>>,
    pub(super) pid_file: Option<PidFileRecord>,
    pub(super) operators: OperatorsRecord,
    pub(super) history: History,
    /// The embedder's text for the return to this image. [`Resumption::note`] reads it.
    ///
    /// [`Resumption::note`]: crate::upgrade::Resumption::note
    #[serde(default)]
    note: Option<String>,
}

impl PoolRecord {
    fn descriptors(&self) -> Vec<RawFd> {
        let own = [self.handover.0, self.handover.1].into_iter();
        let listeners = self.listeners.iter().map(|listener| listener.fd);
        let pid_file = self.pid_file.iter().map(|file| file.fd);
        let handles = self.crew.descriptors().chain(self.operators.descriptors());
        own.chain(listeners).chain(pid_file).chain(handles).collect()
    }
}

/// The image of upgrades, and its dry runs.
#[derive(Debug)]
pub(crate) struct Upgrader {
    /// The number of the call that began the pool.
    call: u32,
    image: Option<Image>,
    /// The dry run in progress.
    dry_run: Option<DryRun>,
    /// Earlier ones, which were killed and are not reaped yet.
    ended_dry_runs: Vec<DryRun>,
}

/// The image to execute, and the state of the pool for it.
struct NextImage {
    image: Image,
    upgrade_state: UpgradeState,
}

impl Upgrader {
    /// An upgrader to `image`; `None`: upgrades are refused.
    pub(super) fn new(image: Option<Image>) -> Self {
        Self { call: calls::FIRST, image, dry_run: None, ended_dry_runs: Vec::new() }
    }

    /// The next image takes over in the call with this number.
    pub(super) fn set_call(&mut self, call: u32) {
        self.call = call;
    }

    /// Upgrades execute `image` from now on: its original path may lead to another image.
    pub(super) fn set_image(&mut self, image: Image) {
        self.image = Some(image);
    }

    /// The pids of the dry runs.
    pub(super) fn pids(&self) -> impl Iterator<Item = i32> + '_ {
        self.dry_runs().map(DryRun::pid)
    }

    /// The descriptors to poll during a dry run.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.dry_run.iter().flat_map(DryRun::descriptors)
    }

    /// The time of the next check of a dry run.
    pub(super) fn deadline(&self, now: Moment) -> Option<Moment> {
        self.dry_runs().filter_map(|dry_run| dry_run.deadline(now)).min()
    }

    /// Gives up the dry run. Later iterations of the loop end it.
    fn end(&mut self) {
        self.ended_dry_runs.extend(self.dry_run.take());
    }

    /// Notes reaped processes, and ends abandoned dry runs. [`DryRun::end`] says when this may run.
    fn reap(&mut self, reaped: &[(Pid, ExitStatus)], now: Moment) {
        for dry_run in self.dry_run.iter_mut().chain(&mut self.ended_dry_runs) {
            dry_run.note_reaped(reaped);
        }
        self.ended_dry_runs.retain_mut(|dry_run| dry_run.end(now).is_none());
    }

    /// The result of the dry run, once.
    fn take_result(&mut self, now: Moment) -> Option<Event> {
        let dry_run = self.dry_run.as_mut()?;
        let result = dry_run.poll(now)?;
        self.end();
        Some(match result {
            Ok(()) => Event::ImageChecked,
            Err(reason) => Event::UpgradeFailed { reason },
        })
    }

    /// Drops the image and forgets the dry runs in a forked child.
    pub(super) fn close_in_child(&mut self) {
        self.end();
        for mut dry_run in self.ended_dry_runs.drain(..) {
            dry_run.forget_in_child();
        }
        self.image = None;
    }

    fn dry_runs(&self) -> impl Iterator<Item = &DryRun> {
        self.dry_run.iter().chain(&self.ended_dry_runs)
    }
}

impl<S: Supervisor> Executor<S> {
    /// Begins a dry run of the current image.
    pub(super) fn check_image(&mut self, machine: &Machine) -> Option<Event> {
        self.upgrader.end();
        // The dry run inherits the descriptors of this pool.
        self.share();
        let limit = machine.policy().upgrade_timeout;
        let next = self.next_image(machine);
        let dry_run = next.and_then(|next| DryRun::start(&next.image, &next.upgrade_state, limit));
        match dry_run {
            Ok(dry_run) => {
                self.upgrader.dry_run = Some(dry_run);
                None
            }
            Err(error) => Some(Event::UpgradeFailed { reason: error.to_string() }),
        }
    }

    /// The result of the dry run, once; reaps earlier dry runs.
    pub(super) fn poll_dry_run(&mut self, machine: &Machine, now: Moment) -> Option<Event> {
        if !matches!(machine.phase(), PoolPhase::Upgrading { .. }) {
            self.upgrader.end();
        }
        self.upgrader.reap(&self.crew.take_reaped_others(), now);
        // Orphaned connections reach a worker first: they are not in the record for the next image.
        if self.slots.has_connections() { None } else { self.upgrader.take_result(now) }
    }

    /// Executes the next image. Returns only after an error.
    pub(super) fn exec(&mut self, machine: &Machine) -> Event {
        self.upgrader.end();
        // Signals wait from now on for the next image: without a handler they would end it. Those that are pending here
        // go back to the kernel.
        let blocked = AllBlocked::new();
        for signal in self.signals.iter().flat_map(Signals::give_back) {
            let sender = signal.sender.map(|pid| format!(" from {}", processes::name(pid)));
            // The kernel sends one for each worker that ends. Either image reaps the worker.
            if signal.name == "CHLD" {
                continue;
            }
            log::info!("Signal {}{} waits for the next image", signal.name, sender.unwrap_or_default());
        }
        let error = self.next_image(machine).map_or_else(|error| error, |next| execute(&next));
        drop(blocked);
        Event::UpgradeFailed { reason: error.to_string() }
    }

    fn next_image(&self, machine: &Machine) -> Result<NextImage> {
        let Some(image) = self.upgrader.image.clone() else {
            let why = "the program that has this pool did not say how it was started";
            return Err(Error::new(ErrorKind::Setting, why));
        };
        if reap::pools() > 1 {
            let why = "another pool of this process would lose its supervisor";
            return Err(Error::new(ErrorKind::Setting, why));
        }
        if spawning::processes::any_runs() {
            let why = "a pool that this process has spawned would lose its program";
            return Err(Error::new(ErrorKind::Setting, why));
        }
        let record = self.record(machine)?;
        let upgrade_state = UpgradeState::write(&image, &record, &record.descriptors())?;
        Ok(NextImage { image, upgrade_state })
    }

    fn record(&self, machine: &Machine) -> Result<PoolRecord> {
        let described = self.crew.describe();
        let crew = described.map_err(|error| Error::system("describe the scoreboard", error))?;
        let generation_config = self.generation_configs.current();
        Ok(PoolRecord {
            call: self.upgrader.call,
            machine: machine.record(),
            crew,
            handover: self.handover.describe(),
            listeners: generation_config
                .map(|generation_config| generation_config.listeners.describe())
                .unwrap_or_default(),
            slots: self.slots.describe(),
            descriptors: Some(self.attributes.descriptors),
            is_subreaper: Some(self.attributes.is_subreaper),
            others: self.leftovers.describe(),
            pid_file: self.pid_file.as_ref().map(PidFile::describe),
            operators: self.operators.describe(),
            history: self.history.clone(),
            note: self.supervisor.note(),
        })
    }
}

/// Executes the next image. Returns only after an error, with the directory and the descriptors restored.
fn execute(NextImage { image, upgrade_state }: &NextImage) -> Error {
    log::logger().flush();
    let here = std::fs::File::open(".");
    descriptor::survive_exec(upgrade_state.descriptors(), true);
    let error = image.execute(&format!("resume:{}", upgrade_state.fd()));
    descriptor::survive_exec(upgrade_state.descriptors(), false);
    if let Ok(here) = here {
        let _ = rustix::process::fchdir(here.as_fd());
    }
    Error::system(format!("execute {} in {}", image.program.display(), image.directory.display()), error)
}
