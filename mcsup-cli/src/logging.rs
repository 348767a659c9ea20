//! The error log: gunicorn's line format, one write for each record, to standard error or to a file that can be
//! reopened.
//!
//! Supervisor and workers share one open file. `O_APPEND` and one `write` for each record keep the lines of several
//! processes whole, also when a record has many lines (a traceback). A log that cannot be written is no reason to
//! stop serving. A log without a reader is not waited for: such records are counted, and the next one that is written says
//! how many. The level and the access log are settled elsewhere.

mod line;
mod sink;

use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::Arc;

use log::LevelFilter;

use sink::Sink;

/// Records with this target are critical: `log` itself knows no level above error.
///
/// `log::error!(target: CRITICAL, "...")` logs one.
pub const CRITICAL: &str = "critical";

/// The least level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Everything.
    Debug,
    /// What a server does.
    Info,
    /// What may go wrong soon.
    Warning,
    /// What went wrong.
    Error,
    /// Only what ends the server.
    Critical,
}

impl Level {
    /// Every level, the most talkative first.
    pub const ALL: [Level; 5] = [Level::Debug, Level::Info, Level::Warning, Level::Error, Level::Critical];

    /// As an operator writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warning => "warning",
            Level::Error => "error",
            Level::Critical => "critical",
        }
    }
}

/// Where a log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// The standard stream of that log.
    Standard,
    /// A file, appended to; made with mode 0640 where there is none.
    File(PathBuf),
}

/// The log could not be set up or reopened.
#[derive(Debug)]
pub struct LogError {
    step: String,
    source: io::Error,
}

impl LogError {
    /// What the system said, or why a file was refused.
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

/// Writes bytes to the log as they are, in one write.
pub type RawWriter = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// The error log of this process. Clones are the same log; after a fork the child's is the same open file.
#[derive(Debug, Clone)]
pub struct ErrorLog {
    sink: Arc<Sink>,
}

impl ErrorLog {
    /// Opens the log and makes it the one that the `log` macros write to; a process does so once.
    ///
    /// A relative path is settled now, so that a later change of directory does not move the file.
    pub fn install(destination: &Destination, level: Level) -> Result<Self, LogError> {
        let log = Self::open(destination)?;
        let logger = log.logger(level);
        let most = logger.filter();
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

    fn open(destination: &Destination) -> Result<Self, LogError> {
        Ok(Self { sink: Arc::new(Sink::open(destination)?) })
    }

    fn logger(&self, level: Level) -> env_logger::Logger {
        let (all, critical) = match level {
            Level::Debug => (LevelFilter::Debug, LevelFilter::Debug),
            Level::Info => (LevelFilter::Info, LevelFilter::Info),
            Level::Warning => (LevelFilter::Warn, LevelFilter::Warn),
            Level::Error => (LevelFilter::Error, LevelFilter::Error),
            Level::Critical => (LevelFilter::Off, LevelFilter::Error),
        };
        env_logger::Builder::new()
            .filter_level(all)
            .filter_module(CRITICAL, critical)
            .format(line::write)
            .target(env_logger::Target::Pipe(Box::new(sink::Whole(Arc::clone(&self.sink)))))
            .build()
    }

    /// In the child of a fork: the parent reports its own lost records. A worker may also wait a little for a slow reader,
    /// which a supervisor never does.
    pub fn is_a_workers(&self) {
        self.sink.is_a_workers();
    }

    /// Opens the file again under its name, after it was moved away. On an error the old file stays in use.
    ///
    /// Call it in the supervisor first, which may have rights that the workers lack, then in each worker.
    pub fn reopen(&self) -> Result<(), LogError> {
        self.sink.reopen()
    }

    /// Gives the log file, also each one that is made later, to the user that the workers run as, so that they can
    /// reopen it. Does nothing for a standard stream, or for a file that is no regular one.
    pub fn give_to(&self, uid: u32, gid: u32) -> Result<(), LogError> {
        self.sink.give_to(uid, gid)
    }

    /// Makes standard output and error the log's file, for a daemon, whose prints would be lost otherwise. Does
    /// nothing where the log is a standard stream itself.
    pub fn take_standard_streams(&self) -> Result<(), LogError> {
        self.sink.take_standard_streams()
    }

    /// The log's descriptor, for code that writes to it by itself (a dump of stacks in a crash). Its number stays
    /// the same when the log is reopened.
    pub fn fd(&self) -> RawFd {
        self.sink.fd()
    }

    /// A writer for text that is not ours, such as `wsgi.errors`.
    pub fn raw_writer(&self) -> RawWriter {
        let sink = Arc::clone(&self.sink);
        Arc::new(move |bytes| sink.write(bytes))
    }
}

#[cfg(test)]
#[path = "logging/tests.rs"]
mod tests;
