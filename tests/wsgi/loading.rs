//! Getting hold of an application: what is found, and what is said when it is not.

use std::fs;
use std::path::Path;
use std::sync::Mutex;

use crate::python::loading::{LoadError, load};
use pyo3::prelude::*;
use pyo3::types::PyAnyMethods;

use super::fixture::start_python;

/// `sys.path` belongs to all tests of a process.
static ALONE: Mutex<()> = Mutex::new(());

/// Loads `target` with the modules of `files` in reach; what calling it gives, or why not.
fn try_load(files: &[(&str, &str)], target: &str) -> Result<String, LoadError> {
    in_folder(files, |dir| load_from(dir, target, called))
}

fn called(found: &Bound<'_, PyAny>) -> String {
    found.call0().unwrap().extract().unwrap()
}

fn in_folder<T>(files: &[(&str, &str)], act: impl FnOnce(&Path) -> T) -> T {
    let dir = tempfile::tempdir().unwrap();
    for (name, code) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, code).unwrap();
    }
    act(dir.path())
}

fn load_from<T>(dir: &Path, target: &str, act: impl FnOnce(&Bound<'_, PyAny>) -> T) -> Result<T, LoadError> {
    start_python();
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let path = [dir.to_str().unwrap().to_owned()];
    Python::attach(|py| {
        let found = load(py, &target.parse().unwrap(), &path)?;
        Ok(act(found.bind(py)))
    })
}

/// Loads `target` and does not call it.
fn loads(files: &[(&str, &str)], target: &str) -> Result<(), LoadError> {
    in_folder(files, |dir| load_from(dir, target, |_| ()))
}

#[track_caller]
fn refusal(files: &[(&str, &str)], target: &str) -> LoadError {
    let error = try_load(files, target).unwrap_err();
    assert!(!error.summary.contains('\n'), "one line: {error:?}");
    error
}

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

#[test]
fn attributes_attributes_of_them_and_factories_are_found() {
    let code = "
class holder:
    inner = staticmethod(lambda: 'inner')
    @staticmethod
    def make():
        return lambda: 'made inside'
def application(): return 'default'
def app(): return 'named'
def make(*args, **options):
    return lambda: repr((args, sorted(options.items())))
";
    let files = [("found_here.py", code)];
    for (target, expected) in [
        ("found_here", "default"),
        ("found_here:app", "named"),
        ("found_here:holder.inner", "inner"),
        ("found_here:make()", "((), [])"),
        ("found_here:holder.make()", "made inside"),
        (
            "found_here:make('a', -1, k=[1, None], z={'b': True})",
            "(('a', -1), [('k', [1, None]), ('z', {'b': True})])",
        ),
    ] {
        assert_eq!(try_load(&files, target).unwrap(), expected, "{target}");
    }
    let files = [("found_package/__init__.py", ""), ("found_package/web.py", "def app(): return 'deep'")];
    assert_eq!(try_load(&files, "found_package.web:app").unwrap(), "deep");
}

#[test]
fn only_names_and_literals_are_evaluated() {
    let files = [("evaluated.py", "def make(*args): return lambda: 'made'\nname = 1\n")];
    for target in [
        "make(name)",
        "make(*[1])",
        "make(**{'a': 1})",
        "make(make())",
        "make()()",
        "make().x",
        "name + 1",
        "[make][0]",
        "lambda: 1",
        "make(",
        "__import__('os').getcwd()",
        "'make'",
    ] {
        let error = refusal(&files, &format!("evaluated:{target}"));
        has(&error.summary, &["names no application"]);
        assert_eq!(error.traceback, None, "{target}");
    }
}

#[test]
fn a_missing_module_is_one_line_without_a_traceback() {
    let error = refusal(&[], "nowhere_to_be_found:app");
    has(&error.summary, &["no module", "nowhere_to_be_found"]);
    assert_eq!(error.traceback, None);
    let error = refusal(&[("half_there/__init__.py", "")], "half_there.missing:app");
    has(&error.summary, &["no module", "half_there.missing"]);
    let error = refusal(&[], "served_file.py");
    has(&error.summary, &["no module", "say \"served_file\""]);
}

#[test]
fn a_module_that_misses_another_is_not_missing_itself() {
    let error = refusal(&[("needs_more.py", "import not_installed_at_all\n")], "needs_more:app");
    has(&error.summary, &["importing needs_more failed", "ModuleNotFoundError", "not_installed_at_all"]);
    has(&error.traceback.unwrap(), &["needs_more.py", "line 1", "import not_installed_at_all"]);
    // Also where the missing one has the same name.
    let error = refusal(&[("says_so.py", "raise ModuleNotFoundError('x', name='says_so')\n")], "says_so:app");
    has(&error.summary, &["importing says_so failed"]);
}

#[test]
fn what_is_raised_at_import_comes_with_its_whole_traceback() {
    let code = "
def deep():
    raise KeyError('DATABASE_URL')
try:
    deep()
except KeyError as error:
    raise RuntimeError('not configured\\nsee the manual') from error
";
    let error = refusal(&[("raises_here.py", code)], "raises_here:app");
    assert_eq!(error.summary, "importing raises_here failed: RuntimeError: not configured");
    let text = error.traceback.unwrap();
    has(&text, &["Traceback (most recent call last)", "in deep", "direct cause", "see the manual"]);
    assert!(
        !text.contains("importlib") && !text.contains("<frozen"),
        "only the application's frames: {text}"
    );
}

#[test]
fn a_syntax_error_shows_its_place() {
    let error = refusal(&[("broken_syntax.py", "def app(:\n    pass\n")], "broken_syntax:app");
    has(&error.summary, &["importing broken_syntax failed: SyntaxError:"]);
    has(&error.traceback.unwrap(), &["broken_syntax.py\", line 1", "def app(:", "^"]);
}

#[test]
fn an_exit_at_import_is_an_error_as_well() {
    for (name, code, kind) in [
        ("exits_early", "import sys\nsys.exit(3)\n", "SystemExit: 3"),
        ("interrupts", "raise KeyboardInterrupt\n", "KeyboardInterrupt"),
    ] {
        let error = refusal(&[(&format!("{name}.py"), code)], &format!("{name}:app"));
        has(&error.summary, &[&format!("importing {name} failed"), kind]);
        assert!(error.traceback.is_some());
    }
}

#[test]
fn a_missing_attribute_is_reported_with_its_neighbours() {
    let files = [("has_others.py", "def create_app(): pass\ndef aplication(): pass\ndef app(): pass\n")];
    let error = refusal(&files, "has_others:application");
    has(
        &error.summary,
        &["module \"has_others\" has no attribute \"application\"", "app", "create_app", "aplication"],
    );
    assert_eq!(error.summary.matches("create_app").count(), 1);
    assert_eq!(error.traceback, None);
    let error = refusal(&files, "has_others:app.inner");
    has(&error.summary, &["app.inner", "has no attribute \"inner\""]);
}

#[test]
fn what_cannot_be_called_is_refused_by_its_kind() {
    let files = [("has_a_string.py", "app = 'text'\ndef make(): pass\n")];
    has(&refusal(&files, "has_a_string:app").summary, &["has_a_string:app is a str, which cannot be called"]);
    has(&refusal(&files, "has_a_string:make()").summary, &["is a NoneType"]);
}

#[test]
fn an_asgi_application_is_refused_by_its_sign_with_the_command_that_serves_it() {
    let code = "
import functools
async def coroutine(scope, receive, send): pass
class Instance:
    async def __call__(self, scope, receive, send): pass
instance = Instance()
class OfAsgi2:
    def __init__(self, scope): pass
    async def __call__(self, receive, send): pass
class Awaited:
    def __init__(self, scope, receive, send): pass
    def __await__(self): yield
class Routes:
    async def serve(self, scope, receive, send): pass
    def wrapped(self, scope, receive, send): return self.serve(scope, receive, send)
routes = Routes()
partial = functools.partial(coroutine)
given = functools.partial(Routes.wrapped, routes)
def three(scope, receive, send): return coroutine(scope, receive, send)
def scope_alone(scope): return coroutine
def make(): return instance
";
    let files = [("has_asgi.py", code)];
    for (target, sign) in [
        ("coroutine", "(a coroutine function)"),
        ("instance", "(its __call__ is a coroutine function)"),
        ("OfAsgi2", "(the __call__ of its instances is a coroutine function)"),
        ("Awaited", "(it takes three arguments)"),
        ("routes.serve", "(a coroutine function)"),
        ("routes.wrapped", "(it takes three arguments)"),
        ("partial", "(a coroutine function)"),
        ("given", "(it takes three arguments)"),
        ("three", "(it takes three arguments)"),
        ("scope_alone", "(it takes a scope alone)"),
    ] {
        let target = format!("has_asgi:{target}");
        let error = refusal(&files, &target);
        has(&error.summary, &[&target, "is an ASGI application", sign, "mcsup exec", "uvicorn --fd 3"]);
        assert_eq!(error.traceback, None);
    }
    has(&refusal(&files, "has_asgi:make()").summary, &["uvicorn --fd 3 --factory has_asgi:make"]);
}

#[test]
fn what_may_be_a_wsgi_application_is_not_taken_for_asgi() {
    let code = "
import functools
def two(environ=None, start_response=None): return 'two'
def any_arguments(*arguments): return 'any'
def three_with_a_default(environ=None, start_response=None, debug=False): return 'three'
def needs_three(settings, environ=None, start_response=None): return settings
given = functools.partial(needs_three, 'given')
def configured(environ=None, start_response=None, *, settings): return settings
def with_settings(environ, start_response, settings): return 'never called'
settled = functools.partial(with_settings, settings='settled')
named = functools.partial(configured, settings='named')
by_name = functools.partial(lambda scope, e=None, s=None: scope, scope='by name')
class Instance:
    def __call__(self, environ=None, start_response=None): return 'instance'
    def method(self, environ=None, start_response=None): return 'method'
    async def view(self): pass
instance = Instance()
";
    let files = [("has_wsgi.py", code)];
    for (target, answer) in [
        ("two", "two"),
        ("any_arguments", "any"),
        ("three_with_a_default", "three"),
        ("given", "given"),
        ("named", "named"),
        ("by_name", "by name"),
        ("instance", "instance"),
        ("instance.method", "method"),
    ] {
        assert_eq!(try_load(&files, &format!("has_wsgi:{target}")).unwrap(), answer, "{target}");
    }
    assert_eq!(loads(&files, "has_wsgi:settled"), Ok(()));
}

#[test]
fn a_factory_that_fails_is_distinguished_from_an_import_that_does() {
    let files = [("bad_factory.py", "def make(level):\n    return 1 / level\n")];
    let error = refusal(&files, "bad_factory:make(0)");
    has(&error.summary, &["the factory bad_factory:make(0) failed: ZeroDivisionError"]);
    has(&error.traceback.unwrap(), &["in make"]);
    has(&refusal(&files, "bad_factory:make()").summary, &["TypeError", "level"]);
}

#[test]
fn the_python_path_comes_before_the_current_directory_and_both_before_the_rest() {
    start_python();
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    Python::attach(|py| {
        let target = "os:getcwd".parse().unwrap();
        load(py, &target, &["/first".to_owned(), "/second".to_owned()]).unwrap();
        let path: Vec<String> = py.import("sys").unwrap().getattr("path").unwrap().extract().unwrap();
        let here = std::env::current_dir().unwrap();
        assert_eq!(path[..3], ["/first", "/second", here.to_str().unwrap()]);
    });
}
