//! Python's `logging`: gunicorn's loggers, and a configuration by `--log-config`, `--log-config-json` or `logconfig_dict`.
//!
//! The loggers get their handlers before the application is loaded, in a mold or in each worker. As long as they are as
//! they were made, the server's own records need no Python. Otherwise a thread of the worker passes them on: a handler
//! that waits delays neither a request nor another log.

use std::ffi::CString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mcsup_core::SignalsBlocked;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyModule, PyTuple};

use super::loading::{self, LoadError};
use super::traceback;
use crate::access::{AccessSettings, DirectLog};
use crate::targets::Severity;
use crate::targets::queue::{Entry, Queue, Reader, Value};

const SOURCE: &str = include_str!("logging.py");

/// The entries that are passed on while the interpreter is held.
const AT_ONCE: usize = 64;

/// The longest wait for the last records at the end of a worker.
const LAST: Duration = Duration::from_secs(2);

/// The interval between checks for it.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The files of a logging configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogConfig {
    /// A file for `logging.config.fileConfig`.
    pub ini: Option<PathBuf>,
    /// A file with a JSON object for `logging.config.dictConfig`.
    pub json: Option<PathBuf>,
}

/// A record that has passed through a logger of Python's, for the error log.
#[derive(Debug, Clone, Copy)]
pub struct PythonRecord<'a> {
    /// Its importance.
    pub severity: Severity,
    /// Its text.
    pub text: &'a str,
    /// Whether the text is a whole line, by a formatter of the application's.
    pub is_line: bool,
    /// Whether it is the server's own, which is counted already.
    pub is_own: bool,
}

/// Writes a record to the error log, past the queue for Python.
pub type WriteRecord = Arc<dyn Fn(PythonRecord<'_>) + Send + Sync>;

/// The logs behind the handlers of gunicorn's loggers.
pub(crate) struct Outputs {
    /// The error log.
    errors: WriteRecord,
    /// The access log, if there is one.
    access: Option<Arc<DirectLog>>,
}

impl Outputs {
    /// The error log, and the places of the access log.
    pub(crate) fn new(errors: &WriteRecord, access: &AccessSettings) -> Self {
        Self { errors: Arc::clone(errors), access: DirectLog::of(access).map(Arc::new) }
    }
}

/// gunicorn's loggers.
pub(crate) struct Loggers {
    module: Py<PyModule>,
    /// Whether requests are logged at all.
    has_access: bool,
}

/// Whether records go to Python.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Fed {
    /// Those of the error log.
    pub(crate) errors: bool,
    /// The requests.
    pub(crate) access: bool,
}

impl Loggers {
    /// Imports `logging`, before code of the user's may hide it.
    pub(crate) fn import(py: Python<'_>) -> PyResult<()> {
        module(py).map(drop)
    }

    /// Gives gunicorn's loggers their handlers, and configures Python's `logging`. A dictionary among the `variables` of a
    /// configuration in Python replaces the files. `None`: there is no `logging`, and nothing is to be configured.
    ///
    /// # Errors
    /// The configuration is wrong: the exception of `logging.config`.
    pub(crate) fn configure(
        py: Python<'_>,
        (config, python_path): (&LogConfig, &[String]),
        variables: Option<&Bound<'_, PyDict>>,
        outputs: Outputs,
    ) -> Result<Option<Self>, LoadError> {
        let dictionary = variables.and_then(|variables| variables.get_item("logconfig_dict").ok().flatten());
        let dictionary = dictionary.as_ref().and_then(|dictionary| dictionary.cast::<PyDict>().ok());
        let dictionary = dictionary.filter(|dictionary| !dictionary.is_empty());
        let is_configured = dictionary.is_some() || *config != LogConfig::default();
        if is_configured {
            // A configuration may name classes of the application.
            loading::extend_path(py, python_path)?;
        }
        let prepared = Self::prepare(py, outputs);
        if !is_configured {
            let report = |error: &PyErr| {
                log::warn!("The loggers of gunicorn are missing: {}", traceback::one_line(py, error));
            };
            return Ok(prepared.inspect_err(report).ok());
        }
        let configured = prepared.and_then(|mut loggers| {
            let arguments = (&config.ini, &config.json, dictionary);
            loggers.module.bind(py).call_method1("configure", arguments)?;
            loggers.has_access = true;
            Ok(Some(loggers))
        });
        configured.map_err(|error| LoadError::raised(py, "cannot configure Python's logging", &error))
    }

