//! A large body that is sent from where Python keeps it.
//!
//! Its last part is sent by a thread that has not attached to the interpreter, and may hold the engine's lock, so that it
//! must not wait for the interpreter. pyo3 defers the decrement of the reference until a thread attaches, which without a
//! further request would be never. So a thread attaches for that as soon as no request is ready.

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

/// A body was dropped since a thread last attached to free such bodies.
static IS_ANY_DEFERRED: AtomicBool = AtomicBool::new(false);

/// The bytes of a body.
pub(super) struct HeldBytes {
    bytes: PyBackedBytes,
    /// Dropped behind the bytes.
    _notice: Notice,
}

struct Notice;

impl HeldBytes {
    pub(super) fn new(bytes: &Bound<'_, PyBytes>) -> Self {
        Self { bytes: PyBackedBytes::from(bytes.clone()), _notice: Notice }
    }
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Notice {
    fn drop(&mut self) {
        IS_ANY_DEFERRED.store(true, Ordering::Release);
    }
}

/// Whether bodies may wait to be freed.
pub(super) fn are_deferred() -> bool {
    IS_ANY_DEFERRED.load(Ordering::Relaxed)
}

/// Frees them: pyo3 does what it has deferred when a thread attaches.
pub(super) fn free_deferred() {
    if IS_ANY_DEFERRED.swap(false, Ordering::Acquire) {
        let _ = Python::try_attach(|_| ());
    }
}
