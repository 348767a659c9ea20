//! `mcsup run`: settings become a pool of WSGI workers.

use std::cell::Cell;
use std::ffi::OsString;
use std::rc::Rc;

use mcsup_core::host::daemon::{self, Answer, Detached, Verdict};
use mcsup_core::host::service_manager::ServiceManager;
use mcsup_core::upgrade::{Image, Resumption};
use mcsup_core::{Config, Ending, Prefork};
use mcsup_py::python::fork;

use super::check;
use super::pool::{Output, Pool, ReadSettings};
use super::wiring::{self, UserLookup};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::logging::{Destination, ErrorLog, Level, LogError};
use crate::settings::{Origin, Settings, Sourced};

/// Serves until a stop; returns a text for standard output.
///
/// A reload calls `read_settings`. An upgrade executes `image`. `service_manager` has started this process. A `resumption` comes from the supervisor that this
/// process replaces.
pub(crate) fn run(
    settings: &Settings,
    read_settings: ReadSettings,
    argv: &[OsString],
    (image, service_manager): (Option<Image>, ServiceManager),
    resumption: &mut Option<Resumption>,
) -> Result<(Exit, String), Failure> {
    // Invalid settings are refused before anything changes.
    wiring::target(settings)?;
    wiring::access_log(settings)?;
    if let Some(directory) = &settings.process.chdir {
        std::env::set_current_dir(&directory.value).map_err(|error| {
            Failure::usage(format!("cannot change to the directory {}: {error}", directory.value.display()))
        })?;
    }
    let mut config = wiring::pool(settings, None)?;
    config.image = image;
    config.addresses = wiring::addresses(settings, &service_manager);
    config.service_manager = service_manager;
    if settings.check_config.value {
        return check::run(settings, &config, argv);
    }
    let answer = Rc::new(Cell::new(None));
    // An upgraded image is in the background already.
    if settings.process.daemon.value && resumption.is_none() {
        match detach()? {
            Detached::Original(Verdict::Ready { note }) => {
                let lines = [note, log_of_daemon(&settings.logging.errors)];
                let text = lines.into_iter().filter(|line| !line.is_empty());
                return Ok((Exit::Done, text.map(|line| line + "\n").collect()));
            }
            Detached::Original(Verdict::Failed { code, reason }) => {
                return Err(Failure::new(Exit::from_code(code), reason));
            }
            Detached::Daemon(pipe) => answer.set(Some(pipe)),
        }
    }
    let ended = serve(settings, read_settings, config, argv, (&answer, resumption));
    match (ended, answer.take()) {
        // The process that waits for the daemon prints it.
        (Err(failure), Some(answer)) => {
            answer.failed(failure.exit.code(), &failure.to_string());
            Ok((failure.exit, String::new()))
        }
        // The log has written it to standard error.
        (Err(failure), None)
            if settings.logging.errors.value == Destination::Standard && failure.is_logged =>
        {
            Ok((failure.exit, String::new()))
        }
        (ended, _) => ended.map(|exit| (exit, String::new())),
    }
}

/// Opens the log and runs the pool.
fn serve(
    settings: &Settings,
    read_settings: ReadSettings,
    config: Config,
    argv: &[OsString],
    (answer, resumption): (&Rc<Cell<Option<Answer>>>, &mut Option<Resumption>),
) -> Result<Exit, Failure> {
    // A dry run changes no file, and reports on standard error to the supervisor that runs it.
    let is_check = resumption.as_ref().is_some_and(Resumption::is_check);
    let errors = if is_check { &Destination::Standard } else { &settings.logging.errors.value };
    let log = install_log(errors, settings.logging.level.value, resumption.is_some())?;
    let output = Output { log, is_daemon: settings.process.daemon.value };
    if !is_check {
        output.redirect()?;
        output.give_away(settings, &config, resumption.is_some())?;
    }
    let pool = Pool::new(
        settings,
        (read_settings, UserLookup::of(settings, &config)),
        config.service_manager.clone(),
        argv,
        output,
        Rc::clone(answer),
    )?;
    if resumption.is_none() {
        log::info!("Starting mcsup {}", env!("CARGO_PKG_VERSION"));
    }
    outcome(&Prefork::with_config(pool, config).resume(resumption.take()).run())
}

/// Opens the log. After an upgrade a log that cannot be opened is replaced by standard error.
fn install_log(errors: &Destination, level: Level, takes_over: bool) -> Result<ErrorLog, LogError> {
    match ErrorLog::install(errors, level) {
        Err(error) if takes_over => {
            let log = ErrorLog::install(&Destination::Standard, level)?;
            log::error!("{error}; going on with standard error");
            Ok(log)
        }
        installed => installed,
    }
}

fn outcome(ending: &Ending) -> Result<Exit, Failure> {
    let exit = Exit::from_code(ending.code());
    match ending.error() {
        None => Ok(exit),
        Some(error) => Err(Failure::from(error).logged()),
    }
}

/// The line that names a daemon's log; empty if the operator has named it.
fn log_of_daemon(errors: &Sourced<Destination>) -> String {
    match (&errors.value, &errors.origin) {
        (Destination::File(path), Origin::Default) => {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            format!("logging to {}", path.display())
        }
        (Destination::Standard, _) => "keeping no log: --error-logfile names a file for it".to_owned(),
        (Destination::File(_), _) => String::new(),
    }
}

fn detach() -> Result<Detached, Failure> {
    Ok(daemon::detach(None, fork_hooks)?)
}

/// Python's part of a fork: `None` before it, `Some(is_child)` after it.
pub(super) fn fork_hooks(after_in_child: Option<bool>) {
    match after_in_child {
        None => fork::before(),
        Some(true) => fork::after_in_child(),
        Some(false) => fork::after_in_parent(),
    }
}
