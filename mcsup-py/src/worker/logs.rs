//! The logs of a worker: the access log, and records for Python's `logging`.

use std::io;

use mcsup_core::{Error, ErrorKind};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::{WorkerSettings, in_words_of_core};
use crate::access::{AccessLog, AccessSettings};
use crate::python::logging::{Fed, Feeder, Loggers, Outputs, leave_handlers};
use crate::python::traceback;

/// Gives gunicorn's loggers their handlers, and configures Python's `logging` by the settings or the variables of a
/// configuration in Python. `None`: the user of the workers may not read that module of Python, and nothing needs it.
pub(super) fn configure(
    settings: &WorkerSettings,
    namespace: Option<&Py<PyDict>>,
) -> mcsup_core::Result<Option<Loggers>> {
    Python::attach(|py| {
        let outputs = Outputs::new(&settings.write_record, &settings.access);
        let variables = namespace.map(|names| names.bind(py));
        Loggers::configure(py, (&settings.log_config, &settings.python_path), variables, outputs)
            .map_err(in_words_of_core)
    })
}

/// `None` where the place has become one that must or may not be written to: clients are served all the same.
pub(super) fn open_access_log(
    settings: &AccessSettings,
    slot: usize,
) -> mcsup_core::Result<Option<AccessLog>> {
    let place = settings.place.as_deref().unwrap_or_default();
    match AccessLog::open(settings, slot) {
        Ok(log) => Ok(log),
        // A refusal of a link too: `host::own_file`.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            log::error!("Serving without the access log {place}: {error}");
            let others = AccessSettings { place: None, ..settings.clone() };
            Ok(AccessLog::open(&others, slot).unwrap_or_default())
        }
        Err(error) => {
            Err(Error::system(format!("open the access log {place}"), error).of_kind(ErrorKind::Boot))
        }
    }
}

/// Starts to pass records to Python's `logging`, where a logger has been changed. Without the thread they go to the logs of
/// mcsup.
pub(super) fn start_feeder(
    loggers: Option<Loggers>,
    settings: &WorkerSettings,
    access: &mut Option<AccessLog>,
) -> Option<Feeder> {
    let loggers = loggers?;
    let fed = Python::attach(|py| {
        let report = |error: PyErr| {
            let reason = traceback::one_line(py, &error);
            log::error!("Logging without Python: the loggers cannot be read: {reason}");
        };
        loggers.fed(py).map_err(report).unwrap_or_default()
    });
    if fed == Fed::default() {
        return None;
    }
    let format = &settings.access.format;
    let feeder = match Feeder::start(loggers, format.text().to_owned()) {
        Ok(feeder) => feeder,
        Err(error) => {
            log::error!("Logging without Python: no thread can be started: {error}");
            return None;
        }
    };
    if fed.access {
        access.get_or_insert_with(|| AccessLog::empty(format.clone())).feed(feeder.queue().clone());
    }
    if fed.errors {
        (settings.redirect_errors)(Some(feeder.queue().clone()));
    }
    Some(feeder)
}

/// Before the exit functions: gives the thread up, and the rest of its records, if a handler stands still.
pub(super) fn leave_if_stuck(feeder: Option<Feeder>, settings: &WorkerSettings) -> Option<Feeder> {
    let feeder = feeder?;
    if feeder.settles() {
        return Some(feeder);
    }
    (settings.redirect_errors)(None);
    log::warn!("The handlers of Python's logging are too slow: the last records may be lost");
    Python::attach(leave_handlers);
    None
}
