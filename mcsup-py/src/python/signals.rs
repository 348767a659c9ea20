//! Handlers of signals that the application has installed by `signal.signal`. The interpreter runs them in its main thread,
//! which has to ask for it while it runs no Python.

use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit};
use pyo3::prelude::*;

use super::{ending, traceback};

/// Runs the handlers of signals that have come, in the interpreter's main thread. Costs little where none has.
///
/// An exception that a handler raises is logged. `Some`: it was a SystemExit or a KeyboardInterrupt, which would end a
/// program, in one line.
pub(crate) fn run_handlers(py: Python<'_>) -> Option<String> {
    let raised = py.check_signals().err();
    ending::end_if_forked_off(py, raised.as_ref());
    let error = raised?;
    if error.is_instance_of::<PySystemExit>(py) || error.is_instance_of::<PyKeyboardInterrupt>(py) {
        return Some(traceback::one_line(py, &error));
    }
    log::error!("Error in a signal handler\n{}", traceback::format(py, &error).trim_end());
    None
}
