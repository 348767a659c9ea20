//! The first moments of a process that was forked: what it does between the fork and its own code, as named steps. What
//! it lives on as, and how it ends.
//!
//! - [`birth`]: what they are born with.
//! - [`child`]: a worker; [`mold`]: a process that workers are forked from.
//! - [`reap`]: how processes ended.

pub(crate) mod birth;
pub(crate) mod child;
pub(crate) mod mold;
pub(crate) mod reap;

use std::io::Write;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::sys::{fork, forked};
use crate::worker::Worker;

/// What a process lives as.
pub(crate) enum Life {
    Worker(Box<birth::Birth>),
    Mold(Box<birth::Shape>),
}

/// What an embedder has to say when processes are made.
pub(crate) trait Embedder {
    type Worker: Worker;

    /// Makes a worker of a generation, which has loaded nothing yet.
    fn make(&mut self, generation: u64) -> Self::Worker;
    /// A mold is about to fork.
    fn before_fork(&mut self);
    /// It has, or failed to; whether this is the new process.
    fn after_fork(&mut self, is_child: bool);
}

/// Exit codes; the supervisor has the reason from the link, others see it here.
mod code {
    pub(super) const FAILED: i32 = 1;
    pub(super) const BOOT: i32 = 3;
    pub(super) const APPLICATION: i32 = 4;
}

/// Lives from a fork to the end of the process. Entered with every signal blocked; never returns.
pub(crate) fn live<E: Embedder>(life: Life, mut embedder: E) -> ! {
    // What this process, or the one that it is a copy of, has loaded. It is never dropped: the process ends with it.
    let mut loaded = None;
    let birth = match life {
        Life::Worker(birth) => Some(ControlFlow::Continue(birth)),
        Life::Mold(shape) => guarded(|| mold::live(*shape, &mut loaded, &mut embedder)),
    };
    let code = match birth {
        Some(ControlFlow::Continue(birth)) => guarded(|| child::live(*birth, &mut loaded, &mut embedder)),
        Some(ControlFlow::Break(code)) => Some(code),
        None => None,
    };
    let code = code.unwrap_or(code::FAILED);
    let _ = std::io::stdout().flush();
    fork::exit_now(code)
}

/// Runs code that is not ours; `None`: it panicked (and the panic hook has said so).
///
/// A process that this code has forked, and that comes back from it, ends here.
fn guarded<T>(code: impl FnOnce() -> T) -> Option<T> {
    let done = catch_unwind(AssertUnwindSafe(code)).ok();
    if forked::is_forked_off() {
        fork::exit_now(if done.is_some() { 0 } else { code::FAILED });
    }
    done
}
