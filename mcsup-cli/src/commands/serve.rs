//! `mcsup run`: settings become a pool of WSGI workers.

use std::cell::Cell;
use std::ffi::OsString;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use mcsup_core::host::daemon::{self, Answer, Detached, Verdict};
use mcsup_core::host::privileges::RunAs;
use mcsup_core::{Address, Config, Ending, ForkSide, Local, Prefork, Supervisor};
use mcsup_py::access::Format;
use mcsup_py::engine::{EngineConfig, Timeouts};
use mcsup_py::http::head::Limits;
use mcsup_py::python::fork;
use mcsup_py::python::loading::Target;
use mcsup_py::worker::{self, WorkerSettings, WsgiWorker};
use mcsup_py::wsgi::WsgiSettings;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::logging::{Destination, ErrorLog, LogError};
use crate::settings::Settings;

const NAME_AND_VERSION: &str = concat!("mcsup/", env!("CARGO_PKG_VERSION"));

/// Serves until it is told to stop.
pub(crate) fn run(settings: &Settings, argv: &[OsString]) -> Result<Exit, Failure> {
    let target: Target = settings.target()?.parse().map_err(Failure::usage)?;
    let access = access_log(settings)?;
    if let Some(directory) = &settings.process.chdir {
        std::env::set_current_dir(&directory.value).map_err(|error| {
            Failure::refused(format!("cannot change to the directory {}: {error}", directory.value.display()))
        })?;
    }
    let config = pool(settings)?;
    let work = |log: &ErrorLog| worker_settings(settings, target, access, argv, log);
    if settings.check_config.value {
        let log = ErrorLog::install(&Destination::Standard, settings.logging.level.value)?;
        worker::check(&work(&log))?;
        return Ok(Exit::Done);
    }
    let answer = Rc::new(Cell::new(None));
    if settings.process.daemon.value {
        match detach()? {
            Detached::Original(Verdict::Ready) => return Ok(Exit::Done),
            Detached::Original(Verdict::Failed { code, reason }) => {
                return Err(Failure::new(Exit::from_code(code), reason));
            }
            Detached::Daemon(pipe) => answer.set(Some(pipe)),
        }
    }
    let ended = serve(settings, config, &answer, work);
    match (ended, answer.take()) {
        // Whoever waits for the daemon prints it.
        (Err(failure), Some(answer)) => {
            answer.failed(failure.exit.code(), &failure.to_string());
            Ok(failure.exit)
        }
        // On standard error by way of the log already.
        (Err(failure), None)
            if settings.logging.errors.value == Destination::Standard && failure.is_logged =>
        {
            Ok(failure.exit)
        }
        (ended, _) => ended,
    }
}

/// Opens the log and runs the pool.
fn serve(
    settings: &Settings,
    config: Config,
    answer: &Rc<Cell<Option<Answer>>>,
    work: impl FnOnce(&ErrorLog) -> WorkerSettings,
) -> Result<Exit, Failure> {
    let log = ErrorLog::install(&settings.logging.errors.value, settings.logging.level.value)?;
    let output = Output { log: log.clone(), is_daemon: settings.process.daemon.value };
    output.redirect()?;
    give_logs_away(settings, &config, &log)?;
    let mut worker = work(&log);
    let reopened = output.clone();
    worker.reopen_error_log = Arc::new(move || reopened.reopen());
    log::info!("Starting mcsup {}", env!("CARGO_PKG_VERSION"));
    let pool = Pool { worker, output, answer: Rc::clone(answer) };
    outcome(&Prefork::with_config(pool, config).run())
}

fn outcome(ending: &Ending) -> Result<Exit, Failure> {
    let exit = Exit::from_code(ending.code());
    match ending.error() {
        None => Ok(exit),
        Some(error) => Err(Failure::from(error).logged()),
    }
}

/// The supervisor's side of a WSGI pool.
struct Pool {
    worker: WorkerSettings,
    output: Output,
    answer: Rc<Cell<Option<Answer>>>,
}

impl Supervisor for Pool {
    type Worker = WsgiWorker;

    fn worker(&mut self) -> WsgiWorker {
        // The supervisor's to give, not a worker's.
        drop(self.answer.take());
        WsgiWorker::new(self.worker.clone())
    }

    fn listening(&mut self, locals: &[&Local]) {
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
            ForkSide::Supervisor => fork::after_in_parent(),
            ForkSide::Worker => fork::after_in_child(),
        }
    }
}

/// The error log, and in a daemon with it whatever is printed.
#[derive(Clone)]
struct Output {
    log: ErrorLog,
    is_daemon: bool,
}

impl Output {
    fn reopen(&self) {
        if let Err(error) = self.log.reopen().and_then(|()| self.redirect()) {
            log::error!("{error}");
        }
    }

    /// A daemon has no terminal: what it prints belongs into the log, where that is a file.
    fn redirect(&self) -> Result<(), LogError> {
        if self.is_daemon { self.log.take_standard_streams() } else { Ok(()) }
    }
}

