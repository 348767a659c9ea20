//! The check of an application, without a server.

use mcsup_core::{Error, ErrorKind};
use pyo3::prelude::*;

use super::{Hooking, WorkerSettings, load, logs, prepare};
use crate::python::{command_name, ending, interpreter};

/// Loads the application in this process and drops it, for `--check-config`. Runs the exit functions that it has
/// registered, as at the end of a worker.
///
/// # Errors
/// Why it cannot be loaded.
pub fn check(settings: &WorkerSettings) -> mcsup_core::Result<()> {
    interpreter::ensure(settings.venv.as_deref()).map_err(|reason| Error::new(ErrorKind::Boot, reason))?;
    let configured = prepare(settings)
        .and_then(|()| Hooking::default().define(settings))
        .and_then(|variables| logs::configure(settings, variables.as_ref()));
    let loaded = configured.and_then(|_| load(settings)).map(drop);
    Python::attach(|py| {
        if loaded.is_ok() {
            warn_of_names(py);
        }
        ending::run_exit_functions(py);
    });
    loaded
}

/// Names the code that looks for gunicorn where it finds mcsup.
fn warn_of_names(py: Python<'_>) {
    match command_name::places(py) {
        Ok(places) => places.iter().for_each(|place| {
            log::warn!(
                "{place} looks for gunicorn in sys.argv, which has mcsup; os.environ[\"SERVER_SOFTWARE\"] has gunicorn"
            );
        }),
        Err(error) => log::debug!("the code is not searched for the name of the command: {error}"),
    }
}
