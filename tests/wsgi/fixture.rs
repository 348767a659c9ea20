//! An interpreter in this process, applications written in Python, and a reply that notes what it is given.

use std::cell::RefCell;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use crate::access::{AccessSettings, Backlog, Format};
use crate::app::{App, Block, Body, Gone, Local, Peer, Proxied, Reply, Request, Secured, Verdict};
use crate::http::head::{Heads, Limits};
use crate::http::response::{ResponseHead, write_interim};
use crate::python::interpreter;
use crate::python::logging::WriteRecord;
use crate::targets::Severity;
use crate::trust::FieldRules;
use crate::wsgi::{WsgiApp, WsgiSettings};
use pyo3::prelude::*;

/// What an application did, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// Sent as one block of several.
    Block(Vec<u8>),
    /// Sent as the only one.
    Whole(Vec<u8>),
    /// Sent from a file, without Python.
    File(Vec<u8>),
    /// Sent before the head.
    Interim(String),
    /// Written to `wsgi.errors`.
    Said(String),
}

pub(crate) fn block(text: &str) -> Event {
    Event::Block(text.as_bytes().to_vec())
}

pub(crate) fn whole(text: &str) -> Event {
    Event::Whole(text.as_bytes().to_vec())
}

pub(crate) fn file(text: &str) -> Event {
    Event::File(text.as_bytes().to_vec())
}

pub(crate) fn said(text: &str) -> Event {
    Event::Said(text.to_owned())
}

type Journal = Arc<Mutex<Vec<Event>>>;

/// An application, and what is around it.
pub(crate) struct Served {
    app: Box<dyn App + Send>,
    journal: Journal,
    /// Our end of the connections.
    pub(crate) local: Local,
    /// The proxy of the connections.
    pub(crate) proxied: Option<Box<Proxied>>,
    /// The rules for the fields of the peer, which is trusted.
    pub(crate) rules: FieldRules,
    /// What a handshake of TLS has determined.
    pub(crate) secured: Option<Secured>,
    /// The number of sends after which the client is gone.
    pub(crate) patience: usize,
    /// Whether the worker will end soon.
    pub(crate) is_draining: Arc<AtomicBool>,
    /// A block is sent only when another thread can run Python meanwhile.
    pub(crate) needs_python: bool,
    /// The socket of the connection (`None`: no descriptor is left for it), and what was received behind the request.
    pub(crate) connection: Option<(Option<OwnedFd>, Vec<u8>)>,
}

/// What came of a request.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    /// The head, if it was sent.
    pub(crate) head: Option<ResponseHead>,
    pub(crate) events: Vec<Event>,
    /// The application took the connection.
    pub(crate) is_taken: bool,
    /// What was logged at level error.
    pub(crate) log: String,
}

/// Starts the interpreter, once.
pub(crate) fn start_python() {
    static START: Once = Once::new();
    START.call_once(|| {
        log::set_boxed_logger(Box::new(ThreadLog)).unwrap();
        log::set_max_level(log::LevelFilter::Error);
        interpreter::ensure(None).unwrap();
    });
}

/// A module made of `code`.
pub(crate) fn module<'py>(py: Python<'py>, code: &str) -> Bound<'py, PyModule> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let name = CString::new(format!("served_{}", COUNT.fetch_add(1, Ordering::SeqCst))).unwrap();
    PyModule::from_code(py, &CString::new(code).unwrap(), c"served.py", &name).unwrap()
}

/// The settings of the tests that do not care.
pub(crate) fn settings() -> WsgiSettings {
    WsgiSettings {
        multithread: false,
        multiprocess: true,
        server_software: "mcsup/test".to_owned(),
        script_name: String::new(),
        errors: Arc::new(|_| {}),
        sendfile: true,
    }
}

impl Served {
    /// Serves `application` of a module made of `code`.
    pub(crate) fn new(code: &str) -> Self {
        Self::with(settings(), code)
    }

    pub(crate) fn with(settings: WsgiSettings, code: &str) -> Self {
        Self::behind(settings, code, |app| Box::new(app))
    }

