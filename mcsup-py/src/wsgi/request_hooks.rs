//! `pre_request` and `post_request` around the call of the application.
//!
//! As with gunicorn an exception of `pre_request` fails the request, and one of `post_request` is logged. Changes that
//! `pre_request` makes to its request reach the environ.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use super::environ::latin1;
use super::start_response::{Answer, Stop};
use crate::http::head::Head;
use crate::python::ending;

/// The object of `conf` that calls the hooks.
pub(crate) struct RequestHooks(Py<PyAny>);

impl RequestHooks {
    /// With the object that `WorkerHooks::of_requests` makes.
    pub(crate) fn new(hooks: Py<PyAny>) -> Self {
        Self(hooks)
    }

    /// Calls the hooks around `serve`. `failed` logs an exception of `pre_request`.
    pub(super) fn around<'py>(
        &self,
        environ: Bound<'py, PyDict>,
        head: &Head<'_>,
        answer: &Answer,
        serve: impl FnOnce(Bound<'py, PyDict>) -> Result<(), Stop>,
        failed: impl FnOnce(&PyErr),
    ) -> Result<(), Stop> {
        let py = environ.py();
        let hooks = self.0.bind(py);
        let path = latin1(py, head.path())?;
        let request =
            hooks.call_method1(intern!(py, "begin"), (&environ, path, fields_of_request(py, head)?))?;
        let before = hooks.call_method1(intern!(py, "before"), (&request, &environ));
        ending::end_if_forked_off(py, before.as_ref().err());
        let (served, answered) = match before {
            Ok(_) => (serve(environ.clone()), Some(answered(py, answer)?)),
            Err(error) => {
                failed(&error);
                environ.clear();
                (Err(Stop::Logged), None)
            }
        };
        let after = hooks.call_method1(intern!(py, "after"), (request, environ, answered));
        ending::end_if_forked_off(py, after.as_ref().err());
        // Its exceptions are logged; SystemExit and its like are the application's, as is the answer's failure.
        served.and(after.map(drop).map_err(Stop::Raised))
    }
}

/// The fields of the request: names in upper case, as gunicorn has them.
fn fields_of_request<'py>(py: Python<'py>, head: &Head<'_>) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for (name, value) in head.headers() {
        list.append((latin1(py, &name.to_ascii_uppercase())?, latin1(py, value)?))?;
    }
    Ok(list)
}

/// The arguments of `Response`.
fn answered<'py>(py: Python<'py>, answer: &Answer) -> PyResult<Bound<'py, PyTuple>> {
    let (sent, head_sent) = answer.progress(py);
    let list = PyList::empty(py);
    let (status, length) = answer.with_head(py, |head| -> PyResult<_> {
        let mut status = head.status().to_string().into_bytes();
        if !head.reason().is_empty() {
            status.push(b' ');
            status.extend_from_slice(head.reason());
        }
        for (name, value) in head.fields() {
            list.append((latin1(py, name)?, latin1(py, value)?))?;
        }
        if let Some(length) = head.content_length() {
            list.append(("Content-Length", length.to_string()))?;
        }
        Ok((Some(latin1(py, &status)?), head.content_length()))
    })?;
    (status, list, length, sent, head_sent).into_pyobject(py)
}
