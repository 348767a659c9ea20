//! Exceptions and stacks as text.

use std::os::fd::RawFd;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

/// The traceback as Python prints it: whole, with causes.
pub fn format(py: Python<'_>, error: &PyErr) -> String {
    let lines = || -> PyResult<String> {
        // The traceback by itself: before Python 3.12 that of the value lacks the outermost frames, or has those of
        // the import system.
        let parts = (error.get_type(py), error.value(py), error.traceback(py));
        let lines = py.import("traceback")?.call_method1("format_exception", parts)?;
        lines.cast_into::<PyList>()?.iter().map(|line| line.extract::<String>()).collect()
    };
    // An exception whose own methods fail is still named.
    lines().unwrap_or_else(|_| format!("{error}\n"))
}

/// Kind and message of an exception in one line, without the place where it was raised.
pub fn one_line(py: Python<'_>, error: &PyErr) -> String {
    let kind = || -> PyResult<String> {
        let kind = error.get_type(py);
        let (module, name) = (kind.module()?.to_string(), kind.qualname()?.to_string());
        Ok(if module == "builtins" { name } else { format!("{module}.{name}") })
    };
    let kind = kind().unwrap_or_else(|_| "an exception".to_owned());
    let message = error.value(py).str().map(|text| text.to_string_lossy().into_owned()).unwrap_or_default();
    match message.trim().lines().next() {
        None => kind,
        Some(first) => format!("{kind}: {first}"),
    }
}

/// Writes the stacks of all threads to `fd` when the process is aborted or crashes.
pub fn dump_stacks_on_abort(py: Python<'_>, fd: RawFd) -> PyResult<()> {
    let options = PyDict::new(py);
    options.set_item("file", fd)?;
    options.set_item("all_threads", true)?;
    py.import("faulthandler")?.call_method("enable", (), Some(&options))?;
    Ok(())
}
