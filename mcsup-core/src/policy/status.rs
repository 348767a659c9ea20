//! The phase of a pool: one enum, with the data of a phase in its variant.

use super::event::{Generation, Moment, StopMode};
use super::rollout::Rollout;
use crate::error::ErrorKind;

/// The phase of a pool.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum PoolPhase {
    /// No worker has been ready yet.
    Starting,
    /// Serving.
    Serving,
    /// Serving during a rollout.
    Reloading(Rollout),
    /// Serving while old workers replace those of a failed generation.
    RollingBack {
        /// The failed generation.
        generation: Generation,
    },
    /// Serving during the dry run of another image.
    Upgrading {
        /// When it counts as failed.
        until: Moment,
        /// Whether the dry run has succeeded: the exec follows once no fork is pending.
        is_checked: bool,
    },
    /// Serving with a failing health check, before a stop.
    LameDuck {
        /// When it begins to stop.
        until: Moment,
    },
    /// Ending.
    Stopping {
        /// The mode of the last request.
        mode: StopMode,
        /// The number of workers killed at the deadline of a graceful stop.
        killed: usize,
    },
    /// Ending, because the first generation cannot boot.
    Failing {
        /// The kind of the failure.
        kind: ErrorKind,
    },
    /// Over.
    Ended,
}

impl PoolPhase {
    /// Its name in the status.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            PoolPhase::Starting => "starting",
            PoolPhase::Serving => "serving",
            PoolPhase::Reloading(_) => "reloading",
            PoolPhase::RollingBack { .. } => "rolling back",
            PoolPhase::Upgrading { .. } => "upgrading",
            PoolPhase::LameDuck { .. } => "lame duck",
            PoolPhase::Stopping { .. } => "stopping",
            PoolPhase::Failing { .. } => "failing",
            PoolPhase::Ended => "ended",
        }
    }

    /// Whether the pool is ending, or has ended.
    pub(crate) fn is_ending(&self) -> bool {
        matches!(self, PoolPhase::Stopping { .. } | PoolPhase::Failing { .. } | PoolPhase::Ended)
    }
}
