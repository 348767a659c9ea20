//! Handlers of signals that the application has installed by `signal.signal`. The interpreter runs them in its main thread,
//! which has to ask for it while it runs no Python.
//!
//! gunicorn's workers have a handler of SIGTERM in Python, which handlers of applications call as the earlier one. Here the
//! signal is handled without Python, and [`Termination`] is the value of that handler. An application that installs its own
//! one gets the signal at the end of a drain, of which the supervisor sends none.

use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit};
use pyo3::prelude::*;
use pyo3::types::PyCFunction;

use super::{ending, traceback};

/// The module that is behind `signal`, without its import of `enum`.
const MODULE: &str = "_signal";

/// Whether a handler of the application has ended this worker: it needs no further signal.
static HAS_ENDED: AtomicBool = AtomicBool::new(false);

/// The handler of SIGTERM that `signal.getsignal` returns before the application is loaded.
pub(crate) struct Termination(Py<PyAny>);

impl Termination {
    /// Makes it known to Python. The kernel still calls the handler that it called before.
    ///
    /// `finish` begins the end of this worker. `None`: the process has nothing to finish, and the call ends it.
    ///
    /// # Errors
    /// This is not the interpreter's main thread.
    pub(crate) fn install(py: Python<'_>, finish: Option<Box<dyn Fn() + Send + Sync>>) -> PyResult<Self> {
        let call = move |_: &Bound<'_, _>, _: Option<&Bound<'_, _>>| match &finish {
            Some(finish) if !mcsup_core::is_forked_off() => {
                HAS_ENDED.store(true, Ordering::Relaxed);
                finish();
            }
            // As the signal without a handler does.
            _ => ending::end_by_sigterm(),
        };
        let handler = PyCFunction::new_closure(py, Some(c"handle_exit"), None, call)?.into_any();
        let module = py.import(MODULE)?;
        without_the_kernel(|| module.call_method1("signal", (libc::SIGTERM, &handler)))?;
        Ok(Self(handler.unbind()))
    }

    /// Sends SIGTERM to this process if the application has a handler of it in Python, which runs before the return. Not
    /// after a handler has ended the worker.
    pub(crate) fn send_to_application(&self, py: Python<'_>) -> PyResult<()> {
        let module = py.import(MODULE)?;
        let handler = module.call_method1("getsignal", (libc::SIGTERM,))?;
        if HAS_ENDED.load(Ordering::Relaxed) || handler.is(&self.0) || !handler.is_callable() {
            return Ok(());
        }
        let raised = module.call_method1("raise_signal", (libc::SIGTERM,)).and_then(|_| py.check_signals());
        outcome(py, raised.err());
        Ok(())
    }
}

/// Calls a function that sets Python's handler of SIGTERM, and keeps the one of the kernel.
fn without_the_kernel<T>(set: impl FnOnce() -> T) -> T {
    let mut kept = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: the kernel writes a whole structure to `kept`, or returns an error.
    let is_kept = unsafe { libc::sigaction(libc::SIGTERM, ptr::null(), kept.as_mut_ptr()) } == 0;
    let result = set();
    if is_kept {
        // SAFETY: `kept` is what the kernel has written: a handler that was installed in this process and stays loaded.
        unsafe { libc::sigaction(libc::SIGTERM, kept.as_ptr(), ptr::null_mut()) };
    }
    result
}

/// Runs the handlers of signals that have come, in the interpreter's main thread. Costs little where none has.
///
/// An exception that a handler raises is logged. `Some`: it was a SystemExit or a KeyboardInterrupt, which would end a
/// program, in one line.
pub(crate) fn run_handlers(py: Python<'_>) -> Option<String> {
    let reason = outcome(py, py.check_signals().err());
    if reason.is_some() {
        HAS_ENDED.store(true, Ordering::Relaxed);
    }
    reason
}

/// What the exception of a handler means, as [`run_handlers`] returns it.
fn outcome(py: Python<'_>, raised: Option<PyErr>) -> Option<String> {
    ending::end_if_forked_off(py, raised.as_ref());
    let error = raised?;
    if error.is_instance_of::<PySystemExit>(py) || error.is_instance_of::<PyKeyboardInterrupt>(py) {
        return Some(traceback::one_line(py, &error));
    }
    log::error!("Error in a signal handler\n{}", traceback::format(py, &error).trim_end());
    None
}
