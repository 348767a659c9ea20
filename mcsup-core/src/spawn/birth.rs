//! What processes are born with: workers, and the molds that fork them.

use std::os::fd::{IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Pid;

use crate::error::Result;
use crate::host::descriptors;
use crate::host::privileges::RunAs;
use crate::link::channel::WorkerEnd;
use crate::link::fork_order::ForkingEnd;
use crate::link::handover::Handover;
use crate::link::scoreboard::{Board, Seat};
use crate::listener::open::OpenSet;
use crate::listener::record::ListenerRecord;

/// Everything that a worker is born with.
pub(crate) struct Birth {
    pub(crate) slot: usize,
    pub(crate) max_requests: u64,
    pub(crate) listeners: Listeners,
    pub(crate) end: WorkerEnd,
    pub(crate) seat: Seat,
    pub(crate) common: Arc<Common>,
    pub(crate) origin: Origin,
}

/// What all processes of a generation have in common.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) generation: u64,
    pub(crate) handover: Arc<Handover>,
    pub(crate) run_as: Option<RunAs>,
    pub(crate) supervisor: Pid,
    /// How many descriptors its processes may have open.
    pub(crate) descriptors: descriptors::Limit,
    pub(crate) graceful_timeout: Duration,
    /// Whether each process leads a process group of its own.
    pub(crate) has_own_group: bool,
    pub(crate) name: Option<String>,
    pub(crate) threads: MoldThreads,
}

/// Who has forked a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The supervisor, whose child it is.
    Supervisor,
    /// A mold, whose preparations are inherited: privileges, dispositions, a name.
    Mold,
}

/// What a worker listens on.
#[derive(Debug)]
pub(crate) enum Listeners {
    /// Inherited, open.
    Open(OpenSet),
    /// Received: what they are, and their descriptors.
    Received(Vec<ListenerRecord>, Vec<OwnedFd>),
}

impl Listeners {
    pub(super) fn open(self) -> Result<OpenSet> {
        match self {
            Listeners::Open(set) => Ok(set),
            Listeners::Received(mut records, descriptors) => {
                for (record, fd) in records.iter_mut().zip(descriptors) {
                    record.fd = fd.into_raw_fd();
                }
                OpenSet::adopt(&records)
            }
        }
    }
}

/// What to do about threads that run in a mold: workers are forked without them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MoldThreads {
    /// Such a mold has failed, and says their names.
    #[default]
    Refuse,
    /// Their names are logged, and workers are forked all the same.
    Warn,
}

/// Everything that a mold is born with.
pub(crate) struct Shape {
    pub(crate) end: WorkerEnd,
    pub(crate) forks: ForkingEnd,
    pub(crate) board: Board,
    pub(crate) common: Arc<Common>,
}
