//! Applications for ASGI, recognised when they are loaded: a call with environ and start_response would fail at each
//! request.
//!
//! An ASGI application is called with scope, receive and send, and the result is awaited (ASGI 3.0, "Applications");
//! one of ASGI 2 is called with the scope, and its result with receive and send.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};

use super::loading::Target;

/// `inspect.CO_COROUTINE`: code of an `async def`. The module itself takes milliseconds to import.
const CO_COROUTINE: u32 = 0x80;
/// `inspect.CO_VARARGS`: `*args`.
const CO_VARARGS: u32 = 0x04;

/// How `found` shows that it is an ASGI application; `None`: it does not.
pub(super) fn sign_of_asgi(found: &Bound<'_, PyAny>) -> Option<&'static str> {
    if let Ok(class) = found.cast::<PyType>() {
        return sign_of_a_class(class);
    }
    if let Some(function) = Function::of(found.clone()) {
        return function.sign("a coroutine function");
    }
    let call = found.get_type().getattr("__call__").ok()?;
    Function::of(call)?.with_bound(1).sign("its __call__ is a coroutine function")
}

/// A class is called in two steps, as an application of ASGI 2, or has its instances awaited.
fn sign_of_a_class(class: &Bound<'_, PyType>) -> Option<&'static str> {
    let method = |name: &str| Some(Function::of(class.getattr(name).ok()?)?.with_bound(1));
    if method("__call__").is_some_and(|call| call.is_coroutine()) {
        return Some("the __call__ of its instances is a coroutine function");
    }
    method("__init__").and_then(|init| init.sign(""))
}

/// The code of a Python function, and the number of its arguments that are given already.
struct Function {
    flags: u32,
    /// Its positional parameters without those given, and those of them without a default.
    names: Vec<String>,
    required: usize,
}

impl Function {
    /// The function behind a method or a `functools.partial`; `None`: no Python function.
    fn of(mut found: Bound<'_, PyAny>) -> Option<Self> {
        let (mut given, mut named) = (0, Vec::new());
        // A partial of a partial is one already; a partial of a method is two steps.
        for _ in 0..4 {
            if let Ok(code) = found.getattr("__code__") {
                // A method has the code of its function.
                given += usize::from(found.getattr("__self__").is_ok());
                return Some(Self::from_code(&found, &code)?.with_bound(given).without(&named));
            }
            given += found.getattr("args").ok()?.cast::<PyTuple>().ok()?.len();
            let keywords = found.getattr("keywords").ok()?;
            named.extend(keywords.cast::<PyDict>().ok()?.keys().extract::<Vec<String>>().ok()?);
            found = found.getattr("func").ok()?;
        }
        None
    }

    fn from_code(function: &Bound<'_, PyAny>, code: &Bound<'_, PyAny>) -> Option<Self> {
        let count: usize = code.getattr("co_argcount").ok()?.extract().ok()?;
        let mut names: Vec<String> = code.getattr("co_varnames").ok()?.extract().ok()?;
        names.truncate(count);
        let defaults = function.getattr("__defaults__").ok()?;
        let defaults = defaults.cast::<PyTuple>().map_or(0, |defaults| defaults.len());
        let flags = code.getattr("co_flags").ok()?.extract().ok()?;
        Some(Self { flags, names, required: count.saturating_sub(defaults) })
    }

    fn with_bound(mut self, given: usize) -> Self {
        self.names.drain(..given.min(self.names.len()));
        self.required = self.required.saturating_sub(given);
        self
    }

    /// Without the parameters that are given by name.
    fn without(mut self, named: &[String]) -> Self {
        let required = self.names.iter().take(self.required);
        self.required = required.filter(|name| !named.contains(name)).count();
        self.names.retain(|name| !named.contains(name));
        self
    }

    fn is_coroutine(&self) -> bool {
        self.flags & CO_COROUTINE != 0
    }

    fn sign(&self, of_a_coroutine: &'static str) -> Option<&'static str> {
        if self.is_coroutine() && !of_a_coroutine.is_empty() {
            return Some(of_a_coroutine);
        }
        if self.required == 3 {
            return Some("it takes three arguments");
        }
        let takes_more = self.names.len() > 1 || self.flags & CO_VARARGS != 0;
        (!takes_more && self.names.first().is_some_and(|name| name == "scope"))
            .then_some("it takes a scope alone")
    }
}

/// Why such an application is refused, and how it is served instead.
pub(super) fn refusal(target: &Target, found: &Bound<'_, PyAny>, sign: &str) -> String {
    let Target { module, expression } = target;
    let named = match expression.strip_suffix("()") {
        Some(factory) => format!("--factory {module}:{factory}"),
        None => format!("{module}:{expression}"),
    };
    let is_django = found
        .get_type()
        .module()
        .is_ok_and(|module| module.to_string_lossy().split('.').next() == Some("django"));
    let hint = if is_django { "; the WSGI application of Django is in wsgi.py, beside asgi.py" } else { "" };
    format!(
        "{target} is an ASGI application ({sign}), and mcsup calls WSGI applications; run an ASGI server as the \
         program of a pool: mcsup exec -w 2 -b 127.0.0.1:8000 --ready tcp -- uvicorn --fd 3 {named}{hint}"
    )
}
