//! `wsgi.errors`: a text stream into the error log.

use std::sync::Arc;

use pyo3::prelude::*;

/// Where the text goes.
pub type ErrorSink = Arc<dyn Fn(&[u8]) + Send + Sync>;

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
    fn write(&self, text: &str) -> usize {
        (self.sink)(text.as_bytes());
        text.chars().count()
    }

    fn writelines(&self, lines: &Bound<'_, PyAny>) -> PyResult<()> {
        for line in lines.try_iter()? {
            (self.sink)(line?.extract::<String>()?.as_bytes());
        }
        Ok(())
    }

    /// Every write has reached the log already.
    fn flush(&self) {}
}
