//! Python's `logging` for the server's own records: `--log-config`, `--log-config-json` and `logconfig_dict`.
//!
//! The file is executed by Python's `logging.config` before the application is loaded, in a mold or in each worker. A
//! thread of the worker passes the records on: a handler that waits delays neither a request nor another log.

use std::ffi::CString;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mcsup_core::SignalsBlocked;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyModule};

use super::traceback;
use crate::targets::Severity;
use crate::targets::queue::{Entry, Queue, Reader, Value};

const SOURCE: &str = include_str!("logging.py");

/// The entries that are passed on while the interpreter is held.
const AT_ONCE: usize = 64;

/// The longest wait for the last records at the end of a worker.
const LAST: Duration = Duration::from_secs(2);

/// The files of a logging configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogConfig {
    /// A file for `logging.config.fileConfig`.
    pub ini: Option<PathBuf>,
    /// A file with a JSON object for `logging.config.dictConfig`.
    pub json: Option<PathBuf>,
}

/// The configured loggers.
pub(crate) struct Loggers {
    module: Py<PyModule>,
    feeds_errors: bool,
    feeds_access: bool,
}

impl Loggers {
    /// Configures Python's `logging`; `None` if nothing is to be configured. A `dictionary` replaces the files.
    ///
    /// # Errors
    /// The configuration is wrong: the exception of `logging.config`.
    pub(crate) fn configure(
        py: Python<'_>,
        config: &LogConfig,
        dictionary: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Option<Self>> {
        let dictionary = dictionary.filter(|dictionary| !dictionary.is_empty());
        if *config == LogConfig::default() && dictionary.is_none() {
            return Ok(None);
        }
        let module = module(py)?;
        let level = python_level(log::max_level());
        let fed = module.call_method1("configure", (&config.ini, &config.json, dictionary, level))?;
        let (feeds_errors, feeds_access) = fed.extract()?;
        Ok(Some(Self { module: module.unbind(), feeds_errors, feeds_access }))
    }

    /// Whether the records of the error log go to Python.
    pub(crate) fn feeds_errors(&self) -> bool {
        self.feeds_errors
    }

    /// Whether the requests go to Python.
    pub(crate) fn feeds_access(&self) -> bool {
        self.feeds_access
    }
}

/// The thread that passes records on.
pub(crate) struct Feeder {
    queue: Queue,
    ended: Receiver<()>,
}

impl Feeder {
    /// Starts the thread. `form`: the format of the access log.
    ///
    /// # Errors
    /// The system has no thread.
    pub(crate) fn start(loggers: Loggers, form: String) -> io::Result<Self> {
        let (queue, reader) = Queue::new();
        let (end, ended) = sync_channel(1);
        let _blocked = SignalsBlocked::for_new_threads();
        std::thread::Builder::new().name("logging".to_owned()).spawn(move || {
            feed(&loggers.module, &reader, &form);
            let _ = end.try_send(());
        })?;
        Ok(Self { queue, ended })
    }

