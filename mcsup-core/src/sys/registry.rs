//! Handlers of the signal-hook-registry crate, in a forked process.
//!
//! The registry installs its handler at the first registration of a signal, and calls all registered actions
//! from it. A supervisor's host may have registered actions. They must not run in the worker (one may end the
//! process at SIGTERM), and actions registered by the worker's own code must.
//!
//! SIGCHLD is the exception: the host's actions for it stay. A runtime such as tokio registers it once per
//! process and relies on that after a fork: without its action it would never learn that a child of the
//! worker has ended.

use super::signal::{Disposition, dispose, disposition};

/// Signals without a use in a worker. Its supervisor or host may have changed them.
pub(super) const OTHERS: [i32; 5] =
    [libc::SIGCHLD, libc::SIGALRM, libc::SIGVTALRM, libc::SIGPROF, libc::SIGABRT];

/// The state of the registry.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The address of its handler; `None`: it handles no signal.
    pub(super) handler: Option<usize>,
    /// Signals that had this handler. It is called after the worker's own.
    pub(super) taken: Vec<(i32, usize)>,
}

/// Drops the host's actions: for the signals in `replaced`, and for [`OTHERS`] except SIGCHLD.
///
/// `replaced` are the signals with the worker's handler, and their previous dispositions. Called with all
/// signals blocked.
pub(super) fn clear(replaced: &[(i32, Disposition)]) -> Known {
    let others: Vec<_> =
        OTHERS.iter().filter_map(|number| Some((*number, disposition(*number).ok()?.handler()?))).collect();
    let before: Vec<_> =
        replaced.iter().filter_map(|(number, before)| Some((*number, before.handler()?))).collect();
    // If no signal has a handler, the registry has none either.
    let is_possible = !(others.is_empty() && before.is_empty());
    let Some(handler) = is_possible.then(find).flatten() else { return Known::default() };
    let is_its = |(_, other): &(i32, usize)| *other == handler;
    let taken: Vec<_> = before.into_iter().filter(is_its).collect();
    let others = others.into_iter().filter(|other| is_its(other) && other.0 != libc::SIGCHLD);
    for (number, _) in taken.iter().copied().chain(others) {
        #[allow(
            deprecated,
            reason = "the other parts of this program that it could influence are not in this process"
        )]
        signal_hook_registry::unregister_signal(number);
    }
    Known { handler: Some(handler), taken }
}

/// Signals for which the registry refuses ordinary registrations, so that it rarely handles them.
const UNUSUAL: [i32; 3] = [libc::SIGILL, libc::SIGFPE, libc::SIGSEGV];

/// Finds the registry's handler: the registry installs it at a signal that it does not handle yet.
///
/// A signal of this crate is unsuitable: the host may have registered it. An ordinary signal is unsuitable
/// too: the registry would consider its handler installed there from now on.
fn find() -> Option<usize> {
    UNUSUAL.into_iter().find_map(|number| {
        let before = dispose(number, &Disposition::default_action()).ok()?;
        // SAFETY: the action does nothing, and is dropped before its signal can arrive: all are blocked.
        let registered = unsafe { signal_hook_registry::register_signal_unchecked(number, || {}) };
        if let Ok(action) = registered {
            signal_hook_registry::unregister(action);
        }
        // If this is the default, the registry handled the signal already.
        dispose(number, &before).ok()?.handler()
    })
}
