//! The execution of a configuration in Python, and the errors of it.

use std::ffi::{CStr, CString};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use mcsup_core::host::processes;
use pyo3::exceptions::PyPermissionError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyModule, PyTraceback};

use super::source::Source;
use crate::python::loading::LoadError;
use crate::python::{directories, traceback};

/// The reason why a configuration was not executed.
struct Failed {
    error: LoadError,
    /// Whether the user of this process lacks a permission.
    is_denied: bool,
}

impl From<LoadError> for Failed {
    fn from(error: LoadError) -> Self {
        Self { error, is_denied: false }
    }
}

/// Executes the configuration, and returns its variables.
///
/// As with gunicorn a file becomes the module `__config__`, the current directory is that of the start if this user may
/// enter it, and it is in `sys.path`. An earlier module of the same name is executed again. Afterwards the current
/// directory is the earlier one.
///
/// # Errors
/// There is no such file or module, or it raises an exception, `SystemExit` too. The summary names file and line.
pub(super) fn execute(py: Python<'_>, source: &Source) -> Result<Py<PyDict>, LoadError> {
    execute_at_start(py, source).map_err(|Failed { error, .. }| error)
}

/// Executes the configuration in a worker or mold, and returns its variables.
///
/// Its user may lack permissions of the one that has read the settings. `None`: it does, and the configuration is not
/// `needed`; a warning says so.
///
/// # Errors
/// Those of [`execute`]; a missing permission is one only if the configuration is `needed`.
pub(crate) fn execute_in_worker(
    py: Python<'_>,
    source: &Source,
    needed: bool,
) -> Result<Option<Py<PyDict>>, LoadError> {
    let user = || processes::user_of(rustix::process::geteuid().as_raw());
    match execute_at_start(py, source) {
        Ok(namespace) => Ok(Some(namespace)),
        Err(Failed { error, is_denied: false }) => Err(error),
        Err(Failed { error, .. }) if !needed => {
            log::warn!(
                "Workers go on without {source}: user {} may not execute it: {}",
                user(),
                error.summary
            );
            Ok(None)
        }
        Err(Failed { error: LoadError { summary, traceback }, .. }) => {
            let summary = format!(
                "{summary}; workers call its hooks as user {}, which needs the permission to read it and its files",
                user()
            );
            Err(LoadError { summary, traceback })
        }
    }
}

/// Executes the configuration in the directory of the start. Where this user may not enter it, the current directory stays.
fn execute_at_start(py: Python<'_>, source: &Source) -> Result<Py<PyDict>, Failed> {
    let earlier = std::env::current_dir().ok();
    let directory = directories::of_start().or_else(|| earlier.clone()).unwrap_or_default();
    let mut is_outside = false;
    if earlier.as_ref() != Some(&directory) {
        match std::env::set_current_dir(&directory) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::PermissionDenied => is_outside = true,
            Err(error) => {
                let place = directory.display();
                return Err(LoadError::new(format!("cannot execute {source} in {place}: {error}")).into());
            }
        }
    }
    let executed = execute_in(py, source, &directory);
    if let Some(earlier) = earlier.filter(|_| !is_outside) {
        // The application's directory: without it the worker could not find its files.
        std::env::set_current_dir(&earlier).map_err(|error| {
            LoadError::new(format!("cannot return to {} after {source}: {error}", earlier.display()))
        })?;
    }
    // Outside of the directory neither its modules nor its files are found.
    executed.map_err(|failed| Failed { is_denied: failed.is_denied || is_outside, ..failed })
}

fn execute_in(py: Python<'_>, source: &Source, directory: &Path) -> Result<Py<PyDict>, Failed> {
    let broken = |error: PyErr| LoadError::raised(py, &format!("cannot execute {source}"), &error);
    let own =
        own_module(py, include_str!("executing.py"), (c"mcsup/conf/executing.py", c"_mcsup_conf_executing"))
            .map_err(broken)?;
    search_in(py, directory).map_err(broken)?;
    let (executed, path) = match source {
        Source::File(path) => {
            let path = directory.join(path);
            // Python's own error would come from its import system.
            std::fs::metadata(&path).map_err(|error| Failed {
                error: LoadError::new(format!("cannot read {source}: {error}")),
                is_denied: error.kind() == ErrorKind::PermissionDenied,
            })?;
            (own.call_method1("execute_file", (path.as_os_str(),)), Some(path))
        }
        Source::Module(name) => {
            let path = file_of(py, name);
            (own.call_method1("execute_module", (name.as_str(),)), path)
        }
    };
    executed.and_then(|namespace| Ok(namespace.cast_into::<PyDict>()?.unbind())).map_err(|error| Failed {
        is_denied: error.is_instance_of::<PyPermissionError>(py),
        error: raised(py, &own, (source, path.as_deref()), &error),
    })
}

/// A Python part of this folder, with its file and its name.
pub(super) fn own_module<'py>(
    py: Python<'py>,
    code: &str,
    (file, name): (&CStr, &CStr),
) -> PyResult<Bound<'py, PyModule>> {
    PyModule::from_code(py, &CString::new(code)?, file, name)
}

/// Puts the directory in front of `sys.path`, unless it is there.
fn search_in(py: Python<'_>, directory: &Path) -> PyResult<()> {
    let path = py.import("sys")?.getattr("path")?.cast_into::<PyList>()?;
    if path.contains(directory.as_os_str())? { Ok(()) } else { path.insert(0, directory.as_os_str()) }
}

/// The file of a module, without its execution.
fn file_of(py: Python<'_>, module: &str) -> Option<PathBuf> {
    let spec = py.import("importlib.util").ok()?.call_method1("find_spec", (module,)).ok()?;
    spec.getattr("origin").ok()?.extract().ok()
}

/// The error with its place in the configuration, as far as it has one.
fn raised(
    py: Python<'_>,
    own: &Bound<'_, PyModule>,
    (source, path): (&Source, Option<&Path>),
    error: &PyErr,
) -> LoadError {
    let line = path.and_then(|path| {
        // Before Python 3.12 the value lacks the traceback.
        let parts = (error.value(py), error.traceback(py), path.as_os_str());
        let found = own.call_method1("line_of", parts).ok()?;
        found.extract::<Option<u32>>().ok()?
    });
    // The calls that have led to the configuration are no part of it.
    if let Ok(own_part) = own.call_method1("without_callers", (error.traceback(py),)) {
        error.set_traceback(py, own_part.cast_into::<PyTraceback>().ok());
    }
    let traceback = Some(traceback::format(py, error));
    let text = traceback::one_line(py, error);
    let summary = match (line, path.and_then(Path::file_name)) {
        (Some(line), Some(name)) => {
            // A SyntaxError has its place in its text.
            let place = format!(" ({}, line {line})", name.to_string_lossy());
            format!("{source}, line {line}: {}", text.strip_suffix(&place).unwrap_or(&text))
        }
        _ => format!("{source}: {text}"),
    };
    LoadError { summary, traceback }
}
