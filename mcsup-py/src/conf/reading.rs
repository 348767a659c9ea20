//! The variables of a configuration in Python, for a process that does not execute it.

use std::path::Path;

use pyo3::prelude::*;
use serde::{Deserialize, Serialize};

use super::executing;
use super::source::{Source, Text};
use crate::python::loading::LoadError;
use crate::python::{ending, interpreter, site};

/// The hooks of gunicorn, each with the numbers of arguments that it accepts.
pub const HOOKS: [(&str, &[i64]); 16] = [
    ("on_starting", &[1]),
    ("on_reload", &[1]),
    ("when_ready", &[1]),
    ("pre_fork", &[2]),
    ("post_fork", &[2]),
    ("post_worker_init", &[1]),
    ("worker_int", &[1]),
    ("worker_abort", &[1]),
    ("pre_exec", &[1]),
    ("pre_request", &[2]),
    ("post_request", &[2, 3, 4]),
    ("child_exit", &[2]),
    ("worker_exit", &[2]),
    ("nworkers_changed", &[3]),
    ("on_exit", &[1]),
    ("ssl_context", &[2]),
];

/// A value of a variable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An `int`, also of an enumeration.
    Int(i64),
    /// A `float`.
    Float(f64),
    /// A `str`.
    Text(String),
    /// A list, tuple or set.
    List(Vec<Value>),
    /// A dictionary, its keys as text.
    Map(Vec<(String, Value)>),
    /// A function or another callable, with the number of its positional arguments; -1: it does not show it.
    Function(i64),
    /// The dotted name of a hook that cannot be imported, with the reason.
    Broken(String),
    /// A class, by its module and name.
    Class(String),
    /// Any other value, by the name of its type.
    Other(String),
}

/// A variable of a configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// The last line that defines it; `None`: it is not defined in the file itself, but imported.
    pub line: Option<u32>,
    /// Its value.
    pub value: Value,
}

/// The variables of a configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Those with known names, in the order of these names.
    pub variables: Vec<Variable>,
    /// The names of the others that the file itself defines, each with its last line.
    pub others: Vec<(String, u32)>,
    /// The text of the configuration; `None`: it is a module without a file of Python.
    #[serde(default)]
    pub text: Option<Text>,
}

impl Report {
    /// The report in `text`, from [`report`].
    ///
    /// # Errors
    /// It is no report.
    pub fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    fn to_text(&self) -> Result<String, String> {
        serde_json::to_string(self).map_err(|error| error.to_string())
    }
}

/// Executes a configuration in this process and reports its variables with the names in `known`, as text for
/// [`Report::parse`]. For a process that does nothing else.
///
/// `venv` is a virtual environment, for an interpreter that does not run yet; `arguments` are those of `sys.argv`.
///
/// # Errors
/// The interpreter does not start, or the configuration cannot be executed. The detail is the traceback.
pub fn report(
    source: &Source,
    known: &[&str],
    (venv, arguments): (Option<&Path>, &[String]),
) -> mcsup_core::Result<String> {
    use mcsup_core::{Error, ErrorKind};
    interpreter::ensure(venv).map_err(|reason| Error::new(ErrorKind::Boot, reason))?;
    let reported = Python::attach(|py| {
        let broken = |error: PyErr| LoadError::raised(py, &format!("cannot execute {source}"), &error);
        site::run(py, arguments).and_then(|()| interpreter::set_server(py, arguments)).map_err(broken)?;
        let (text, namespace) = executing::read_and_execute(py, source)?;
        let described = describe(py, namespace.bind(py).as_any(), known).map_err(broken)?;
        ending::flush_output(py);
        let reported = Report::parse(&described).and_then(|report| Report { text, ..report }.to_text());
        reported.map_err(|why| LoadError::new(format!("cannot describe {source}: {why}")))
    });
    reported.map_err(|LoadError { summary, traceback }| {
        let error = Error::new(ErrorKind::Setting, summary);
        match traceback {
            Some(traceback) => error.with_detail(traceback),
            None => error,
        }
    })
}

fn describe(py: Python<'_>, namespace: &Bound<'_, PyAny>, known: &[&str]) -> PyResult<String> {
    let names = (c"mcsup/conf/reading.py", c"_mcsup_conf_reading");
    let own = executing::own_module(py, include_str!("reading.py"), names)?;
    let hooks = HOOKS.map(|(name, _)| name).to_vec();
    let described = own.call_method1("describe", (namespace, known.to_vec(), hooks))?;
    py.import("json")?.call_method1("dumps", (described,))?.extract()
}

#[cfg(test)]
mod tests {
    use super::super::MASTER_HOOKS;
    use super::*;

    #[test]
    fn the_lists_of_hooks_have_the_same_hooks_and_arguments() {
        let of_the_master = include_str!("master.py");
        let of_workers = include_str!("hooks.py");
        let is_here = |name: &str| name != "ssl_context";
        let mut number = 0;
        for (name, counts) in HOOKS.iter().filter(|(name, _)| is_here(name)) {
            let counts: Vec<String> = counts.iter().map(ToString::to_string).collect();
            let (text, entry) = match (MASTER_HOOKS.contains(name), &counts[..]) {
                (true, _) => (of_the_master, counts.join(" or ")),
                (false, [one]) => (of_workers, format!("({one},)")),
                (false, several) => (of_workers, format!("({})", several.join(", "))),
            };
            assert!(text.contains(&format!("\n    \"{name}\": {entry},\n")), "{name}");
            number += 1;
        }
        let entries = |text: &str| {
            text.lines().filter(|line| line.starts_with("    \"") && !line.contains("\"\"\"")).count()
        };
        assert_eq!(entries(of_the_master) + entries(of_workers), number);
    }
}
