//! The execution of a configuration in Python, and the errors of it.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use mcsup_core::host::processes;
use pyo3::exceptions::PyPermissionError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyModule, PyTraceback};
use rustix::fs::Access;

use super::source::{Script, Source, Text};
use crate::python::loading::LoadError;
use crate::python::{directories, traceback};
use crate::regular_file::read_bounded;

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

/// Reads the configuration and executes it; returns its text and its variables.
///
/// # Errors
/// Those of [`execute`], or there is no such file or module.
pub(super) fn read_and_execute(
    py: Python<'_>,
    source: &Source,
) -> Result<(Option<Text>, Py<PyDict>), LoadError> {
    let unread = Script { source: source.clone(), text: None };
    at_start(source, |directory| execute_in(py, &unread, directory)).map_err(|Failed { error, .. }| error)
}

/// Executes the configuration, and returns its variables.
///
/// As with gunicorn a file becomes the module `__config__`, the current directory is that of the start if this user may
/// enter it, and it is in `sys.path`. An earlier module of the same name is executed again. Afterwards the current
/// directory is the earlier one.
///
/// # Errors
/// It raises an exception, `SystemExit` too. The summary names file and line.
pub(super) fn execute(py: Python<'_>, script: &Script) -> Result<Py<PyDict>, LoadError> {
    let executed = at_start(&script.source, |directory| execute_in(py, script, directory));
    executed.map(|(_, namespace)| namespace).map_err(|Failed { error, .. }| error)
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
    script: &Script,
    needed: bool,
) -> Result<Option<Py<PyDict>>, LoadError> {
    let source = &script.source;
    let user = || processes::user_of(rustix::process::geteuid().as_raw());
    let executed = at_start(source, |directory| {
        check_permission(script, directory)?;
        execute_in(py, script, directory)
    });
    match executed {
        Ok((_, namespace)) => Ok(Some(namespace)),
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

/// Acts in the directory of the start. Where this user may not enter it, or it is gone, the current directory stays.
fn at_start<T>(source: &Source, act: impl FnOnce(&Path) -> Result<T, Failed>) -> Result<T, Failed> {
    let earlier = std::env::current_dir().ok();
    let directory = directories::of_start().or_else(|| earlier.clone()).unwrap_or_default();
    let (mut is_outside, mut is_denied) = (false, false);
    if earlier.as_ref() != Some(&directory) {
        match std::env::set_current_dir(&directory) {
            Ok(()) => {}
            Err(error) => {
                (is_outside, is_denied) = (true, error.kind() == ErrorKind::PermissionDenied);
            }
        }
    }
    let done = act(&directory);
    if let Some(earlier) = earlier.filter(|_| !is_outside) {
        // The application's directory: without it the worker could not find its files.
        std::env::set_current_dir(&earlier).map_err(|error| {
            LoadError::new(format!("cannot return to {} after {source}: {error}", earlier.display()))
        })?;
    }
    // Outside of the directory neither its modules nor its files are found.
    done.map_err(|failed| Failed { is_denied: failed.is_denied || is_denied, ..failed })
}

/// Refuses a file that this user may not read.
fn check_permission(script: &Script, directory: &Path) -> Result<(), Failed> {
    let path = match (&script.source, &script.text) {
        (Source::File(path), _) => directory.join(path),
        (Source::Module(_), Some(Text { module: Some(path), .. })) => path.into(),
        (Source::Module(_), _) => return Ok(()),
    };
    match rustix::fs::access(&path, Access::READ_OK) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Err(unreadable(&script.source, &error.into()))
        }
        // The text is known, also where the file is gone.
        _ => Ok(()),
    }
}

fn unreadable(source: &Source, error: &io::Error) -> Failed {
    Failed {
        error: LoadError::new(format!("cannot read {source}: {error}")),
        is_denied: error.kind() == ErrorKind::PermissionDenied,
    }
}

/// Executes the text of the configuration; returns it if it was read for that.
fn execute_in(
    py: Python<'_>,
    script: &Script,
    directory: &Path,
) -> Result<(Option<Text>, Py<PyDict>), Failed> {
    let source = &script.source;
    let broken = |error: PyErr| LoadError::raised(py, &format!("cannot execute {source}"), &error);
    let own =
        own_module(py, include_str!("executing.py"), (c"mcsup/conf/executing.py", c"_mcsup_conf_executing"))
            .map_err(broken)?;
    search_in(py, directory).map_err(broken)?;
    let failed = |error: &PyErr, path: Option<&Path>| Failed {
        is_denied: error.is_instance_of::<PyPermissionError>(py),
        error: raised(py, &own, (source, path), error),
    };
    let found = match (&script.text, source) {
        (Some(_), _) => None,
        (None, Source::File(path)) => {
            let bytes = File::open(directory.join(path)).and_then(read_bounded);
            let bytes = bytes.map_err(|error| unreadable(source, &error))?;
            Some(Text::new(&bytes, None))
        }
        (None, Source::Module(name)) => module_text(&own, name).map_err(|error| failed(&error, None))?,
    };
    let text = script.text.as_ref().or(found.as_ref());
    let bytes = PyBytes::new(py, &text.map(Text::bytes).unwrap_or_default());
    let (executed, path) = match source {
        Source::File(path) => {
            let path = directory.join(path);
            (own.call_method1("execute_file", (path.as_os_str(), bytes)), Some(path))
        }
        Source::Module(name) => {
            let path = text.and_then(|text| text.module.clone());
            (own.call_method1("execute_module", (name, &path, bytes)), path.map(PathBuf::from))
        }
    };
    match executed.and_then(|namespace| Ok(namespace.cast_into::<PyDict>()?.unbind())) {
        Ok(namespace) => Ok((found, namespace)),
        Err(error) => Err(failed(&error, path.as_deref())),
    }
}

/// The text of a module; `None`: it has no file of Python.
fn module_text(own: &Bound<'_, PyModule>, name: &str) -> PyResult<Option<Text>> {
    let found: Option<(String, Vec<u8>)> = own.call_method1("read_module", (name,))?.extract()?;
    Ok(found.map(|(path, bytes)| Text::new(&bytes, Some(path))))
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
