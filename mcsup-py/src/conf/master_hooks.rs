//! The process that calls the hooks of gunicorn's master, beside the supervisor.
//!
//! It reads events from a socket. The end of these, which the end of the supervisor brings about, ends it too. A hook
//! that does not return in time ends it as well, with the hook's name in the log; the supervisor starts another one.
//!
//! It lives over reloads, as gunicorn's master does, and executes the new configuration in place: threads and objects
//! that hooks have made go on.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::PyDict;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::executing;
use super::master_events::{MasterEvent, MasterFacts};
use super::objects::{self, Own};
use super::source::Script;
use crate::access::AccessSettings;
use crate::python::loading::LoadError;
use crate::python::logging::{LogConfig, Loggers, Outputs, WriteRecord};
use crate::python::{ending, interpreter, site, traceback};

/// The exit code of a process whose hook did not return in time.
const HANGS: u8 = 3;
/// The exit code of a process that could not execute the configuration.
const BROKEN: u8 = 4;

/// The time that the code of the user has after the end of the supervisor.
const AFTER_SUPERVISOR: Duration = Duration::from_secs(5);
/// The interval between checks of the code that runs.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The stack of the thread that checks it.
const STACK: usize = 64 * 1024;

/// The settings of the process.
pub struct MasterHooks {
    /// The configuration with the hooks.
    pub script: Script,
    /// The settings by gunicorn's names, a JSON object.
    pub cfg: String,
    /// The facts about the pool.
    pub facts: MasterFacts,
    /// A virtual environment, for an interpreter that does not run yet.
    pub venv: Option<PathBuf>,
    /// `sys.argv`.
    pub arguments: Vec<String>,
    /// Added to `os.environ`.
    pub environment: Vec<(String, String)>,
    /// Files for Python's `logging`.
    pub log_config: LogConfig,
    /// Put in front of `sys.path` for such a file.
    pub python_path: Vec<String>,
    /// Writes a record of Python's `logging` to the error log.
    pub write_record: WriteRecord,
    /// The access log, to which hooks may write.
    pub access: AccessSettings,
    /// The longest time of a hook.
    pub limit: Duration,
    /// Reopens the error log.
    pub reopen_error_log: Box<dyn Fn()>,
}

/// The code of the user that runs, and since when.
static RUNNING: Mutex<Option<(Running, Instant)>> = Mutex::new(None);
static CHANGED: Condvar = Condvar::new();

/// Code of the user, which may not return.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Running {
    Hook(&'static str),
    Execution(String),
    ExitFunctions,
}

impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Running::Hook(name) => write!(f, "The hook {name} has not returned"),
            Running::Execution(source) => write!(f, "The process of the hooks has not executed {source}"),
            Running::ExitFunctions => {
                f.write_str("The exit functions of the hooks' process have not returned")
            }
        }
    }
}

impl MasterHooks {
    /// Calls the hooks at the events from `events` until its end, and returns the exit code of the process. For a process
    /// that does nothing else.
    ///
    /// To `progress` it writes the number of events that it has begun, as 8 bytes, the lowest first. `OnStarting` counts
    /// once it is over. A number that finds no room is lost, and the next one replaces it.
    pub fn run(self, events: OwnedFd, progress: OwnedFd) -> u8 {
        let watched = events.try_clone();
        let begun = watched.and_then(|events| start_watching(events, self.limit));
        if let Err(error) = begun {
            log::warn!("Hooks that do not return cannot be detected: {error}");
        }
        set_running(Some(Running::Execution(self.script.source.to_string())));
        let master = match self.start() {
            Ok(master) => master,
            Err(error) => {
                log_error("The hooks of the master cannot be called", &error);
                log::logger().flush();
                return BROKEN;
            }
        };
        set_running(None);
        let mut progress = UnixStream::from(progress);
        let mut report = |begun: u64| {
            let _ = progress.write_all(&begun.to_le_bytes());
        };
        let mut begun = 0;
        for line in BufReader::new(File::from(events)).lines() {
            // The end of the supervisor, or a mistake of it.
            let Ok(line) = line else { break };
            begun += 1;
            let Ok(event) = serde_json::from_str::<MasterEvent>(&line) else { continue };
            if event != (MasterEvent::OnStarting {}) {
                report(begun);
            }
            match &event {
                MasterEvent::ReopenLogs {} => (self.reopen_error_log)(),
                MasterEvent::Reload { script, cfg, app, environment } => {
                    self.reload(&master, script, (cfg, app, environment));
                }
                _ => handle(&master, &event, &line),
            }
            // This process may wait, and its next event may be late.
            log::logger().flush();
            if event == (MasterEvent::OnStarting {}) {
                report(begun);
            }
            if event == (MasterEvent::OnExit {}) {
                break;
            }
        }
        set_running(Some(Running::ExitFunctions));
        Python::attach(ending::run_exit_functions);
        log::logger().flush();
        0
    }

    /// Executes the configuration, and makes the objects of the hooks.
    fn start(&self) -> Result<Py<PyAny>, LoadError> {
        interpreter::ensure(self.venv.as_deref()).map_err(LoadError::new)?;
        Python::attach(|py| {
            let broken = |error: PyErr| LoadError::raised(py, "cannot make the objects of hooks", &error);
            site::run(py, &self.arguments)
                .and_then(|()| interpreter::set_server(py, &self.arguments))
                .and_then(|()| interpreter::set_environment(py, &self.environment))
                .map_err(broken)?;
            Loggers::import(py).map_err(broken)?;
            let namespace = executing::execute(py, &self.script)?;
            self.configure_logging(py, namespace.bind(py))?;
            self.make(py, namespace.bind(py)).map_err(broken)
        })
    }

