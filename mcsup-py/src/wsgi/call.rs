//! One request, from the call of the application to the close of what it returned.

use pyo3::exceptions::{PyBrokenPipeError, PyTypeError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

use super::draining::IsDraining;
use super::environ::Environs;
use super::file_wrapper::FileWrapper;
use super::held_bytes::{self, HeldBytes};
use super::remains::Remains;
use super::request_hooks::RequestHooks;
use super::settings::WsgiSettings;
use super::start_response::{Answer, StartResponse, Stop};
use super::switching::Offer;
use crate::app::{App, Left, Reply, Request, Verdict};
use crate::http::head::Head;
use crate::http::target::shown;
use crate::python::{ending, logging, traceback};

/// A WSGI application as the engine's [`App`].
pub(crate) struct WsgiApp {
    callable: Py<PyAny>,
    environs: Environs,
    /// The callable of the last request, unless the application has kept it.
    start_response: Option<Py<StartResponse>>,
    /// The configuration's hooks of requests.
    hooks: Option<RequestHooks>,
    /// For the access log; `None`: there is none.
    remains: Option<Remains>,
}

impl WsgiApp {
    /// Serves `callable`, which may ask whether the worker will end soon.
    pub(crate) fn new(callable: Py<PyAny>, settings: WsgiSettings, is_draining: IsDraining) -> Self {
        let environs = Environs::new(settings, is_draining);
        Self { callable, environs, start_response: None, hooks: None, remains: None }
    }

    /// With the configuration's hooks of requests around each call.
    pub(crate) fn with_hooks(self, hooks: Option<RequestHooks>) -> Self {
        Self { hooks, ..self }
    }

    /// Keeps the variables of these names after each call, for the access log.
    pub(crate) fn keeping(self, variables: &[String]) -> Self {
        Self { remains: Some(Remains::new(variables)), ..self }
    }
}

impl App for WsgiApp {
    fn call(&mut self, request: Request<'_>, reply: &mut dyn Reply) -> Verdict {
        let Self { callable, environs, start_response, hooks, remains } = self;
        Python::attach(|py| {
            // For the log, before the request is taken apart.
            let head = request.head;
            let callables = match start_response.take() {
                Some(used) => Ok(used.into_bound(py)),
                None => Bound::new(py, StartResponse(Answer::default())),
            };
            let outcome = callables.map_err(Stop::Raised).and_then(|callables| {
                let environ = environs.make(py, request)?;
                let kept = remains.as_ref().map(|_| environ.clone());
                let offer = match head.delimited().asks_upgrade {
                    true => Offer::make(&environ, &callables, reply)?,
                    false => None,
                };
                let answer = &callables.get().0;
                let serve = |environ| serve(callable.bind(py), environ, &head, &callables);
                let served = answer.lease.lend(py, reply, || {
                    let served = match hooks {
                        None => serve(environ),
                        Some(hooks) => hooks.around(environ, &head, answer, serve, |error| {
                            log_error(py, "Exception in the hook pre_request for", &head, error);
                        }),
                    };
                    match offer {
                        Some(offer) => offer.end(served),
                        None => served,
                    }
                });
                if let (Some(remains), Some(environ)) = (remains, kept) {
                    remains.take_from(&environ, environs.last_address());
                }
                let is_of_the_client =
                    matches!(&served, Err(Stop::Raised(error)) if is_of_the_client(py, error, answer));
                // SAFETY: a live object, and the interpreter is attached.
                if unsafe { ffi::Py_REFCNT(callables.as_ptr()) } == 1 {
                    answer.reset(py);
                    *start_response = Some(callables.unbind());
                }
                if is_of_the_client { Err(Stop::Gone) } else { served }
            });
            match outcome {
                Ok(()) => return Verdict::Complete,
                Err(Stop::Gone) => log::debug!("The client of {} left", name(&head)),
                Err(Stop::Raised(error)) => log_error(py, "Error handling request", &head, &error),
                Err(Stop::Logged) => {}
            }
            Verdict::Failed
        })
    }

    fn handles_signals(&self) -> bool {
        true
    }

    fn has_garbage(&self) -> bool {
        held_bytes::are_deferred() || logging::is_reopen_due()
    }

    fn left(&mut self) -> Left {
        self.remains.as_mut().map(Remains::take).unwrap_or_default()
    }

    fn free(&mut self) {
        held_bytes::free_deferred();
        logging::reopen_due();
    }
}

/// From the call to the close.
fn serve<'py>(
    callable: &Bound<'py, PyAny>,
    environ: Bound<'py, PyDict>,
    head: &Head<'_>,
    start_response: &Bound<'py, StartResponse>,
) -> Result<(), Stop> {
    let py = callable.py();
    let answer = &start_response.get().0;
    // One object for both: a second one would cost every request, for the few that want it.
    environ.set_item(intern!(py, "wsgi.early_hints"), start_response)?;
    let returned = callable.call1((environ, start_response));
    ending::end_if_forked_off(py, returned.as_ref().err());
    let returned = returned?;
    let sent = send(&returned, answer);
    ending::end_if_forked_off(py, sent.as_ref().err().and_then(Stop::raised));
    // Always, whatever came of sending it. Where it fails, the response is none the worse.
    let closed = close(&returned);
    ending::end_if_forked_off(py, closed.as_ref().err());
    if let Err(error) = closed {
        log_error(py, "Error closing the response to", head, &error);
    }
    sent
}

