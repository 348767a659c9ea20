//! CPython's hooks around a fork: it holds its own locks across it, and repairs its state in the child
//! (`PyOS_BeforeFork` and similar). Without them a child can hang, and repeats its parent's random numbers.
//!
//! The interpreter is held from [`before`] until the call after the fork, so that no other thread owns it in the
//! moment of the fork: in the child that thread would be gone, and the interpreter taken for ever.
//!
//! Where no interpreter runs, [`before`] does nothing, nor do the calls after the fork.
//!
//! The application's own forks have CPython's hooks anyway. What they need beyond these is here as well: no other thread of the
//! server's, and an end for a process that returns from the application's callable.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, ThreadId};

use mcsup_core::{restart_companions, stop_companions};
use pyo3::exceptions::PySystemExit;
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

/// When a [`Hook`] is called by Python.
#[derive(Clone, Copy)]
enum When {
    Before,
    After,
    /// After the functions of the application that follow a fork as well.
    Late,
}

/// Called by Python around each fork of the application.
#[pyclass(frozen, module = "mcsup")]
struct Hook(When);

/// The interpreter's main thread, once there is a hook for [`When::Late`].
static LATE_IN: OnceLock<ThreadId> = OnceLock::new();

#[pymethods]
impl Hook {
    fn __call__(&self, py: Python<'_>) {
        let is_late = LATE_IN.get() == Some(&thread::current().id());
        // A thread that is to end may need the interpreter until then.
        match self.0 {
            When::Before => py.detach(stop_companions),
            When::After if is_late => {}
            When::Late if !is_late || put_off() => {}
            When::After | When::Late => py.detach(restart_companions),
        }
    }
}

/// How many forks are over whose threads have not been called back.
static PUT_OFF: AtomicUsize = AtomicUsize::new(0);

/// Has the interpreter call the threads back when it goes on with the application's code; `false`: it cannot.
fn put_off() -> bool {
    extern "C" fn make_good(_: *mut c_void) -> c_int {
        // The interpreter's own call holds it; it is released meanwhile, as above.
        Python::attach(|py| py.detach(call_back_put_off));
        0
    }
    PUT_OFF.fetch_add(1, Ordering::AcqRel);
    // SAFETY: the function is one of this program, which stays loaded, and the argument is not used.
    let is_pending = unsafe { ffi::Py_AddPendingCall(Some(make_good), std::ptr::null_mut()) } == 0;
    if !is_pending {
        PUT_OFF.fetch_sub(1, Ordering::AcqRel);
    }
    is_pending
}

/// Calls back the threads that are still away although the fork is over. Due when the application has returned: compiled code
/// gives the interpreter no occasion. Costs a load where there are none.
pub fn call_back_put_off() {
    if PUT_OFF.load(Ordering::Acquire) > 0 {
        for _ in 0..PUT_OFF.swap(0, Ordering::AcqRel) {
            restart_companions();
        }
    }
}

/// From now on the process has no threads of the server's while the application forks by `os.fork`, multiprocessing, or
/// subprocess with a `preexec_fn`: they end before and begin again afterwards. Where the application is called by one thread the
/// process then has one, and Python, which counts them, has nothing to warn of.
pub fn have_one_thread_at_forks(py: Python<'_>) -> PyResult<()> {
    static IS_KNOWN: AtomicBool = AtomicBool::new(false);
    if IS_KNOWN.swap(true, Ordering::AcqRel) {
        return Ok(());
    }
    register(py, &[("before", When::Before), ("after_in_parent", When::After)])
}

fn register(py: Python<'_>, hooks: &[(&str, When)]) -> PyResult<()> {
    let options = PyDict::new(py);
    for (name, when) in hooks {
        options.set_item(name, Bound::new(py, Hook(*when))?)?;
    }
    py.import("os")?.call_method("register_at_fork", (), Some(&options))?;
    Ok(())
}

/// After the application was loaded, whose own functions that follow a fork are called before: has CPython count the threads
/// before they come back. To be called by the main thread.
///
/// 3.13 counts them when it has called these functions. 3.12 counted them before, and 3.14 does again (`os_fork_impl` in its
/// posixmodule.c).
pub fn come_back_when_counted(py: Python<'_>) -> PyResult<()> {
    let version = py.version_info();
    if (version.major, version.minor) != (3, 13) || LATE_IN.get().is_some() {
        return Ok(());
    }
    register(py, &[("after_in_parent", When::Late)])?;
    LATE_IN.get_or_init(|| thread::current().id());
    Ok(())
}

/// In a process that the application has forked, and which has come back from it: ends the process. It is no worker, and
/// what has called the application is the worker's. `came_by`: the exception that was not caught.
///
/// As a script's end would: the exit code is that of a SystemExit, 1 where another exception is printed, and otherwise 0.
/// Exit functions are not run, since the worker has registered them for itself as well.
pub fn end_if_forked_off(py: Python<'_>, came_by: Option<&PyErr>) {
    if !mcsup_core::is_forked_off() {
        return;
    }
    let code = match came_by {
        None => 0,
        Some(error) if error.is_instance_of::<PySystemExit>(py) => exit_code(py, error),
        Some(error) => {
            error.print(py);
            1
        }
    };
    for name in ["stdout", "stderr"] {
        let _ = py.import("sys").and_then(|sys| sys.getattr(name)?.call_method0("flush"));
    }
    // SAFETY: `_exit` has no preconditions and does not return.
    unsafe { libc::_exit(code) }
}

/// `sys.exit(code)`: None is 0, a number itself, and anything else is printed.
fn exit_code(py: Python<'_>, exit: &PyErr) -> i32 {
    let Ok(code) = exit.value(py).getattr("code") else { return 1 };
    if code.is_none() {
        return 0;
    }
    code.extract().unwrap_or_else(|_| {
        let printed = py.import("sys").and_then(|sys| {
            sys.getattr("stderr")?.call_method1("write", (format!("{}\n", code.str()?.to_string_lossy()),))
        });
        drop(printed);
        1
    })
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
