//! `pre_request` and `post_request` around the call of the application.
//!
//! As with gunicorn an exception of `pre_request` fails the request, and one of `post_request` is logged. Changes that
//! `pre_request` makes to its request reach the environ.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyo3::call::PyCallArgs;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};

use super::environ::latin1;
use super::start_response::{Answer, Stop};
use crate::http::head::Head;
use crate::python::ending;

/// The hooks, for one thread.
pub(crate) struct RequestHooks {
    /// The object of `conf` that calls them.
    hooks: Py<PyAny>,
    running: Arc<RunningHook>,
}

/// The hook of a request that a thread is in.
#[derive(Debug, Default)]
pub(crate) struct RunningHook(Mutex<Option<Call>>);

#[derive(Debug)]
struct Call {
    name: &'static str,
    since: Instant,
    is_named: bool,
}

impl RunningHook {
    /// The name of the hook, if it has not returned for `limit`; once for each call.
    pub(crate) fn slow(&self, limit: Duration) -> Option<&'static str> {
        let mut running = self.lock();
        let call = running.as_mut().filter(|call| !call.is_named && call.since.elapsed() >= limit)?;
        call.is_named = true;
        Some(call.name)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Call>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RequestHooks {
    /// With the object that `WorkerHooks::of_requests` makes.
    pub(crate) fn new(hooks: Py<PyAny>) -> Self {
        Self { hooks, running: Arc::default() }
    }

    /// For another thread, which names hooks that do not return.
    pub(crate) fn running(&self) -> Arc<RunningHook> {
        Arc::clone(&self.running)
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
        let path = latin1(py, head.path())?;
        let arguments = (&environ, path, fields_of_request(py, head)?);
        let request = self.hooks.bind(py).call_method1(intern!(py, "begin"), arguments)?;
        let before = self.call(py, "pre_request", intern!(py, "before"), (&request, &environ));
        let (served, answered) = match before {
            Ok(_) => {
                let served = serve(environ.clone());
                let answered = answered(py, answer)?;
                if served.is_ok() {
                    // gunicorn calls the hook behind the answer too, and users have slow work there.
                    answer.complete(py);
                }
                (served, Some(answered))
            }
            Err(error) => {
                failed(&error);
                environ.clear();
                (Err(Stop::Logged), None)
            }
        };
        let after = self.call(py, "post_request", intern!(py, "after"), (request, environ, answered));
        // Its exceptions are logged; SystemExit and its like are the application's, as is the answer's failure.
        served.and(after.map(drop).map_err(Stop::Raised))
    }

    /// Calls a method of the object, in which the hook of this name runs.
    fn call<'py>(
        &self,
        py: Python<'py>,
        name: &'static str,
        method: &Bound<'py, PyString>,
        arguments: impl PyCallArgs<'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        *self.running.lock() = Some(Call { name, since: Instant::now(), is_named: false });
        let called = self.hooks.bind(py).call_method1(method, arguments);
        ending::end_if_forked_off(py, called.as_ref().err());
        *self.running.lock() = None;
        called
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
