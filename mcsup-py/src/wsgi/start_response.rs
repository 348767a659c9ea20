//! `start_response`, and the `write` that it returns (PEP 3333, "The start_response() Callable").

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::{
    PyAssertionError, PyBrokenPipeError, PyConnectionError, PyRuntimeError, PyTypeError, PyValueError,
};
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};

use super::lease::Lease;
use crate::app::{Gone, Reply};
use crate::http::response::{HeadFault, ResponseHead};

/// One request's answer, as far as the application has come with it.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) lease: Lease,
    stage: Mutex<Stage>,
    /// A head that has been sent, for the next to be made of.
    used: Mutex<Option<ResponseHead>>,
    /// The client asks for another protocol, and the application may agree.
    may_switch: AtomicBool,
}

#[derive(Default)]
enum Stage {
    /// `start_response` was not called.
    #[default]
    Silent,
    /// It was, with this.
    Begun(ResponseHead),
    /// The application has the connection: nothing that it says here is sent.
    Taken,
    /// The client is gone: nothing is sent any more. `start_response` was called with this before.
    Gone(Option<ResponseHead>),
}

impl Stage {
    fn lose_client(&mut self) {
        let head = match std::mem::take(self) {
            Stage::Begun(head) => Some(head),
            Stage::Gone(head) => head,
            Stage::Silent | Stage::Taken => None,
        };
        *self = Stage::Gone(head);
    }
}

/// Why an answer does not go on.
pub(super) enum Stop {
    /// The application's fault.
    Raised(PyErr),
    /// The client is gone.
    Gone,
    /// An error that is in the log already.
    Logged,
}

impl Stop {
    /// The exception, where it is one.
    pub(super) fn raised(&self) -> Option<&PyErr> {
        match self {
            Stop::Raised(error) => Some(error),
            Stop::Gone | Stop::Logged => None,
        }
    }
}

impl From<PyErr> for Stop {
    fn from(error: PyErr) -> Self {
        Stop::Raised(error)
    }
}

/// How far something was sent that the client may keep waiting.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    Whole,
    /// Handlers of signals are to run before it goes on.
    Interrupted,
}

impl Sent {
    fn of(reply: &dyn Reply) -> Self {
        if reply.is_interrupted() { Sent::Interrupted } else { Sent::Whole }
    }

    fn go_on(reply: &mut dyn Reply) -> Result<Self, Gone> {
        reply.go_on().map(|()| Sent::of(reply))
    }
}

impl Answer {
    /// Sends something with the head, detached from Python, since that may wait for the client. Handlers of signals run
    /// meanwhile, and an exception of one ends the wait.
    pub(super) fn send(
        &self,
        py: Python<'_>,
        act: impl FnOnce(&mut dyn Reply, &ResponseHead) -> Result<(), Gone> + Send,
    ) -> Result<(), Stop> {
        let act = |reply: &mut dyn Reply, head: &ResponseHead| act(reply, head).map(|()| Sent::of(reply));
        let mut sent = self.send_by(py, |head| self.lease.with(py, |reply| act(reply, head)))?;
        while sent == Sent::Interrupted {
            // No lock is held: a handler may use the answer.
            py.check_signals()?;
            sent = self.send_by(py, |_| self.lease.with(py, Sent::go_on))?;
        }
        Ok(())
    }

    /// Sends a body that is to be copied. As the first and only part of the answer it waits for nothing and is sent attached:
    /// a thread that releases the interpreter beside a busy one waits for it 5 ms (`sys.getswitchinterval()`).
    pub(super) fn send_whole(&self, py: Python<'_>, body: &[u8]) -> Result<(), Stop> {
        let mut is_first = true;
        let mut send = |reply: &mut dyn Reply, head: &ResponseHead| {
            is_first = !reply.head_sent();
            if is_first { reply.send_whole(head, body) } else { Ok(()) }
        };
        let send = |head: &ResponseHead| self.lease.peek(py, |reply| send(reply, head).map(|()| Sent::Whole));
        self.send_by(py, send)?;
        if is_first { Ok(()) } else { self.send(py, |reply, head| reply.send(head, body)) }
    }

