//! Handlers that come through the signal-hook-registry crate, in a process that was forked.
//!
//! The registry installs its own handler at the first registration of a signal, never again, and calls from it all that
//! was registered. A supervisor's host may have registered signals that a worker of it handles by itself. In the worker
//! the host's actions must not run (one may end the process at SIGTERM), and what the worker's own code registers must.

use super::signal::{Disposition, disposition};

/// Signals that a worker does nothing at, and that its supervisor or its host may have changed.
pub(super) const OTHERS: [i32; 5] =
    [libc::SIGCHLD, libc::SIGALRM, libc::SIGVTALRM, libc::SIGPROF, libc::SIGABRT];

/// What is known of the registry.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The address of its handler; `None`: it handles nothing.
    pub(super) handler: Option<usize>,
    /// Signals whose disposition was that handler, which is to be called after ours.
    pub(super) taken: Vec<(i32, usize)>,
}

/// Drops the actions of the registry for the signals that were its own before ours were installed. `replaced` are those
/// signals with their dispositions before.
pub(super) fn clear(replaced: &[(i32, Disposition)]) -> Known {
    let others = OTHERS.iter().filter_map(|number| disposition(*number).ok()?.handler());
    let is_possible =
        replaced.iter().filter_map(|(_, before)| before.handler()).chain(others).next().is_some();
    // No signal has a handler, so the registry has none either.
    let Some(handler) = is_possible.then(|| find(replaced)).flatten() else { return Known::default() };
    let taken = replaced.iter().filter(|(_, before)| before.handler() == Some(handler));
    let taken: Vec<_> = taken.map(|(number, _)| (*number, handler)).collect();
    for (number, _) in &taken {
        #[allow(
            deprecated,
            reason = "the other parts of this program that it could influence are not in this process"
        )]
        signal_hook_registry::unregister_signal(*number);
    }
    Known { handler: Some(handler), taken }
}

/// The registry's handler, seen where it installs it: at a signal of ours that it does not know yet. From there it calls
/// ours.
fn find(replaced: &[(i32, Disposition)]) -> Option<usize> {
    let now = |number| disposition(number).ok()?.handler();
    replaced.iter().find_map(|(number, _)| {
        let ours = now(*number);
        // SAFETY: the action does nothing.
        let action = unsafe { signal_hook_registry::register(*number, || {}) }.ok()?;
        signal_hook_registry::unregister(action);
        now(*number).filter(|handler| Some(*handler) != ours)
    })
}