    /// With whatever `wrap` puts in front of the application.
    pub(crate) fn behind(
        settings: WsgiSettings,
        code: &str,
        wrap: impl FnOnce(WsgiApp) -> Box<dyn App + Send>,
    ) -> Self {
        start_python();
        let journal = Journal::default();
        let errors = Arc::clone(&journal);
        let errors = Arc::new(move |bytes: &[u8]| {
            errors.lock().unwrap().push(Event::Said(String::from_utf8_lossy(bytes).into_owned()));
        });
        let callable = Python::attach(|py| module(py, code).getattr("application").unwrap().unbind());
        let is_draining = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&is_draining);
        let settings = WsgiSettings { errors, ..settings };
        let app = wrap(WsgiApp::new(callable, settings, Arc::new(move || asked.load(Ordering::SeqCst))));
        let local = Local::Tcp("127.0.0.1:8080".parse().unwrap());
        let (proxied, rules, secured) = (None, FieldRules::default(), None);
        let (patience, needs_python, connection) = (usize::MAX, false, None);
        Self { app, journal, local, proxied, rules, secured, patience, is_draining, needs_python, connection }
    }

    /// Asks with `GET / HTTP/1.1`.
    pub(crate) fn get(&mut self) -> Outcome {
        self.ask(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", Body::Empty)
    }

    /// The values that the last request has left.
    pub(crate) fn left(&mut self) -> crate::app::Left {
        self.app.left()
    }

    /// Asks with these bytes of a head.
    pub(crate) fn ask(&mut self, head: &[u8], body: Body) -> Outcome {
        let mut heads = Heads::default();
        let read = heads.read_by(head, &Limits::default(), self.rules.reader(true));
        assert_eq!(read.unwrap(), Some(head.len()), "a whole head");
        let is_known = matches!(self.local, Local::Tcp(_)) || self.proxied.is_some();
        let remote = is_known.then(|| "192.0.2.7:4711".parse().unwrap());
        let peer = Peer { remote, local: self.local.clone(), proxied: self.proxied.clone() };
        let mut reply = Recorder {
            journal: Arc::clone(&self.journal),
            patience: self.patience,
            needs_python: self.needs_python,
            head: None,
            sent: 0,
            connection: self.connection.take(),
            is_taken: false,
        };
        LOG.take();
        let request = Request { head: heads.view(head), body, peer: &peer, secured: self.secured.as_ref() };
        let verdict = self.app.call(request, &mut reply);
        let events = std::mem::take(&mut *self.journal.lock().unwrap());
        Outcome { verdict, head: reply.head, is_taken: reply.is_taken, events, log: LOG.take() }
    }
}

impl Outcome {
    pub(crate) fn status(&self) -> u16 {
        self.head.as_ref().map(ResponseHead::status).unwrap()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&[u8]> {
        self.head.as_ref().unwrap().field(name)
    }

    /// The application said all and nothing was logged.
    #[track_caller]
    pub(crate) fn is_complete(&self) {
        assert_eq!((self.verdict, self.log.as_str()), (Verdict::Complete, ""), "{self:?}");
    }

    /// The application failed before anything was sent; the log names the request and has all of `texts`.
    #[track_caller]
    pub(crate) fn is_refused(&self, texts: &[&str]) {
        assert_eq!(self.verdict, Verdict::Failed, "{self:?}");
        assert!(self.head.is_none(), "{self:?}");
        for text in texts {
            assert!(self.log.contains(text), "{text:?} is not in the log: {}", self.log);
        }
    }
}

/// Calls an application whose body is `code`, in which `environ` and `start_response` are known and 200 has begun.
#[track_caller]
pub(crate) fn check(head: &str, body: Body, code: &str) {
    checked(Served::new(&wrapped(code)), head, body);
}

/// An application around assertions.
pub(crate) fn wrapped(code: &str) -> String {
    let body: String = code.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "def application(environ, start_response):\n    start_response('200 OK', [])\n{body}    return [b'ok']\n"
    )
}

#[track_caller]
pub(crate) fn checked(mut served: Served, head: &str, body: Body) -> Outcome {
    let outcome = served.ask(head.as_bytes(), body);
    assert_eq!(outcome.verdict, Verdict::Complete, "{}", outcome.log);
    outcome
}

