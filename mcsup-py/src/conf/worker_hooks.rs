//! The hooks of workers, from `post_fork` to `worker_exit`, called where gunicorn calls them.
//!
//! An exception of a hook is logged with the name of the hook, and the worker goes on; `SystemExit` before the worker is
//! ready fails its boot. A hook that does not return is named too, and the deadlines of the worker end it.

use std::os::fd::RawFd;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::objects::{self, Own};
use super::source::Source;
use crate::python::loading::LoadError;
use crate::python::{ending, traceback};

/// The time after which a hook that still runs is named in the log: less than the default of any deadline.
pub(crate) const SLOW: Duration = Duration::from_secs(5);
/// The stack of the thread that names it.
const STACK: usize = 64 * 1024;

/// The hooks of workers that a configuration defines. A mold has them, and its workers are copies of it.
pub(crate) struct DefinedHooks {
    source: Source,
    /// `dict`: the name of each with its function and the number of its arguments.
    found: Py<PyAny>,
    namespace: Py<PyDict>,
}

/// The facts about a worker that its hooks may read.
pub(crate) struct Facts<'a> {
    /// The number of the worker among the processes of the pool.
    pub(crate) number: u64,
    /// Its listeners, and how each is named.
    pub(crate) listeners: Vec<(RawFd, String)>,
    /// The application, as it is named in the settings.
    pub(crate) target: String,
    /// The settings by gunicorn's names, as a JSON object.
    pub(crate) settings: &'a str,
    /// The descriptor for stacks.
    pub(crate) error_log: RawFd,
    /// Asks for another worker in the place of this one.
    pub(crate) leave: Box<dyn Fn() + Send + Sync>,
    /// Shows a sign of life.
    pub(crate) beat: Box<dyn Fn() + Send + Sync>,
}

impl DefinedHooks {
    /// The hooks in the variables of a configuration; `None`: it defines none.
    ///
    /// # Errors
    /// One is not a function with the arguments that gunicorn passes.
    pub(crate) fn find(
        py: Python<'_>,
        source: &Source,
        namespace: Py<PyDict>,
    ) -> Result<Option<Self>, LoadError> {
        let found = Own::Hooks
            .module(py)
            .and_then(|module| module.call_method1("collect", (&namespace,)))
            .map_err(|error| LoadError::raised(py, &source.to_string(), &error))?;
        let is_empty = found.is_empty().unwrap_or(true);
        Ok((!is_empty).then(|| Self { source: source.clone(), found: found.unbind(), namespace }))
    }

    /// The hooks with the objects that they get, in the process of the worker.
    ///
    /// # Errors
    /// An object cannot be made.
    pub(crate) fn begin(&self, py: Python<'_>, facts: Facts<'_>) -> Result<WorkerHooks, LoadError> {
        let step = format!("cannot call the hooks of {}", self.source);
        self.make(py, facts).map_err(|error| LoadError::raised(py, &step, &error))
    }

    fn make(&self, py: Python<'_>, facts: Facts<'_>) -> PyResult<WorkerHooks> {
        let cfg = objects::cfg(py, facts.settings, self.namespace.bind(py))?;
        let log = objects::logger(py, &cfg)?;
        let module = Own::Worker.module(py)?;
        let listener = module.getattr("Listener")?;
        let sockets = facts.listeners.into_iter().map(|place| listener.call1(place));
        let sockets = PyList::new(py, sockets.collect::<PyResult<Vec<_>>>()?)?;
        let app = module.getattr("App")?.call1((&cfg, facts.target))?;
        let server = module.getattr("Server")?.call1((&cfg, &log, &sockets, &app, facts.number))?;
        let acts = (objects::act(py, c"leave", facts.leave)?, objects::act(py, c"beat", facts.beat)?);
        let worker = module.getattr("Worker")?.call1((facts.number, &sockets, &app, &cfg, &log, acts))?;
        let hooks = Own::Hooks.module(py)?.getattr("Hooks")?.call1((&self.found, &server, &worker))?;
        hooks.call_method1("catch_abort", (facts.error_log,))?;
        let (found, source) = (self.found.clone_ref(py), self.source.clone());
        Ok(WorkerHooks { source, found, hooks: hooks.unbind(), worker: worker.unbind() })
    }
}

/// The hooks of this worker.
pub(crate) struct WorkerHooks {
    source: Source,
    found: Py<PyAny>,
    hooks: Py<PyAny>,
    worker: Py<PyAny>,
}

