//! The hooks of `gunicorn.conf.py` in the life of a worker.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mcsup_core::{Local, Phase, Result, WorkerContext};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::{WorkerSettings, in_words_of_core};
use crate::conf::{self, DefinedHooks, Facts, WorkerHooks};
use crate::wsgi::{RequestHooks, RunningHook};

/// The hooks, if the configuration defines any.
#[derive(Default)]
pub(super) struct Hooking {
    defined: Option<DefinedHooks>,
    /// In a worker; a mold has none.
    own: Option<WorkerHooks>,
    /// Whether the worker has asked for a reload because of a changed file.
    reload_wanted: Arc<AtomicBool>,
    /// The hooks of requests that run, one for each thread.
    running: Mutex<Vec<Arc<RunningHook>>>,
}

impl Hooking {
    /// Executes the configuration, if there is one, and returns its variables; `None` also if it is left out.
    pub(super) fn define(&mut self, settings: &WorkerSettings) -> Result<Option<Py<PyDict>>> {
        let Some(script) = &settings.conf else { return Ok(None) };
        let defined = Python::attach(|py| {
            let Some(namespace) = conf::execute_in_worker(py, script, settings.needs_conf)? else {
                return Ok((None, None));
            };
            let variables = namespace.clone_ref(py);
            DefinedHooks::find(py, &script.source, namespace).map(|defined| (defined, Some(variables)))
        });
        let (defined, variables) = defined.map_err(in_words_of_core)?;
        self.defined = defined;
        Ok(variables)
    }

    /// Calls `post_fork`, once in a worker. `preloaded`: the application, if a mold has loaded it.
    pub(super) fn begin(
        &mut self,
        settings: &WorkerSettings,
        context: &WorkerContext,
        preloaded: Option<&Py<PyAny>>,
    ) -> Result<()> {
        let (None, Some(defined)) = (&self.own, &self.defined) else { return Ok(()) };
        let listeners = context.listeners().iter();
        let (leaving, beating) = (context.clone(), context.clone());
        let facts = Facts {
            number: context.number(),
            listeners: listeners
                .map(|listener| {
                    (listener.as_fd().as_raw_fd(), url(settings.engine.scheme(), listener.local()))
                })
                .collect(),
            target: settings.target.to_string(),
            settings: &settings.cfg,
            error_log: settings.error_log,
            leave: Box::new(move || {
                // Without a supervisor the worker ends anyway.
                let _ = leaving.leave("a hook has set worker.alive to False");
            }),
            beat: Box::new(move || beating.beat()),
        };
        let own = Python::attach(|py| defined.begin(py, facts)).map_err(in_words_of_core)?;
        let forked =
            Python::attach(|py| self.own.insert(own).forked(py, preloaded)).map_err(in_words_of_core);
        forked.inspect_err(|_| self.end(Some(context)))
    }

    /// Calls `post_worker_init`, which may change the application.
    pub(super) fn initialise(&self, callable: Py<PyAny>) -> Result<Py<PyAny>> {
        match &self.own {
            None => Ok(callable),
            Some(own) => Python::attach(|py| own.initialised(py, callable)).map_err(in_words_of_core),
        }
    }

    /// The hooks of requests.
    pub(super) fn of_requests(&self, py: Python<'_>) -> Option<RequestHooks> {
        let hooks = self.own.as_ref()?.of_requests(py);
        let hooks = hooks.inspect_err(|error| log::error!("The hooks of requests are not called: {error}"));
        let hooks = hooks.ok().flatten().map(RequestHooks::new)?;
        self.running().push(hooks.running());
        Some(hooks)
    }

    /// Names hooks of requests that do not return.
    pub(super) fn name_slow(&self) {
        let Some(own) = &self.own else { return };
        self.running().iter().filter_map(|hook| hook.slow(conf::SLOW)).for_each(|name| own.name_slow(name));
    }

    fn running(&self) -> MutexGuard<'_, Vec<Arc<RunningHook>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be set when the worker asks for a reload.
    pub(super) fn reload_wanted(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.reload_wanted)
    }

    /// Calls the hooks of the end.
    pub(super) fn end(&self, context: Option<&WorkerContext>) {
        let (Some(own), Some(context)) = (&self.own, context) else { return };
        // As with gunicorn, whose worker ends itself when a file has changed.
        let is_reload = context.phase() == Phase::Retiring && self.reload_wanted.load(Ordering::Relaxed);
        let is_quick = context.phase() == Phase::Quitting || is_reload;
        Python::attach(|py| own.end(py, is_quick, context.requests()));
    }
}

/// A listener as gunicorn names it.
fn url(scheme: &str, local: &Local) -> String {
    match local {
        Local::Tcp(address) => format!("{scheme}{address}"),
        Local::Unix(path) => format!("unix:{}", path.to_string_lossy().replacen('\0', "@", 1)),
        other => other.to_string(),
    }
}