    fn prepare(py: Python<'_>, outputs: Outputs) -> PyResult<Self> {
        let module = module(py)?;
        let Outputs { errors, access } = outputs;
        let has_access = access.is_some();
        let access = access.map(|log| write_access(py, &log)).transpose()?;
        module.call_method1("prepare", (write_errors(py, errors)?, access, python_level()))?;
        Ok(Self { module: module.unbind(), has_access })
    }

    /// Which records go to Python: those whose logger the configuration, a hook or the application has changed.
    ///
    /// # Errors
    /// A logger is none any more.
    pub(crate) fn fed(&self, py: Python<'_>) -> PyResult<Fed> {
        let changed = self.module.bind(py).call_method0("changed")?;
        let ([errors, access], disabled): ([bool; 2], [bool; 2]) = changed.extract()?;
        let fed = Fed { errors, access: access && self.has_access };
        for (name, is_fed, is_disabled) in
            [("error", fed.errors, disabled[0]), ("access", fed.access, disabled[1])]
        {
            if is_fed && is_disabled {
                log::warn!(
                    "The logger gunicorn.{name} is disabled, so this worker writes nothing to it; a configuration of \
                     logging disables it unless disable_existing_loggers is False"
                );
            }
        }
        Ok(fed)
    }
}

/// The arguments of a handler: level, text, `is_line`, `is_own`.
type Written = (i64, String, bool, bool);

fn write_errors(py: Python<'_>, write: WriteRecord) -> PyResult<Bound<'_, PyCFunction>> {
    PyCFunction::new_closure(py, Some(c"write"), None, move |arguments, _| -> PyResult<()> {
        let (level, text, is_line, is_own): Written = arguments.extract()?;
        let record = PythonRecord { severity: severity_of(level), text: &text, is_line, is_own };
        // The reader of a log may be slow.
        arguments.py().detach(|| write(record));
        Ok(())
    })
}

/// Writes a line, and opens the file again.
fn write_access<'py>(py: Python<'py>, log: &Arc<DirectLog>) -> PyResult<[Bound<'py, PyCFunction>; 2]> {
    let (written, reopened) = (Arc::clone(log), Arc::clone(log));
    let write = PyCFunction::new_closure(py, Some(c"write"), None, move |arguments, _| -> PyResult<()> {
        let (_, mut text, ..): Written = arguments.extract()?;
        text.push('\n');
        arguments.py().detach(|| written.write(text.as_bytes()));
        Ok(())
    })?;
    let reopen =
        PyCFunction::new_closure(py, Some(c"reopen"), None, move |arguments: &Bound<'_, PyTuple>, _| {
            arguments.py().detach(|| reopened.reopen());
        })?;
    Ok([write, reopen])
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

    /// Waits for a while until the thread has passed all records on; whether it has. Not while this thread holds the
    /// interpreter.
    pub(crate) fn settles(&self) -> bool {
        let begin = Instant::now();
        while !self.queue.is_idle() {
            if begin.elapsed() > LAST {
                return false;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        true
    }

    /// Ends the thread after the last record, or after a while. Not while this thread holds the interpreter.
    pub(crate) fn end(self) {
        let _ = self.queue.push(Entry::End);
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

/// Lets the process end although a handler stands still: the exit function of `logging` would wait for its lock.
pub(crate) fn leave_handlers(py: Python<'_>) {
    let left = py
        .import("logging")
        .and_then(|logging| logging.getattr("shutdown"))
        .and_then(|shutdown| py.import("atexit")?.call_method1("unregister", (shutdown,)).map(drop));
    ignore(py, left);
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

/// The importance of a level of Python's.
fn severity_of(level: i64) -> Severity {
    match level {
        50.. => Severity::Critical,
        40.. => Severity::Error,
        30.. => Severity::Warning,
        20.. => Severity::Info,
        _ => Severity::Debug,
    }
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

/// Python's number of the lowest level that is logged.
fn python_level() -> u8 {
    if !log::log_enabled!(log::Level::Error) {
        // `log` has no level for critical records, which alone are logged.
        return 50;
    }
    match log::max_level() {
        log::LevelFilter::Off => 50,
        log::LevelFilter::Error => 40,
        log::LevelFilter::Warn => 30,
        log::LevelFilter::Info => 20,
        log::LevelFilter::Debug | log::LevelFilter::Trace => 10,
    }
}
