//! The execution of a configuration in Python, and the errors of it.

use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyModule};

use super::source::Source;
use crate::python::loading::LoadError;
use crate::python::traceback;

/// The directory in which the command was started.
static DIRECTORY: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Notes the directory of the start, in which configurations are executed, also after a change to another one.
pub fn remember_directory(directory: PathBuf) {
    *DIRECTORY.lock().unwrap_or_else(PoisonError::into_inner) = Some(directory);
}

/// Executes the configuration, and returns its variables.
///
/// As with gunicorn a file becomes the module `__config__`, the current directory is that of the start, and it is in
/// `sys.path`. An earlier module of the same name is executed again. Afterwards the current directory is the earlier one.
///
/// # Errors
/// There is no such file or module, or it raises an exception, `SystemExit` too. The summary names file and line.
pub(crate) fn execute(py: Python<'_>, source: &Source) -> Result<Py<PyDict>, LoadError> {
    let earlier = std::env::current_dir().ok();
    let start = DIRECTORY.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let directory = start.or_else(|| earlier.clone()).unwrap_or_default();
    if earlier.as_ref() != Some(&directory) {
        std::env::set_current_dir(&directory).map_err(|error| {
            LoadError::new(format!("cannot execute {source} in {}: {error}", directory.display()))
        })?;
    }
    let executed = execute_in(py, source, &directory);
    if let Some(earlier) = earlier {
        // The application's directory: without it the worker could not find its files.
        std::env::set_current_dir(&earlier).map_err(|error| {
            LoadError::new(format!("cannot return to {} after {source}: {error}", earlier.display()))
        })?;
    }
    executed
}

fn execute_in(py: Python<'_>, source: &Source, directory: &Path) -> Result<Py<PyDict>, LoadError> {
    let broken = |error: PyErr| LoadError::raised(py, &format!("cannot execute {source}"), &error);
    let own =
        own_module(py, include_str!("executing.py"), (c"mcsup/conf/executing.py", c"_mcsup_conf_executing"))
            .map_err(broken)?;
    search_in(py, directory).map_err(broken)?;
    let (executed, path) = match source {
        Source::File(path) => {
            let path = directory.join(path);
            // Python's own error would come from its import system.
            std::fs::metadata(&path)
                .map_err(|error| LoadError::new(format!("cannot read {source}: {error}")))?;
            (own.call_method1("execute_file", (path.as_os_str(),)), Some(path))
        }
        Source::Module(name) => {
            let path = file_of(py, name);
            (own.call_method1("execute_module", (name.as_str(),)), path)
        }
    };
    executed
        .and_then(|namespace| Ok(namespace.cast_into::<PyDict>()?.unbind()))
        .map_err(|error| raised(py, &own, (source, path.as_deref()), &error))
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
    let place = line.map_or_else(|| source.to_string(), |line| format!("{source}, line {line}"));
    let traceback = Some(traceback::format(py, error));
    LoadError { summary: format!("{place}: {}", traceback::one_line(py, error)), traceback }
}
