//! Effects of events, and answers to requests. Values only.

use serde::{Deserialize, Serialize};

use super::event::{Generation, Slot, Ticket, WorkerId};
use super::exit::{BootFailure, Outcome};
use super::notice::Notice;

/// Something is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Effect {
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
        /// After how many requests it says that it has served enough; `None`: never.
        enough: Option<u64>,
    },
    /// Fork a mold: a process that loads the code of a generation's workers, and forks them.
    SpawnMold {
        /// Its serial number.
        mold: WorkerId,
        /// Its version.
        generation: Generation,
    },
    /// Read the settings for a new generation, and open the listeners in them.
    Prepare {
        /// The generation.
        generation: Generation,
    },
    /// The generation serves alone from now on: listeners of older ones alone are closed.
    Commit {
        /// The generation.
        generation: Generation,
    },
    /// The generation will never serve: listeners that were opened for it are closed.
    Discard {
        /// The generation.
        generation: Generation,
    },
    /// Have listeners for this number of slots.
    Resize {
        /// How many.
        slots: usize,
    },
    /// Find out how much memory the workers use.
    Measure,
    /// Find out whether the image on disk can take over.
    CheckImage,
    /// Execute it in the supervisor's place.
    Exec,
    /// Tell a worker that has booted to serve.
    Begin {
        /// Which worker.
        worker: WorkerId,
    },
    /// Tell a worker that the pool will end soon; it goes on serving.
    LameDuck {
        /// Which worker.
        worker: WorkerId,
    },
    /// Tell a worker why the newest version cannot take its place.
    Broken {
        /// Which worker.
        worker: WorkerId,
        /// Why, in several lines.
        text: String,
    },
    /// Answer a request.
    Answer {
        /// Which request.
        ticket: Ticket,
        /// The answer.
        answer: Answer,
    },
    /// Ask a worker to finish its requests and end.
    Drain {
        /// Which worker.
        worker: WorkerId,
        /// In which way.
        how: Drain,
    },
    /// Ask a worker to end now.
    Quit {
        /// Which worker.
        worker: WorkerId,
    },
    /// Make a worker that does not move show its stacks and die (SIGABRT).
    Abort {
        /// Which worker.
        worker: WorkerId,
    },
    /// SIGKILL.
    Kill {
        /// Which worker.
        worker: WorkerId,
    },
    /// Ask a worker to open its log files again.
    ReopenLogs {
        /// Which worker.
        worker: WorkerId,
    },
    /// Keep new clients out of the queue: those in it are served before the listeners close.
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

/// How a worker is to finish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Drain {
    /// Others go on serving the listeners: stop accepting at once.
    Retire,
    /// No other worker serves the queue: accept it first.
    Stop,
}

/// The outcome of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
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

/// Why something failed: one line, and several where there are more, such as a traceback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Why {
    pub(super) reason: String,
    pub(super) detail: Option<String>,
}

impl Why {
    /// A reason without a detail.
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), detail: None }
    }

    /// The answer to a request that has failed for this.
    pub(super) fn answer(&self) -> Answer {
        Answer::Failed { reason: self.reason.clone(), detail: self.detail.clone() }
    }
}

impl From<&BootFailure> for Why {
    fn from(failure: &BootFailure) -> Self {
        Self { reason: failure.summary.clone(), detail: failure.detail.clone() }
    }
}