/// Whether this is what `write` raises when the client is gone, come back through the application.
fn is_of_the_client(py: Python<'_>, error: &PyErr, answer: &Answer) -> bool {
    answer.is_gone(py) && error.is_instance_of::<PyBrokenPipeError>(py)
}

/// The target of a record with an exception of the application. gunicorn's statsd counts those apart.
pub const EXCEPTION: &str = "exception";

fn log_error(py: Python<'_>, what: &str, head: &Head<'_>, error: &PyErr) {
    log::error!(target: EXCEPTION, "{what} {}\n{}", name(head), traceback::format(py, error).trim_end());
}

/// Method and target, for the log.
fn name(head: &Head<'_>) -> String {
    format!("{} {}", head.method(), shown(head.target()))
}

/// Sends what the application returned.
fn send(returned: &Bound<'_, PyAny>, answer: &Answer) -> Result<(), Stop> {
    if let Ok(wrapper) = returned.cast_exact::<FileWrapper>() {
        if let Some(sent) = send_file(wrapper, answer) {
            return sent;
        }
    }
    if let Some(block) = only_block(returned)? {
        return send_only(&block, answer);
    }
    send_blocks(returned, answer)
}

/// The rest of a real file goes out without Python; `None`: this is none.
fn send_file(wrapper: &Bound<'_, FileWrapper>, answer: &Answer) -> Option<Result<(), Stop>> {
    let py = wrapper.py();
    let part = wrapper.get().sendable(py)?;
    let length = answer.content_length(py).map_or(part.length, |announced| announced.min(part.length));
    if length == 0 {
        return None;
    }
    Some(answer.send(py, |reply, head| reply.send_file(head, part.file, part.offset, length)))
}

/// A body up to this size is copied in less time than it takes to release the interpreter and get it back.
const SMALL: usize = 64 * 1024;

/// The block of a list or tuple of one: its length is the body's.
fn only_block<'py>(returned: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    if let Ok(list) = returned.cast_exact::<PyList>() {
        return if list.len() == 1 { list.get_item(0).map(Some) } else { Ok(None) };
    }
    if let Ok(tuple) = returned.cast_exact::<PyTuple>() {
        return if tuple.len() == 1 { tuple.get_item(0).map(Some) } else { Ok(None) };
    }
    Ok(None)
}

fn send_only(block: &Bound<'_, PyAny>, answer: &Answer) -> Result<(), Stop> {
    let (py, bytes) = (block.py(), bytes_of(block)?.as_bytes());
    if bytes.len() <= SMALL {
        answer.send_whole(py, bytes)
    } else {
        // Sent from where it is, and held until it has left.
        let block = HeldBytes::new(bytes_of(block)?);
        answer.send(py, |reply, head| reply.send_block(head, Box::new(block)))
    }
}

/// Each block is sent before the next is requested, and none is requested without need.
fn send_blocks(returned: &Bound<'_, PyAny>, answer: &Answer) -> Result<(), Stop> {
    let py = returned.py();
    for block in returned.try_iter()? {
        ending::end_if_forked_off(py, block.as_ref().err());
        let block = block?;
        let bytes = bytes_of(&block)?.as_bytes();
        if bytes.is_empty() {
            // The head waits for the first byte (PEP 3333): until then the application may change its mind.
            continue;
        }
        answer.send(py, |reply, head| reply.send(head, bytes))?;
        if answer.is_full(py) {
            return Ok(());
        }
    }
    ending::end_if_forked_off(py, None);
    if answer.head_sent(py) { Ok(()) } else { answer.send(py, |reply, head| reply.send_whole(head, b"")) }
}

fn bytes_of<'a, 'py>(block: &'a Bound<'py, PyAny>) -> PyResult<&'a Bound<'py, PyBytes>> {
    block.cast::<PyBytes>().map_err(|_| {
        let kind = block.get_type().name().map(|name| name.to_string()).unwrap_or_default();
        PyTypeError::new_err(format!("the application must return an iterable of bytes, not of {kind}"))
    })
}

fn close(returned: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = returned.py();
    // Exact lists and tuples have none: the usual case costs no look-up.
    if returned.is_exact_instance_of::<PyList>() || returned.is_exact_instance_of::<PyTuple>() {
        return Ok(());
    }
    match returned.getattr_opt(intern!(py, "close"))? {
        Some(close) => close.call0().map(drop),
        None => Ok(()),
    }
}
