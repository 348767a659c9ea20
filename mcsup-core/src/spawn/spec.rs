//! Specifications of new processes: workers, and the molds that fork them.

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
use crate::link::scoreboard::{ScoreboardRow, ScoreboardRows};
use crate::listener::Listener;
use crate::listener::open::OpenSet;
use crate::listener::record::ListenerRecord;

/// The specification of a worker.
pub(crate) struct WorkerSpec {
    pub(crate) slot: usize,
    /// The number of the worker among the processes of the pool.
    pub(crate) number: u64,
    pub(crate) max_requests: Option<u64>,
    pub(crate) listeners: Listeners,
    pub(crate) end: WorkerEnd,
    pub(crate) row: ScoreboardRow,
    pub(crate) common: Arc<GenerationSpec>,
    pub(crate) origin: Origin,
}

/// The common part of all processes of a generation.
#[derive(Debug)]
pub(crate) struct GenerationSpec {
    pub(crate) generation: u64,
    pub(crate) handover: Arc<Handover>,
    pub(crate) run_as: Option<RunAs>,
    pub(crate) supervisor: Pid,
    /// The limit of open descriptors.
    pub(crate) descriptors: descriptors::Limit,
    pub(crate) graceful_timeout: Duration,
    /// Whether each process leads a process group of its own.
    pub(crate) has_own_group: bool,
    pub(crate) name: Option<String>,
    pub(crate) title: Option<String>,
    pub(crate) threads: MoldThreads,
    /// The program's own listeners. A mold has released their sockets.
    pub(crate) own_listeners: Vec<Arc<dyn Listener>>,
}

/// The process that has forked a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The supervisor; the worker is its child.
    Supervisor,
    /// A mold; the worker inherits its preparations: privileges, dispositions, a name.
    Mold,
}

/// The listeners of a worker.
#[derive(Debug)]
pub(crate) enum Listeners {
    /// Inherited and open.
    Open(OpenSet),
    /// Received from the supervisor: records, and their descriptors.
    Received(Vec<ListenerRecord>, Vec<OwnedFd>),
}

impl Listeners {
    /// Opens them. `own` are the program's own listeners, which take their sockets over.
    pub(super) fn open(self, own: &[Arc<dyn Listener>]) -> Result<OpenSet> {
        match self {
            Listeners::Open(set) => Ok(set),
            Listeners::Received(mut records, descriptors) => {
                for (record, fd) in records.iter_mut().zip(descriptors) {
                    record.fd = fd.into_raw_fd();
                }
                OpenSet::adopt(&records, own)
            }
        }
    }
}

/// The treatment of threads that run in a mold. Forked workers do not have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MoldThreads {
    /// The boot fails, and the log names the threads.
    #[default]
    Refuse,
    /// The log names the threads, and workers are forked.
    Warn,
}

/// The specification of a mold.
pub(crate) struct MoldSpec {
    pub(crate) end: WorkerEnd,
    pub(crate) forks: ForkingEnd,
    pub(crate) board: ScoreboardRows,
    pub(crate) common: Arc<GenerationSpec>,
}
