//! The request engine: connections in, requests to the [`App`], responses out.
//!
//! The path of a request: a follower waits in a round (`followers`) and accepts (`accepting`), `connection` receives until
//! a request is complete, `steps` says what follows, a follower takes it as a job (`jobs`) and passes it to the
//! application, `exchange` frames the answer. `drain` ends the engine. An idle connection or an incomplete message uses a
//! place in the table, and neither a thread nor the application.

mod accepting;
mod acceptor;
mod answer_race;
mod body;
mod body_memory;
mod bucket;
mod buffer_pool;
mod coalescing;
mod connection;
mod connections;
mod date;
mod drain;
mod exchange;
mod file_requests;
mod followers;
mod gauges;
mod growth;
mod handover;
mod health;
mod jobs;
mod large_heads;
mod lingering;
mod overdue;
mod pace;
mod refusal_log;
mod refusing;
mod relay;
mod reserve;
mod room;
mod steps;
mod table;
mod turn;
mod turns;
mod waker;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use mcsup_core::Phase;

use crate::access::AccessLog;
use crate::app::{App, Local};
pub use crate::files::StaticFiles;
pub use crate::http::head::Limits;
use crate::net::poller::Poller;
use crate::tls::TlsServer;
pub use crate::trust::{AllowList, FieldRules, HeaderMap, Hops, HopsField, ProxyProtocol, Trust};

/// How long the engine waits for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From a connection's accept, or a request's first byte, to the end of its head.
    pub head: Duration,
    /// Between two pieces of a body.
    pub body: Duration,
    /// Between two requests; zero: a connection serves one.
    pub keep_alive: Duration,
    /// Between two pieces of a response that the client takes.
    pub write: Duration,
    /// From the application's call to the beginning of its answer or, where it has begun in time, to its end; `None`: as
    /// long as it takes.
    pub request: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            head: seconds(15),
            body: seconds(30),
            keep_alive: seconds(2),
            write: seconds(60),
            request: None,
        }
    }
}

/// The engine's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    /// How long to wait.
    pub timeouts: Timeouts,
    /// How much to take.
    pub limits: Limits,
    /// How many connections may be open; 0: as many as there are descriptors, less about 64 for the application. For a further
    /// one the connection is closed that has been idle for the longest time, or whose request has not gone on for seconds;
    /// where there is none it waits in the listener's queue.
    pub connections: usize,
    /// How many whole requests may wait for a permit; further ones get 503.
    pub waiting: usize,
    /// Folders whose files the engine serves itself, without the application.
    pub static_files: StaticFiles,
    /// Where the engine itself says, without the application, whether this worker should be sent clients: the path, as it
    /// is sent; `None`: nowhere.
    pub health_path: Option<Arc<str>>,
    /// TLS for all connections; `None`: they are without.
    pub tls: Option<TlsServer>,
    /// Which peers are proxies, and what of their statements counts.
    pub trust: Trust,
    /// The field Server of responses that have none of their own.
    pub server: ServerField,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            connections: 0,
            waiting: 1024,
            static_files: StaticFiles::default(),
            health_path: None,
            tls: None,
            trust: Trust::default(),
            server: ServerField::default(),
        }
    }
}

/// The field Server of responses (RFC 9110 §10.2.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerField(Arc<[u8]>);

impl Default for ServerField {
    fn default() -> Self {
        Self(b"Server: mcsup\r\n".as_slice().into())
    }
}

impl ServerField {
    /// The field with this value; an empty text: no field. `None`: it has other characters than printable ASCII, or
    /// spaces at an end.
    pub fn new(value: &str) -> Option<Self> {
        let is_printable = value.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        let line = if value.is_empty() { String::new() } else { format!("Server: {value}\r\n") };
        (is_printable && value.trim() == value).then(|| Self(line.into_bytes().into()))
    }

    /// The whole line with its end; empty: no field.
    fn line(&self) -> &[u8] {
        &self.0
    }
}

impl EngineConfig {
    /// The part of a URL before a TCP address.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https://" } else { "http://" }
    }

    /// Whether there are requests that need no application.
    fn answers_itself(&self) -> bool {
        self.health_path.is_some() || !self.static_files.is_empty()
    }
}

