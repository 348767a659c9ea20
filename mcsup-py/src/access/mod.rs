//! The access log: a line for each request, formatted in Rust, written in whole lines at the end of a loop turn.
//!
//! - `format`: gunicorn's atoms, compiled once; or one JSON object a line. `conversion`: widths and the like.
//! - `sink`: the file.
//! - `atoms`: the values of a request for Python's `logging`.
//! - `direct`: the same places for handlers of Python's `logging`.
//!
//! Lines also go to syslog, and durations and counts to statsd (`targets`).

mod atoms;
mod conversion;
mod direct;
mod format;
mod sink;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

pub(crate) use direct::DirectLog;
pub use format::Format;

use crate::app::Left;
use crate::http::head::Head;
use crate::http::response::ResponseHead;
use crate::targets::statsd::Requests;
use crate::targets::{LAST_MESSAGES, Queue, Severity, Statsd, Syslog, queue};
use sink::Sink;

/// One answered request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    /// The request head; `None` if it was not understood.
    pub head: Option<Head<'a>>,
    /// The client's address as the connection has it; `None` on a Unix socket.
    pub remote: Option<SocketAddr>,
    /// The answer's head.
    pub response: &'a ResponseHead,
    /// The bytes of the body that were handed over.
    pub bytes: u64,
    /// From the whole request to the last byte handed over.
    pub took: Duration,
    /// What the application has left.
    pub left: &'a Left,
}

impl Entry<'_> {
    /// The client's address, as trusted proxies name it, or as that of the connection.
    fn client(&self) -> Option<SocketAddr> {
        self.head.and_then(|head| head.client()).or(self.remote)
    }
}

/// Which requests are noted, how, and where.
#[derive(Debug, Clone)]
pub struct AccessSettings {
    /// How a line looks.
    pub format: Format,
    /// The path of a file, or `-` for standard output; `None`: no lines are written.
    pub place: Option<String>,
    /// Gets the lines too.
    pub syslog: Option<Arc<Syslog>>,
    /// Gets the number and duration of requests.
    pub statsd: Option<Arc<Statsd>>,
    /// Which workers send statsd the length of the listeners' queues once a second.
    pub backlog: Backlog,
}

/// The workers that sample the queues of the listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backlog {
    /// None.
    Off,
    /// The one of the first slot, as all have the same listeners.
    First,
    /// Each, as each has its own.
    Each,
}

impl Backlog {
    fn is_sampled_by(self, slot: usize) -> bool {
        match self {
            Backlog::Off => false,
            Backlog::First => slot == 0,
            Backlog::Each => true,
        }
    }
}

/// A format, and the targets of lines and metrics.
#[derive(Debug)]
pub struct AccessLog {
    format: Format,
    sink: Option<Sink>,
    syslog: Option<Arc<Syslog>>,
    requests: Option<Requests>,
    /// For Python's `logging`.
    queue: Option<Queue>,
    lines: Vec<u8>,
    clock: format::Clock,
}

/// A request, and the client's address as the connection has it.
type Asked<'a> = (Head<'a>, Option<SocketAddr>);

/// Lines are written before they take more memory than this.
const FULL: usize = 64 * 1024;

impl AccessLog {
    /// A log of the worker of `slot`, as the settings describe it; `None` if they name no target.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(settings: &AccessSettings, slot: usize) -> io::Result<Option<Self>> {
        let AccessSettings { format, place, syslog, statsd, backlog } = settings;
        if place.is_none() && syslog.is_none() && statsd.is_none() {
            return Ok(None);
        }
        let mut log = Self::empty(format.clone());
        log.sink = place.as_deref().map(Sink::open).transpose()?;
        log.syslog.clone_from(syslog);
        log.requests = statsd.clone().map(|statsd| Requests::new(statsd, backlog.is_sampled_by(slot)));
        Ok(Some(log))
    }

    /// A log in `format` without a target.
    pub(crate) fn empty(format: Format) -> Self {
        let (lines, clock) = (Vec::new(), format::Clock::default());
        Self { format, sink: None, syslog: None, requests: None, queue: None, lines, clock }
    }

    /// Passes requests to Python's `logging`, and writes no lines itself any more.
    pub(crate) fn feed(&mut self, queue: Queue) {
        (self.sink, self.queue) = (None, Some(queue));
    }

    /// Notes a request.
    pub(crate) fn note(&mut self, entry: &Entry<'_>) {
        if self.queue.is_none() && (self.sink.is_some() || self.syslog.is_some()) {
            self.format.write(&mut self.lines, entry, &mut self.clock);
            if self.lines.len() > FULL {
                self.write();
            }
        }
        if let Some(requests) = &mut self.requests {
            requests.note(entry.response.status(), entry.took);
        }
        if let Some(queue) = &self.queue {
            let line = self.format.is_json().then(|| {
                let mut line = Vec::new();
                self.format.write(&mut line, entry, &mut self.clock);
                String::from_utf8_lossy(line.trim_ascii_end()).into_owned()
            });
            let atoms = atoms::of(&self.format, entry, &mut self.clock);
            let _ = queue.push(queue::Entry::Access { line, atoms, time: SystemTime::now() });
        }
    }

    /// Notes a request that the engine has answered itself, at once, with `bytes` of a body.
    pub(crate) fn note_own(&mut self, (asked, remote): Asked<'_>, response: &ResponseHead, bytes: u64) {
        let (head, took, left) = (Some(asked), Duration::ZERO, &Left::default());
        self.note(&Entry { head, remote, response, bytes, took, left });
    }

    /// Writes what was noted, and samples the backlog where that is due.
    pub(crate) fn flush(&mut self, now: Instant, backlog: impl FnOnce() -> Option<usize>) {
        self.write();
        if let Some(report) = self.syslog.as_ref().and_then(|syslog| syslog.drive()) {
            report.log();
        }
        if let Some(requests) = &mut self.requests {
            if requests.wants_backlog(now) {
                if let Some(length) = backlog() {
                    requests.note_backlog(length);
                }
            }
            requests.send_due();
        }
    }

    /// Writes everything, at the end.
    pub(crate) fn end(&mut self) {
        self.write();
        if let Some(report) = self.syslog.as_ref().and_then(|syslog| syslog.flush(LAST_MESSAGES)) {
            report.log();
        }
        if let Some(requests) = &mut self.requests {
            requests.send();
        }
    }

    /// Reopens the file, after the pending lines went to the old one.
    pub(crate) fn reopen(&mut self) {
        self.write();
        if let Some(sink) = &mut self.sink {
            sink.reopen();
        }
    }

    fn write(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        if let Some(sink) = &mut self.sink {
            sink.write(&self.lines);
        }
        if let Some(syslog) = &self.syslog {
            let lines = self.lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            for report in lines.filter_map(|line| syslog.send(Severity::Info, line)) {
                report.log();
            }
        }
        self.lines.clear();
    }
}
