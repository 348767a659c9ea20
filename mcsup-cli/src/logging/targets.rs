//! The targets of the error log beside its file: syslog, counters for statsd, and in a worker a queue for Python.

use std::fmt::Display;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use log::{Log, Metadata, Record};
use mcsup_py::EXCEPTION;
use mcsup_py::targets::{LAST_MESSAGES, Queue, Report, Severity, Statsd, Syslog, queue};

use super::line;
use super::sink::Sink;

/// The targets beside the file.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    /// Gets each record.
    pub(crate) syslog: Option<Syslog>,
    /// Counts the records of high levels.
    pub(crate) statsd: Option<Arc<Statsd>>,
    /// Gets the records instead of the file and syslog.
    pub(super) queue: RwLock<Option<Queue>>,
}

impl Targets {
    /// Passes records to `queue` instead of the file from now on; `None`: no longer.
    pub(super) fn redirect(&self, queue: Option<Queue>) {
        *self.queue.write().unwrap_or_else(PoisonError::into_inner) = queue;
    }

    /// Passes a record to Python; `false`: it is to be written here, as it may never arrive there.
    fn queues(&self, record: &Record<'_>) -> bool {
        // A process that the application has forked lacks the thread of the queue, and perhaps the one with the lock.
        let held = if mcsup_core::is_forked_off() { None } else { self.queue.try_read().ok() };
        let Some(queue) = held.as_ref().and_then(|held| held.as_ref()) else { return false };
        let (severity, text) = (line::severity(record), record.args().to_string());
        queue.push(queue::Entry::Error { severity, text, time: SystemTime::now() }) && !queue.is_stuck()
    }

    /// Sends the text of a record to syslog.
    pub(super) fn send(&self, severity: Severity, text: &dyn Display) -> Option<Report> {
        let syslog = self.syslog.as_ref()?;
        syslog.send(severity, text.to_string().trim_end().as_bytes())
    }

    /// Sends what waits for a stream of syslog, and waits for that for `limit` at most.
    pub(super) fn send_waiting(&self, limit: Duration) -> Option<Report> {
        let syslog = self.syslog.as_ref()?;
        if limit.is_zero() { syslog.drive() } else { syslog.flush(limit) }
    }

    /// Counts a record, with gunicorn's names.
    pub(super) fn count(&self, severity: Severity, is_exception: bool) -> Option<Report> {
        let statsd = self.statsd.as_ref()?;
        let name = match severity {
            Severity::Critical => "gunicorn.log.critical",
            Severity::Error if is_exception => "gunicorn.log.exception",
            Severity::Error => "gunicorn.log.error",
            Severity::Warning => "gunicorn.log.warning",
            Severity::Info | Severity::Debug => return None,
        };
        statsd.count(name, 1)
    }
}

/// The logger for the `log` macros.
pub(super) struct Logger {
    pub(super) lines: env_logger::Logger,
    pub(super) sink: Arc<Sink>,
    pub(super) targets: Arc<Targets>,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.lines.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.lines.matches(record) {
            return;
        }
        let severity = line::severity(record);
        let counted = self.targets.count(severity, record.target() == EXCEPTION);
        let sent = if self.targets.queues(record) {
            None
        } else {
            self.lines.log(record);
            self.targets.send(severity, record.args())
        };
        for report in [counted, sent].into_iter().flatten() {
            self.sink.write_report(&report);
        }
    }

    /// For the end of a process, and for threads that may wait.
    fn flush(&self) {
        if let Some(report) = self.targets.send_waiting(LAST_MESSAGES) {
            self.sink.write_report(&report);
        }
    }
}
