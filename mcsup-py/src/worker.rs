//! The worker: an engine, an interpreter and an application in a process of `mcsup-core`'s.

mod checking;
mod hooking;
mod logs;
mod process;
mod termination;

use std::os::fd::{AsFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mcsup_core::{Error, ErrorKind, Phase, SignalsBlocked, Worker, WorkerContext, WorkerResult};
use pyo3::prelude::*;

use crate::access::{AccessLog, AccessSettings};
use crate::app::{App, Local};
use crate::conf::Script;
use crate::engine::{self, EngineConfig, Listening, Threads};
use crate::python::imported::Imported;
use crate::python::loading::{self, Application, LoadError};
use crate::python::logging::{self, Feeder, LogConfig, Loggers, WriteRecord};
use crate::python::{application_forks, ending, fork, interpreter, site, traceback};
use crate::targets::Queue;
use crate::watch::{BrokenPage, ReloadSettings, Watcher};
use crate::wsgi::{IsDraining, WsgiApp, WsgiSettings};

pub use checking::check;
use hooking::Hooking;
use process::Process;
use termination::Terminating;

/// Has the records of the error log passed to a queue for Python; `None`: no longer.
pub type RedirectErrors = Arc<dyn Fn(Option<Queue>) + Send + Sync>;

/// The settings of a WSGI worker.
#[derive(Clone)]
pub struct WorkerSettings {
    /// The application.
    pub target: Application,
    /// Put in front of `sys.path`.
    pub python_path: Vec<String>,
    /// A virtual environment, for an interpreter that is not running yet.
    pub venv: Option<PathBuf>,
    /// `sys.argv`.
    pub arguments: Vec<String>,
    /// How many threads call the application.
    pub threads: usize,
    /// Deadlines and limits.
    pub engine: EngineConfig,
    /// A configuration in Python, which is executed before the application is loaded.
    pub conf: Option<Script>,
    /// Whether the worker needs that configuration, which has hooks of workers or `logconfig_dict`. Another one that the
    /// user of the worker may not execute is left out, with a warning.
    pub needs_conf: bool,
    /// The settings by gunicorn's names, a JSON object: the hooks of that configuration read them.
    pub cfg: Arc<str>,
    /// Format and targets of the access log.
    pub access: AccessSettings,
    /// Files for Python's `logging`.
    pub log_config: LogConfig,
    /// Writes a record of Python's `logging` to the error log.
    pub write_record: WriteRecord,
    /// Has the error log pass its records to a queue from now on, or no longer.
    pub redirect_errors: RedirectErrors,
    /// The server's properties for the application.
    pub wsgi: WsgiSettings,
    /// For development: asks for a reload when files change, and shows browsers why it failed.
    pub reload: Option<ReloadSettings>,
    /// Added to `os.environ`.
    pub environment: Vec<(String, String)>,
    /// The error log's descriptor, where stacks are dumped when the process is aborted.
    pub error_log: RawFd,
    /// Reopens the error log, with the same descriptor.
    pub reopen_error_log: Arc<dyn Fn() + Send + Sync>,
    /// Sends records that the error log keeps for a target on the network, without a wait; `None`: it keeps none.
    pub send_error_log: Option<Arc<dyn Fn() + Send + Sync>>,
}

/// The worker.
pub struct WsgiWorker {
    settings: WorkerSettings,
    callable: Option<Py<PyAny>>,
    hooks: Hooking,
    terminating: Terminating,
    access: Option<AccessLog>,
    /// Configured together with the application.
    loggers: Option<Loggers>,
    /// Has seen the files before they were loaded, so that no change in between is missed.
    watcher: Option<Watcher>,
}

impl WsgiWorker {
    /// A worker that has loaded nothing yet.
    pub fn new(settings: WorkerSettings) -> Self {
        let (hooks, terminating) = (Hooking::default(), Terminating::default());
        Self { settings, callable: None, hooks, terminating, access: None, loggers: None, watcher: None }
    }

    /// Where files are to be watched. Not in a mold: a watcher is a thread.
    fn begin_to_watch(&mut self) {
        if let (None, Some(reload)) = (&self.watcher, &self.settings.reload) {
            let _blocked = SignalsBlocked::for_new_threads();
            self.watcher = Some(watcher(reload, &self.settings.python_path));
        }
    }
}

impl Drop for WsgiWorker {
    /// The end of a worker or mold, also of one that did not boot.
    fn drop(&mut self) {
        log::logger().flush();
    }
}

impl Worker for WsgiWorker {
    fn load(&mut self, context: Option<&WorkerContext>) -> WorkerResult {
        interpreter::ensure(self.settings.venv.as_deref())
            .map_err(|reason| Error::new(ErrorKind::Boot, reason))?;
        if self.settings.threads == 1 {
            // Before the application, whose own functions for forks are then called beside these threads.
            if let Err(error) = Python::attach(application_forks::have_one_thread_at_forks) {
                log::warn!("threads of the server will run while the application forks: {error}");
            }
        }
        if context.is_some() {
            self.begin_to_watch();
        }
        prepare(&self.settings)?;
        let variables = self.hooks.define(&self.settings)?;
        self.loggers = logs::configure(&self.settings, variables.as_ref())?;
        if let Some(context) = context {
            self.hooks.begin(&self.settings, context, None)?;
        }
        self.terminating.begin(context);
        self.callable = Some(load(&self.settings).inspect_err(|_| self.hooks.end(context))?);
        if self.settings.threads == 1 {
            if let Err(error) = Python::attach(application_forks::come_back_when_counted) {
                log::warn!("Python will count threads of the server when the application forks: {error}");
            }
        }
        Ok(())
    }

    fn boot(&mut self, context: &WorkerContext) -> WorkerResult {
        self.begin_to_watch();
        self.hooks.begin(&self.settings, context, self.callable.as_ref())?;
        self.terminating.begin(Some(context));
        if let Some(callable) = self.callable.take() {
            let initialised = self.hooks.initialise(callable);
            self.callable = Some(initialised.inspect_err(|_| self.hooks.end(Some(context)))?);
        }
        self.access = logs::open_access_log(&self.settings.access, context.slot())?;
        Ok(())
    }

    fn prepare_to_fork(&mut self) {
        // A mold has no round that sends them later.
        log::logger().flush();
        if let Err(error) = Python::attach(fork::share_memory) {
            log::warn!("workers will share less memory: {error}");
        }
    }

    fn reopen_logs(&mut self) {
        (self.settings.reopen_error_log)();
        // A mold runs one thread, and waits for orders.
        logging::request_reopen();
        logging::reopen_due();
    }

    fn thread_names(&self) -> Vec<(i32, String)> {
        Python::attach(|py| fork::other_threads(py).unwrap_or_default())
    }

    fn run(&mut self, context: &WorkerContext) -> WorkerResult {
        let Some(callable) = &self.callable else {
            return Err("the worker was run before it was booted".into());
        };
        let mut access = self.access.take();
        let feeder = logs::start_feeder(self.loggers.take(), &self.settings, &mut access);
        let listeners = context.listeners().iter().map(|listener| {
            let local = match listener.local() {
                mcsup_core::Local::Tcp(address) => Local::Tcp(*address),
                // An abstract name as ss(8) shows it: an application should find no NUL in SERVER_NAME.
                mcsup_core::Local::Unix(path) => Local::Unix(path.to_string_lossy().replacen('\0', "@", 1)),
                other => Local::Unix(other.to_string()),
            };
            Listening { fd: listener.as_fd(), local }
        });
        let WorkerSettings { engine, wsgi, threads, reload, .. } = &self.settings;
        let (hooks, logs) = (&self.hooks, access.is_some());
        let apps = Python::attach(|py| {
            if let Err(error) = traceback::keep_stacks(py) {
                log::warn!("the stacks of requests over their time cannot be shown: {error}");
            }
            let is_draining: IsDraining = Arc::new(context.is_draining());
            let app = |_| -> Box<dyn App + Send + '_> {
                let app = WsgiApp::new(callable.clone_ref(py), wsgi.clone(), Arc::clone(&is_draining))
                    .with_hooks(hooks.of_requests(py));
                let app = if logs { app.keeping(self.settings.access.format.variables()) } else { app };
                match reload {
                    None => Box::new(app),
                    Some(_) => Box::new(BrokenPage::new(app, || context.broken())),
                }
            };
            (0..*threads).map(app).collect()
        });
        if let Some(watcher) = self.watcher.take() {
            start_watching(watcher, context.clone(), self.hooks.reload_wanted())?;
        }
        let host =
            Process { context, settings: &self.settings, hooks, loggers: feeder.as_ref().map(Feeder::queue) };
        let ended = engine::run(engine, listeners.collect(), &host, Threads { apps, life: attached }, access);
        self.terminating.end(context);
        self.hooks.end(Some(context));
        let feeder = logs::leave_if_stuck(feeder, &self.settings);
        Python::attach(ending::run_exit_functions);
        if let Some(feeder) = feeder {
            (self.settings.redirect_errors)(None);
            feeder.end();
        }
        Ok(ended.map_err(|error| Error::system("serve", error).of_kind(ErrorKind::Worker))?)
    }
}

