//! The events of a pool, for its program. Owned data only: `observations` makes them.

use std::time::Duration;

use crate::policy::Outcome;

/// A process of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolProcess {
    /// Its process id; `None`: a mold has not forked it.
    pub pid: Option<i32>,
    /// The slot of a worker, counted from 0; `None`: it is a mold.
    pub slot: Option<usize>,
    /// Its generation, counted from 1.
    pub generation: u64,
    /// Its number, [`WorkerContext::number`](crate::WorkerContext::number); `None`: it is not known any more.
    pub number: Option<u64>,
}

/// An event of a pool, for [`Supervisor::observe`](crate::Supervisor::observe).
///
/// There is an event for each line that the pool logs about its processes and its state. The end of each process that is
/// [born](Self::Born) is an event, [`Retired`](Self::Retired) or [`Died`](Self::Died), also where the log has no line,
/// unless the process outlives the pool.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum PoolEvent {
    /// The pool is in another phase. The names are those of [`Status::phase`](crate::control::Status::phase).
    PhaseChanged {
        /// The earlier phase.
        from: &'static str,
        /// The phase from now on.
        to: &'static str,
    },
    /// An earlier image has forked a worker or a mold, and this one has adopted it.
    Adopted {
        /// The process.
        process: PoolProcess,
    },
    /// A worker or a mold was forked, and boots.
    Born {
        /// The new process.
        process: PoolProcess,
    },
    /// A worker or a mold is ready.
    Ready {
        /// Which process.
        process: PoolProcess,
        /// The time since its fork.
        after: Duration,
    },
    /// A worker or a mold has reported that it cannot boot. Its [`Died`](Self::Died) follows.
    BootFailed {
        /// Which process.
        process: PoolProcess,
        /// The reason, in one line.
        error: String,
        /// Further lines, such as a traceback.
        detail: Option<String>,
    },
    /// A worker could not be forked.
    ForkFailed {
        /// Its slot.
        slot: usize,
        /// The reason, in one line.
        error: String,
        /// The time until the next attempt; `None`: there is none.
        again_in: Option<Duration>,
    },
    /// The supervisor ends a worker. Its [`Died`](Self::Died) follows.
    Ending {
        /// Which process.
        process: PoolProcess,
        /// The reason, in one line.
        reason: String,
    },
    /// A worker leaves as soon as its successor is ready.
    Leaving {
        /// Which process.
        process: PoolProcess,
        /// Its own reason, in one line.
        reason: String,
        /// The time until its successor starts; `None`: it gets none.
        respawn_in: Option<Duration>,
    },
    /// A worker has finished as ordered, and was reaped.
    Retired {
        /// Which process.
        process: PoolProcess,
    },
    /// A worker or a mold has ended and was reaped: without an order, before it was ready, or by SIGKILL.
    Died {
        /// Which process.
        process: PoolProcess,
        /// The cause, as far as it is known, in the words of the log: `exited with code 7`.
        cause: String,
        /// The error or panic that it reported, in one line.
        error: Option<String>,
        /// Further lines of that error, such as a traceback.
        detail: Option<String>,
        /// The time until the next worker of its slot starts; `None`: there is none, or it is a mold.
        respawn_in: Option<Duration>,
    },
    /// SIGKILL has not ended a worker or a mold, and the pool no longer waits for it.
    Unkillable {
        /// Which process.
        process: PoolProcess,
        /// The time since SIGKILL.
        since: Duration,
    },
    /// A generation gets no mold for now; workers serve on.
    MoldFailed {
        /// Which generation.
        generation: u64,
        /// The reason, in one line.
        error: String,
        /// The time until the next attempt.
        again_in: Duration,
    },
    /// A healthy worker is being replaced: its successor boots.
    RecycleBegan {
        /// Which process.
        process: PoolProcess,
        /// The reason, in one line.
        reason: String,
    },
    /// The replacement of a healthy worker waits until nothing else is in progress.
    RecyclePostponed {
        /// Its slot.
        slot: usize,
        /// The reason of the replacement, in one line.
        reason: String,
    },
    /// A slot has its new worker; the old one finishes.
    RecycleDone {
        /// Which slot.
        slot: usize,
    },
    /// The successor could not boot; the old worker serves on.
    RecycleFailed {
        /// Which slot.
        slot: usize,
        /// The reason, in one line.
        error: String,
        /// The time until the next attempt.
        again_in: Duration,
    },
    /// A worker requests a reload, because its files have changed.
    ReloadWanted {
        /// Its reason, in one line.
        reason: String,
    },
    /// A reload waits.
    ReloadPostponed {
        /// For which reason, in one line.
        reason: String,
    },
    /// A generation boots beside the serving one.
    ReloadBegan {
        /// The new generation.
        generation: u64,
    },
    /// A worker of the new generation has failed; the reload goes on.
    ReloadImpeded {
        /// The new generation.
        generation: u64,
        /// The reason, in one line.
        error: String,
        /// The number of further failures that end the reload.
        left: usize,
    },
    /// The new generation serves in each slot.
    ReloadDone {
        /// The new generation.
        generation: u64,
        /// The time since it began.
        took: Duration,
    },
    /// The old generation serves on.
    ReloadFailed {
        /// The failed generation.
        generation: u64,
        /// The reason, in one line.
        error: String,
    },
    /// A newer reload has replaced this one.
    ReloadSuperseded {
        /// The abandoned generation.
        generation: u64,
    },
    /// Workers of the old generation boot in slots that a failed reload had reached.
    RollbackBegan {
        /// The number of such slots.
        slots: usize,
    },
    /// The old generation serves in each slot again.
    RollbackDone,
    /// The old generation cannot boot any more; new workers serve on.
    RollbackFailed {
        /// The reason, in one line.
        error: String,
    },
    /// The number of workers changes.
    ScaleBegan {
        /// The earlier number.
        from: usize,
        /// The number to reach.
        to: usize,
    },
    /// The number of workers stays as it was.
    ScaleFailed {
        /// The number of workers.
        from: usize,
        /// The number that was not reached.
        to: usize,
        /// The reason, in one line.
        error: String,
    },
    /// An upgrade waits until nothing else is in progress.
    UpgradePostponed,
    /// The dry run of another image has begun.
    UpgradeBegan,
    /// This image supervises the pool since an upgrade.
    UpgradeDone {
        /// The number of workers that it has adopted.
        workers: usize,
    },
    /// The old image goes on.
    UpgradeFailed {
        /// The reason, in one line.
        error: String,
    },
    /// The pool serves on for a time, with a failing health check, and stops then.
    LameDuck {
        /// The length of that time.
        lasts: Duration,
    },
    /// The pool stops.
    StopBegan {
        /// Whether workers abort their requests.
        is_quick: bool,
    },
    /// A further request to stop makes the stop quicker.
    StopEscalated,
    /// The supervisor did not run for a time.
    Stalled {
        /// The length of that time.
        by: Duration,
    },
    /// The pool has ended. No event follows.
    Ended {
        /// How.
        outcome: Outcome,
    },
}
