//! From a fork to the process's own code, and to its exit.
//!
//! - [`spec`]: the specifications of workers and molds.
//! - [`child`]: a worker; [`mold`]: a process that forks workers.
//! - [`guard`]: calls of the embedder's code there.
//! - [`reap`]: exit statuses of processes.

pub(crate) mod child;
pub(crate) mod guard;
pub(crate) mod mold;
pub(crate) mod reap;
pub(crate) mod spec;

use std::io::Write;
use std::mem::ManuallyDrop;
use std::ops::ControlFlow;

use crate::sys::fork;
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

/// Runs a forked process to its exit, first `prepare`. Entered with every signal blocked.
///
/// No panic leaves this process for the code of the embedder that has called this crate.
pub(crate) fn run_process<E: Hooks>(role: Role, prepare: impl FnOnce(), mut hooks: E) -> ! {
    guard::record_places();
    let ended = guard::guarded("the new process", || {
        prepare();
        // The loaded worker of this process, or of the mold that it is a copy of. Only an orderly end drops it.
        let mut loaded = ManuallyDrop::new(None);
        let spec = match role {
            Role::Worker(spec) => ControlFlow::Continue(spec),
            Role::Mold(spec) => mold::run(*spec, &mut loaded, &mut hooks),
        };
        match spec {
            ControlFlow::Continue(spec) => child::run(*spec, &mut loaded, &mut hooks),
            ControlFlow::Break(code) => code,
        }
    });
    let code = ended.unwrap_or_else(|panic| {
        log::error!("panicked {panic}");
        code::FAILED
    });
    let _ = std::io::stdout().flush();
    fork::exit_now(code)
}

/// Drops the worker of this process at its orderly end.
fn drop_worker<W>(loaded: &mut Option<W>) -> Result<(), guard::Panic> {
    match loaded.take() {
        Some(worker) => guard::guarded("Worker::drop", || drop(worker)),
        None => Ok(()),
    }
}