/// Watches the directories in which the application is looked for.
fn watcher(reload: &ReloadSettings, python_path: &[String]) -> Watcher {
    let mut watcher = Watcher::new(&reload.extra, reload.engine);
    watcher.add_folder(Path::new(""));
    for entry in python_path {
        watcher.add_folder(Path::new(entry));
    }
    watcher
}

/// A thread of its own, which ends with the process, or soon after the worker is asked to.
fn start_watching(
    watcher: Watcher,
    context: WorkerContext,
    wanted: Arc<AtomicBool>,
) -> mcsup_core::Result<()> {
    let _blocked = SignalsBlocked::for_new_threads();
    let builder = std::thread::Builder::new().name("watcher".to_owned());
    let started = builder.spawn(move || watch(watcher, &context, &wanted));
    started.map(drop).map_err(|error| Error::system("start the watcher", error).of_kind(ErrorKind::Worker))
}

/// How often is looked for what the application has imported meanwhile.
const IMPORTS: Duration = Duration::from_secs(1);

/// Asks for a reload at each change, while this worker is one that a reload would replace.
fn watch(mut watcher: Watcher, context: &WorkerContext, wanted: &AtomicBool) {
    let (mut imported, mut broken) = (Imported::default(), None);
    while context.phase() == Phase::Serving {
        match Python::attach(|py| imported.look(py)) {
            Ok(files) => watcher.add_files(files),
            Err(error) => log::debug!("what was imported cannot be told: {error}"),
        }
        let newest = context.broken();
        if newest != broken {
            // Mending what only the new version has loaded must be noticed too.
            watcher.add_files(newest.iter().flat_map(|text| traceback::files_in(text)));
            broken = newest;
        }
        let Some(reason) = watcher.wait_for(IMPORTS) else { continue };
        wanted.store(true, Ordering::Relaxed);
        if let Err(error) = context.ask_reload(&reason) {
            return log::debug!("nobody hears that {reason}: {error}");
        }
    }
}

