//! What can happen to a pool ([`Event`]), what can be done about it ([`Effect`]), and what an operator should be
//! told ([`Notice`]). Values only.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::rules::Policy;
use crate::error::ErrorKind;

/// A point on the supervisor's monotonic clock, counted from an origin of its own choice.
pub type Moment = Duration;

/// One worker's serial number: never used twice in a supervisor's life, unlike a pid.
///
/// A mold has one as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkerId(pub u64);

/// Whoever waits for the answer to something that was asked for. Each is answered once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ticket(pub u64);

/// A stable place in the pool, counted from 0.
pub type Slot = usize;

/// One version of code and settings, counted from 1.
pub type Generation = u64;

/// Something happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The fork that [`Effect::Spawn`] or [`Effect::SpawnMold`] asked for succeeded.
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
    /// A mold has long not forked what it was told to.
    MoldStuck {
        /// Which mold.
        mold: WorkerId,
    },
    /// The worker's boot returned `Ok` and it said so.
    Ready {
        /// Who.
        worker: WorkerId,
    },
    /// The worker's boot failed and it said why; its exit follows.
    BootFailed {
        /// Who.
        worker: WorkerId,
        /// Why.
        failure: BootFailure,
    },
    /// A ready worker wants to be replaced.
    Leaving {
        /// Who.
        worker: WorkerId,
        /// Why.
        reason: String,
    },
    /// A ready worker has served as many requests as it was told to, and goes on.
    Enough {
        /// Who.
        worker: WorkerId,
        /// How many it has served.
        requests: u64,
    },
    /// How much memory workers use, in bytes; what [`Effect::Measure`] asked for.
    Memory(Vec<(WorkerId, u64)>),
    /// A worker has seen that what it runs has changed.
    Changed {
        /// What has changed.
        reason: String,
    },
    /// The settings that [`Effect::Prepare`] asked for have been read, and their listeners are open.
    Prepared {
        /// For which generation.
        generation: Generation,
        /// What is decided by from now on; `None`: nothing has changed.
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
    /// The image that [`Effect::CheckImage`] asked about can take over.
    ImageChecked,
    /// This image has taken over.
    Upgraded {
        /// From what to what, in one line.
        message: String,
    },
    /// The new image cannot take over, or did not: this one goes on.
    UpgradeFailed {
        /// Why.
        reason: String,
    },
    /// When workers last showed that they move: of all at once, so that none is judged by what was known before.
    Beats(Vec<(WorkerId, Moment)>),
    /// The worker's process ended and was reaped.
    Exited {
        /// Who.
        worker: WorkerId,
        /// How.
        exit: Exit,
    },
    /// The operator wants something; somebody may wait for the answer.
    Ask(Ask, Option<Ticket>),
    /// The supervisor itself did not run for this long (suspended, stopped): no worker is to blame for it.
    Late {
        /// How much later than asked the supervisor woke up.
        by: Duration,
    },
    /// A deadline may have passed.
    Tick,
}

/// What an operator can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Finish what has arrived, then end. Asked again, it escalates.
    StopGraceful,
    /// End now.
    StopQuick,
    /// New settings and a new generation.
    Reload,
    /// A new image of the supervisor.
    Upgrade,
    /// So many workers.
    Scale(usize),
    /// A new worker in the place of the one in this slot.
    Recycle(Slot),
    /// One worker more.
    ScaleUp,
    /// One worker fewer, never below one.
    ScaleDown,
    /// Open log files anew.
    ReopenLogs,
}

