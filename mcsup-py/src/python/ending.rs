//! What a Python process does before it ends: the application's exit functions run, and what it printed is flushed.
//!
//! The interpreter is never finalised: with threads of the application still running that can wait for ever, and the
//! process ends anyway.

use pyo3::prelude::*;

/// Runs the functions that were registered with `atexit`, and flushes standard output and error.
pub fn run_exit_functions(py: Python<'_>) {
    let ran = py.import("atexit").and_then(|atexit| atexit.call_method0("_run_exitfuncs"));
    if let Err(error) = ran {
        log::error!("an exit function failed\n{}", super::traceback::format(py, &error));
    }
    for name in ["stdout", "stderr"] {
        // Closed or replaced streams are the application's business.
        let _ = py.import("sys").and_then(|sys| sys.getattr(name)?.call_method0("flush"));
    }
}
