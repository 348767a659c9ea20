//! Handlers that come through the signal-hook-registry crate, in a process that was forked.
//!
//! The registry installs its own handler at the first registration of a signal, never again, and calls from it all that
//! was registered. A supervisor's host may have registered signals there. In the worker the host's actions must not run
//! (one may end the process at SIGTERM), and what the worker's own code registers must.
//!
//! SIGCHLD is the exception: the host's actions for it stay. A runtime such as tokio registers it once per process and
//! believes so after a fork, too: without its action it would never learn that a child of the worker has ended.

use super::signal::{Disposition, dispose, disposition};

/// Signals that a worker does nothing at, and that its supervisor or its host may have changed.
pub(super) const OTHERS: [i32; 5] =
    [libc::SIGCHLD, libc::SIGALRM, libc::SIGVTALRM, libc::SIGPROF, libc::SIGABRT];

/// What is known of the registry.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The address of its handler; `None`: it handles nothing.
    pub(super) handler: Option<usize>,
    /// Signals whose disposition was that handler. It is called after ours.
    pub(super) taken: Vec<(i32, usize)>,
}

/// Drops the host's actions: for the signals in `replaced`, and for [`OTHERS`] but SIGCHLD.
///
/// `replaced` are the signals that have our handler now, with their dispositions before. To be called with all signals
/// blocked.
pub(super) fn clear(replaced: &[(i32, Disposition)]) -> Known {
    let others: Vec<_> =
        OTHERS.iter().filter_map(|number| Some((*number, disposition(*number).ok()?.handler()?))).collect();
    let before: Vec<_> =
        replaced.iter().filter_map(|(number, before)| Some((*number, before.handler()?))).collect();
    // Where no signal has a handler the registry has none either.
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

/// Signals at which the registry refuses ordinary registrations, so that it hardly knows them.
const UNUSUAL: [i32; 3] = [libc::SIGILL, libc::SIGFPE, libc::SIGSEGV];

/// The registry's handler, seen where the registry installs it: at a signal that it does not know yet.
///
/// A signal of ours will not do: the host may have registered each of them. Nor will one that ordinary code registers:
/// the registry would know it from now on, and never install its handler there.
fn find() -> Option<usize> {
    UNUSUAL.into_iter().find_map(|number| {
        let before = dispose(number, &Disposition::default_action()).ok()?;
        // SAFETY: the action does nothing, and is dropped before its signal can arrive: all are blocked.
        let registered = unsafe { signal_hook_registry::register_signal_unchecked(number, || {}) };
        if let Ok(action) = registered {
            signal_hook_registry::unregister(action);
        }
        // It was known already where this is the default.
        dispose(number, &before).ok()?.handler()
    })
}
