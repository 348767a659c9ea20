//! Configurations in Python: their execution, and the errors of it.

use std::fs;
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;

use super::fixture::start_python;
use crate::conf::{Source, execute, remember_directory};
use crate::python::loading::LoadError;

/// The current directory, `sys.path` and `sys.modules` belong to all tests of a process.
static ALONE: Mutex<()> = Mutex::new(());

/// Executes `source` in a directory with `files`, and returns `repr` of the value of `expression`.
fn run(files: &[(&str, &str)], source: &str, expression: &str) -> Result<String, LoadError> {
    start_python();
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    for (name, code) in files {
        fs::write(dir.path().join(name), code).unwrap();
    }
    remember_directory(dir.path().canonicalize().unwrap());
    let earlier = std::env::current_dir().unwrap();
    let Ok(source) = source.parse::<Source>();
    let executed = Python::attach(|py| {
        let namespace = execute(py, &source)?;
        let expression = std::ffi::CString::new(expression).unwrap();
        let value = py.eval(&expression, None, Some(namespace.bind(py))).unwrap();
        Ok(value.repr().unwrap().to_string())
    });
    assert_eq!(std::env::current_dir().unwrap(), earlier);
    executed
}

#[test]
fn a_file_is_the_module_config_and_is_executed_in_the_directory_of_the_start() {
    let code = "
import os, sys
import beside_it
is_config = sys.modules['__config__'].__dict__ is globals()
is_here = os.path.exists('gunicorn.conf.py') and __file__ == os.path.abspath('gunicorn.conf.py')
workers = beside_it.number
";
    let files = [("gunicorn.conf.py", code), ("beside_it.py", "number = 3")];
    for word in ["gunicorn.conf.py", "file:gunicorn.conf.py"] {
        let found = run(&files, word, "(__name__, is_config, is_here, workers)");
        assert_eq!(found.unwrap(), "('__config__', True, True, 3)");
    }
}

#[test]
fn a_file_with_any_extension_and_a_module_are_executed() {
    assert_eq!(run(&[("settings.conf", "bind = ':1'")], "settings.conf", "bind").unwrap(), "':1'");
    let module = [("conf_as_module.py", "bind = __name__")];
    assert_eq!(run(&module, "python:conf_as_module", "bind").unwrap(), "'conf_as_module'");
}

#[test]
fn each_execution_of_a_file_is_a_new_one() {
    for number in ["1", "22"] {
        let code = format!("workers = {number}");
        assert_eq!(run(&[("gunicorn.conf.py", &code)], "gunicorn.conf.py", "workers").unwrap(), number);
    }
}

#[test]
fn an_error_names_the_file_and_the_line_and_has_the_whole_traceback() {
    for (code, expected) in [
        ("a = 1\nb = undefined\n", "gunicorn.conf.py, line 2: NameError: name 'undefined' is not defined"),
        ("a = 1\n\nb = = 2\n", "gunicorn.conf.py, line 3: SyntaxError: invalid syntax"),
        ("import fails_here\n", "gunicorn.conf.py, line 1: ValueError: deep"),
        ("import sys\nsys.exit('no')\n", "gunicorn.conf.py, line 2: SystemExit: no"),
    ] {
        let files = [("gunicorn.conf.py", code), ("fails_here.py", "def f(): raise ValueError('deep')\nf()")];
        let error = run(&files, "gunicorn.conf.py", "0").unwrap_err();
        assert!(error.summary.starts_with(expected), "{}", error.summary);
        assert!(error.traceback.unwrap().contains("gunicorn.conf.py\", line "), "{code}");
    }
}

#[test]
fn a_configuration_that_is_not_there_is_refused() {
    let missing = run(&[], "nowhere.py", "0").unwrap_err();
    assert!(missing.summary.starts_with("cannot read nowhere.py: No such file"), "{missing:?}");
    let missing = run(&[], "python:nowhere_at_all", "0").unwrap_err();
    assert_eq!(
        missing.summary,
        "python:nowhere_at_all: ModuleNotFoundError: No module named 'nowhere_at_all'"
    );
}