    /// The queue that it reads.
    pub(crate) fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Ends the thread after the last record, or after a while. Not while this thread holds the interpreter.
    pub(crate) fn end(self) {
        self.queue.push(Entry::End);
        if self.ended.recv_timeout(LAST).is_err() {
            log::warn!("The handlers of Python's logging are too slow: the last records may be lost");
        }
    }
}

/// Whether log files of Python's handlers are to be opened again.
static REOPEN: AtomicBool = AtomicBool::new(false);

/// Has a thread that may run Python open the files of Python's handlers again: [`reopen_due`].
pub(crate) fn request_reopen() {
    REOPEN.store(true, Ordering::Release);
}

/// Whether that was requested. Costs a load.
pub(crate) fn is_reopen_due() -> bool {
    REOPEN.load(Ordering::Relaxed)
}

/// Opens the files of Python's handlers again, if that was requested and the application has loaded `logging`.
pub(crate) fn reopen_due() {
    if !REOPEN.swap(false, Ordering::Acquire) {
        return;
    }
    let reopened = Python::try_attach(|py| {
        let modules = py.import("sys")?.getattr("modules")?.cast_into::<PyDict>()?;
        if modules.contains("logging")? {
            module(py)?.call_method0("reopen")?;
        }
        Ok::<(), PyErr>(())
    });
    if let Some(Err(error)) = reopened {
        let reason = Python::attach(|py| traceback::one_line(py, &error));
        log::error!("cannot reopen the log files of Python's handlers: {reason}");
    }
}

fn module(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    if let Ok(known) = py.import("sys")?.getattr("modules")?.get_item("mcsup_logging") {
        return Ok(known.cast_into()?);
    }
    PyModule::from_code(py, &CString::new(SOURCE)?, c"mcsup/logging.py", c"mcsup_logging")
}

/// Passes records on until the last one.
fn feed(module: &Py<PyModule>, reader: &Reader, form: &str) {
    loop {
        let entries = reader.take(AT_ONCE);
        if entries.is_empty() || !feed_entries(module, reader, form, entries) {
            return;
        }
    }
}

/// Passes some on; whether more may follow.
fn feed_entries(module: &Py<PyModule>, reader: &Reader, form: &str, entries: Vec<Entry>) -> bool {
    let fed = Python::try_attach(|py| {
        let module = module.bind(py);
        if reader.take_reopen() {
            ignore(py, module.call_method0("reopen").map(drop));
        }
        let lost = reader.take_lost();
        if lost > 0 {
            let text = format!("Python's handlers are too slow: {lost} records of this process are lost");
            ignore(py, module.call_method1("error", (40, seconds(SystemTime::now()), text)).map(drop));
        }
        for entry in entries {
            let passed = match entry {
                Entry::Error { severity, text, time } => {
                    module.call_method1("error", (level_of(severity), seconds(time), text)).map(drop)
                }
                Entry::Access { line, atoms, time } => dictionary(py, atoms).and_then(|atoms| {
                    module.call_method1("access", (seconds(time), form, line, atoms)).map(drop)
                }),
                Entry::Reopen => module.call_method0("reopen").map(drop),
                Entry::End => {
                    ignore(py, module.call_method0("flush").map(drop));
                    return false;
                }
            };
            ignore(py, passed);
        }
        true
    });
    fed.unwrap_or(false)
}

/// A handler that fails reports it itself; an error of its filter or formatter would come at each record.
fn ignore(py: Python<'_>, outcome: PyResult<()>) {
    static IS_REPORTED: AtomicBool = AtomicBool::new(false);
    if let Err(error) = outcome {
        if !IS_REPORTED.swap(true, Ordering::Relaxed) {
            log::error!("Python's logging fails: {}", traceback::one_line(py, &error));
        }
    }
}

fn dictionary(py: Python<'_>, atoms: Vec<(String, Value)>) -> PyResult<Bound<'_, PyDict>> {
    let made = PyDict::new(py);
    for (name, value) in atoms {
        match value {
            Value::Number(number) => made.set_item(name, number)?,
            Value::Text(bytes) => made.set_item(name, String::from_utf8_lossy(&bytes))?,
        }
    }
    Ok(made)
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Python's number of a level.
fn level_of(severity: Severity) -> u8 {
    match severity {
        Severity::Critical => 50,
        Severity::Error => 40,
        Severity::Warning => 30,
        Severity::Info => 20,
        Severity::Debug => 10,
    }
}

fn python_level(most: log::LevelFilter) -> u8 {
    match most {
        log::LevelFilter::Off => 50,
        log::LevelFilter::Error => 40,
        log::LevelFilter::Warn => 30,
        log::LevelFilter::Info => 20,
        log::LevelFilter::Debug | log::LevelFilter::Trace => 10,
    }
}