    /// As in a worker, so that hooks log as they do under gunicorn.
    fn configure_logging(&self, py: Python<'_>, namespace: &Bound<'_, PyDict>) -> Result<(), LoadError> {
        let outputs = Outputs::new(&self.write_record, &self.access);
        let files = (&self.log_config, &self.python_path[..]);
        Loggers::configure(py, files, Some(namespace), outputs).map(drop)
    }

    /// Executes the configuration again, for the hooks of another generation.
    fn reload(
        &self,
        master: &Py<PyAny>,
        script: &Script,
        (cfg, app, environment): (&str, &str, &[(String, String)]),
    ) {
        set_running(Some(Running::Execution(script.source.to_string())));
        let reloaded = Python::attach(|py| {
            let broken = |error: PyErr| LoadError::raised(py, "cannot make the objects of hooks", &error);
            master
                .call_method0(py, "keep")
                .and_then(|_| interpreter::set_environment(py, environment))
                .map_err(broken)?;
            let namespace = executing::execute(py, script)?;
            self.configure_logging(py, namespace.bind(py))?;
            let (cfg, log) = settings(py, cfg, namespace.bind(py)).map_err(broken)?;
            master.call_method1(py, "reload", (namespace, cfg, log, app)).map_err(broken)?;
            ending::flush_output(py);
            Ok::<(), LoadError>(())
        });
        Python::attach(|py| ending::end_if_forked_off(py, None));
        set_running(None);
        if let Err(error) = reloaded {
            log_error("The earlier hooks of the master stay", &error);
        }
    }

    fn make(&self, py: Python<'_>, namespace: &Bound<'_, PyDict>) -> PyResult<Py<PyAny>> {
        let (cfg, log) = settings(py, &self.cfg, namespace)?;
        let facts = serde_json::to_string(&self.facts).unwrap_or_default();
        let facts = py.import("json")?.call_method1("loads", (facts,))?;
        Ok(Own::Master.module(py)?.getattr("Master")?.call1((namespace, cfg, log, facts))?.unbind())
    }
}

/// The objects `cfg` and `log`.
fn settings<'py>(
    py: Python<'py>,
    cfg: &str,
    namespace: &Bound<'py, PyDict>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let cfg = objects::cfg(py, cfg, namespace)?;
    let log = objects::logger(py, &cfg)?;
    Ok((cfg, log))
}

fn log_error(consequence: &str, LoadError { summary, traceback }: &LoadError) {
    log::error!("{consequence}: {summary}");
    traceback.iter().for_each(|text| log::error!("{}", text.trim_end()));
}

/// Calls the hook of an event.
fn handle(master: &Py<PyAny>, event: &MasterEvent, line: &str) {
    set_running(Some(Running::Hook(event.hook())));
    let handled = Python::attach(|py| {
        let value = py.import("json")?.call_method1("loads", (line,))?.cast_into::<PyDict>()?;
        for (name, facts) in value.iter() {
            master.call_method1(py, "handle", (name, facts))?;
        }
        ending::flush_output(py);
        Ok::<(), PyErr>(())
    });
    // A process that the hook has forked, and which has come back from it, is none of the supervisor's.
    Python::attach(|py| ending::end_if_forked_off(py, None));
    set_running(None);
    if let Err(error) = handled {
        Python::attach(|py| {
            log::error!("The event of {} failed: {}", event.hook(), traceback::one_line(py, &error));
        });
    }
}

fn set_running(code: Option<Running>) {
    *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) = code.map(|code| (code, Instant::now()));
    CHANGED.notify_all();
}

/// Starts the thread that ends this process where code of the user does not return.
fn start_watching(events: OwnedFd, limit: Duration) -> std::io::Result<()> {
    let _blocked = mcsup_core::SignalsBlocked::for_new_threads();
    let builder = std::thread::Builder::new().name("hooks-watchdog".to_owned()).stack_size(STACK);
    builder.spawn(move || watch(&events, limit)).map(drop)
}

/// Ends the process once code of the user has run for longer than `limit`, or for long after the end of the supervisor.
fn watch(events: &OwnedFd, limit: Duration) {
    let mut orphaned: Option<Instant> = None;
    loop {
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = |running: &mut Option<(Running, Instant)>| running.is_none();
        let running = CHANGED.wait_while(running, idle).unwrap_or_else(PoisonError::into_inner);
        let Some((code, since)) = running.clone() else { continue };
        drop(running);
        if orphaned.is_none() && is_closed(events) {
            orphaned = Some(Instant::now());
        }
        if since.elapsed() >= limit {
            log::error!("{code} within {limit:?}: its process is ended");
            log::logger().flush();
            ending::end_at_once(HANGS);
        }
        if orphaned.is_some_and(|at| at.elapsed() >= AFTER_SUPERVISOR) {
            ending::end_at_once(HANGS);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Whether no process has the writing end open.
fn is_closed(events: &OwnedFd) -> bool {
    let mut source = [PollFd::from_borrowed_fd(events.as_fd(), PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut source, Some(&at_once)), Ok(1..)) && source[0].revents().contains(PollFlags::HUP)
}
