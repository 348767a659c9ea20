//! The settings of a pool.

use std::path::PathBuf;

use crate::host::privileges::RunAs;
use crate::listener::{Address, Options};
use crate::policy::Policy;
use crate::spawn::spec::MoldThreads;
use crate::upgrade::Image;

/// What becomes of processes that the workers' code starts and that outlive their worker. Linux alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Children {
    /// They are left alone.
    #[default]
    Ignore,
    /// They are named in the log. This process becomes the parent of its descendants' orphans and reaps all its children,
    /// and a worker leads a process group of its own unless there is a controlling terminal.
    Name,
    /// They are ended too: by SIGTERM, and two seconds later by SIGKILL.
    End,
}

/// Everything that a pool is started with.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Where to listen.
    pub addresses: Vec<Address>,
    /// How to listen.
    pub listener: Options,
    /// What is decided by: numbers of workers, timeouts, back-off.
    pub policy: Policy,
    /// A file that names this process, and whose lock keeps a second supervisor out. Read at the start only.
    pub pid_file: Option<PathBuf>,
    /// Where operators ask for things; `None`: nowhere. Read at the start only.
    pub control_socket: Option<PathBuf>,
    /// The user and groups of the workers; `None`: those of the supervisor.
    pub run_as: Option<RunAs>,
    /// What to do about threads that run in a mold ([`Policy::preload`]) when it is to fork workers.
    pub mold_threads: MoldThreads,
    /// What becomes of processes that the workers' code starts.
    pub children: Children,
    /// What process listings show; the kernel keeps 15 bytes.
    pub name: Option<String>,
    /// What an upgrade executes; `None`: upgrades are refused. Read at the start only.
    pub image: Option<Image>,
}
