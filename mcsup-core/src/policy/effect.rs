//! Effects of events, and answers to requests. Values only.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::event::{Generation, Slot, Ticket, WorkerId};
use super::exit::{BootFailure, Exit, Outcome};
use super::notice::Notice;

/// An act of the supervisor that the policy has decided on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Effect {
    /// Fork a worker.
    Spawn {
        /// Its serial number.
        worker: WorkerId,
        /// Its slot.
        slot: Slot,
        /// Its version.
        generation: Generation,
        /// The mold that forks it; `None`: the supervisor itself.
        mold: Option<WorkerId>,
        /// The number of requests after which it reports `Enough`; `None`: it never does.
        max_requests: Option<u64>,
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
    /// Measure the memory of the workers.
    Measure,
    /// Check by a dry run whether the image on disk can take over.
    CheckImage,
    /// Execute that image in the supervisor's process.
    Exec,
    /// Order a booted worker to serve.
    Begin {
        /// Which worker.
        worker: WorkerId,
    },
    /// Announce to a worker that the pool will end soon; it continues to serve.
    LameDuck {
        /// Which worker.
        worker: WorkerId,
    },
    /// Send a worker the reason why the newest generation failed.
    Broken {
        /// Which worker.
        worker: WorkerId,
        /// The reason, in several lines.
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
    /// Send SIGABRT: a worker without beats writes its stacks and dies.
    Abort {
        /// Which worker.
        worker: WorkerId,
    },
    /// Send SIGKILL.
    Kill {
        /// Which worker.
        worker: WorkerId,
    },
    /// Ask a worker to open its log files again.
    ReopenLogs {
        /// Which worker.
        worker: WorkerId,
    },
    /// Refuse new connections: those in the queue are served before the listeners close.
    RefuseNew,
    /// Close the supervisor's copies of the listeners; the draining workers keep theirs.
    CloseListeners,
    /// The first worker is ready: a process that waits for the start may continue.
    PoolReady {
        /// The number of ready workers.
        ready: usize,
        /// The intended number.
        target: usize,
    },
    /// Log a message to the operator.
    Log(Notice),
    /// End the event loop: no process is left.
    End(Outcome),
}

/// The way in which a worker drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Drain {
    /// Siblings serve the listeners: stop accepting at once.
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
        /// Several lines, such as a complete traceback.
        detail: Option<String>,
    },
    /// A newer request replaced it.
    Superseded,
    /// It cannot be done, or not now; one line.
    Refused(String),
}

/// The reason of a failure: one line, and perhaps a detail of several lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FailureReason {
    pub(super) reason: String,
    pub(super) detail: Option<String>,
}

impl FailureReason {
    /// A reason without a detail.
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), detail: None }
    }

    /// The end of a process as a reason: `what` with the evidence of the exit.
    pub(super) fn of_exit(what: impl fmt::Display, exit: &Exit) -> Self {
        let detail = exit.evidence.error.as_ref().and_then(|error| error.detail.clone());
        Self { reason: format!("{what}: {exit}"), detail }
    }

    /// The reason, and the state after the failure.
    pub(super) fn and(&self, state: &str) -> Self {
        Self { reason: format!("{}; {state}", self.reason), detail: self.detail.clone() }
    }

    /// The answer to a request that failed for this reason.
    pub(super) fn answer(&self) -> Answer {
        Answer::Failed { reason: self.reason.clone(), detail: self.detail.clone() }
    }
}

impl From<&BootFailure> for FailureReason {
    fn from(failure: &BootFailure) -> Self {
        Self { reason: failure.summary.clone(), detail: failure.detail.clone() }
    }
}
