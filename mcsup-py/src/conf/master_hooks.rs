//! The process that calls the hooks of gunicorn's master, beside the supervisor.
//!
//! It reads events from a socket. The end of these, which the end of the supervisor brings about, ends it too. A hook
//! that does not return in time ends it as well, with the hook's name in the log; the supervisor starts another one.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::PyDict;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::executing;
use super::master_events::{MasterEvent, MasterFacts};
use super::objects::{self, Own};
use super::source::Source;
use crate::python::loading::LoadError;
use crate::python::{ending, interpreter, site, traceback};

/// The exit code of a process whose hook did not return in time.
const HANGS: u8 = 3;
/// The exit code of a process that could not execute the configuration.
const BROKEN: u8 = 4;

/// The time that a hook has after the end of the supervisor.
const AFTER_SUPERVISOR: Duration = Duration::from_secs(5);
/// The interval between checks of the hook that runs.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The stack of the thread that checks it.
const STACK: usize = 64 * 1024;

/// The settings of the process.
pub struct MasterHooks {
    /// The configuration with the hooks.
    pub source: Source,
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
    /// The longest time of a hook.
    pub limit: Duration,
    /// Reopens the error log.
    pub reopen_error_log: Box<dyn Fn()>,
}

/// The hook that runs, and since when.
static RUNNING: Mutex<Option<(&str, Instant)>> = Mutex::new(None);
static CHANGED: Condvar = Condvar::new();

impl MasterHooks {
    /// Calls the hooks at the events from `events` until its end, and returns the exit code of the process. For a process
    /// that does nothing else.
    ///
    /// A byte to `started` reports that `on_starting` has returned.
    pub fn run(self, events: OwnedFd, started: OwnedFd) -> u8 {
        let watched = events.try_clone();
        let begun = watched.and_then(|events| start_watching(events, self.limit));
        if let Err(error) = begun {
            log::warn!("Hooks that do not return cannot be detected: {error}");
        }
        let master = match self.start() {
            Ok(master) => master,
            Err(LoadError { summary, traceback }) => {
                log::error!("The hooks of the master cannot be called: {summary}");
                traceback.iter().for_each(|text| log::error!("{}", text.trim_end()));
                log::logger().flush();
                return BROKEN;
            }
        };
        let mut started = File::from(started);
        for line in BufReader::new(File::from(events)).lines() {
            // The end of the supervisor, or a mistake of it.
            let Ok(line) = line else { break };
            let Ok(event) = serde_json::from_str::<MasterEvent>(&line) else { continue };
            match event {
                MasterEvent::ReopenLogs {} => (self.reopen_error_log)(),
                _ => handle(&master, &event, &line),
            }
            // This process may wait, and its next event may be late.
            log::logger().flush();
            if event == (MasterEvent::OnStarting {}) {
                // Its reader may have given up.
                let _ = started.write_all(b"x");
            }
            if event == (MasterEvent::OnExit {}) {
                break;
            }
        }
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
                .and_then(|()| interpreter::set_arguments(py, &self.arguments))
                .and_then(|()| interpreter::set_environment(py, &self.environment))
                .map_err(broken)?;
            let namespace = executing::execute(py, &self.source)?;
            self.make(py, namespace.bind(py)).map_err(broken)
        })
    }

    fn make(&self, py: Python<'_>, namespace: &Bound<'_, PyDict>) -> PyResult<Py<PyAny>> {
        let cfg = objects::cfg(py, &self.cfg, namespace)?;
        let log = objects::logger(py, &cfg)?;
        let facts = serde_json::to_string(&self.facts).unwrap_or_default();
        let facts = py.import("json")?.call_method1("loads", (facts,))?;
        Ok(Own::Master.module(py)?.getattr("Master")?.call1((namespace, cfg, log, facts))?.unbind())
    }
}

/// Calls the hook of an event.
fn handle(master: &Py<PyAny>, event: &MasterEvent, line: &str) {
    set_running(Some(event.hook()));
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

fn set_running(hook: Option<&'static str>) {
    *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) = hook.map(|hook| (hook, Instant::now()));
    CHANGED.notify_all();
}

/// Starts the thread that ends this process where a hook does not return.
fn start_watching(events: OwnedFd, limit: Duration) -> std::io::Result<()> {
    let _blocked = mcsup_core::SignalsBlocked::for_new_threads();
    let builder = std::thread::Builder::new().name("hooks-watchdog".to_owned()).stack_size(STACK);
    builder.spawn(move || watch(&events, limit)).map(drop)
}

/// Ends the process once a hook has run for longer than `limit`, or for long after the end of the supervisor.
fn watch(events: &OwnedFd, limit: Duration) {
    let mut orphaned: Option<Instant> = None;
    loop {
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = |running: &mut Option<(&str, Instant)>| running.is_none();
        let running = CHANGED.wait_while(running, idle).unwrap_or_else(PoisonError::into_inner);
        let Some((hook, since)) = *running else { continue };
        drop(running);
        if orphaned.is_none() && is_closed(events) {
            orphaned = Some(Instant::now());
        }
        if since.elapsed() >= limit {
            log::error!("The hook {hook} has not returned within {limit:?}: its process is ended");
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
