//! The embedder's part: a [`Worker`] to implement, and the [`WorkerContext`] that it receives.

mod accepting;
#[cfg(feature = "tokio")]
mod async_accepting;
#[cfg(feature = "tokio")]
mod async_connection;
mod context;
mod listeners;
mod pulling;
#[cfg(feature = "tokio")]
mod reactor;

use std::error::Error;

pub use crate::link::handover::MAX_HANDED;
pub use crate::link::lifeline::Phase;
pub use crate::link::scoreboard::Sibling;
pub use crate::sys::companion::{restart_companions, stop_companions, with_companion};
pub use crate::sys::forked::is_forked_off;
pub use crate::sys::signal::SignalsBlocked;
pub use crate::sys::unshared::{Unshared, between_forks};
#[cfg(feature = "tokio")]
pub use async_connection::AsyncConnection;
pub use context::WorkerContext;

/// The result of a [`Worker`]'s methods: `?` takes any error.
///
/// An [`Error`](crate::Error) keeps its kind and detail, also as the source of another error. The text of
/// any other error is its own line, followed by its sources.
pub type WorkerResult = Result<(), Box<dyn Error + Send + Sync>>;

/// The code that runs in each worker process.
///
/// It may fork processes of its own. Such a process is no worker: signals have their default action there,
/// except those that the worker's code has changed, and it shares no descriptor that this crate has opened in
/// the worker ([`Unshared`] adds others). Code that can return from such a fork calls [`is_forked_off`] and
/// ends the process.
pub trait Worker {
    /// Loads the part that all workers of a generation share: the code to run.
    ///
    /// Called once before [`boot`](Self::boot): in the worker's own process or, with a mold, in the mold. Its
    /// workers are copies of it, and it has no `context`.
    ///
    /// # Errors
    /// As those of [`boot`](Self::boot).
    fn load(&mut self, context: Option<&WorkerContext>) -> WorkerResult {
        let _ = context;
        Ok(())
    }

    /// Prepares a loaded mold for its first fork, so that its copies share memory.
    fn prepare_to_fork(&mut self) {}

    /// Reopens log files, in a mold. (A worker polls [`WorkerContext::log_epoch`].)
    fn reopen_logs(&mut self) {}

    /// Names of the threads this worker started, by kernel thread ID, for log messages.
    ///
    /// A thread without an entry has the kernel's name.
    fn thread_names(&self) -> Vec<(i32, String)> {
        Vec::new()
    }

    /// Prepares this process. The worker is ready when this returns `Ok`; until then its predecessors go on
    /// serving.
    ///
    /// # Errors
    /// [`ErrorKind::Application`](crate::ErrorKind::Application) if the code to run could not be loaded, any
    /// other kind otherwise. The error's text and detail reach the operator whole.
    fn boot(&mut self, context: &WorkerContext) -> WorkerResult {
        let _ = context;
        Ok(())
    }

    /// Whether each worker adopts the orphans among its descendants, as a [`Program`](crate::Program) does.
    ///
    /// The supervisor then counts the memory of a worker's descendants as the worker's. With
    /// [`Children::End`](crate::Children::End) it ends all that outlive their worker, also those that have left
    /// its process group.
    fn adopts_descendants() -> bool
    where
        Self: Sized,
    {
        false
    }

    /// Whether a worker may serve clients before [`boot`](Self::boot) returns, as the process of a
    /// [`Program`](crate::Program) may.
    ///
    /// Such a worker is not killed if it is to end while it boots: its phase changes, and it has the graceful
    /// timeout. [`run`](Self::run) follows then too.
    fn serves_while_booting() -> bool
    where
        Self: Sized,
    {
        false
    }

    /// Serves until [`WorkerContext::phase`] ends it, then returns; the process ends with it.
    ///
    /// # Errors
    /// The worker cannot go on. The error is logged, and the worker is replaced.
    fn run(&mut self, context: &WorkerContext) -> WorkerResult;
}
