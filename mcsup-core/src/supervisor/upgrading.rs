//! Another image of this supervisor: tried beside it, and executed in its place.

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
use crate::error::{Error, ErrorKind, Result};
use crate::host::descriptors;
use crate::host::pidfile::{PidFile, PidFileRecord};
use crate::host::processes;
use crate::host::relatives::Relative;
use crate::listener::record::ListenerRecord;
use crate::policy::{Event, ExitStatus, Machine, Moment, PoolPhase, Record};
use crate::sys::descriptor;
use crate::sys::signal::AllBlocked;
use crate::upgrade::Image;
use crate::upgrade::dry_run::DryRun;
use crate::upgrade::state::UpgradeState;

/// A whole pool, for the next image. Its form is covered by the state's version.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PoolRecord {
    pub(super) machine: Record,
    pub(super) crew: CrewRecord,
    pub(super) handover: (RawFd, RawFd),
    pub(super) listeners: Vec<ListenerRecord>,
    pub(super) slots: SlotsRecord,
    #[serde(default)]
    pub(super) descriptors: Option<descriptors::Limit>,
    /// Whether the process adopted orphans before it had a mold.
    #[serde(default)]
    pub(super) is_subreaper: Option<bool>,
    /// What ran beside the pool before it looked for leftovers.
    #[serde(default)]
    pub(super) others: Option<Vec<Relative>>,
    pub(super) pid_file: Option<PidFileRecord>,
    pub(super) operators: OperatorsRecord,
    pub(super) history: History,
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

/// What an upgrade executes, and the dry runs of it.
#[derive(Debug)]
pub(crate) struct Upgrader {
    image: Option<Image>,
    /// The dry run that is under way.
    dry_run: Option<DryRun>,
    /// Earlier ones, which were killed and are not reaped yet.
    ended_dry_runs: Vec<DryRun>,
}

/// What is executed, and the state of the pool for it.
struct NextImage {
    image: Image,
    upgrade_state: UpgradeState,
}

impl Upgrader {
    /// For upgrades to `image`; `None`: there are none.
    pub(super) fn new(image: Option<Image>) -> Self {
        Self { image, dry_run: None, ended_dry_runs: Vec::new() }
    }

    /// By its own path there may be another image by now: upgrades execute `image`.
    pub(super) fn set_image(&mut self, image: Image) {
        self.image = Some(image);
    }

    /// The processes of dry runs.
    pub(super) fn pids(&self) -> impl Iterator<Item = i32> + '_ {
        self.dry_runs().map(DryRun::pid)
    }

    /// What to wait on while a dry run is under way.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.dry_run.iter().flat_map(DryRun::descriptors)
    }

    /// When to look whether a dry run that was killed has ended.
    pub(super) fn deadline(&self, now: Moment) -> Option<Moment> {
        self.dry_runs().filter_map(|dry_run| dry_run.deadline(now)).min()
    }

    /// Nothing waits for the dry run any more: it is ended in the turns of the loop to come.
    fn end(&mut self) {
        self.ended_dry_runs.extend(self.dry_run.take());
    }

    /// These processes have been reaped. Ends dry runs that nothing waits for; see [`DryRun::end`] for when to call it.
    fn tend(&mut self, reaped: &[(Pid, ExitStatus)], now: Moment) {
        for dry_run in self.dry_run.iter_mut().chain(&mut self.ended_dry_runs) {
            dry_run.note_reaped(reaped);
        }
        self.ended_dry_runs.retain_mut(|dry_run| dry_run.end(now).is_none());
    }

    /// The result of the dry run, once.
    fn take_result(&mut self, now: Moment) -> Option<Event> {
        let dry_run = self.dry_run.as_mut()?;
        let said = dry_run.poll(now)?;
        self.end();
        Some(match said {
            Ok(()) => Event::ImageChecked,
            Err(reason) => Event::UpgradeFailed { reason },
        })
    }

    /// In a forked child: dry runs are the supervisor's, and the image is of no use.
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
    /// Begins the dry run of the image that there is now.
    pub(super) fn check_image(&mut self, machine: &Machine) -> Option<Event> {
        self.upgrader.end();
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

    /// The result of the dry run.
    pub(super) fn poll_dry_run(&mut self, machine: &Machine, now: Moment) -> Option<Event> {
        if !matches!(machine.phase(), PoolPhase::Upgrading { .. }) {
            self.upgrader.end();
        }
        self.upgrader.tend(&self.crew.take_reaped_others(), now);
        // Connections on their way to the workers get there first: the next image would not know of them.
        if self.slots.has_connections() { None } else { self.upgrader.take_result(now) }
    }

    /// Becomes the next image. That this returns says that it could not be.
    pub(super) fn exec(&mut self, machine: &Machine) -> Event {
        self.upgrader.end();
        // What arrives from now on waits for the next image: a handler that is not there yet would be the end of it. So
        // does what has arrived since signals were last looked at.
        let blocked = AllBlocked::new();
        for signal in self.signals.iter().flat_map(Signals::give_back) {
            let sender = signal.sender.map(|pid| format!(" from {}", processes::name(pid)));
            // Each worker that ends meanwhile sends one, and is reaped by either image.
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
        let record = self.record(machine)?;
        let upgrade_state = UpgradeState::write(&image, &record, &record.descriptors())?;
        Ok(NextImage { image, upgrade_state })
    }

    fn record(&self, machine: &Machine) -> Result<PoolRecord> {
        let described = self.crew.describe();
        let crew = described.map_err(|error| Error::system("describe the scoreboard", error))?;
        let generation_config = self.generation_configs.current();
        Ok(PoolRecord {
            machine: machine.record(),
            crew,
            handover: self.handover.describe(),
            listeners: generation_config
                .map(|generation_config| generation_config.listeners.describe())
                .unwrap_or_default(),
            slots: self.slots.describe(),
            descriptors: Some(self.given.descriptors),
            is_subreaper: Some(self.given.is_subreaper),
            others: self.leftovers.describe(),
            pid_file: self.pid_file.as_ref().map(PidFile::describe),
            operators: self.operators.describe(),
            history: self.history.clone(),
        })
    }
}

/// Returns where it failed, with everything as it was.
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
