//! The settings of a pool.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Error, ErrorKind};
use crate::host::privileges::RunAs;
use crate::host::service_manager::ServiceManager;
use crate::listener::{Address, Listener, Options};
use crate::policy::Policy;
use crate::spawn::spec::MoldThreads;
use crate::upgrade::Image;

/// The treatment of processes that the application starts and that outlive their worker. Linux only.
///
/// In a process that has other children too, of a program that steps its pool or of another pool, only those in the
/// process group of an ended worker count ([`Pool`](crate::Pool)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Children {
    /// They are left alone.
    #[default]
    Ignore,
    /// They are named in the log.
    ///
    /// The supervisor adopts the orphans among its descendants and reaps all its children. Each worker leads its own
    /// process group, unless there is a controlling terminal.
    Name,
    /// They are ended too: by SIGTERM, and two seconds later by SIGKILL.
    End,
}

/// All settings of a pool.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Where to listen.
    pub addresses: Vec<Address>,
    /// How to listen.
    pub listener: Options,
    /// Listeners that the program has opened itself ([`Prefork::listener`](crate::Prefork::listener)).
    pub listeners: Vec<Arc<dyn Listener>>,
    /// Whether the pool may have no listener: its workers pull their work. Otherwise that is a mistake.
    pub without_listeners: bool,
    /// The settings of its decisions: numbers of workers, timeouts, back-off.
    pub policy: Policy,
    /// The pid file, whose lock refuses a second supervisor. Read at the start only.
    pub pid_file: Option<PathBuf>,
    /// The path of the control socket; `None`: there is none. Read at the start only.
    pub control_socket: Option<PathBuf>,
    /// The user and groups of the workers; `None`: those of the supervisor.
    pub run_as: Option<RunAs>,
    /// The treatment of threads that run in a mold ([`Policy::preload`]) before its first fork.
    pub mold_threads: MoldThreads,
    /// The treatment of processes that the application starts.
    pub children: Children,
    /// The name in process listings; the kernel keeps 15 bytes.
    pub name: Option<String>,
    /// The command line in process listings (Linux), in which `{}` stands for `worker`, `mold` or `supervisor`, such as
    /// `shop: {}`. A supervisor shows its own command line behind it. `None`: the command line is that of this process.
    pub title: Option<String>,
    /// The image that an upgrade executes; `None`: upgrades are refused. Read at the start only.
    pub image: Option<Image>,
    /// The service manager that has started this process: its sockets are open to `fd://NAME` addresses, and it is
    /// notified of the pool's state. Read at the start only.
    pub service_manager: ServiceManager,
}

/// The most workers of any pool. The scoreboard has four rows for each.
const MOST_WORKERS: usize = 65_536;

impl Config {
    /// The reason why no pool can have these settings, at a start or at a reload.
    pub(crate) fn mistake(&self) -> Option<Error> {
        let Policy { workers, max_workers, .. } = self.policy;
        let has_listeners = !(self.addresses.is_empty() && self.listeners.is_empty());
        let reason = if !has_listeners && !self.without_listeners {
            "there is no address to listen on".to_owned()
        } else if workers == 0 || workers > max_workers {
            format!("{workers} workers: expected 1 to {max_workers}")
        } else if max_workers > MOST_WORKERS {
            format!("at most {max_workers} workers: expected 1 to {MOST_WORKERS}")
        } else {
            return None;
        };
        Some(Error::new(ErrorKind::Setting, reason))
    }
}
