//! The handlers of SIGTERM of the application, in the life of a worker.

use mcsup_core::{Phase, WorkerContext};
use pyo3::prelude::*;

use crate::python::signals::Termination;

/// The handler of Python that stands for the worker's own one.
#[derive(Default)]
pub(super) struct Terminating {
    own: Option<Termination>,
    /// Whether it is that of a worker: a mold has another one.
    is_of_worker: bool,
}

impl Terminating {
    /// Makes it known, once in a mold (`None`) and once in each worker: after `post_fork`, and before a worker loads the
    /// application. As with gunicorn it replaces the handler that the mold, the configuration or `post_fork` has set.
    pub(super) fn begin(&mut self, context: Option<&WorkerContext>) {
        if self.is_of_worker {
            return;
        }
        self.is_of_worker = context.is_some();
        let finish = context
            .cloned()
            .map(|context| -> Box<dyn Fn() + Send + Sync> { Box::new(move || context.finish()) });
        match Python::attach(|py| Termination::install(py, finish)) {
            Ok(own) => self.own = Some(own),
            Err(error) => log::debug!("Python does not know the handler of SIGTERM: {error}"),
        }
    }

    /// Calls the handler of the application at the end of a drain, which gunicorn's master begins by this signal.
    pub(super) fn end(&self, context: &WorkerContext) {
        let is_drained = matches!(context.phase(), Phase::Retiring | Phase::Draining);
        let Some(own) = self.own.as_ref().filter(|_| is_drained) else { return };
        if let Err(error) = Python::attach(|py| own.send_to_application(py)) {
            log::warn!("the application's handler of SIGTERM is not called: {error}");
        }
    }
}