    /// Ends the answer, before code that the client need not wait for.
    pub(super) fn complete(&self, py: Python<'_>) {
        if !mcsup_core::is_forked_off() {
            let _ = self.lease.peek(py, |reply| reply.complete());
        }
    }

    fn send_by(
        &self,
        py: Python<'_>,
        act: impl FnOnce(&ResponseHead) -> Option<Result<Sent, Gone>>,
    ) -> Result<Sent, Stop> {
        if mcsup_core::is_forked_off() {
            // The answer is the worker's to give. A thread that the fork did not copy may hold its locks for ever.
            return Err(Stop::Gone);
        }
        let mut stage = self.stage(py);
        let sent = match &*stage {
            Stage::Begun(head) => act(head),
            Stage::Taken => return Ok(Sent::Whole),
            Stage::Gone(_) => return Err(Stop::Gone),
            Stage::Silent => {
                let text = "the application did not call start_response() before it sent a body";
                return Err(Stop::Raised(PyAssertionError::new_err(text)));
            }
        };
        match sent {
            Some(Ok(sent)) => Ok(sent),
            Some(Err(Gone)) => {
                stage.lose_client();
                Err(Stop::Gone)
            }
            None => Err(Stop::Raised(PyRuntimeError::new_err("the request is over"))),
        }
    }

    /// Resets it for another request: no other reference exists.
    pub(super) fn reset(&self, py: Python<'_>) {
        if let Stage::Begun(head) | Stage::Gone(Some(head)) = std::mem::take(&mut *self.stage(py)) {
            *self.used(py) = Some(head);
        }
        self.may_switch.store(false, Relaxed);
    }

