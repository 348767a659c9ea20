//! Another image of this supervisor: tried beside it, and executed in its place.

use std::os::fd::{AsFd, BorrowedFd, RawFd};

use serde::{Deserialize, Serialize};

use super::Supervisor;
use super::crew::CrewRecord;
use super::effects::Executor;
use super::history::History;
use super::operator::OperatorsRecord;
use super::signals::Signals;
use crate::error::{Error, ErrorKind, Result};
use crate::host::descriptors;
use crate::host::pidfile::{PidFile, PidFileRecord};
use crate::host::processes;
use crate::host::relatives::Relative;
use crate::listener::record::ListenerRecord;
use crate::policy::{Event, Machine, Moment, Phase, Record};
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
    pub(super) slots: usize,
    pub(super) aimed: (u64, usize),
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

impl<S: Supervisor> Executor<S> {
    /// Begins the dry run of the image that there is now.
    pub(super) fn check_image(&mut self, machine: &Machine) -> Option<Event> {
        self.end_checker();
        let limit = machine.policy().upgrade_timeout;
        let dry_run = self
            .upgrade_state(machine)
            .and_then(|(image, upgrade_state)| DryRun::start(&image, &upgrade_state, limit));
        match dry_run {
            Ok(dry_run) => {
                self.dry_run = Some(dry_run);
                None
            }
            Err(error) => Some(Event::UpgradeFailed { reason: error.to_string() }),
        }
    }

    /// What to wait on while a dry run is under way.
    pub(super) fn checker_descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.dry_run.iter().flat_map(DryRun::descriptors)
    }

    /// When to look whether a dry run that was killed has ended.
    pub(super) fn checker_deadline(&self, now: Moment) -> Option<Moment> {
        self.dry_run.iter().chain(&self.ended_checkers).filter_map(|dry_run| dry_run.deadline(now)).min()
    }

    /// Nothing waits for the dry run any more: it is ended in the turns of the loop to come.
    fn end_checker(&mut self) {
        self.ended_checkers.extend(self.dry_run.take());
    }

    /// What the dry run has come to; one that nothing waits for is ended. See [`DryRun::end`] for when to call it.
    pub(super) fn hear_checker(&mut self, machine: &Machine, now: Moment) -> Option<Event> {
        if !matches!(machine.phase(), Phase::Upgrading { .. }) {
            self.end_checker();
        }
        let reaped = self.crew.take_reaped_others();
        for dry_run in self.dry_run.iter_mut().chain(&mut self.ended_checkers) {
            dry_run.note_reaped(&reaped);
        }
        self.ended_checkers.retain_mut(|dry_run| dry_run.end(now).is_none());
        let dry_run = self.dry_run.as_mut()?;
        // Whatever is on its way to the workers gets there first: the next image would not know of it.
        if !self.homeless.is_empty() {
            return None;
        }
        let said = dry_run.poll(now)?;
        self.end_checker();
        Some(match said {
            Ok(()) => Event::ImageChecked,
            Err(reason) => Event::UpgradeFailed { reason },
        })
    }

    /// In a forked child: the dry run is the supervisor's.
    pub(super) fn close_checkers_in_child(&mut self) {
        self.end_checker();
        for mut dry_run in self.ended_checkers.drain(..) {
            dry_run.forget_in_child();
        }
    }

    /// Becomes the next image. That this returns says that it could not be.
    pub(super) fn exec(&mut self, machine: &Machine) -> Event {
        self.end_checker();
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
        let error = match self.upgrade_state(machine) {
            Ok((image, upgrade_state)) => execute(&image, &upgrade_state),
            Err(error) => error,
        };
        drop(blocked);
        Event::UpgradeFailed { reason: error.to_string() }
    }

    fn upgrade_state(&self, machine: &Machine) -> Result<(Image, UpgradeState)> {
        let Some(image) = self.image.clone() else {
            let why = "the program that has this pool did not say how it was started";
            return Err(Error::new(ErrorKind::Setting, why));
        };
        let record = self.record(machine)?;
        let upgrade_state = UpgradeState::write(&image, &record, &record.descriptors())?;
        Ok((image, upgrade_state))
    }

    fn record(&self, machine: &Machine) -> Result<PoolRecord> {
        let described = self.crew.describe();
        let crew = described.map_err(|error| Error::system("describe the scoreboard", error))?;
        let edition = self.editions.current();
        Ok(PoolRecord {
            machine: machine.record(),
            crew,
            handover: self.handover.describe(),
            listeners: edition.map(|edition| edition.listeners.describe()).unwrap_or_default(),
            slots: self.slots,
            aimed: self.aimed,
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
fn execute(image: &Image, upgrade_state: &UpgradeState) -> Error {
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
