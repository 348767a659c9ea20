//! What CPython must do around a fork: hold its own locks across it, and mend its state in the child
//! (`PyOS_BeforeFork` and its kin). Without these a child can hang, and repeats its parent's random numbers.
//!
//! The interpreter is held from [`before`] until the call after the fork, so that no other thread owns it in the
//! moment of the fork: in the child that thread would be gone, and the interpreter taken for ever.
//!
//! Where no interpreter runs, none of these does anything.

use std::cell::Cell;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;

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

/// After a fork, or a failed one, in the process that forked: lets go.
pub fn after_in_parent() {
    if let Some(state) = HELD.take() {
        // SAFETY: held since `before` on this thread.
        unsafe {
            ffi::PyOS_AfterFork_Parent();
            ffi::PyGILState_Release(state);
        }
    }
}

/// After a fork, in the child: mends the interpreter and lets go.
pub fn after_in_child() {
    if let Some(state) = HELD.take() {
        // SAFETY: held since `before` on the thread of which this one is the copy.
        unsafe {
            ffi::PyOS_AfterFork_Child();
            ffi::PyGILState_Release(state);
        }
    }
}

/// Something that Python calls without arguments.
#[pyclass(frozen, module = "mcsup")]
struct Hook(Box<dyn Fn() + Send + Sync>);

#[pymethods]
impl Hook {
    fn __call__(&self) {
        (self.0)();
    }
}

/// Has `act` called in every process that the application forks by `os.fork`, multiprocessing for example.
pub fn in_children(py: Python<'_>, act: impl Fn() + Send + Sync + 'static) -> PyResult<()> {
    let options = PyDict::new(py);
    options.set_item("after_in_child", Bound::new(py, Hook(Box::new(act)))?)?;
    py.import("os")?.call_method("register_at_fork", (), Some(&options))?;
    Ok(())
}