    fn used(&self, py: Python<'_>) -> MutexGuard<'_, Option<ResponseHead>> {
        self.used.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the head has left.
    pub(super) fn head_sent(&self, py: Python<'_>) -> bool {
        self.lease.peek(py, |reply| reply.head_sent()).unwrap_or(true)
    }

    /// Whether all that was announced has been handed over.
    pub(super) fn is_full(&self, py: Python<'_>) -> bool {
        self.lease.peek(py, |reply| reply.is_full()).unwrap_or(true)
    }

    /// Whether the client went away in the middle of it.
    pub(super) fn is_gone(&self, py: Python<'_>) -> bool {
        matches!(*self.stage(py), Stage::Gone(_))
    }

    /// The length that the application announced.
    pub(super) fn content_length(&self, py: Python<'_>) -> Option<u64> {
        match &*self.stage(py) {
            Stage::Begun(head) => head.content_length(),
            Stage::Silent | Stage::Taken | Stage::Gone(_) => None,
        }
    }

    /// The number of bytes of the body that have been sent, and whether the head has.
    pub(super) fn progress(&self, py: Python<'_>) -> (u64, bool) {
        self.lease.peek(py, |reply| (reply.body_bytes(), reply.head_sent())).unwrap_or_default()
    }

    /// Reads the head, if `start_response` was called; else the result is that of nothing.
    pub(super) fn with_head<T: Default>(
        &self,
        py: Python<'_>,
        read: impl FnOnce(&ResponseHead) -> PyResult<T>,
    ) -> PyResult<T> {
        match &*self.stage(py) {
            Stage::Begun(head) | Stage::Gone(Some(head)) => read(head),
            Stage::Silent | Stage::Taken | Stage::Gone(None) => Ok(T::default()),
        }
    }

    /// The application may use the connection for another protocol.
    pub(super) fn allow_switch(&self) {
        self.may_switch.store(true, Relaxed);
    }

    /// Takes the connection for the application; returns the bytes that were received behind the request.
    pub(super) fn take(&self, py: Python<'_>) -> PyResult<Vec<u8>> {
        if mcsup_core::is_forked_off() {
            let text = "the connection is that of the process which has the request";
            return Err(PyConnectionError::new_err(text));
        }
        let mut stage = self.stage(py);
        // The head of the other protocol comes before its first byte; any other one is not sent at all.
        let switches = match &*stage {
            Stage::Begun(head) if head.status() == SWITCHING => Some(head),
            _ => None,
        };
        let take = |reply: &mut dyn Reply| {
            if let Some(head) = switches.filter(|_| !reply.head_sent()) {
                reply.send(head, b"")?;
            }
            reply.take()
        };
        match self.lease.with(py, take) {
            Some(Ok(received)) => {
                *stage = Stage::Taken;
                Ok(received)
            }
            Some(Err(Gone)) => {
                stage.lose_client();
                Err(PyBrokenPipeError::new_err("the client is gone"))
            }
            None => Err(PyConnectionError::new_err("the request is over")),
        }
    }

    /// Whether the application has taken the connection.
    pub(super) fn is_taken(&self, py: Python<'_>) -> bool {
        matches!(*self.stage(py), Stage::Taken)
    }

    fn stage(&self, py: Python<'_>) -> MutexGuard<'_, Stage> {
        self.stage.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(
        &self,
        status: &Bound<'_, PyAny>,
        headers: &Bound<'_, PyAny>,
        exc_info: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let py = status.py();
        match exc_info {
            // What was sent cannot be taken back: the error goes on to the server.
            Some(exc_info) if self.head_sent(py) => return Err(reraised(exc_info)?),
            // What it says as WSGI demands, after a conversation in the other protocol.
            _ if self.is_taken(py) => return Ok(()),
            None if !matches!(*self.stage(py), Stage::Silent) => {
                return Err(PyAssertionError::new_err("start_response() was called twice without exc_info"));
            }
            _ => {}
        }
        // Made whole before the answer has it, and before its lock is taken: these are calls into Python.
        let mut head = self.used(py).take().unwrap_or_default();
        set_status(&mut head, status, self.may_switch.load(Relaxed))?;
        set_fields(&mut head, headers)?;
        if head.status() == SWITCHING && !head.names_upgrade() {
            return Err(PyValueError::new_err("status 101 needs a header Upgrade (RFC 9110 §15.2.2)"));
        }
        *self.stage(py) = Stage::Begun(head);
        Ok(())
    }
}

/// The callable, for all that an application says: `start_response(status, headers[, exc_info])`; what that returns,
/// `write(data)` (it returns itself); and `environ["wsgi.early_hints"](headers)`, which sends 103 Early Hints (RFC 8297) as
/// often as it is called before the head. One object, since every request pays for it and most use one of the three.
#[pyclass(frozen, module = "mcsup")]
pub(super) struct StartResponse(pub(super) Answer);

#[pymethods]
impl StartResponse {
    // The names are no part of PEP 3333, but gunicorn takes them, and so there are applications that use them.
    #[pyo3(signature = (status, headers=None, exc_info=None))]
    fn __call__<'py>(
        slf: &Bound<'py, Self>,
        status: &Bound<'py, PyAny>,
        headers: Option<&Bound<'py, PyAny>>,
        exc_info: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, Self>>> {
        let answer = &slf.get().0;
        if let Some(headers) = headers {
            answer.begin(status, headers, exc_info)?;
            return Ok(Some(slf.clone()));
        }
        if let Ok(data) = status.cast::<PyBytes>() {
            answer.write(data)?;
        } else if status.is_instance_of::<PyList>() {
            answer.hint(status)?;
        } else {
            let text =
                "expected a status and headers, or bytes to write, or a list of headers as early hints";
            return Err(PyTypeError::new_err(text));
        }
        Ok(None)
    }
}

impl Answer {
    /// The legacy way to send a body: what it is given has been sent, or is on its way, when it returns.
    fn write(&self, data: &Bound<'_, PyBytes>) -> PyResult<()> {
        let bytes = data.as_bytes();
        match self.send(data.py(), |reply, head| reply.send(head, bytes)) {
            Ok(()) => Ok(()),
            Err(Stop::Raised(error)) => Err(error),
            Err(Stop::Gone | Stop::Logged) => Err(PyBrokenPipeError::new_err("the client is gone")),
        }
    }

    /// Sends early hints. A client that is gone is noticed by the answer itself.
    fn hint(&self, headers: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = headers.py();
        let mut head = ResponseHead::new();
        head.begin(103, b"Early Hints").map_err(|wrong| fault(&wrong))?;
        set_fields(&mut head, headers)?;
        let hint = |reply: &mut dyn Reply| reply.send_interim(&head).map(|()| Sent::of(reply));
        let mut sent = self.lease.with(py, hint);
        while sent == Some(Ok(Sent::Interrupted)) {
            py.check_signals()?;
            sent = self.lease.with(py, Sent::go_on);
        }
        Ok(())
    }
}

/// The exception of an `exc_info` triple, with its traceback.
fn reraised(exc_info: &Bound<'_, PyAny>) -> PyResult<PyErr> {
    let value = exc_info.get_item(1)?;
    if value.is_none() {
        return Ok(PyAssertionError::new_err("start_response() was called again after the head was sent"));
    }
    let value = value.call_method1("with_traceback", (exc_info.get_item(2)?,))?;
    Ok(PyErr::from_value(value))
}

/// The one interim status that an application may send, where its client has asked for it.
const SWITCHING: u16 = 101;

/// `"NNN reason"`.
fn set_status(head: &mut ResponseHead, status: &Bound<'_, PyAny>, may_switch: bool) -> PyResult<()> {
    let text = status.cast::<PyString>().map_err(|_| PyTypeError::new_err("the status must be a str"))?;
    latin1(text, |bytes| {
        let (number, reason) = match bytes {
            [a, b, c] if [a, b, c].iter().all(|digit| digit.is_ascii_digit()) => (&bytes[..3], &b""[..]),
            [a, b, c, b' ', reason @ ..] if [a, b, c].iter().all(|digit| digit.is_ascii_digit()) => {
                (&bytes[..3], reason)
            }
            _ => {
                let text = format!("status {:?} is not \"NNN reason\"", String::from_utf8_lossy(bytes));
                return Err(PyValueError::new_err(text));
            }
        };
        let number = number.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'));
        if (100..200).contains(&number) && !(may_switch && number == SWITCHING) {
            // RFC 9110 §15.2: another follows, and none at all goes to a client of 1.0.
            return Err(PyValueError::new_err(format!("status {number} is interim: no final answer")));
        }
        head.begin(number, reason).map_err(|wrong| fault(&wrong))
    })
}

/// A list of pairs of str.
fn set_fields(head: &mut ResponseHead, headers: &Bound<'_, PyAny>) -> PyResult<()> {
    let list = headers.cast::<PyList>().map_err(|_| PyTypeError::new_err("the headers must be a list"))?;
    let no_pair = || PyTypeError::new_err("each header must be a tuple (name, value) of two str");
    for item in list.iter() {
        let pair = item.cast::<PyTuple>().map_err(|_| no_pair())?;
        if pair.len() != 2 {
            return Err(no_pair());
        }
        let (name, value) = (pair.get_borrowed_item(0)?, pair.get_borrowed_item(1)?);
        let name = name.cast::<PyString>().map_err(|_| no_pair())?;
        let value = value.cast::<PyString>().map_err(|_| no_pair())?;
        latin1(&name, |name| latin1(&value, |value| head.push(name, value).map_err(|wrong| fault(&wrong))))?;
    }
    Ok(())
}

fn fault(fault: &HeadFault) -> PyErr {
    PyValueError::new_err(fault.to_string())
}

/// The bytes that a str stands for on the wire (PEP 3333, "Unicode Issues").
fn latin1<T>(text: &Bound<'_, PyString>, use_bytes: impl FnOnce(&[u8]) -> PyResult<T>) -> PyResult<T> {
    match text.to_str() {
        Ok(utf8) if utf8.is_ascii() => use_bytes(utf8.as_bytes()),
        _ => {
            let encoded = text.call_method1("encode", ("latin-1",))?.cast_into::<PyBytes>()?;
            use_bytes(encoded.as_bytes())
        }
    }
}
