//! `wsgi.errors`: a text stream into the error log.

use std::borrow::Cow;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

/// Where the text goes.
pub(crate) type ErrorSink = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// The stream. It has no `close`: it is the server's.
#[pyclass(frozen, module = "mcsup", name = "ErrorStream")]
pub(super) struct Errors {
    sink: ErrorSink,
}

impl Errors {
    pub(super) fn new(sink: ErrorSink) -> Self {
        Self { sink }
    }
}

#[pymethods]
impl Errors {
    #[pyo3(signature = (text, /))]
    fn write(&self, text: &Bound<'_, PyString>) -> PyResult<usize> {
        (self.sink)(&bytes_of(text)?);
        text.len()
    }

    #[pyo3(signature = (lines, /))]
    fn writelines(&self, lines: &Bound<'_, PyAny>) -> PyResult<()> {
        for line in lines.try_iter()? {
            (self.sink)(&bytes_of(line?.cast::<PyString>()?)?);
        }
        Ok(())
    }

    /// Every write has reached the log already.
    fn flush(&self) {}
}

/// In UTF-8; what has no place there (a lone surrogate, from a file name for example) as Python's own standard error
/// writes it, since a log line must not fail.
fn bytes_of<'a>(text: &'a Bound<'_, PyString>) -> PyResult<Cow<'a, [u8]>> {
    if let Ok(utf8) = text.to_str() {
        return Ok(Cow::Borrowed(utf8.as_bytes()));
    }
    let encoded = text.call_method1("encode", ("utf-8", "backslashreplace"))?.cast_into::<PyBytes>()?;
    Ok(Cow::Owned(encoded.as_bytes().to_vec()))
}
