//! The values that an application has left in an environ, for the access log.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

use crate::app::Left;

/// The names of the variables to keep, and the values of the last request.
pub(super) struct Remains {
    names: Vec<String>,
    left: Left,
}

impl Remains {
    pub(super) fn new(names: &[String]) -> Self {
        Self { names: names.to_vec(), left: Left::default() }
    }

    /// Reads an environ after the call. `address`: the text that was its REMOTE_ADDR; middleware for proxies replaces it.
    pub(super) fn take_from(&mut self, environ: &Bound<'_, PyDict>, address: Option<&Py<PyString>>) {
        let py = environ.py();
        let now = environ.get_item(intern!(py, "REMOTE_ADDR")).ok().flatten();
        self.left.remote = match (now, address) {
            (Some(now), Some(address)) if now.is(address) => None,
            (Some(now), _) => text(&now).filter(|text| !text.is_empty()),
            (None, _) => None,
        };
        if !self.names.is_empty() {
            self.left.variables = self.names.iter().map(|name| variable(environ, name)).collect();
        }
    }

    pub(super) fn take(&mut self) -> Left {
        std::mem::take(&mut self.left)
    }
}

/// A variable by its name in any case, as with gunicorn: as it is written, in capitals, in small letters.
fn variable(environ: &Bound<'_, PyDict>, name: &str) -> Option<Vec<u8>> {
    let names = [name.to_owned(), name.to_uppercase(), name.to_lowercase()];
    names.iter().find_map(|name| environ.get_item(name).ok().flatten()).and_then(|value| text(&value))
}

/// The text of a value. That of the request stands for its bytes (PEP 3333, "Unicode Issues").
fn text(value: &Bound<'_, PyAny>) -> Option<Vec<u8>> {
    let text = value.str().ok()?;
    if let Ok(utf8) = text.to_str() {
        if utf8.is_ascii() {
            return Some(utf8.as_bytes().to_vec());
        }
    }
    let encoded = text.call_method1("encode", ("latin-1",));
    let encoded = encoded.or_else(|_| text.call_method1("encode", ("utf-8", "backslashreplace")));
    Some(encoded.ok()?.cast::<PyBytes>().ok()?.as_bytes().to_vec())
}
