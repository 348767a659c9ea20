//! Exceptions and stacks as text.

use std::os::fd::RawFd;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

/// The traceback as Python prints it: whole, with causes.
pub fn format(py: Python<'_>, error: &PyErr) -> String {
    let lines = || -> PyResult<String> {
        let lines = py.import("traceback")?.call_method1("format_exception", (error.value(py),))?;
        lines.cast_into::<PyList>()?.iter().map(|line| line.extract::<String>()).collect()
    };
    // An exception whose own methods fail is still named.
    lines().unwrap_or_else(|_| format!("{error}\n"))
}

/// Writes the stacks of all threads to `fd` when the process is aborted or crashes.
pub fn dump_stacks_on_abort(py: Python<'_>, fd: RawFd) -> PyResult<()> {
    let options = PyDict::new(py);
    options.set_item("file", fd)?;
    options.set_item("all_threads", true)?;
    py.import("faulthandler")?.call_method("enable", (), Some(&options))?;
    Ok(())
}
