//! Messages to the operator. Values only: `supervisor/journal` has the words.

use std::time::Duration;

use super::event::{Generation, Slot, StopMode};
use super::exit::{BootFailure, Exit, KillReason, Outcome};

/// A message to the operator.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Notice {
    /// About one worker.
    Worker(WorkerNotice),
    /// About a mold.
    Mold(MoldNotice),
    /// About a worker that is replaced by one of its own generation.
    Recycle(RecycleNotice),
    /// About a new generation.
    Reload(ReloadNotice),
    /// About the number of workers.
    Scale(ScaleNotice),
    /// About another image of the supervisor.
    Upgrade(UpgradeNotice),
    /// About the pool as a whole.
    Pool(PoolNotice),
}

/// About one worker.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum WorkerNotice {
    Booting {
        slot: Slot,
        generation: Generation,
        pid: i32,
    },
    Ready {
        pid: i32,
        slot: Slot,
        after: Duration,
    },
    BootFailed {
        pid: i32,
        failure: BootFailure,
    },
    BootTimeout {
        pid: i32,
        after: Duration,
    },
    SpawnFailed {
        slot: Slot,
        reason: String,
        retry_in: Option<Duration>,
    },
    Died {
        pid: i32,
        slot: Slot,
        exit: Exit,
        killed: Option<KillReason>,
        respawn_in: Option<Duration>,
    },
    Silent {
        pid: i32,
        since: Duration,
    },
    Overdue {
        pid: i32,
        reason: KillReason,
    },
    Retired {
        pid: i32,
    },
    /// The end of a worker that the pool had given up: the log has the reason already.
    Gone {
        pid: i32,
        slot: Slot,
        exit: Exit,
        killed: Option<KillReason>,
    },
    Unkillable {
        pid: i32,
        slot: Slot,
        since: Duration,
        respawn_in: Option<Duration>,
    },
    Leaving {
        pid: i32,
        slot: Slot,
        reason: String,
        respawn_in: Option<Duration>,
    },
}

/// About a mold.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum MoldNotice {
    Booting {
        generation: Generation,
        pid: i32,
    },
    Ready {
        pid: i32,
        generation: Generation,
        after: Duration,
    },
    BootFailed {
        pid: i32,
        failure: BootFailure,
    },
    BootTimeout {
        pid: i32,
        after: Duration,
    },
    Died {
        pid: i32,
        generation: Generation,
        exit: Exit,
        killed: Option<KillReason>,
    },
    /// The end of a mold that the pool had given up: the log has the reason already.
    Gone {
        pid: i32,
        generation: Generation,
        exit: Exit,
        killed: Option<KillReason>,
    },
    Failed {
        generation: Generation,
        reason: String,
        again_in: Duration,
    },
    Unkillable {
        pid: i32,
        since: Duration,
    },
}

/// About a worker that is replaced by one of its own generation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RecycleNotice {
    Begun { pid: i32, slot: Slot, reason: String },
    Postponed { slot: Slot, reason: String },
    Done { slot: Slot },
    Failed { slot: Slot, reason: String, again_in: Duration },
}

/// About a new generation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ReloadNotice {
    Wanted { reason: String },
    NewWorkerFailed { generation: Generation, reason: String, left: usize },
    RollingBack { slots: usize },
    RolledBack,
    RollbackFailed { reason: String },
    Begun { generation: Generation },
    Postponed { reason: &'static str },
    Done { generation: Generation, took: Duration },
    Failed { generation: Generation, reason: String },
    Superseded { generation: Generation },
}

/// About the number of workers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ScaleNotice {
    Failed { from: usize, to: usize, reason: String },
    Begun { from: usize, to: usize },
}

/// About another image of the supervisor.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum UpgradeNotice {
    Postponed,
    Begun,
    Failed { reason: String },
    Done { workers: usize },
}

/// About the pool as a whole.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum PoolNotice {
    LameDuck { lasts: Duration },
    Stopping { mode: StopMode },
    Escalated,
    Woke { by: Duration },
    Ended { outcome: Outcome },
}

impl From<WorkerNotice> for Notice {
    fn from(notice: WorkerNotice) -> Self {
        Self::Worker(notice)
    }
}

impl From<MoldNotice> for Notice {
    fn from(notice: MoldNotice) -> Self {
        Self::Mold(notice)
    }
}

impl From<RecycleNotice> for Notice {
    fn from(notice: RecycleNotice) -> Self {
        Self::Recycle(notice)
    }
}

impl From<ReloadNotice> for Notice {
    fn from(notice: ReloadNotice) -> Self {
        Self::Reload(notice)
    }
}

impl From<ScaleNotice> for Notice {
    fn from(notice: ScaleNotice) -> Self {
        Self::Scale(notice)
    }
}

impl From<UpgradeNotice> for Notice {
    fn from(notice: UpgradeNotice) -> Self {
        Self::Upgrade(notice)
    }
}

impl From<PoolNotice> for Notice {
    fn from(notice: PoolNotice) -> Self {
        Self::Pool(notice)
    }
}
