//! Events of a pool, and requests of an operator. Values only.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::exit::{BootFailure, Exit};
use super::rules::Policy;

/// A point on the supervisor's monotonic clock, from an arbitrary origin.
pub(crate) type Moment = Duration;

/// The serial number of a worker or mold. Unlike a pid it is never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct WorkerId(pub(crate) u64);

/// Identifies a request that waits for its answer. Each is answered once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Ticket(pub(crate) u64);

/// The number of a slot, counted from 0.
pub(crate) type Slot = usize;

/// One version of code and settings, counted from 1.
pub(crate) type Generation = u64;

/// The slot and generation of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) slot: Slot,
    pub(crate) generation: Generation,
}

/// An event of a pool.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    /// The fork of a worker or mold succeeded.
    Spawned {
        /// Whose fork.
        worker: WorkerId,
        /// Its process id.
        pid: i32,
    },
    /// The fork failed (no memory, process limit): transient, tried again later.
    SpawnFailed {
        /// Whose fork.
        worker: WorkerId,
        /// Why.
        reason: String,
    },
    /// A mold has an order, and has not forked a worker for long.
    MoldStuck {
        /// Which mold.
        mold: WorkerId,
    },
    /// A worker or mold has reported that its boot succeeded.
    Ready {
        /// Which worker.
        worker: WorkerId,
    },
    /// A worker or mold has reported why its boot failed; its exit follows.
    BootFailed {
        /// Which worker.
        worker: WorkerId,
        /// Why.
        failure: BootFailure,
    },
    /// A ready worker requests its replacement.
    Leaving {
        /// Which worker.
        worker: WorkerId,
        /// Why.
        reason: String,
    },
    /// A ready worker has served its maximum of requests, and continues.
    Enough {
        /// Which worker.
        worker: WorkerId,
        /// The number that it has served.
        requests: u64,
    },
    /// The memory of workers, in bytes: the answer to [`Effect::Measure`](super::Effect::Measure).
    Memory(Vec<(WorkerId, u64)>),
    /// A worker has detected a change of the files of its application.
    Changed {
        /// Which file has changed.
        reason: String,
    },
    /// The settings for [`Effect::Prepare`](super::Effect::Prepare) have been read, and their listeners are open.
    Prepared {
        /// For which generation.
        generation: Generation,
        /// The policy from now on; `None`: it has not changed.
        policy: Option<Box<Policy>>,
        /// Whether some address is no longer configured.
        closes_listeners: bool,
    },
    /// The settings cannot be read, or their listeners cannot be opened.
    NotPrepared {
        /// For which generation.
        generation: Generation,
        /// Why, in one line.
        reason: String,
        /// Further lines.
        detail: Option<String>,
    },
    /// The dry run of [`Effect::CheckImage`](super::Effect::CheckImage) has succeeded.
    ImageChecked,
    /// This image has taken over.
    Upgraded {
        /// The old and the new version, in one line.
        message: String,
    },
    /// The new image could not take over: this one continues.
    UpgradeFailed {
        /// Why.
        reason: String,
    },
    /// The latest beats of all workers, read at the same time.
    Beats(Vec<(WorkerId, Moment)>),
    /// The worker's process ended and was reaped.
    Exited {
        /// Which worker.
        worker: WorkerId,
        /// How.
        exit: Exit,
    },
    /// An operator's request; the ticket waits for the answer.
    Ask(Ask, Option<Ticket>),
    /// The supervisor itself did not run for a time (suspended, stopped).
    Late {
        /// The length of that time.
        by: Duration,
    },
    /// A deadline may have passed.
    Tick,
}

/// The work that a pool does before it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopMode {
    /// It finishes the requests that have arrived.
    Graceful,
    /// It ends now.
    Quick,
}

/// A request of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// End the pool. A further request escalates.
    Stop(StopMode),
    /// End the pool gracefully unless its end has begun: the program that has spawned it has ended.
    StopWithProgram,
    /// New settings and a new generation.
    Reload,
    /// A new image of the supervisor.
    Upgrade,
    /// This number of workers.
    Scale(usize),
    /// A new worker in the place of the one in this slot.
    Recycle(Slot),
    /// One worker more.
    ScaleUp,
    /// One worker fewer, never below one.
    ScaleDown,
    /// Open log files again.
    ReopenLogs,
}