/// Something is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Fork a worker.
    Spawn {
        /// Its serial number.
        worker: WorkerId,
        /// Its place.
        slot: Slot,
        /// Its version.
        generation: Generation,
        /// The mold that forks it; `None`: the supervisor itself.
        mold: Option<WorkerId>,
        /// After how many requests it says that it has served enough; 0: never.
        enough: u64,
    },
    /// Fork a mold: a process that loads what the workers of a generation run, and forks them.
    SpawnMold {
        /// Its serial number.
        mold: WorkerId,
        /// Its version.
        generation: Generation,
    },
    /// Read the settings anew, for a generation that is to be, and open what they want listened on.
    Prepare {
        /// The generation.
        generation: Generation,
    },
    /// The generation serves alone from now on: what only older ones listened on is let go of.
    Commit {
        /// The generation.
        generation: Generation,
    },
    /// The generation will never serve: what was prepared for it is let go of.
    Discard {
        /// The generation.
        generation: Generation,
    },
    /// Have listeners for so many slots.
    Resize {
        /// How many.
        slots: usize,
    },
    /// Find out how much memory the workers use.
    Measure,
    /// Find out whether the image that is there now could take over.
    CheckImage,
    /// Let it take over.
    Exec,
    /// Tell a worker that has booted to serve.
    Begin {
        /// Whom.
        worker: WorkerId,
    },
    /// Tell a worker that the pool will end soon; it goes on serving.
    LameDuck {
        /// Whom.
        worker: WorkerId,
    },
    /// Tell a worker why what it runs cannot be replaced by what is there now.
    Broken {
        /// Whom.
        worker: WorkerId,
        /// Why, in several lines.
        text: String,
    },
    /// Answer whoever waits.
    Answer {
        /// Whom.
        ticket: Ticket,
        /// What.
        answer: Answer,
    },
    /// Ask a worker to finish what it has and end.
    Drain {
        /// Whom.
        worker: WorkerId,
        /// In which way.
        how: Drain,
    },
    /// Ask a worker to end now.
    Quit {
        /// Whom.
        worker: WorkerId,
    },
    /// Make a worker that does not move show its stacks and die (SIGABRT).
    Abort {
        /// Whom.
        worker: WorkerId,
    },
    /// SIGKILL.
    Kill {
        /// Whom.
        worker: WorkerId,
    },
    /// Ask a worker to open its log files anew.
    ReopenLogs {
        /// Whom.
        worker: WorkerId,
    },
    /// Keep new clients from getting in line: whoever is in it will be served, and then the listeners close.
    RefuseNew,
    /// Close the supervisor's own listeners: from now on only the draining workers hold them.
    CloseListeners,
    /// A first worker is ready: a process that waits for the start may go on.
    PoolReady {
        /// How many are.
        ready: usize,
        /// How many there should be.
        target: usize,
    },
    /// Tell the operator.
    Tell(Notice),
    /// Nothing is left: leave the loop.
    End(Outcome),
}

/// What came of something that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It is done; one line.
    Done(String),
    /// It was tried and undone.
    Failed {
        /// One line.
        reason: String,
        /// Several lines, such as a traceback, whole.
        detail: Option<String>,
    },
    /// Something newer took its place.
    Superseded,
    /// It cannot be done, or not now; one line.
    Refused(String),
}

/// How a worker is to finish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Drain {
    /// Others go on serving the listeners: stop accepting at once.
    Retire,
    /// Nobody else will serve what is queued: accept it first.
    Stop,
}

/// Why a worker was killed by its supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KillReason {
    /// It was not ready within this time.
    BootTimeout(Duration),
    /// It gave no sign of life for this time.
    Silent(Duration),
    /// It had not drained within this time.
    GracefulTimeout(Duration),
    /// A quick stop left it no more time.
    QuickStop,
    /// Its generation was given up before it was ready.
    GivenUp,
    /// It was still finishing when later workers of its slot had asked to be replaced as well.
    Crowded,
    /// It is a mold, and did not fork what it was told to, or could not again and again.
    Barren,
}

impl KillReason {
    /// Whether it ends a worker that was finishing.
    pub(super) fn ends_a_drain(self) -> bool {
        matches!(self, KillReason::GracefulTimeout(_) | KillReason::Crowded)
    }
}