impl WorkerHooks {
    /// Calls `post_fork`, which finds the application of a mold.
    ///
    /// # Errors
    /// The hook has ended the worker.
    pub(crate) fn forked(&self, py: Python<'_>, preloaded: Option<&Py<PyAny>>) -> Result<(), LoadError> {
        if let Some(callable) = preloaded {
            let app = self.worker.bind(py).getattr("app");
            let noted = app.and_then(|app| app.setattr("callable", callable));
            noted.map_err(|error| LoadError::raised(py, &self.source.to_string(), &error))?;
        }
        self.call(py, "call", "post_fork")
    }

    /// Calls `post_worker_init`, and returns the application as the hook has left it: `worker.wsgi`.
    ///
    /// # Errors
    /// The hook has ended the worker, or its application cannot be called.
    pub(crate) fn initialised(&self, py: Python<'_>, callable: Py<PyAny>) -> Result<Py<PyAny>, LoadError> {
        let failed = |error: PyErr| LoadError::raised(py, &self.source.to_string(), &error);
        let worker = self.worker.bind(py);
        worker.call_method1("load", (callable,)).map_err(failed)?;
        self.call(py, "call", "post_worker_init")?;
        Ok(worker.call_method0("loaded").map_err(failed)?.unbind())
    }

    /// The object that calls the hooks of requests; `None`: there are none.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn of_requests(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        if !self.counts_requests(py)? {
            return Ok(None);
        }
        let class = Own::Request.module(py)?.getattr("RequestHooks")?;
        Ok(Some(class.call1((&self.found, &self.worker))?.unbind()))
    }

    /// Whether hooks of requests exist, which count the requests.
    fn counts_requests(&self, py: Python<'_>) -> PyResult<bool> {
        let found = self.found.bind(py);
        Ok(found.contains("pre_request")? || found.contains("post_request")?)
    }

    /// Calls the hooks of the end, which nothing stops: `worker_int` at a quick stop or reload, and `worker_exit`. `requests`: the
    /// number of requests, where no hook has counted them.
    pub(crate) fn end(&self, py: Python<'_>, is_quick: bool, requests: u64) {
        let worker = self.worker.bind(py);
        let noted = worker
            .call_method0("stop")
            .and_then(|_| if self.counts_requests(py)? { Ok(()) } else { worker.setattr("nr", requests) });
        if let Err(error) = noted {
            log::warn!("the hooks of {} may read old values: {error}", self.source);
        }
        for name in ["worker_int", "worker_exit"] {
            if name != "worker_int" || is_quick {
                // The Python side logs all exceptions.
                let _ = self.call(py, "end", name);
            }
        }
    }

    /// Names a hook that has not returned for [`SLOW`] in the log.
    pub(crate) fn name_slow(&self, name: &str) {
        name_slow(name, &self.source);
    }

    /// Calls a hook by a method of the Python side.
    fn call(&self, py: Python<'_>, method: &str, name: &'static str) -> Result<(), LoadError> {
        let called = named_if_slow(name, &self.source, || self.hooks.call_method1(py, method, (name,)));
        ending::end_if_forked_off(py, called.as_ref().err());
        called.map(drop).map_err(|error| {
            let line = traceback::one_line(py, &error);
            let summary = format!("the hook {name} of {} has ended the worker: {line}", self.source);
            LoadError { summary, traceback: Some(traceback::format(py, &error)) }
        })
    }
}

/// How far a call of a hook is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Runs,
    /// It still runs, and is in the log.
    IsNamed,
    /// It has returned, or its process forks.
    Ends,
}

fn name_slow(name: &str, source: &Source) {
    let seconds = SLOW.as_secs();
    log::warn!("The hook {name} of {source} has not returned for {seconds} seconds");
}

/// Calls a hook beside a thread that names it in the log once if it does not return in time.
fn named_if_slow<T>(name: &'static str, source: &Source, call: impl Fn() -> T) -> T {
    let (state, changed) = (Mutex::new(Call::Runs), Condvar::new());
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    let life = || {
        let waited = changed.wait_timeout_while(lock(), SLOW, |state| *state != Call::Ends);
        let (mut held, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() && *held == Call::Runs {
            *held = Call::IsNamed;
            name_slow(name, source);
        }
    };
    let ask = |ends: bool| {
        let mut held = lock();
        *held = match (ends, *held) {
            (true, Call::Runs) => Call::Ends,
            (false, Call::Ends) => Call::Runs,
            (_, state) => state,
        };
        changed.notify_all();
    };
    match mcsup_core::with_companion("hooks", STACK, &life, &ask, &call) {
        Ok(result) => result,
        // The system has no thread for it.
        Err(_) => call(),
    }
}
