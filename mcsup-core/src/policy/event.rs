//! Events of a pool, and requests of an operator. Values only.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::exit::{BootFailure, Exit};
use super::rules::Policy;

/// A point on the supervisor's monotonic clock, from an arbitrary origin.
pub(crate) type Moment = Duration;

/// One worker's serial number: never used twice in a supervisor's life, unlike a pid.
///
/// A mold has one as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct WorkerId(pub(crate) u64);

/// A request that waits for its answer. Each is answered once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Ticket(pub(crate) u64);

/// A stable place in the pool, counted from 0.
pub(crate) type Slot = usize;

/// One version of code and settings, counted from 1.
pub(crate) type Generation = u64;

/// Where a worker is forked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) slot: Slot,
    pub(crate) generation: Generation,
}

/// Something happened.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    /// The fork that [`Effect::Spawn`](super::Effect::Spawn) or [`Effect::SpawnMold`](super::Effect::SpawnMold) asked for succeeded.
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
    /// A mold has not forked a worker for long, though it was ordered to.
    MoldStuck {
        /// Which mold.
        mold: WorkerId,
    },
    /// The worker's boot returned `Ok` and it said so.
    Ready {
        /// Which worker.
        worker: WorkerId,
    },
    /// The worker's boot failed and it said why; its exit follows.
    BootFailed {
        /// Which worker.
        worker: WorkerId,
        /// Why.
        failure: BootFailure,
    },
    /// A ready worker wants to be replaced.
    Leaving {
        /// Which worker.
        worker: WorkerId,
        /// Why.
        reason: String,
    },
    /// A ready worker has served all the requests that it may, and goes on.
    Enough {
        /// Which worker.
        worker: WorkerId,
        /// How many it has served.
        requests: u64,
    },
    /// The memory of workers, in bytes: the answer to [`Effect::Measure`](super::Effect::Measure).
    Memory(Vec<(WorkerId, u64)>),
    /// A worker has seen a change of the files that it runs.
    Changed {
        /// Which file has changed.
        reason: String,
    },
    /// The settings that [`Effect::Prepare`](super::Effect::Prepare) asked for have been read, and their listeners are open.
    Prepared {
        /// For which generation.
        generation: Generation,
        /// The policy from now on; `None`: it has not changed.
        policy: Option<Box<Policy>>,
        /// Whether some address is not listened on any more.
        closes_listeners: bool,
    },
    /// They cannot be read, or their listeners cannot be opened.
    NotPrepared {
        /// For which generation.
        generation: Generation,
        /// Why.
        reason: String,
    },
    /// The image that [`Effect::CheckImage`](super::Effect::CheckImage) asked about can take over.
    ImageChecked,
    /// This image has taken over.
    Upgraded {
        /// The old and the new version, in one line.
        message: String,
    },
    /// The new image cannot take over, or did not: this one goes on.
    UpgradeFailed {
        /// Why.
        reason: String,
    },
    /// The last signs of life of all workers: of all at once, so that none is judged by older ones.
    Beats(Vec<(WorkerId, Moment)>),
    /// The worker's process ended and was reaped.
    Exited {
        /// Which worker.
        worker: WorkerId,
        /// How.
        exit: Exit,
    },
    /// The operator wants something; the ticket waits for the answer.
    Ask(Ask, Option<Ticket>),
    /// The supervisor itself did not run for this long (suspended, stopped): no worker is to blame for it.
    Late {
        /// How much later than asked the supervisor woke up.
        by: Duration,
    },
    /// A deadline may have passed.
    Tick,
}

/// How much of its work a pool does before it ends.
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
    /// End the pool. Asked again, it escalates.
    Stop(StopMode),
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
