//! What CPython must do around a fork: hold its own locks across it, and mend its state in the child
//! (`PyOS_BeforeFork` and its kin). Without these a child can hang, and repeats its parent's random numbers.
//!
//! The interpreter is held from [`before`] until the call after the fork, so that no other thread owns it in the
//! moment of the fork: in the child that thread would be gone, and the interpreter taken for ever.
//!
//! Where no interpreter runs, none of these does anything.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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
struct Hook;

#[pymethods]
impl Hook {
    fn __call__(&self) {
        // Whoever is changing it at this moment is another thread of the parent: here it will never be done.
        let act = IN_CHILDREN.try_lock().ok().and_then(|act| act.clone());
        if let Some(act) = act {
            act();
        }
    }
}

type Act = Arc<dyn Fn() + Send + Sync>;

/// What processes that the application forks have to do. Python can be told of a function, but not to forget it.
static IN_CHILDREN: Mutex<Option<Act>> = Mutex::new(None);

/// Has `act` called in every process that the application forks by `os.fork`, multiprocessing for example, in place of
/// what was called before; `None`: nothing.
pub fn in_children(py: Python<'_>, act: Option<Act>) -> PyResult<()> {
    static IS_KNOWN: AtomicBool = AtomicBool::new(false);
    let before = std::mem::replace(&mut *IN_CHILDREN.lock().unwrap_or_else(PoisonError::into_inner), act);
    drop(before);
    if IS_KNOWN.swap(true, Ordering::AcqRel) {
        return Ok(());
    }
    let options = PyDict::new(py);
    options.set_item("after_in_child", Bound::new(py, Hook)?)?;
    py.import("os")?.call_method("register_at_fork", (), Some(&options))?;
    Ok(())
}

/// Before the first fork of many: lets the processes to come share memory. What was loaded is taken out of sight of the
/// garbage collector, whose looks alone would write to it, and what can be freed is freed before.
pub fn share_memory(py: Python<'_>) -> PyResult<()> {
    let gc = py.import("gc")?;
    gc.call_method0("collect")?;
    gc.call_method0("freeze")?;
    Ok(())
}

/// The threads that Python knows beside the calling one: their numbers in the kernel, and their names.
pub fn other_threads(py: Python<'_>) -> PyResult<Vec<(i32, String)>> {
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
