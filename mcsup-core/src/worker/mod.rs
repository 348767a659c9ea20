//! What an embedder writes: a [`Worker`], and what it is handed: a [`WorkerContext`].

mod accepting;
mod context;

pub use crate::link::handover::MAX_HANDED;
pub use crate::link::lifeline::Phase;
pub use crate::link::scoreboard::Sibling;
pub use crate::sys::companion::{beside, call_companions_back, send_companions_away};
pub use crate::sys::forked::is_forked_off;
pub use crate::sys::signal::SignalsBlocked;
pub use crate::sys::unshared::{Unshared, between_forks};
pub use context::WorkerContext;

use crate::error::Result;

/// The code that runs in each worker process.
///
/// It may fork processes of its own. Such a process is no worker: signals have their default action there, but for those that
/// the worker's code has changed, and it shares none of the worker's descriptors that this crate has opened
/// ([`Unshared`] adds others). Code that may come back from such a fork asks [`is_forked_off`], and ends the process.
pub trait Worker {
    /// Loads what all workers of a generation have in common, such as the code to run. Called once before
    /// [`boot`](Self::boot): in the worker's own process or, with a mold, in the mold, whose workers are copies of it and
    /// where there is no `context` yet.
    ///
    /// # Errors
    /// As those of [`boot`](Self::boot).
    fn load(&mut self, context: Option<&WorkerContext>) -> Result<()> {
        let _ = context;
        Ok(())
    }

    /// In a mold that has loaded, before the first worker is forked from it: whatever lets its copies share memory.
    fn prepare_to_fork(&mut self) {}

    /// In a mold: log files are to be opened anew. (A worker sees [`WorkerContext::log_epoch`].)
    fn reopen_logs(&mut self) {}

    /// What threads that its code has started are called, by their numbers in the kernel, for whoever is told of them. Those
    /// that are not named here have the kernel's names.
    fn thread_names(&self) -> Vec<(i32, String)> {
        Vec::new()
    }

    /// Prepares whatever is this process's own. The worker counts as ready when this returns `Ok`, and not before; until then its
    /// predecessors go on serving.
    ///
    /// # Errors
    /// [`ErrorKind::Application`](crate::ErrorKind::Application) where the thing to run could not be loaded, any
    /// other kind otherwise. The error's text and detail reach the operator whole.
    fn boot(&mut self, context: &WorkerContext) -> Result<()> {
        let _ = context;
        Ok(())
    }

    /// Serves until `context` says otherwise (see [`WorkerContext::phase`]), then returns; the process ends with it.
    ///
    /// # Errors
    /// Whatever keeps it from going on. It is logged, and the worker is replaced.
    fn run(&mut self, context: &WorkerContext) -> Result<()>;
}
