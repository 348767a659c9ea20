//! Which application to serve, and getting hold of it.

use std::fmt;
use std::str::FromStr;

use pyo3::exceptions::PyModuleNotFoundError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use super::paste::Paste;
use super::{asgi, directories, standard, traceback};

/// An application, and how it is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Application {
    /// By its name in a module.
    Named(Target),
    /// By a configuration of PasteDeploy.
    Paste(Paste),
}

impl From<Target> for Application {
    fn from(target: Target) -> Self {
        Self::Named(target)
    }
}

impl FromStr for Application {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self::Named)
    }
}

impl fmt::Display for Application {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(target) => target.fmt(f),
            Self::Paste(paste) => paste.fmt(f),
        }
    }
}

/// `module:attribute`, `module` (attribute `application`), or `module:factory(...)` with literal arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// A dotted module name.
    pub module: String,
    /// An attribute, an attribute of an attribute, or a call of one.
    pub expression: String,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (module, expression) = text.split_once(':').unwrap_or((text, "application"));
        let is_name = |part: &str| {
            let starts = part.chars().next().is_some_and(|first| first.is_alphabetic() || first == '_');
            starts && part.chars().all(|other| other.is_alphanumeric() || other == '_')
        };
        if !module.split('.').all(is_name) || expression.trim().is_empty() {
            return Err(format!(
                "{text:?} is no application: expected MODULE, MODULE:NAME or MODULE:FACTORY()"
            ));
        }
        Ok(Self { module: module.to_owned(), expression: expression.trim().to_owned() })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.module, self.expression)
    }
}

/// Why an application could not be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoadError {
    /// One line.
    pub summary: String,
    /// The complete traceback, if an exception is the cause.
    pub traceback: Option<String>,
}

impl LoadError {
    pub(crate) fn new(summary: impl Into<String>) -> Self {
        Self { summary: summary.into(), traceback: None }
    }

    /// An exception of the application's own code.
    pub(crate) fn raised(py: Python<'_>, what: &str, error: &PyErr) -> Self {
        let summary = format!("{what}: {}", traceback::one_line(py, error));
        Self { summary, traceback: Some(traceback::format(py, error)) }
    }
}

/// Puts `python_path`, the current directory and that of the start in front of `sys.path`, and loads the application.
///
/// # Errors
/// The missing name or the exception, with the complete traceback.
pub(crate) fn load(
    py: Python<'_>,
    application: &Application,
    python_path: &[String],
) -> Result<Py<PyAny>, LoadError> {
    extend_path(py, python_path)?;
    let found = match application {
        Application::Named(target) => named(py, target)?,
        Application::Paste(paste) => paste.load(py)?,
    };
    if !found.is_callable() {
        let kind = found.get_type().name().map_or_else(|_| "object".to_owned(), |name| name.to_string());
        return Err(LoadError::new(format!("{application} is a {kind}, which cannot be called")));
    }
    // PasteDeploy makes applications of WSGI.
    if let (Application::Named(target), Some(sign)) = (application, asgi::sign_of_asgi(&found)) {
        return Err(LoadError::new(asgi::refusal(target, &found, sign)));
    }
    Ok(found.unbind())
}

/// Imports the module and evaluates the expression.
fn named<'py>(py: Python<'py>, target: &Target) -> Result<Bound<'py, PyAny>, LoadError> {
    let module = py.import(target.module.as_str()).map_err(|error| import_error(py, target, &error))?;
    evaluate(py, target, &module)
}

/// Puts `python_path`, the current directory and that of the start in front of `sys.path`, unless they are there.
pub(crate) fn extend_path(py: Python<'_>, python_path: &[String]) -> Result<(), LoadError> {
    let broken = |error: PyErr| LoadError::raised(py, "Python cannot load applications", &error);
    standard::forget_what_is_shadowed(py, python_path).map_err(broken)?;
    insert_in_path(py, python_path).map_err(broken)
}

