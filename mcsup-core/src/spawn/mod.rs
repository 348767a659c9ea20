//! From a fork to the process's own code, and to its exit.
//!
//! - [`spec`]: the specifications of workers and molds.
//! - [`child`]: a worker; [`mold`]: a process that forks workers.
//! - [`reap`]: exit statuses of processes.

pub(crate) mod child;
pub(crate) mod mold;
pub(crate) mod reap;
pub(crate) mod spec;

use std::io::Write;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::sys::{fork, forked};
use crate::worker::Worker;

/// The role of a new process.
pub(crate) enum Role {
    Worker(Box<spec::WorkerSpec>),
    Mold(Box<spec::MoldSpec>),
}

/// The embedder's hooks around new processes.
pub(crate) trait Hooks {
    type Worker: Worker;

    /// Creates a worker of a generation. It has loaded nothing yet.
    fn make(&mut self, generation: u64) -> Self::Worker;
    /// Called in a mold before it forks.
    fn before_fork(&mut self);
    /// Called after a fork, or a failed one, with whether this is the new process.
    fn after_fork(&mut self, is_child: bool);
}

/// Exit codes. The supervisor has the reason from the link; other observers see these.
mod code {
    pub(super) const FAILED: i32 = 1;
    pub(super) const BOOT: i32 = 3;
    pub(super) const APPLICATION: i32 = 4;
}

/// Runs a forked process to its exit. Entered with every signal blocked.
pub(crate) fn run_process<E: Hooks>(role: Role, mut hooks: E) -> ! {
    // The loaded worker of this process, or of the mold that it is a copy of. Exiting does not drop it.
    let mut loaded = None;
    let spec = match role {
        Role::Worker(spec) => Some(ControlFlow::Continue(spec)),
        Role::Mold(spec) => guarded(|| mold::run(*spec, &mut loaded, &mut hooks)),
    };
    let code = match spec {
        Some(ControlFlow::Continue(spec)) => guarded(|| child::run(*spec, &mut loaded, &mut hooks)),
        Some(ControlFlow::Break(code)) => Some(code),
        None => None,
    };
    let code = code.unwrap_or(code::FAILED);
    let _ = std::io::stdout().flush();
    fork::exit_now(code)
}

/// Runs the embedder's code; `None`: it panicked, and the panic hook has printed that.
///
/// A process that this code has forked ends here when it returns.
fn guarded<T>(code: impl FnOnce() -> T) -> Option<T> {
    let done = catch_unwind(AssertUnwindSafe(code)).ok();
    if forked::is_forked_off() {
        fork::exit_now(if done.is_some() { 0 } else { code::FAILED });
    }
    done
}
