//! Forks of the application: no other thread of the server runs meanwhile.

use std::ffi::{c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, ThreadId};

use mcsup_core::{restart_companions, stop_companions};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;

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

/// How many forks are over whose threads were not restarted.
static PUT_OFF: AtomicUsize = AtomicUsize::new(0);

/// Has the interpreter restart the threads when it goes on with the application's code; `false`: it cannot.
fn put_off() -> bool {
    extern "C" fn make_good(_: *mut c_void) -> c_int {
        // The interpreter's own call holds it; it is released meanwhile, as above.
        Python::attach(|py| py.detach(restart_put_off));
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

/// Restarts the threads that still wait although the fork is over. Due when the application has returned: compiled code
/// gives the interpreter no occasion. Costs a load where there are none.
pub(crate) fn restart_put_off() {
    if PUT_OFF.load(Ordering::Acquire) > 0 {
        for _ in 0..PUT_OFF.swap(0, Ordering::AcqRel) {
            restart_companions();
        }
    }
}

/// From now on the process has no threads of the server's while the application forks by `os.fork`, multiprocessing, or
/// subprocess with a `preexec_fn`: they end before and begin again afterwards. Where the application is called by one thread the
/// process then has one, and Python, which counts them, has nothing to warn of.
pub(crate) fn have_one_thread_at_forks(py: Python<'_>) -> PyResult<()> {
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
pub(crate) fn come_back_when_counted(py: Python<'_>) -> PyResult<()> {
    let version = py.version_info();
    if (version.major, version.minor) != (3, 13) || LATE_IN.get().is_some() {
        return Ok(());
    }
    register(py, &[("after_in_parent", When::Late)])?;
    LATE_IN.get_or_init(|| thread::current().id());
    Ok(())
}
