//! The kinds of applications that a pool runs: WSGI, or a program of any language.

use std::ffi::OsString;
use std::sync::Arc;

use mcsup_core::{Children, Config, ForkSide, Program, Worker};
use mcsup_py::python::{fork, standard};
use mcsup_py::{WorkerSettings, WsgiWorker};

use super::check;
use super::pool::Output;
use super::wiring;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::settings::program::ProgramSettings;
use crate::settings::{Origin, Settings};

/// The part of a pool that depends on its application.
pub(crate) trait Application {
    /// The code of each worker.
    type Worker: Worker;
    /// The settings of the workers of one generation.
    type Made;

    /// Refuses settings that are wrong, before anything changes.
    fn check(&self, settings: &Settings) -> Result<(), Failure>;

    /// Loads the application once, and describes it.
    fn try_out(&self, settings: &Settings, config: &Config) -> Result<(Exit, String), Failure>;

    /// Changes the configuration of the supervisor as the application needs it.
    fn configure(&self, config: &mut Config);

    /// Makes the settings of the workers of a generation.
    fn make(&self, settings: &Settings, config: &Config, output: &Output) -> Result<Self::Made, Failure>;

    /// Makes a worker, in its process.
    fn worker(made: &Self::Made) -> Self::Worker;

    /// Prepares the supervisor for the workers of a generation.
    fn prepare(settings: &Settings, made: &Self::Made);

    /// The part of a URL before a TCP address.
    const SCHEME: &str;

    /// Runs before a fork (`None`) and after it in both processes, with whether this is the new one.
    fn around_fork(after_in_child: Option<bool>);
}

/// A WSGI application, with the command line of this process.
#[derive(Debug)]
pub(crate) struct Wsgi(pub(crate) Vec<OsString>);

impl Application for Wsgi {
    type Worker = WsgiWorker;
    type Made = WorkerSettings;

    const SCHEME: &str = "http://";

    fn check(&self, settings: &Settings) -> Result<(), Failure> {
        if let Some(other) = settings.binds.value.iter().find(|address| !address.may_be_stream()) {
            let why = format!("cannot listen on {other}: Python workers serve TCP and Unix stream sockets");
            return Err(Failure::usage(why));
        }
        wiring::target(settings)?;
        wiring::access_log(settings).map(drop)
    }

    fn try_out(&self, settings: &Settings, config: &Config) -> Result<(Exit, String), Failure> {
        check::run(settings, config, &self.0)
    }

    fn configure(&self, config: &mut Config) {
        config.listener.streams_only = true;
    }

    fn make(&self, settings: &Settings, _: &Config, output: &Output) -> Result<WorkerSettings, Failure> {
        let mut worker = wiring::worker_settings(settings, &self.0, &output.log)?;
        let reopened = output.clone();
        worker.reopen_error_log = Arc::new(move || reopened.reopen());
        Ok(worker)
    }

    fn worker(made: &WorkerSettings) -> WsgiWorker {
        WsgiWorker::new(made.clone())
    }

    /// Imports the standard library modules of the application, before the first fork.
    ///
    /// Not with a mold, which shares all memory with its workers: the supervisor would hold a further copy.
    fn prepare(settings: &Settings, made: &WorkerSettings) {
        if !*settings.mold.preload && !*settings.no_share_stdlib {
            standard::share(&made.target.module, &made.python_path);
        }
    }

    fn around_fork(after_in_child: Option<bool>) {
        match after_in_child {
            None => fork::before(),
            Some(true) => fork::after_in_child(),
            Some(false) => fork::after_in_parent(),
        }
    }
}

/// A program of any language.
#[derive(Debug)]
pub(crate) struct Executed(pub(crate) ProgramSettings);

impl Application for Executed {
    type Worker = Program;
    type Made = Program;

    const SCHEME: &str = "";

    fn check(&self, settings: &Settings) -> Result<(), Failure> {
        self.0.watchdog(settings.pool.timeout.value)?;
        let binds = &settings.binds.origin;
        if self.0.no_listener && !matches!(binds, Origin::Default | Origin::Variable("PORT")) {
            return Err(Failure::usage(format!("--no-listener, and an address from {binds}")));
        }
        if self.0.no_listener {
            self.0.check_without_listener()?;
        }
        if self.0.blocking && settings.reuse_port.value {
            return Err(Failure::usage(
                "--blocking and --reuse-port: the supervisor accepts from the sockets of a slot that ends",
            ));
        }
        Ok(())
    }

    /// Only the program itself can tell whether it works.
    fn try_out(&self, _: &Settings, _: &Config) -> Result<(Exit, String), Failure> {
        Err(Failure::usage("a program cannot be checked without a start"))
    }

    /// The program runs as the user of the workers. Its worker does not: it sets limits that need privileges.
    fn configure(&self, config: &mut Config) {
        config.run_as = None;
        config.children = Children::End;
        if self.0.no_listener {
            config.addresses.clear();
            config.without_listeners = true;
        }
    }

    fn make(&self, settings: &Settings, config: &Config, output: &Output) -> Result<Program, Failure> {
        wiring::program(&self.0, settings, config, output)
    }

    fn worker(made: &Program) -> Program {
        made.clone()
    }

    fn prepare(_: &Settings, _: &Program) {}

    /// No Python runs in the workers.
    fn around_fork(_: Option<bool>) {}
}

/// The value for [`Application::around_fork`].
pub(super) fn side(side: ForkSide) -> Option<bool> {
    Some(side == ForkSide::Worker)
}
