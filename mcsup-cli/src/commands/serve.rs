//! `mcsup run` and `mcsup exec`: settings become a pool of workers.

use std::cell::{Cell, RefCell};
use std::io::IsTerminal;
use std::rc::Rc;

use mcsup_core::host::daemon::{self, Answer, Detached, Streams, Verdict};
use mcsup_core::host::service_manager::ServiceManager;
use mcsup_core::upgrade::{Image, Resumption};
use mcsup_core::{Config, Ending, Prefork};

use super::application::Application;
use super::hooks::Hooks;
use super::output::Output;
use super::pool::Pool;
use super::reading::Reading;
use super::remote::Remote;
use super::wiring::{self, UserLookup};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::logging::{Destination, ErrorLog, LogError};
use crate::settings::{Logging, Origin, Settings, Sourced};

/// Serves until a stop; returns a text for standard output.
///
/// A reload uses `reading` again. An upgrade executes `image`. `service_manager` has started this process. A `resumption` comes from the supervisor that this
/// process replaces.
pub(crate) fn run<A: Application>(
    application: A,
    settings: &Settings,
    reading: Reading,
    (image, service_manager): (Option<Image>, ServiceManager),
    resumption: &mut Option<Resumption>,
) -> Result<(Exit, String), Failure> {
    // Invalid settings are refused before anything changes.
    application.check(settings)?;
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
        return application.try_out(settings, &config);
    }
    let answer = Rc::new(Cell::new(None));
    let keeps_streams = *settings.process.keeps_streams;
    let streams = if keeps_streams { Streams::Kept } else { Streams::Null };
    // In place of a terminal the daemon has /dev/null.
    let keeps_errors = keeps_streams && !std::io::stderr().is_terminal();
    // An upgraded image is in the background already.
    if settings.process.daemon.value && resumption.is_none() {
        match daemon::detach(streams, A::around_fork)? {
            Detached::Original(Verdict::Ready { note }) => {
                let lines = [note, log_of_daemon(&settings.logging.errors, keeps_errors)];
                let text = lines.into_iter().filter(|line| !line.is_empty());
                return Ok((Exit::Done, text.map(|line| line + "\n").collect()));
            }
            Detached::Original(Verdict::Failed { code, reason }) => {
                return Err(Failure::new(Exit::from_code(code), reason));
            }
            Detached::Daemon(pipe) => answer.set(Some(pipe)),
        }
    }
    let ended = serve((application, settings), reading, config, (&answer, resumption));
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
fn serve<A: Application>(
    (application, settings): (A, &Settings),
    reading: Reading,
    mut config: Config,
    (answer, resumption): (&Rc<Cell<Option<Answer>>>, &mut Option<Resumption>),
) -> Result<Exit, Failure> {
    // A dry run changes no file, and reports on standard error to the supervisor that runs it.
    let is_check = resumption.as_ref().is_some_and(Resumption::is_check);
    let errors = if is_check { &Destination::Standard } else { &settings.logging.errors.value };
    let name = application.service_name(settings);
    config.title = Some(wiring::title(&name));
    let remote = Remote::open(settings, &name, resumption.is_some())?;
    let log = install_log(errors, &settings.logging, &remote, resumption.is_some())?;
    remote.warnings.iter().for_each(|warning| log::error!("{warning}"));
    let is_daemon = *settings.process.daemon && !*settings.process.keeps_streams;
    let output = Output { log, takes_streams: is_daemon || *settings.logging.capture_output, remote };
    let first = application.make(settings, &config, &output)?;
    let users = UserLookup::of(settings, &config);
    application.configure(&mut config);
    if !is_check {
        output.redirect()?;
        output.give_away(settings, &config, resumption.is_some())?;
    }
    let hooks =
        Hooks::new(settings, reading.arguments().to_vec(), output.clone(), config.service_manager.clone());
    let hooks = Rc::new(RefCell::new(hooks));
    let pool = Pool::new(
        (application, first),
        settings,
        (reading, users),
        config.service_manager.clone(),
        output,
        (Rc::clone(&hooks), Rc::clone(answer)),
    );
    if resumption.is_none() {
        log::info!("Starting mcsup {}", env!("CARGO_PKG_VERSION"));
        settings.warnings.iter().for_each(|warning| log::warn!("{warning}"));
    }
    let ending = Prefork::with_config(pool, config).resume(resumption.take()).run();
    hooks.borrow_mut().finish();
    outcome(&ending)
}

/// Opens the log. After an upgrade a log that cannot be opened is replaced by standard error.
fn install_log(
    errors: &Destination,
    logging: &Logging,
    remote: &Remote,
    takes_over: bool,
) -> Result<ErrorLog, LogError> {
    let (level, targets) = (logging.level.value, (logging.form.value, &remote.errors));
    match ErrorLog::install(errors, level, targets) {
        Err(error) if takes_over => {
            let log = ErrorLog::install(&Destination::Standard, level, targets)?;
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
fn log_of_daemon(errors: &Sourced<Destination>, keeps_errors: bool) -> String {
    match (&errors.value, &errors.origin) {
        (Destination::File(path), Origin::Default) => {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            format!("logging to {}", path.display())
        }
        (Destination::Standard, _) if keeps_errors => String::new(),
        (Destination::Standard, _) => "keeping no log: --error-logfile names a file for it".to_owned(),
        (Destination::File(_), _) => String::new(),
    }
}
