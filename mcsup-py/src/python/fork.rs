//! CPython's hooks around a fork: it holds its own locks across it, and repairs its state in the child
//! (`PyOS_BeforeFork` and similar). Without them a child can hang, and repeats its parent's random numbers.
//!
//! The interpreter is held from [`before`] until the call after the fork, so that no other thread owns it in the
//! moment of the fork: in the child that thread would be gone, and the interpreter taken for ever.
//!
//! Where no interpreter runs, [`before`] does nothing, nor do the calls after the fork.
//!
//! The application's own forks have CPython's hooks anyway; `application_forks` has the rest.

use std::cell::Cell;

use pyo3::ffi;
use pyo3::prelude::*;

thread_local! {
    /// How this thread got hold of the interpreter in [`before`].
    static HELD: Cell<Option<ffi::PyGILState_STATE>> = const { Cell::new(None) };
}

/// Before a fork: takes hold of the interpreter.
pub fn before() {
    // SAFETY: may be called at any time.
    let runs = unsafe { ffi::Py_IsInitialized() } != 0;
    if !runs || HELD.get().is_some() {
        return;
    }
    // SAFETY: an interpreter runs; from `Ensure` on this thread holds it, as the hook demands.
    unsafe {
        HELD.set(Some(ffi::PyGILState_Ensure()));
        ffi::PyOS_BeforeFork();
    }
}

/// After a fork, or a failed one, in the process that forked: releases the interpreter.
pub fn after_in_parent() {
    after(ffi::PyOS_AfterFork_Parent);
}

/// After a fork, in the child: repairs the interpreter and releases it.
pub fn after_in_child() {
    after(ffi::PyOS_AfterFork_Child);
}

fn after(hook: unsafe extern "C" fn()) {
    if let Some(state) = HELD.take() {
        // SAFETY: held since `before` on this thread, or on the thread of which this one is the copy. The hook is the one
        // for this process, as the two callers have it.
        unsafe {
            hook();
            ffi::PyGILState_Release(state);
        }
    }
}

/// Before the first fork of many: lets later processes share memory. The loaded objects are hidden from the garbage collector,
/// whose search alone would write to them, after garbage was freed.
pub(crate) fn share_memory(py: Python<'_>) -> PyResult<()> {
    let gc = py.import("gc")?;
    gc.call_method0("collect")?;
    gc.call_method0("freeze")?;
    Ok(())
}

/// The threads that Python knows beside the calling one: their numbers in the kernel, and their names.
pub(crate) fn other_threads(py: Python<'_>) -> PyResult<Vec<(i32, String)>> {
    let threading = py.import("threading")?;
    let own: i32 = threading.call_method0("get_native_id")?.extract()?;
    let mut found = Vec::new();
    for thread in threading.call_method0("enumerate")?.try_iter()? {
        let thread = thread?;
        // One that has not begun has no number yet.
        let Ok(number) = thread.getattr("native_id")?.extract::<i32>() else { continue };
        if number != own {
            found.push((number, thread.getattr("name")?.extract()?));
        }
    }
    Ok(found)
}