fn insert_in_path(py: Python<'_>, python_path: &[String]) -> PyResult<()> {
    let path = py.import("sys")?.getattr("path")?.cast_into::<PyList>()?;
    let (first, start) = directories::first(python_path);
    let wanted = PyList::new(py, first.iter().map(|entry| entry.as_os_str()))?;
    if let Some(start) = start {
        // As with gunicorn it stays where it is, at the end of PYTHONPATH for example.
        if !path.contains(start.as_os_str())? {
            wanted.append(start.as_os_str())?;
        }
    }
    if path.get_slice(0, wanted.len()).eq(&wanted)? {
        return Ok(());
    }
    wanted.iter().rev().try_for_each(|entry| path.insert(0, entry))
}

/// Tells a module that is not there from one that is and fails.
fn import_error(py: Python<'_>, target: &Target, error: &PyErr) -> LoadError {
    let missing = error.is_instance_of::<PyModuleNotFoundError>(py)
        && error.traceback(py).is_none()
        && error
            .value(py)
            .getattr("name")
            .and_then(|name| name.extract::<String>())
            .is_ok_and(|name| target.module == name || target.module.starts_with(&format!("{name}.")));
    if missing {
        let place = std::env::current_dir().map(|dir| dir.display().to_string()).unwrap_or_default();
        let hint = match target.module.strip_suffix(".py") {
            Some(module) => format!("; to serve the file of that name, say {module:?}"),
            None => String::new(),
        };
        let module = &target.module;
        return LoadError::new(format!("there is no module {module:?} (looked in {place} first){hint}"));
    }
    LoadError::raised(py, &format!("importing {} failed", target.module), error)
}

/// Looks the expression up in the module: names, attributes of them, and at the end perhaps a call with literals.
fn evaluate<'py>(
    py: Python<'py>,
    target: &Target,
    module: &Bound<'py, PyAny>,
) -> Result<Bound<'py, PyAny>, LoadError> {
    let raised = |error: PyErr| LoadError::raised(py, &format!("the factory {target} failed"), &error);
    // The usual form is parsed here: the imports of Python's own parser take seven milliseconds.
    if let Some(names) = names(&target.expression) {
        return look_up(target, module, &names);
    }
    if let Some(names) = target.expression.strip_suffix("()").and_then(names) {
        return look_up(target, module, &names)?.call0().map_err(raised);
    }
    let unclear = || {
        let expected = "expected NAME, NAME.NAME or FACTORY() with literal arguments";
        LoadError::new(format!("{:?} names no application: {expected}", target.expression))
    };
    let ast = py.import("ast").map_err(|error| LoadError::raised(py, "Python has no ast", &error))?;
    let options = PyDict::new(py);
    let parsed = options
        .set_item("mode", "eval")
        .and_then(|()| ast.call_method("parse", (target.expression.as_str(),), Some(&options)))
        .and_then(|tree| tree.getattr("body"))
        .map_err(|_| unclear())?;
    let Ok(function) = parsed.getattr("func") else {
        let names = names_of(&parsed).ok_or_else(unclear)?;
        return look_up(target, module, &names);
    };
    let names = names_of(&function).ok_or_else(unclear)?;
    let factory = look_up(target, module, &names)?;
    let (arguments, options) = literals(py, &ast, &parsed).map_err(|_| unclear())?;
    factory.call(arguments, Some(&options)).map_err(raised)
}

/// The names of `NAME.NAME`, where they need no parser: one would spell other letters than ASCII its own way.
fn names(expression: &str) -> Option<Vec<String>> {
    let is_plain = |name: &str| {
        let mut bytes = name.bytes();
        bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
            && bytes.all(|other| other.is_ascii_alphanumeric() || other == b'_')
    };
    expression.split('.').map(|name| is_plain(name).then(|| name.to_owned())).collect()
}

