//! The end of a Python process: pending work of executors is finished, the application's exit
//! functions run, and what it printed is flushed.
//!
//! The interpreter is never finalised, and threads that the application started itself are not waited for: either can
//! take for ever, and the process ends anyway.

use pyo3::prelude::*;

/// Finishes executors, runs the functions that were registered with `atexit`, and flushes standard output and error.
pub fn run_exit_functions(py: Python<'_>) {
    log_error(py, "finishing an executor", finish_executors(py));
    let ran = py.import("atexit").and_then(|atexit| atexit.call_method0("_run_exitfuncs"));
    log_error(py, "running an exit function", ran.map(drop));
    for name in ["stdout", "stderr"] {
        // Closed or replaced streams are the application's business.
        let _ = py.import("sys").and_then(|sys| sys.getattr(name)?.call_method0("flush"));
    }
}

/// What Python itself does first at an orderly end, last registered first. The list is private to `threading`; where
/// it has another name there is nothing to do.
fn finish_executors(py: Python<'_>) -> PyResult<()> {
    let Some(functions) = py.import("threading")?.getattr_opt("_threading_atexits")? else { return Ok(()) };
    let functions = functions.try_iter()?.collect::<PyResult<Vec<_>>>()?;
    functions.iter().rev().try_for_each(|function| function.call0().map(drop))
}

fn log_error(py: Python<'_>, what: &str, result: PyResult<()>) {
    if let Err(error) = result {
        log::error!("{what} failed\n{}", super::traceback::format(py, &error).trim_end());
    }
}
