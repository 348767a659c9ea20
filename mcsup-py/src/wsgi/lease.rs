//! How Python objects get at the engine's reply, which lives for one call only, while they may live on.

use std::ptr::NonNull;
use std::sync::Mutex;

use pyo3::prelude::*;
use pyo3::sync::MutexExt;

use crate::app::Reply;

/// A reply that is lent for the time of one call.
#[derive(Default)]
pub(super) struct Lease(Mutex<Option<Lent>>);

/// The reply, its lifetime erased; the holder of the lease's lock may use it.
struct Lent(NonNull<dyn Reply>);

// SAFETY: the pointer is used under the lease's lock only, by one thread at a time, while `lend` waits.
unsafe impl Send for Lent {}

impl Lease {
    /// Lends `reply` while `call` runs.
    pub(super) fn lend<T>(&self, py: Python<'_>, reply: &mut dyn Reply, call: impl FnOnce() -> T) -> T {
        // SAFETY: only the lifetime changes. `reply` stays mutably borrowed until this function returns, and by then
        // the guard below has taken the pointer out of the lease again.
        let lent =
            unsafe { std::mem::transmute::<NonNull<dyn Reply + '_>, NonNull<dyn Reply>>(reply.into()) };
        self.set(py, Some(Lent(lent)));
        let guard = TakeBack { lease: self, py };
        let result = call();
        drop(guard);
        result
    }

    /// Uses the reply, detached from Python, since it may wait for the client. `None`: the call is over.
    pub(super) fn with<T: Send>(
        &self,
        py: Python<'_>,
        act: impl FnOnce(&mut dyn Reply) -> T + Send,
    ) -> Option<T> {
        let mut held = self.0.lock_py_attached(py).unwrap_or_else(std::sync::PoisonError::into_inner);
        let lent = held.as_mut()?;
        Some(py.detach(move || {
            // The whole of it is captured, not the pointer alone, which is not `Send`.
            let Lent(reply) = lent;
            // SAFETY: the lock is held, so this is the only user; `lend` has not returned, so the reply is alive.
            act(unsafe { reply.as_mut() })
        }))
    }

    /// Like [`Lease::with`] for what neither waits nor takes long: stays attached.
    pub(super) fn peek<T>(&self, py: Python<'_>, look: impl FnOnce(&mut dyn Reply) -> T) -> Option<T> {
        let mut held = self.0.lock_py_attached(py).unwrap_or_else(std::sync::PoisonError::into_inner);
        let Lent(reply) = held.as_mut()?;
        // SAFETY: as in `with`.
        Some(look(unsafe { reply.as_mut() }))
    }

    fn set(&self, py: Python<'_>, lent: Option<Lent>) {
        *self.0.lock_py_attached(py).unwrap_or_else(std::sync::PoisonError::into_inner) = lent;
    }
}

/// Ends the lease, also where the call panics.
struct TakeBack<'a, 'py> {
    lease: &'a Lease,
    py: Python<'py>,
}

impl Drop for TakeBack<'_, '_> {
    fn drop(&mut self) {
        self.lease.set(self.py, None);
    }
}