/// The same of a parsed expression.
fn names_of(node: &Bound<'_, PyAny>) -> Option<Vec<String>> {
    let text = |name: &str| node.getattr(name).and_then(|value| value.extract::<String>()).ok();
    if let Some(name) = text("id") {
        return Some(vec![name]);
    }
    let mut names = names_of(&node.getattr("value").ok()?)?;
    names.push(text("attr")?);
    Some(names)
}

fn look_up<'py>(
    target: &Target,
    module: &Bound<'py, PyAny>,
    names: &[String],
) -> Result<Bound<'py, PyAny>, LoadError> {
    names.iter().try_fold(module.clone(), |owner, name| {
        owner.getattr(name.as_str()).map_err(|error| not_found(target, module, &owner, name, &error))
    })
}

/// Why `owner`, the module or something in it, has no such attribute.
fn not_found(
    target: &Target,
    module: &Bound<'_, PyAny>,
    owner: &Bound<'_, PyAny>,
    name: &str,
    error: &PyErr,
) -> LoadError {
    let py = module.py();
    if !error.is_instance_of::<pyo3::exceptions::PyAttributeError>(py) {
        return LoadError::raised(py, &format!("{target} failed"), error);
    }
    let whose = match owner.is(module) {
        true => format!("module {:?}", target.module),
        false => format!("what {:?} is part of in module {:?}", target.expression, target.module),
    };
    let near = near_names(owner, name);
    let hint = if near.is_empty() { String::new() } else { format!(" (there is: {})", near.join(", ")) };
    LoadError::new(format!("{whose} has no attribute {name:?}{hint}"))
}

/// The constants of a call node.
fn literals<'py>(
    py: Python<'py>,
    ast: &Bound<'py, PyModule>,
    call: &Bound<'py, PyAny>,
) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
    let value = |node: &Bound<'py, PyAny>| ast.call_method1("literal_eval", (node,));
    let mut arguments = Vec::new();
    for node in call.getattr("args")?.try_iter()? {
        arguments.push(value(&node?)?);
    }
    let options = PyDict::new(py);
    for keyword in call.getattr("keywords")?.try_iter()? {
        let keyword = keyword?;
        // `**mapping` has no name.
        let name: String = keyword.getattr("arg")?.extract()?;
        options.set_item(name, value(&keyword.getattr("value")?)?)?;
    }
    Ok((PyTuple::new(py, arguments)?, options))
}

/// Names of `owner` of which `name` may be a typing error.
fn near_names(owner: &Bound<'_, PyAny>, name: &str) -> Vec<String> {
    let py = owner.py();
    let usual = ["app", "application", "create_app", "make_app"];
    let find = || -> PyResult<Vec<String>> {
        let names: Vec<String> = owner.dir()?.extract()?;
        let close: Vec<String> =
            py.import("difflib")?.call_method1("get_close_matches", (name, names.clone()))?.extract()?;
        let mut found: Vec<String> =
            names.into_iter().filter(|other| usual.contains(&other.as_str())).collect();
        for other in close {
            if !other.starts_with('_') && !found.contains(&other) {
                found.push(other);
            }
        }
        Ok(found)
    };
    find().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_need_no_parser() {
        let some = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        for (expression, expected) in [
            ("app", some(&["app"])),
            ("_x1.y", some(&["_x1", "y"])),
            ("make()", None),
            ("a..b", None),
            ("1a", None),
            ("a b", None),
            ("größe", None),
            ("", None),
        ] {
            assert_eq!(names(expression), expected, "{expression}");
        }
    }

    #[test]
    fn targets_are_taken_apart() {
        for (text, module, expression) in [
            ("server:app", "server", "app"),
            ("server", "server", "application"),
            ("a.b.c:x.y", "a.b.c", "x.y"),
            ("a:make('x', k=1)", "a", "make('x', k=1)"),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!((target.module.as_str(), target.expression.as_str()), (module, expression));
        }
        for text in ["", ":app", "a-b:app", "a:", "a..b", "server.py:app/x", "1a:app", "./server:app"] {
            assert!(text.parse::<Target>().is_err() || text == "server.py:app/x", "{text}");
        }
    }
}
