//! Configurations in Python: their execution, and the errors of it.

use std::fs;
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;

use super::fixture::start_python;
use crate::conf::{Report, Script, Source, Value, Variable, execute_in_worker, remember_directory, report};
use crate::python::loading::LoadError;

/// The current directory, `sys.path` and `sys.modules` belong to all tests of a process.
static ALONE: Mutex<()> = Mutex::new(());

/// Calls `act` with a directory of the start that has `files`.
fn start_with<T>(files: &[(&str, &str)], act: impl FnOnce() -> T) -> T {
    start_python();
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    for (name, code) in files {
        fs::write(dir.path().join(name), code).unwrap();
    }
    remember_directory(dir.path().canonicalize().unwrap());
    act()
}

/// Executes `source` in a directory with `files`, and returns `repr` of the value of `expression`.
fn run(files: &[(&str, &str)], source: &str, expression: &str) -> Result<String, LoadError> {
    start_with(files, || run_here(source, expression))
}

fn run_here(source: &str, expression: &str) -> Result<String, LoadError> {
    let earlier = std::env::current_dir().unwrap();
    let Ok(source) = source.parse::<Source>();
    let script = Script { source, text: None };
    let executed = Python::attach(|py| {
        let Some(namespace) = execute_in_worker(py, &script, true)? else { panic!("left out") };
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

/// The report on a file `gunicorn.conf.py` with `code`.
fn read(code: &str, known: &[&str]) -> mcsup_core::Result<Report> {
    start_with(&[("gunicorn.conf.py", code)], || {
        let source = Source::File("gunicorn.conf.py".into());
        let text = report(&source, known, (None, &[]))?;
        Ok(Report::parse(&text).unwrap())
    })
}

/// A variable of each type.
const VARIABLES: &str = "
import enum, os
class Level(enum.IntEnum):
    high = 3
workers, threads = 3, '0x4'
timeout = 2.5
bind = ['a', 'b']
raw_env = ('x=1',)
secure_scheme_headers = {'X': 'https'}
cert_reqs = Level.high
daemon = True
pidfile = None
logger_class = Level
def post_fork(server, worker): pass
if daemon:
    def when_ready(server): workers = 7
umask = 0o27
umask = os
backlog = 1 << 70
user = '\\ud800'
";

const KNOWN: [&str; 16] = [
    "workers",
    "threads",
    "timeout",
    "bind",
    "raw_env",
    "secure_scheme_headers",
    "cert_reqs",
    "daemon",
    "pidfile",
    "logger_class",
    "post_fork",
    "when_ready",
    "umask",
    "backlog",
    "user",
    "not_there",
];

#[test]
fn a_report_has_each_known_variable_with_its_type_and_line() {
    let text = |text: &str| Value::Text(text.to_owned());
    let expected = [
        (5, Value::Int(3)),
        (5, text("0x4")),
        (6, Value::Float(2.5)),
        (7, Value::List(vec![text("a"), text("b")])),
        (8, Value::List(vec![text("x=1")])),
        (9, Value::Map(vec![("X".to_owned(), text("https"))])),
        (10, Value::Int(3)),
        (11, Value::Bool(true)),
        (12, Value::None),
        (13, Value::Class("__config__.Level".to_owned())),
        (14, Value::Function(2)),
        (16, Value::Function(1)),
        (18, Value::Other("module".to_owned())),
        (19, Value::Other("number of more than 64 bits".to_owned())),
        (20, Value::Other("text that is not Unicode".to_owned())),
    ];
    let found = read(VARIABLES, &KNOWN).unwrap();
    let expected = KNOWN.iter().zip(expected).map(|(name, (line, value))| Variable {
        name: (*name).to_owned(),
        line: Some(line),
        value,
    });
    assert_eq!(found.variables, expected.collect::<Vec<_>>());
    assert_eq!(found.others, [("Level".to_owned(), 3)]);
}

#[test]
fn the_dotted_name_of_a_hook_is_the_function_or_why_there_is_none() {
    let code = "post_fork = 'conf_hooks.two'\nwhen_ready = 'conf_hooks.nope'\non_exit = 'conf_nowhere.f'\npre_exec = 'os.name'";
    let files = [("gunicorn.conf.py", code), ("conf_hooks.py", "def two(server, worker): pass")];
    let found = start_with(&files, || {
        let source = Source::File("gunicorn.conf.py".into());
        let known = ["post_fork", "when_ready", "on_exit", "pre_exec"];
        Report::parse(&report(&source, &known, (None, &[])).unwrap()).unwrap()
    });
    let values: Vec<Value> = found.variables.into_iter().map(|variable| variable.value).collect();
    let broken = |why: &str| Value::Broken(why.to_owned());
    assert_eq!(values[0], Value::Function(2));
    assert_eq!(
        values[1],
        broken(
            "'conf_hooks.nope' cannot be imported: AttributeError: module 'conf_hooks' has no attribute 'nope'"
        )
    );
    let missing = "'conf_nowhere.f' cannot be imported: ModuleNotFoundError: No module named 'conf_nowhere'";
    assert_eq!(values[2], broken(missing));
    assert_eq!(values[3], broken("'os.name' is no function"));
}

#[test]
fn the_error_of_a_report_has_the_traceback_as_its_detail() {
    let error = read("workers = 1\nraise ValueError('no')", &[]).unwrap_err();
    assert_eq!(error.to_string(), "gunicorn.conf.py, line 2: ValueError: no");
    assert!(error.detail().unwrap().starts_with("Traceback"), "{error:?}");
}
