//! The error log: gunicorn's line format, one write for each record, to standard error or to a file that can be
//! reopened.
//!
//! Supervisor and workers share one open file. `O_APPEND` and one `write` for each record keep the lines of several
//! processes whole, also when a record has many lines (a traceback). The server serves on when a log cannot be written.
//! A process does not wait for the reader of a full log: it counts the lost records, and the next record that is
//! written states their number.

mod line;
mod sink;
mod targets;

use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use log::LevelFilter;
use mcsup_py::python::logging::PythonRecord;
use mcsup_py::targets::{Queue, Syslog};

pub(crate) use line::Form;
use sink::Sink;
pub(crate) use targets::Targets;

/// Records with this target are critical: `log` itself knows no level above error.
///
/// `log::error!(target: CRITICAL, "...")` logs one.
pub(crate) const CRITICAL: &str = "critical";

/// The lowest level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// Everything.
    Debug,
    /// Normal operation.
    Info,
    /// Possible problems.
    Warning,
    /// Errors.
    Error,
    /// Errors that end the server.
    Critical,
}

impl Level {
    /// All levels, the lowest first.
    pub(crate) const ALL: [Level; 5] =
        [Level::Debug, Level::Info, Level::Warning, Level::Error, Level::Critical];

    /// The name of the level in settings.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warning => "warning",
            Level::Error => "error",
            Level::Critical => "critical",
        }
    }
}

/// The destination of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Destination {
    /// The standard stream of that log.
    Standard,
    /// A file, which records are appended to; created with mode 0640.
    File(PathBuf),
}

/// An error while a log is opened or reopened.
#[derive(Debug)]
pub(crate) struct LogError {
    step: String,
    source: io::Error,
}

impl LogError {
    /// The error of the system, or the reason of a refusal.
    pub(crate) fn cause(&self) -> &io::Error {
        &self.source
    }
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.step, self.source)
    }
}

impl std::error::Error for LogError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Writes bytes to the log in one write; unchanged, if the log is text.
pub(crate) type RawWriter = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// The error log of this process. Clones and children of a fork share the open file.
#[derive(Debug, Clone)]
pub(crate) struct ErrorLog {
    sink: Arc<Sink>,
    form: Form,
    targets: Arc<Targets>,
}

impl ErrorLog {
    /// Opens the log and installs it for the `log` macros, once in a process.
    ///
    /// A relative path is resolved now: a later change of directory does not move the file.
    pub(crate) fn install(
        destination: &Destination,
        level: Level,
        (form, targets): (Form, &Arc<Targets>),
    ) -> Result<Self, LogError> {
        let log = Self { targets: Arc::clone(targets), ..Self::open(destination, form)? };
        let logger = log.logger(level);
        let most = logger.lines.filter();
        log::set_boxed_logger(Box::new(logger)).map_err(|error| LogError {
            step: "install the log".to_owned(),
            source: io::Error::other(error),
        })?;
        log::set_max_level(most);
        std::panic::set_hook(Box::new(|panic| {
            // The default hook would wait for the reader of standard error.
            let backtrace = std::backtrace::Backtrace::capture();
            log::error!(target: CRITICAL, "{panic}");
            if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
                log::error!(target: CRITICAL, "{backtrace}");
            }
        }));
        Ok(log)
    }

    fn open(destination: &Destination, form: Form) -> Result<Self, LogError> {
        Ok(Self { sink: Arc::new(Sink::open(destination, form)?), form, targets: Arc::default() })
    }

    fn logger(&self, level: Level) -> targets::Logger {
        let (all, critical) = match level {
            Level::Debug => (LevelFilter::Debug, LevelFilter::Debug),
            Level::Info => (LevelFilter::Info, LevelFilter::Info),
            Level::Warning => (LevelFilter::Warn, LevelFilter::Warn),
            Level::Error => (LevelFilter::Error, LevelFilter::Error),
            Level::Critical => (LevelFilter::Off, LevelFilter::Error),
        };
        let form = self.form;
        let lines = env_logger::Builder::new()
            .filter_level(all)
            .filter_module(CRITICAL, critical)
            .format(move |line, record| form.write(line, record))
            .target(env_logger::Target::Pipe(Box::new(sink::RecordWriter(Arc::clone(&self.sink)))))
            .build();
        targets::Logger { lines, sink: Arc::clone(&self.sink), targets: Arc::clone(&self.targets) }
    }

    /// Makes the log that of a worker, in the child of a fork.
    ///
    /// The parent reports its own lost records. A worker waits shortly for a slow reader; a supervisor never waits.
    pub(crate) fn use_in_worker(&self) {
        self.sink.use_in_worker();
    }

    /// Opens the file again under its name, after a rotation. On an error the old file stays in use.
    ///
    /// Call it first in the supervisor, which may have permissions that the workers lack, then in each worker.
    pub(crate) fn reopen(&self) -> Result<(), LogError> {
        self.sink.reopen()
    }

    /// Changes the owner of the log file, also after a reopen, to the user of the workers.
    ///
    /// The workers can then reopen it. Does nothing for a standard stream or a file that is not regular.
    pub(crate) fn give_to(&self, uid: u32, gid: u32) -> Result<(), LogError> {
        self.sink.give_to(uid, gid)
    }

    /// Redirects standard output and error of a daemon to the log file.
    ///
    /// Does nothing where the log is a standard stream.
    pub(crate) fn take_standard_streams(&self) -> Result<(), LogError> {
        self.sink.take_standard_streams()
    }

    /// The descriptor of the log, for code that writes stack dumps in a crash.
    ///
    /// Its number stays the same when the log is reopened.
    pub(crate) fn fd(&self) -> RawFd {
        self.sink.fd()
    }

    /// A writer for the application's own text, such as `wsgi.errors`.
    pub(crate) fn raw_writer(&self) -> RawWriter {
        let sink = Arc::clone(&self.sink);
        Arc::new(move |bytes| sink.write_application(bytes))
    }

    /// Whether a target may keep records, so that [`send_waiting`](Self::send_waiting) is to be called.
    pub(crate) fn may_keep_records(&self) -> bool {
        self.targets.syslog.is_some()
    }

    /// Sends records that wait for a target on the network, as far as that takes them at once. Whether some still wait.
    pub(crate) fn send_waiting(&self) -> bool {
        if let Some(report) = self.targets.send_waiting(Duration::ZERO) {
            self.sink.write_report(&report);
        }
        self.targets.syslog.as_ref().is_some_and(Syslog::has_waiting)
    }

    /// Writes a record that has passed through Python's `logging`, which it does not get again.
    pub(crate) fn write_record(&self, record: &PythonRecord<'_>) {
        let PythonRecord { severity, text, is_line, is_own } = *record;
        let counted = if is_own { None } else { self.targets.count(severity, false) };
        match is_line {
            true => self.sink.write(format!("{text}\n").as_bytes()),
            false => self.sink.write_record(severity, &text),
        }
        let sent = self.targets.send(severity, &text);
        [counted, sent].into_iter().flatten().for_each(|report| self.sink.write_report(&report));
    }

    /// Passes the records of this worker to `queue`, for Python's `logging`; `None`: no longer.
    pub(crate) fn redirect(&self, queue: Option<Queue>) {
        self.targets.redirect(queue);
    }
}

#[cfg(test)]
#[path = "logging/tests.rs"]
mod tests;
