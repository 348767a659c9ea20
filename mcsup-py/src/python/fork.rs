//! What CPython must do around a fork: hold its own locks across it, and mend its state in the child
//! (`PyOS_BeforeFork` and its kin). Without these a child can hang, and repeats its parent's random numbers.
//!
//! Where no interpreter runs, none of these does anything.

use pyo3::{Python, ffi};

/// Before a fork.
pub fn before() {
    // SAFETY: attached, as the call demands; the fork follows on this thread.
    let _ = Python::try_attach(|_| unsafe { ffi::PyOS_BeforeFork() });
}

/// After a fork, or a failed one, in the process that forked.
pub fn after_in_parent() {
    // SAFETY: attached, and `before` was called on this thread.
    let _ = Python::try_attach(|_| unsafe { ffi::PyOS_AfterFork_Parent() });
}

/// After a fork, in the child.
pub fn after_in_child() {
    // SAFETY: attached, and `before` was called on the thread of which this one is the copy.
    let _ = Python::try_attach(|_| unsafe { ffi::PyOS_AfterFork_Child() });
}