/// Why a boot failed, in the worker's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFailure {
    /// [`ErrorKind::Application`] where the thing to run could not be loaded, [`ErrorKind::Boot`] otherwise.
    pub kind: ErrorKind,
    /// One line.
    pub summary: String,
    /// Several lines, such as a traceback, whole.
    pub detail: Option<String>,
}

/// How a process ended, with what is known about the why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// What the kernel reported.
    pub status: ExitStatus,
    /// What else was seen.
    pub evidence: Evidence,
}

/// What `waitpid` reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// The process called exit with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl std::fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(number) => write!(f, "signal {number}"),
        }
    }
}

/// What was seen around an exit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Evidence {
    /// Whether the kernel's out-of-memory kills explain a death by SIGKILL.
    pub out_of_memory: OutOfMemory,
    /// Who sent the last signal that the worker noticed.
    pub sender: Option<Sender>,
    /// For how long the request that it was busy with had been running.
    pub request_age: Option<Duration>,
}

/// What the kernel's count of out-of-memory kills, of the worker's own cgroup, says about a death.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum OutOfMemory {
    /// Nothing: the count cannot be read, or was not read before.
    #[default]
    NotCounted,
    /// It counts no kill lately.
    None,
    /// It counts kills that may be other processes': this death was not shortly after them.
    Earlier {
        /// How many.
        kills: u64,
        /// They are not older than this.
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

/// The sender of a signal, as the kernel names it (`si_pid`, `si_uid`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// The signal's number.
    pub signal: i32,
    /// The sender's pid.
    pub pid: i32,
    /// The sender's user id.
    pub uid: u32,
}

/// How a supervisor's life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As asked.
    Stopped,
    /// As asked, but this many workers had to be killed at the graceful timeout.
    Forced {
        /// How many.
        killed: usize,
    },
    /// The first generation could not boot.
    BootFailed(ErrorKind),
    /// As asked, but this many processes are still there after SIGKILL.
    Unkillable {
        /// How many.
        left: usize,
    },
}

/// What an operator should read in the log.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the fields are those of the events, named alike")]
pub enum Notice {
    Booting {
        worker: WorkerId,
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
        retry_in: Duration,
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
    MoldBooting {
        generation: Generation,
        pid: i32,
    },
    MoldReady {
        pid: i32,
        generation: Generation,
        after: Duration,
    },
    MoldDied {
        pid: i32,
        generation: Generation,
        exit: Exit,
        killed: Option<KillReason>,
        again_in: Option<Duration>,
    },
    MoldFailed {
        generation: Generation,
        reason: String,
        again_in: Duration,
    },
    MoldUnkillable {
        pid: i32,
        since: Duration,
    },
    Recycling {
        pid: i32,
        slot: Slot,
        reason: String,
    },
    RecyclePostponed {
        slot: Slot,
        reason: String,
    },
    Recycled {
        slot: Slot,
        reason: String,
    },
    RecycleFailed {
        slot: Slot,
        reason: String,
        again_in: Duration,
    },
    Changed {
        reason: String,
    },
    NewcomerFailed {
        generation: Generation,
        reason: String,
        left: usize,
    },
    RollingBack {
        slots: usize,
    },
    RolledBack,
    RollbackFailed {
        reason: String,
    },
    ScaleFailed {
        from: usize,
        to: usize,
        reason: String,
    },
    UpgradePostponed,
    Upgrading,
    UpgradeFailed {
        reason: String,
    },
    Upgraded {
        workers: usize,
    },
    LameDuck {
        lasts: Duration,
    },
    Reloading {
        generation: Generation,
    },
    ReloadPostponed {
        reason: &'static str,
    },
    ReloadDone {
        generation: Generation,
        took: Duration,
    },
    ReloadFailed {
        generation: Generation,
        reason: String,
    },
    ReloadSuperseded {
        generation: Generation,
    },
    Scaled {
        from: usize,
        to: usize,
    },
    Stopping {
        ask: Ask,
    },
    Escalated,
    Woke {
        by: Duration,
    },
    Ended {
        outcome: Outcome,
    },
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
