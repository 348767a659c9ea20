//! The socket that an application gets with a request whose client asks for another protocol (RFC 9110 §7.8).
//!
//! gunicorn has the socket of every connection in `environ["gunicorn.socket"]`, the development server of werkzeug in
//! `environ["werkzeug.socket"]`, and libraries for WebSocket look for both. Here a socket is there for requests with
//! `Connection: upgrade` only, and its first use takes the connection. `switching.py` has its class.

use std::os::fd::{AsRawFd, IntoRawFd};

use pyo3::exceptions::{PyConnectionError, PyStopIteration};
use pyo3::ffi::c_str;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict};

use super::start_response::{Answer, StartResponse, Stop};
use crate::app::Reply;

const KEYS: [&str; 2] = ["gunicorn.socket", "werkzeug.socket"];

/// A socket that the application may use until its call ends.
pub(super) struct Offer<'py> {
    socket: Bound<'py, PyAny>,
    start_response: Bound<'py, StartResponse>,
}

impl<'py> Offer<'py> {
    /// Puts the socket of `reply` into the environ; `None`: it has none.
    pub(super) fn make(
        environ: &Bound<'py, PyDict>,
        start_response: &Bound<'py, StartResponse>,
        reply: &mut dyn Reply,
    ) -> PyResult<Option<Self>> {
        let py = environ.py();
        let descriptor = match reply.socket() {
            None => return Ok(None),
            Some(Ok(descriptor)) => descriptor,
            Some(Err(error)) => {
                log::warn!("a request for another protocol has no socket: {error}");
                return Ok(None);
            }
        };
        let start_response = start_response.clone();
        let take = Bound::new(py, Take(start_response.clone().unbind()))?;
        let socket = class(py)?.call1((descriptor.as_raw_fd(), take))?;
        // The object is its owner now.
        let _ = descriptor.into_raw_fd();
        for key in KEYS {
            environ.set_item(key, &socket)?;
        }
        start_response.get().0.allow_switch();
        Ok(Some(Self { socket, start_response }))
    }

    /// The call has ended like this; returns its result for the engine.
    pub(super) fn end(self, served: Result<(), Stop>) -> Result<(), Stop> {
        let (py, answer) = (self.socket.py(), &self.start_response.get().0);
        let served = match served {
            // The way of gunicorn to say that no answer is wanted.
            Err(Stop::Raised(error)) if error.is_instance_of::<PyStopIteration>(py) => {
                if answer.head_sent(py) { Ok(()) } else { answer.take(py).map(drop).map_err(Stop::Raised) }
            }
            Err(Stop::Raised(error)) if is_of_the_client(py, &error, answer) => Err(Stop::Gone),
            served => served,
        };
        self.socket.call_method0(intern!(py, "_end_unused"))?;
        served
    }
}

/// Whether this is what a use of the socket raises when the client is gone.
fn is_of_the_client(py: Python<'_>, error: &PyErr, answer: &Answer) -> bool {
    answer.is_taken(py) && error.is_instance_of::<PyConnectionError>(py)
}

/// The class of the sockets.
fn class(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let class = CLASS.get_or_try_init(py, || {
        let code = c_str!(include_str!("switching.py"));
        let module = PyModule::from_code(py, code, c"mcsup/switching.py", c"mcsup_switching")?;
        module.getattr("SwitchingSocket").map(Bound::unbind)
    })?;
    Ok(class.bind(py))
}

/// Takes the connection for the application; returns the bytes that were received behind the request.
#[pyclass(frozen, module = "mcsup")]
struct Take(Py<StartResponse>);

#[pymethods]
impl Take {
    fn __call__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.0.get().0.take(py)?))
    }
}