fn detach() -> Result<Detached, Failure> {
    Ok(daemon::detach(None, |after_in_child| match after_in_child {
        None => fork::before(),
        Some(true) => fork::after_in_child(),
        Some(false) => fork::after_in_parent(),
    })?)
}

/// What the supervisor is started with.
fn pool(settings: &Settings) -> Result<Config, Failure> {
    let text = |setting: &Option<crate::settings::Sourced<String>>| {
        setting.as_ref().map(|setting| setting.value.clone())
    };
    let process = &settings.process;
    let run_as = RunAs::look_up(text(&process.user).as_deref(), text(&process.group).as_deref())?;
    let mut config = Config {
        addresses: settings
            .binds
            .value
            .iter()
            .map(|bind| bind.parse())
            .collect::<Result<Vec<Address>, _>>()?,
        pid_file: process.pid.as_ref().map(|path| path.value.clone()),
        name: text(&process.name),
        ..Config::default()
    };
    config.listener.backlog = settings.backlog.value;
    if let Some(umask) = &process.umask {
        config.listener.unix_mode = 0o777 & !umask.value;
    }
    config.listener.unix_owner = (run_as.as_ref().map(RunAs::uid), run_as.as_ref().map(RunAs::gid));
    config.run_as = run_as;
    config.policy.workers = settings.workers.value;
    config.policy.timeout = settings.pool.timeout.value;
    config.policy.graceful_timeout = settings.pool.graceful.value;
    config.policy.boot_timeout = settings.pool.boot.value;
    config.policy.seed = u64::from(std::process::id());
    Ok(config)
}

/// What each worker is made with.
fn worker_settings(
    settings: &Settings,
    target: Target,
    access: Option<(Format, String)>,
    argv: &[OsString],
    log: &ErrorLog,
) -> WorkerSettings {
    let environment = settings.process.env.value.clone();
    let given =
        environment.iter().rev().find(|(name, _)| name == "SCRIPT_NAME").map(|(_, value)| value.clone());
    let wsgi = WsgiSettings {
        multithread: settings.threads.value > 1,
        // Also with one worker: during a reload two generations serve.
        multiprocess: true,
        server_software: NAME_AND_VERSION.to_owned(),
        script_name: given.or_else(|| std::env::var("SCRIPT_NAME").ok()).unwrap_or_default(),
        errors: log.raw_writer(),
    };
    WorkerSettings {
        target,
        python_path: settings.python_path.as_ref().map(|path| path.value.clone()).unwrap_or_default(),
        venv: std::env::var_os("VIRTUAL_ENV").map(Into::into),
        arguments: argv.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
        threads: settings.threads.value,
        engine: engine(settings),
        access,
        wsgi,
        environment,
        error_log: log.fd(),
        reopen_error_log: Arc::new(|| {}),
    }
}

fn engine(settings: &Settings) -> EngineConfig {
    let (http, limits) = (&settings.http, &settings.limits);
    let request = match &http.request {
        Some(given) => given.value,
        // One thread that hangs is a worker that hangs.
        None if settings.threads.value == 1 => settings.pool.timeout.value,
        None => None,
    };
    EngineConfig {
        timeouts: Timeouts {
            head: http.header.value,
            body: http.body.value,
            keep_alive: http.keep_alive.value,
            write: http.write.value,
            request,
        },
        limits: Limits {
            line: limits.line.value,
            fields: limits.fields.value,
            field_size: limits.field_size.value,
            body: limits.body.value,
        },
        connections: limits.connections.value,
        ..EngineConfig::default()
    }
}

fn access_log(settings: &Settings) -> Result<Option<(Format, String)>, Failure> {
    let format = Format::parse(&settings.logging.access_format.value).map_err(Failure::usage)?;
    Ok(settings.logging.access.as_ref().map(|place| match &place.value {
        Destination::Standard => (format, "-".to_owned()),
        Destination::File(path) => (format, path.to_string_lossy().into_owned()),
    }))
}

/// Workers that run as somebody else must be able to open the logs anew.
fn give_logs_away(settings: &Settings, config: &Config, log: &ErrorLog) -> Result<(), Failure> {
    let Some(run_as) = &config.run_as else { return Ok(()) };
    log.give_to(run_as.uid(), run_as.gid())?;
    if let Some(Destination::File(path)) = settings.logging.access.as_ref().map(|place| &place.value) {
        give_file_away(path, run_as).map_err(|error| {
            Failure::refused(format!("cannot give the access log {} to its user: {error}", path.display()))
        })?;
    }
    Ok(())
}

fn give_file_away(path: &Path, run_as: &RunAs) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = std::fs::OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
    if file.metadata()?.is_file() {
        std::os::unix::fs::fchown(file, Some(run_as.uid()), Some(run_as.gid()))?;
    }
    Ok(())
}
