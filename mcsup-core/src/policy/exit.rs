//! How processes and pools fail and end, with the evidence of the cause. Values only.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::ErrorKind;

/// The reason of a failed boot, as the worker reported it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BootFailure {
    /// [`ErrorKind::Application`] if the application could not be loaded, otherwise [`ErrorKind::Boot`].
    pub(crate) kind: ErrorKind,
    /// One line.
    pub(crate) summary: String,
    /// Several lines, such as a complete traceback.
    pub(crate) detail: Option<String>,
}

/// The error or panic of a process, as it reported it before its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastError {
    /// One line.
    pub(crate) summary: String,
    /// Several lines.
    pub(crate) detail: Option<String>,
}

/// How a process ended, with the evidence of the cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exit {
    /// The status that the kernel reported.
    pub(crate) status: ExitStatus,
    /// Other evidence.
    pub(crate) evidence: Evidence,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        match &self.evidence.error {
            Some(error) => write!(f, ": {}", error.summary),
            None => Ok(()),
        }
    }
}

/// The status that waitpid(2) reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    /// The process called exit with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(number) => write!(f, "signal {number}"),
        }
    }
}

/// Evidence around an exit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Evidence {
    /// Whether the kernel's out-of-memory kills explain a death by SIGKILL.
    pub(crate) out_of_memory: OutOfMemory,
    /// The sender of the last signal that the worker noticed.
    pub(crate) sender: Option<Sender>,
    /// The age of the request that it was running.
    pub(crate) request_age: Option<Duration>,
    /// Its last error or panic, if it could report one.
    pub(crate) error: Option<LastError>,
}

/// Whether the kernel counts an out-of-memory kill for a death, in the worker's own cgroup.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum OutOfMemory {
    /// Nothing: the count cannot be read, or was not read before.
    #[default]
    NotCounted,
    /// It counts no kill lately.
    None,
    /// It counts kills, but none shortly before this death: they may be of other processes.
    Earlier {
        /// How many.
        kills: u64,
        /// The longest time since them.
        within: Duration,
    },
    /// It counts fewer kills than processes died at that moment.
    Perhaps {
        /// How many kills.
        kills: u64,
        /// How many processes died of SIGKILL.
        deaths: u64,
    },
    /// It counts a kill for this death.
    Kill,
}

/// The sender of a signal, as the kernel names it (`si_pid`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sender {
    /// The signal's number.
    pub(crate) signal: i32,
    /// The sender's pid.
    pub(crate) pid: i32,
}

/// The reason why the supervisor killed a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum KillReason {
    /// It was not ready within this time.
    BootTimeout(Duration),
    /// It did not beat for this time.
    Silent(Duration),
    /// It had not drained within this time.
    GracefulTimeout(Duration),
    /// A quick stop left it no more time.
    QuickStop,
    /// Its generation was given up before it was ready.
    GivenUp,
    /// It had not finished when later workers of its slot asked to be replaced.
    Crowded,
    /// It is a mold that does not fork, or could not several times in a row.
    Barren,
}

impl KillReason {
    /// Whether it ends a worker that was finishing.
    pub(super) fn ends_a_drain(self) -> bool {
        matches!(self, KillReason::GracefulTimeout(_) | KillReason::Crowded)
    }
}

impl fmt::Display for KillReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KillReason::BootTimeout(limit) => write!(f, "not ready within the boot timeout of {limit:?}"),
            KillReason::Silent(limit) => write!(f, "no sign of life within the timeout of {limit:?}"),
            KillReason::GracefulTimeout(limit) => {
                write!(f, "not finished within the graceful timeout of {limit:?}")
            }
            KillReason::QuickStop => f.write_str("quick stop"),
            KillReason::GivenUp => f.write_str("its generation was given up"),
            KillReason::Barren => f.write_str("it did not fork what it was told to"),
            KillReason::Crowded => f.write_str("later workers of its slot have asked to be replaced too"),
        }
    }
}

/// The outcome of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It stopped as requested.
    Stopped,
    /// It stopped, but workers had to be killed at the graceful timeout.
    Forced {
        /// How many.
        killed: usize,
    },
    /// The first generation could not boot.
    BootFailed(ErrorKind),
    /// It stopped, but SIGKILL did not end some processes.
    Unkillable {
        /// How many.
        left: usize,
    },
}
