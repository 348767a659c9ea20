//! The supervisor's side of a WSGI pool: which workers each generation has, and the logs that all share.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::rc::Rc;
use std::sync::Arc;

use mcsup_core::host::daemon::Answer;
use mcsup_core::{Config, Error, ErrorKind, ForkSide, Local, Supervisor};
use mcsup_py::python::{fork, standard};
use mcsup_py::worker::{WorkerSettings, WsgiWorker};

use super::wiring;
use crate::failure::Failure;
use crate::logging::{ErrorLog, LogError};
use crate::settings::Settings;

/// Reads the settings anew, from wherever they came.
pub(super) type Reread = Box<dyn Fn() -> Result<Settings, Failure>>;

/// The supervisor's side of a WSGI pool.
pub(super) struct Pool {
    /// What the workers of the first generation are made with,
    first: WorkerSettings,
    /// and those of later ones.
    workers: BTreeMap<u64, WorkerSettings>,
    settings: Settings,
    reread: Reread,
    argv: Vec<OsString>,
    output: Output,
    answer: Rc<Cell<Option<Answer>>>,
}

impl Pool {
    /// The first generation, by `settings`.
    pub(super) fn new(
        settings: &Settings,
        reread: Reread,
        argv: &[OsString],
        output: Output,
        answer: Rc<Cell<Option<Answer>>>,
    ) -> Result<Self, Failure> {
        let first = worker_settings(settings, argv, &output)?;
        let (settings, argv) = (settings.clone(), argv.to_vec());
        Ok(Self { first, workers: BTreeMap::new(), settings, reread, argv, output, answer })
    }

    /// What was changed in vain: the supervisor has it for life.
    fn warn_of_what_stays(&self, new: &Settings) {
        let old = &self.settings;
        let same = [
            ("chdir", old.process.chdir == new.process.chdir),
            ("pid", old.process.pid == new.process.pid),
            ("control_socket", old.control == new.control),
            ("error_logfile", old.logging.errors == new.logging.errors),
            ("log_level", old.logging.level == new.logging.level),
        ];
        for (name, _) in same.into_iter().filter(|(_, is_same)| !is_same) {
            log::warn!("{name} has changed: that takes effect at the next start, not at a reload");
        }
    }
}

impl Supervisor for Pool {
    type Worker = WsgiWorker;

    fn worker(&mut self, generation: u64) -> WsgiWorker {
        // The supervisor's to give, not a worker's.
        drop(self.answer.take());
        WsgiWorker::new(self.workers.get(&generation).unwrap_or(&self.first).clone())
    }

    fn reload(&mut self, generation: u64) -> mcsup_core::Result<Option<Config>> {
        let refused = |failure: Failure| Error::new(ErrorKind::Setting, failure.to_string());
        let settings = (self.reread)().map_err(refused)?;
        let worker = worker_settings(&settings, &self.argv, &self.output).map_err(refused)?;
        let config = wiring::pool(&settings).map_err(refused)?;
        self.warn_of_what_stays(&settings);
        share_standard_library(&settings, &worker);
        self.workers.insert(generation, worker);
        Ok(Some(config))
    }

    fn forget(&mut self, generation: u64) {
        self.workers.remove(&generation);
    }

    fn taken_over(&mut self) {
        standard::share(&self.first.target.module, &self.first.python_path);
    }

    fn listening(&mut self, locals: &[&Local]) {
        share_standard_library(&self.settings, &self.first);
        for local in locals {
            let scheme = if matches!(local, Local::Tcp(_)) { "http://" } else { "" };
            log::info!("Listening at: {scheme}{local} ({})", std::process::id());
        }
    }

    fn ready(&mut self) {
        if let Some(answer) = self.answer.take() {
            answer.ready();
        }
    }

    fn reopen_logs(&mut self) {
        self.output.reopen();
    }

    fn before_fork(&mut self) {
        fork::before();
    }

    fn after_fork(&mut self, side: ForkSide) {
        match side {
            ForkSide::Supervisor | ForkSide::Mold => fork::after_in_parent(),
            ForkSide::Worker => fork::after_in_child(),
        }
    }
}

/// Before the first fork. Not beside a mold: it shares everything with its workers, and a third copy of what they write
/// to would stay here.
fn share_standard_library(settings: &Settings, worker: &WorkerSettings) {
    if !*settings.mold.preload {
        standard::share(&worker.target.module, &worker.python_path);
    }
}

fn worker_settings(
    settings: &Settings,
    argv: &[OsString],
    output: &Output,
) -> Result<WorkerSettings, Failure> {
    let mut worker = wiring::worker_settings(settings, argv, &output.log)?;
    let reopened = output.clone();
    worker.reopen_error_log = Arc::new(move || reopened.reopen());
    Ok(worker)
}

/// The error log, and in a daemon with it whatever is printed.
#[derive(Clone)]
pub(super) struct Output {
    pub(super) log: ErrorLog,
    pub(super) is_daemon: bool,
}

impl Output {
    fn reopen(&self) {
        if let Err(error) = self.log.reopen().and_then(|()| self.redirect()) {
            log::error!("{error}");
        }
    }

    /// A daemon has no terminal: what it prints belongs into the log, where that is a file.
    pub(super) fn redirect(&self) -> Result<(), LogError> {
        if self.is_daemon { self.log.take_standard_streams() } else { Ok(()) }
    }
}
