//! The end of a Python process: pending work of executors is finished, the application's exit
//! functions run, and what it printed is flushed. A process that the application has forked ends here too.
//!
//! The interpreter is never finalised, and threads that the application started itself are not waited for: either can
//! take for ever, and the process ends anyway.

use pyo3::exceptions::PySystemExit;
use pyo3::prelude::*;

/// Finishes executors, runs the functions that were registered with `atexit`, and flushes standard output and error.
pub(crate) fn run_exit_functions(py: Python<'_>) {
    log_error(py, "finishing an executor", finish_executors(py));
    let ran = py.import("atexit").and_then(|atexit| atexit.call_method0("_run_exitfuncs"));
    log_error(py, "running an exit function", ran.map(drop));
    flush_output(py);
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

/// In a process that the application has forked, and which has come back from it: ends the process. It is no worker, and
/// what has called the application is the worker's. `came_by`: the exception that was not caught.
///
/// As a script's end would: the exit code is that of a SystemExit, 1 where another exception is printed, and otherwise 0.
/// Exit functions are not run, since the worker has registered them for itself as well.
pub(crate) fn end_if_forked_off(py: Python<'_>, came_by: Option<&PyErr>) {
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
    flush_output(py);
    // SAFETY: `_exit` has no preconditions and does not return.
    unsafe { libc::_exit(code) }
}

/// Ends the process by SIGTERM, without its handlers.
pub(crate) fn end_by_sigterm() {
    // SAFETY: the default action is a valid one, and ends the process at the second call.
    unsafe {
        libc::signal(libc::SIGTERM, libc::SIG_DFL);
        libc::raise(libc::SIGTERM);
    }
}

/// Ends the process at once, whatever its threads do.
pub(crate) fn end_at_once(code: u8) -> ! {
    // SAFETY: `_exit` has no preconditions and does not return.
    unsafe { libc::_exit(i32::from(code)) }
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

/// Flushes standard output and error of Python.
pub(crate) fn flush_output(py: Python<'_>) {
    for name in ["stdout", "stderr"] {
        // Closed or replaced streams are the application's business.
        let _ = py.import("sys").and_then(|sys| sys.getattr(name)?.call_method0("flush"));
    }
}
