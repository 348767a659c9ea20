//! The phase of a pool: one enum, with the data of a phase in its variant.

use super::event::{Generation, Moment, StopMode};
use super::rollout::Rollout;
use crate::error::ErrorKind;

/// Where the pool is in its life.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum PoolPhase {
    /// No worker has been ready yet.
    Starting,
    /// Serving.
    Serving,
    /// Serving while a new generation takes over.
    Reloading(Rollout),
    /// Serving while slots that a failed generation holds are given back.
    RollingBack {
        /// The failed generation.
        generation: Generation,
    },
    /// Serving while another image shows whether it can take over.
    Upgrading {
        /// When it counts as failed.
        until: Moment,
        /// Whether it can, and does as soon as every fork has been answered.
        is_checked: bool,
    },
    /// Serving, and its health check says that it will end.
    LameDuck {
        /// When it begins to stop.
        until: Moment,
    },
    /// Ending.
    Stopping {
        /// The last order.
        mode: StopMode,
        /// How many were killed at the deadline of a graceful stop.
        killed: usize,
    },
    /// The first generation cannot boot; the processes that are left are being reaped.
    Failing {
        /// The kind of the failure.
        kind: ErrorKind,
    },
    /// Over.
    Ended,
}

impl PoolPhase {
    /// In one or two words.
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

    /// Whether the pool is on its way out.
    pub(crate) fn is_ending(&self) -> bool {
        matches!(self, PoolPhase::Stopping { .. } | PoolPhase::Failing { .. } | PoolPhase::Ended)
    }
}
