//! The logs of a worker: the access log, and records for Python's `logging`.

use std::io;

use mcsup_core::{Error, ErrorKind};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::{WorkerSettings, in_words_of_core};
use crate::access::{AccessLog, AccessSettings};
use crate::python::logging::{Feeder, LogConfig, Loggers};
use crate::python::{loading, traceback};

/// Configures Python's `logging`, if the settings or the variables of a configuration in Python say how.
pub(super) fn configure(
    settings: &WorkerSettings,
    namespace: Option<&Py<PyDict>>,
) -> mcsup_core::Result<Option<Loggers>> {
    Python::attach(|py| {
        let dictionary = namespace.and_then(|names| names.bind(py).get_item("logconfig_dict").ok().flatten());
        let dictionary = dictionary.as_ref().and_then(|dictionary| dictionary.cast::<PyDict>().ok());
        if dictionary.is_some() || settings.log_config != LogConfig::default() {
            // A configuration may name classes of the application.
            loading::extend_path(py, &settings.python_path).map_err(in_words_of_core)?;
        }
        Loggers::configure(py, &settings.log_config, dictionary).map_err(|error| {
            let summary = format!("cannot configure Python's logging: {}", traceback::one_line(py, &error));
            Error::new(ErrorKind::Application, summary).with_detail(traceback::format(py, &error))
        })
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

/// Starts to pass records to Python's `logging`, as it is configured. Without the thread they go to the logs of mcsup.
pub(super) fn start_feeder(
    loggers: Option<Loggers>,
    settings: &WorkerSettings,
    access: &mut Option<AccessLog>,
) -> Option<Feeder> {
    let loggers = loggers?;
    let (feeds_errors, feeds_access) = (loggers.feeds_errors(), loggers.feeds_access());
    let format = &settings.access.format;
    let feeder = match Feeder::start(loggers, format.text().to_owned()) {
        Ok(feeder) => feeder,
        Err(error) => {
            log::error!("Logging without Python: no thread can be started: {error}");
            return None;
        }
    };
    if feeds_access {
        access.get_or_insert_with(|| AccessLog::empty(format.clone())).feed(feeder.queue().clone());
    }
    if feeds_errors {
        (settings.redirect_errors)(Some(feeder.queue().clone()));
    }
    Some(feeder)
}