/// Completes the start of the interpreter.
fn prepare(settings: &WorkerSettings) -> mcsup_core::Result<()> {
    Python::attach(|py| {
        site::run(py, &settings.arguments).map_err(|error| {
            let summary = format!("Python's site failed: {}", traceback::one_line(py, &error));
            Error::new(ErrorKind::Boot, summary).with_detail(traceback::format(py, &error))
        })?;
        let prepared = interpreter::set_server(py, &settings.arguments)
            .and_then(|()| interpreter::set_environment(py, &settings.environment))
            .and_then(|()| traceback::dump_stacks_when_asked(py, settings.error_log));
        if let Err(error) = prepared {
            log::warn!("the interpreter is not quite as it should be: {error}");
        }
        // Its error is logged when the loggers get their handlers.
        let _ = Loggers::import(py);
        Ok(())
    })
}

fn load(settings: &WorkerSettings) -> mcsup_core::Result<Py<PyAny>> {
    Python::attach(|py| loading::load(py, &settings.target, &settings.python_path).map_err(in_words_of_core))
}

/// Attaches a thread to Python for its whole life, not for each request: its thread-local data stay.
fn attached(live: &mut (dyn FnMut() + Send)) {
    Python::attach(|py| py.detach(live));
}

fn in_words_of_core(error: LoadError) -> Error {
    let LoadError { summary, traceback } = error;
    let error = Error::new(ErrorKind::Application, summary);
    match traceback {
        Some(traceback) => error.with_detail(traceback),
        None => error,
    }
}