/// The [`Reply`] of these tests.
struct Recorder {
    journal: Journal,
    patience: usize,
    needs_python: bool,
    head: Option<ResponseHead>,
    sent: u64,
    connection: Option<(Option<OwnedFd>, Vec<u8>)>,
    is_taken: bool,
}

impl Recorder {
    fn note(&mut self, head: &ResponseHead, event: Event) -> Result<(), Gone> {
        if self.patience == 0 {
            return Err(Gone);
        }
        self.patience -= 1;
        self.head.get_or_insert_with(|| head.clone());
        if let Event::Block(bytes) | Event::Whole(bytes) | Event::File(bytes) = &event {
            self.sent += bytes.len() as u64;
        }
        self.journal.lock().unwrap().push(event);
        Ok(())
    }
}

impl Reply for Recorder {
    fn send(&mut self, head: &ResponseHead, chunk: &[u8]) -> Result<(), Gone> {
        if self.needs_python {
            let (done, waits) = std::sync::mpsc::channel();
            std::thread::spawn(move || Python::attach(|_| done.send(()).unwrap()));
            waits
                .recv_timeout(Duration::from_secs(5))
                .expect("another thread runs Python while a block is sent");
        }
        self.note(head, Event::Block(chunk.to_vec()))
    }

    fn send_whole(&mut self, head: &ResponseHead, body: &[u8]) -> Result<(), Gone> {
        self.note(head, Event::Whole(body.to_vec()))
    }

    fn send_block(&mut self, head: &ResponseHead, block: Block) -> Result<(), Gone> {
        self.note(head, Event::Whole((*block).as_ref().to_vec()))
    }

    fn send_interim(&mut self, head: &ResponseHead) -> Result<(), Gone> {
        let mut bytes = Vec::new();
        write_interim(&mut bytes, head);
        self.journal.lock().unwrap().push(Event::Interim(String::from_utf8(bytes).unwrap()));
        Ok(())
    }

    fn send_file(&mut self, head: &ResponseHead, file: File, offset: u64, length: u64) -> Result<(), Gone> {
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        file.read_exact_at(&mut bytes, offset).unwrap();
        self.note(head, Event::File(bytes))
    }

    fn socket(&mut self) -> Option<std::io::Result<OwnedFd>> {
        let (socket, _) = self.connection.as_ref()?;
        let lacked = || std::io::Error::from_raw_os_error(24);
        Some(socket.as_ref().ok_or_else(lacked).and_then(OwnedFd::try_clone))
    }

    fn take(&mut self) -> Result<Vec<u8>, Gone> {
        let (_, received) = self.connection.as_mut().filter(|_| self.patience > 0).ok_or(Gone)?;
        self.is_taken = true;
        Ok(std::mem::take(received))
    }

    fn body_bytes(&self) -> u64 {
        self.sent
    }

    fn head_sent(&self) -> bool {
        self.is_taken || self.head.is_some()
    }

    fn is_full(&self) -> bool {
        self.head.as_ref().and_then(ResponseHead::content_length).is_some_and(|length| self.sent >= length)
    }
}

thread_local! {
    static LOG: RefCell<String> = const { RefCell::new(String::new()) };
}

/// What this thread has logged since its last request, or the last call of this.
pub(crate) fn take_log() -> String {
    LOG.take()
}

/// Keeps what a thread logs for the test that runs on it.
struct ThreadLog;

impl log::Log for ThreadLog {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        LOG.with_borrow_mut(|log| log.push_str(&format!("{}\n", record.args())));
    }
    fn flush(&self) {}
}

/// Writes records of Python's `logging` by `log`.
pub(crate) fn log_record() -> WriteRecord {
    Arc::new(|record| match record.severity {
        Severity::Critical | Severity::Error => log::error!("{}", record.text),
        Severity::Warning => log::warn!("{}", record.text),
        Severity::Info | Severity::Debug => log::info!("{}", record.text),
    })
}

/// An access log without a place.
pub(crate) fn no_access_log() -> AccessSettings {
    let format = Format::parse(Format::DEFAULT).unwrap();
    AccessSettings { format, place: None, syslog: None, statsd: None, backlog: Backlog::Off }
}