/// A listening socket, non-blocking, perhaps shared with other processes.
#[derive(Debug)]
pub struct Listening<'a> {
    /// The socket.
    pub fd: BorrowedFd<'a>,
    /// Where it listens.
    pub local: Local,
}

/// The process that the engine runs in.
pub trait Host: Sync {
    /// Readable whenever [`phase`](Self::phase) or [`log_epoch`](Self::log_epoch) may have changed.
    fn wake_fd(&self) -> BorrowedFd<'_>;
    /// Makes it unreadable until the next change.
    fn acknowledge(&self);
    /// The phase of the worker.
    fn phase(&self) -> Phase;
    /// Changes when log files are to be reopened.
    fn log_epoch(&self) -> u32;
    /// Reopens log files that are not the engine's.
    fn reopen_logs(&self) {}
    /// The engine moves: called at least once a second while no request keeps it.
    fn beat(&self);
    /// A request goes to the application.
    fn request_began(&self);
    /// It came back.
    fn request_ended(&self);
    /// Reports the number of open connections.
    fn connections(&self, open: usize);
    /// Reports the number of requests that wait for a permit.
    fn waiting(&self, _count: usize) {}
    /// For how long the oldest request has been with the application, where there are several permits; `None`: none is.
    fn oldest(&self, _age: Option<Duration>) {}
    /// For how long the process may go on after its phase has ended the accepting; `None`: as long as it takes.
    fn graceful_timeout(&self) -> Option<Duration> {
        None
    }
    /// Closes the listeners.
    fn close_listeners(&self);
    /// This process should be replaced, and retire: a request hangs in it.
    fn leave(&self, _reason: &str) {}
    /// A signal may have come, and its handler may have left something to the thread that runs the engine: this one. No
    /// lock is held, and it may take as long as a request.
    fn interrupted(&self) {}
    /// The number of connections in the queues of the listeners; `None`: unknown, or this worker does not report it.
    fn backlog(&self) -> Option<usize> {
        None
    }
    /// Shows where all threads are.
    fn dump_stacks(&self) {}
    /// Shows stacks that a signal has asked for meanwhile. Called about twice a second.
    fn show_asked_stacks(&self) {}
    /// Names hooks of requests that do not return. Called as often.
    fn name_slow_hooks(&self) {}

    /// Reports the permits of an engine that accepts; 0: it accepts no more.
    fn accepting(&self, _permits: usize) {}
    /// The other processes that accept from the same listeners.
    fn siblings(&self) -> Siblings {
        Siblings::default()
    }
    /// Gives a connection, with what is to be known about it, to whichever of them takes it first.
    ///
    /// # Errors
    /// It could not, and nothing has happened.
    fn hand_over(&self, _connection: BorrowedFd<'_>, _bytes: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Readable while a connection waits that one of them has given.
    fn handed_over_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    /// Takes it.
    ///
    /// # Errors
    /// It is lost.
    fn take_over(&self) -> io::Result<Option<(OwnedFd, Vec<u8>)>> {
        Ok(None)
    }
}

/// The load of the other workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Siblings {
    /// How many there are.
    pub count: usize,
    /// How many requests they could begin at once, together.
    pub free: usize,
    /// The fewest connections that one has which could begin a request soon; `usize::MAX`: none could.
    pub fewest: usize,
}

/// The threads that call the application.
pub struct Threads<'a> {
    /// One for each permit; the first is called on the thread that runs the engine.
    pub apps: Vec<Box<dyn App + Send + 'a>>,
    /// Runs around each further thread, for a language that must register its threads.
    pub life: fn(&mut (dyn FnMut() + Send)),
}

impl Default for Siblings {
    /// None at all.
    fn default() -> Self {
        Self { count: 0, free: 0, fewest: usize::MAX }
    }
}

/// Serves until `host` says otherwise and the last connection has ended.
///
/// # Errors
/// An error that ends the engine; an error of a client never does.
pub fn run(
    config: &EngineConfig,
    listeners: Vec<Listening<'_>>,
    host: &dyn Host,
    threads: Threads<'_>,
    access: Option<AccessLog>,
) -> io::Result<()> {
    let poller = Poller::new()?;
    let table = table::Table::new(config.clone(), listeners, host, &poller, access);
    followers::run(table, &poller, threads)
}
