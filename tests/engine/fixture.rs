//! An engine in a thread, and clients of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mcsup_core::Phase;
use mcsup_py::access::{AccessLog, AccessSettings, Backlog, Format};
use mcsup_py::app::ResponseHead;
use mcsup_py::app::{App, Body, Local, Reply, Request, Verdict};
use mcsup_py::engine::{self, EngineConfig, Host, Listening, Siblings, Threads, Timeouts};

use crate::pool::Seat;

/// Patience of every wait.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The process around the engine, as far as the engine can tell.
pub(crate) struct FakeHost {
    phase: AtomicU8,
    log_epoch: AtomicU32,
    wake: (OwnedFd, OwnedFd),
    pub connections: AtomicUsize,
    pub requests: AtomicUsize,
    pub beats: AtomicUsize,
    seat: Option<Seat>,
    graceful_timeout: Option<Duration>,
    /// Why it wanted to be replaced.
    pub left: Mutex<Vec<String>>,
    pub stacks_shown: AtomicUsize,
    pub waiting: AtomicUsize,
    /// For how long the oldest of several requests had been running when that was last told.
    pub oldest: Mutex<Option<Duration>>,
}

const PHASES: [Phase; 5] =
    [Phase::Serving, Phase::LameDuck, Phase::Retiring, Phase::Draining, Phase::Quitting];

impl FakeHost {
    fn new(seat: Option<Seat>, graceful_timeout: Option<Duration>) -> Self {
        let flags = rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK;
        Self {
            phase: AtomicU8::new(0),
            log_epoch: AtomicU32::new(0),
            wake: rustix::pipe::pipe_with(flags).unwrap(),
            connections: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            beats: AtomicUsize::new(0),
            seat,
            graceful_timeout,
            left: Mutex::default(),
            stacks_shown: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            oldest: Mutex::default(),
        }
    }

    fn wake(&self) {
        rustix::io::write(&self.wake.1, &[0]).unwrap();
    }
}

impl Host for FakeHost {
    fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.0.as_fd()
    }
    fn acknowledge(&self) {
        let mut bytes = [0; 16];
        while let Ok(1..) = rustix::io::read(&self.wake.0, &mut bytes) {}
    }
    fn phase(&self) -> Phase {
        PHASES[usize::from(self.phase.load(Ordering::SeqCst))]
    }
    fn log_epoch(&self) -> u32 {
        self.log_epoch.load(Ordering::SeqCst)
    }
    fn beat(&self) {
        self.beats.fetch_add(1, Ordering::SeqCst);
    }
    fn request_began(&self) {
        self.requests.fetch_add(1, Ordering::SeqCst);
        if let Some(seat) = &self.seat {
            seat.own().running.fetch_add(1, Ordering::SeqCst);
        }
    }
    fn request_ended(&self) {
        if let Some(seat) = &self.seat {
            seat.own().running.fetch_sub(1, Ordering::SeqCst);
        }
    }
    fn connections(&self, open: usize) {
        self.connections.store(open, Ordering::SeqCst);
        if let Some(seat) = &self.seat {
            seat.own().connections.store(open, Ordering::SeqCst);
        }
    }
    fn waiting(&self, count: usize) {
        self.waiting.store(count, Ordering::SeqCst);
    }
    fn oldest(&self, age: Option<Duration>) {
        *self.oldest.lock().unwrap() = age;
    }
    fn graceful_timeout(&self) -> Option<Duration> {
        self.graceful_timeout
    }
    fn close_listeners(&self) {}
    fn accepting(&self, permits: usize) {
        if let Some(seat) = &self.seat {
            seat.own().permits.store(permits, Ordering::SeqCst);
        }
    }
    fn siblings(&self) -> Siblings {
        self.seat.as_ref().map_or_else(Siblings::default, Seat::siblings)
    }
    fn hand_over(&self, connection: BorrowedFd<'_>, bytes: &[u8]) -> std::io::Result<()> {
        match &self.seat {
            Some(seat) => seat.pool.give(connection, bytes),
            None => Err(std::io::ErrorKind::Unsupported.into()),
        }
    }
    fn handed_over_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.seat.as_ref()?.pool.bell.0.as_fd())
    }
    fn take_over(&self) -> std::io::Result<Option<(OwnedFd, Vec<u8>)>> {
        Ok(self.seat.as_ref().and_then(|seat| seat.pool.take()))
    }
    fn leave(&self, reason: &str) {
        self.left.lock().unwrap().push(reason.to_owned());
    }
    fn dump_stacks(&self) {
        self.stacks_shown.fetch_add(1, Ordering::SeqCst);
    }
}

/// An application made of a closure.
pub(crate) struct Answer<F>(pub F);

impl<F: FnMut(Request<'_>, &mut dyn Reply) -> Verdict> App for Answer<F> {
    fn call(&mut self, request: Request<'_>, reply: &mut dyn Reply) -> Verdict {
        (self.0)(request, reply)
    }
}

/// A running engine.
pub(crate) struct Server {
    pub address: SocketAddr,
    pub host: Arc<FakeHost>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
    unix: Option<tempfile::TempDir>,
}

/// How an engine is started.
pub(crate) struct Setup {
    pub config: EngineConfig,
    pub access: Option<(String, String)>,
    pub unix: bool,
    /// Where there are siblings.
    pub seat: Option<Seat>,
    pub graceful_timeout: Option<Duration>,
}

impl Default for Setup {
    fn default() -> Self {
        // Long enough that no test ends by accident of a deadline.
        let long = Duration::from_secs(20);
        let timeouts = Timeouts { head: long, body: long, keep_alive: long, write: long, request: None };
        Self {
            config: EngineConfig { timeouts, ..EngineConfig::default() },
            access: None,
            unix: false,
            seat: None,
            graceful_timeout: None,
        }
    }
}

impl Setup {
    pub(crate) fn start<F>(self, app: F) -> Server
    where
        F: FnMut(Request<'_>, &mut dyn Reply) -> Verdict + Send + 'static,
    {
        self.start_threads(vec![app])
    }

    /// With a permit for each of `apps`.
    pub(crate) fn start_threads<F>(self, apps: Vec<F>) -> Server
    where
        F: FnMut(Request<'_>, &mut dyn Reply) -> Verdict + Send + 'static,
    {
        self.start_apps(apps.into_iter().map(|app| Box::new(Answer(app)) as Box<dyn App + Send>).collect())
    }

    /// With a permit for each of `apps`.
    pub(crate) fn start_apps(self, apps: Vec<Box<dyn App + Send>>) -> Server {
        let listener = match &self.seat {
            Some(seat) => seat.pool.listener.try_clone().unwrap(),
            None => listen(),
        };
        let host = Arc::new(FakeHost::new(self.seat, self.graceful_timeout));
        let address = listener.local_addr().unwrap();
        let unix = self.unix.then(|| tempfile::tempdir().unwrap());
        let unix_listener = unix.as_ref().map(|dir| {
            let listener = UnixListener::bind(dir.path().join("s")).unwrap();
            listener.set_nonblocking(true).unwrap();
            listener
        });
        let access = self
            .access
            .map(|(format, path)| (Format::parse(&format).unwrap(), Some(path)))
            .map(|(format, place)| AccessSettings {
                format,
                place,
                syslog: None,
                statsd: None,
                backlog: Backlog::Off,
            })
            .and_then(|settings| AccessLog::open(&settings, 0).unwrap());
        let (config, engine_host) = (self.config, Arc::clone(&host));
        let thread = std::thread::spawn(move || {
            let mut listeners = vec![Listening { fd: listener.as_fd(), local: Local::Tcp(address) }];
            if let Some(unix) = &unix_listener {
                listeners.push(Listening { fd: unix.as_fd(), local: Local::Unix("s".to_owned()) });
            }
            let threads = Threads { apps, life: |live| live() };
            engine::run(&config, listeners, &*engine_host, threads, access)
        });
        Server { address, host, thread: Some(thread), unix }
    }
}

/// A listener as engines want it.
pub(crate) fn listen() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

/// Starts an engine with defaults.
pub(crate) fn serve<F>(app: F) -> Server
where
    F: FnMut(Request<'_>, &mut dyn Reply) -> Verdict + Send + 'static,
{
    Setup::default().start(app)
}

impl Server {
    pub(crate) fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { stream, received: Vec::new() }
    }

    pub(crate) fn unix_path(&self) -> std::path::PathBuf {
        self.unix.as_ref().unwrap().path().join("s")
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.host.phase.store(phase as u8, Ordering::SeqCst);
        self.host.wake();
    }

    pub(crate) fn reopen_logs(&self) {
        self.host.log_epoch.fetch_add(1, Ordering::SeqCst);
        self.host.wake();
    }

    /// Waits until the engine has returned by itself.
    pub(crate) fn join(mut self) {
        let thread = self.thread.take().unwrap();
        wait_for("the engine's end", || thread.is_finished());
        thread.join().unwrap().unwrap();
    }

    /// Waits until the engine has failed.
    pub(crate) fn join_failed(mut self) {
        let thread = self.thread.take().unwrap();
        wait_for("the engine's end", || thread.is_finished());
        assert!(!matches!(thread.join(), Ok(Ok(()))));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.enter(Phase::Quitting);
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.unwrap().unwrap();
            }
        }
    }
}

/// Waits until `condition` holds.
pub(crate) fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::yield_now();
    }
}

/// A client that speaks bytes.
pub(crate) struct Client {
    pub stream: TcpStream,
    received: Vec<u8>,
}

/// A response as it came.
#[derive(Debug)]
pub(crate) struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Response {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (field, value) = line.split_once(": ")?;
            field.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

impl Client {
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.stream.write_all(bytes.as_ref()).unwrap();
        self
    }

    pub(crate) fn get(&mut self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")).response()
    }

    /// Reads one response, framed by its head.
    pub(crate) fn response(&mut self) -> Response {
        self.response_to("GET")
    }

    pub(crate) fn response_to(&mut self, method: &str) -> Response {
        let end = loop {
            if let Some(at) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(
                self.more(),
                "the connection ended in a head: {:?}",
                String::from_utf8_lossy(&self.received)
            );
        };
        let head = String::from_utf8_lossy(&self.received[..end]).into_owned();
        self.received.drain(..end);
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut response = Response { status, head, body: Vec::new() };
        if method == "HEAD" || status == 204 || status == 304 || status < 200 {
            return response;
        }
        response.body = if let Some(length) = response.field("content-length") {
            self.take(length.parse().unwrap())
        } else if response.field("transfer-encoding").is_some() {
            self.chunks()
        } else {
            while self.more() {}
            std::mem::take(&mut self.received)
        };
        response
    }

    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            while !self.received.contains(&b'\n') {
                assert!(self.more(), "the connection ended in a chunked body");
            }
            let end = self.received.iter().position(|byte| *byte == b'\n').unwrap();
            let line: Vec<u8> = self.received.drain(..=end).collect();
            let size = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
            body.extend(self.take(size));
            assert_eq!(self.take(2), b"\r\n");
            if size == 0 {
                return body;
            }
        }
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        while self.received.len() < count {
            assert!(self.more(), "the connection ended {} bytes early", count - self.received.len());
        }
        self.received.drain(..count).collect()
    }

    /// Receives something; `false`: the connection has ended, by an end or a reset.
    pub(crate) fn more(&mut self) -> bool {
        let mut piece = [0; 65536];
        match self.stream.read(&mut piece) {
            Ok(0) => false,
            Ok(count) => {
                self.received.extend_from_slice(&piece[..count]);
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("nothing came"),
            Err(_) => false,
        }
    }

    /// What has come behind the last response.
    pub(crate) fn unread(&mut self) -> &mut Vec<u8> {
        &mut self.received
    }

    /// Asserts that the server ends the connection without another word.
    pub(crate) fn assert_ended(&mut self) {
        let is_silent = self.received.is_empty() && !self.more();
        assert!(is_silent, "unexpected: {:?}", String::from_utf8_lossy(&self.received));
    }
}

/// A head of status 200 with these fields.
pub(crate) fn ok(fields: &[(&str, &str)]) -> ResponseHead {
    let mut head = ResponseHead::new();
    for (name, value) in fields {
        head.push(name.as_bytes(), value.as_bytes()).unwrap();
    }
    head
}

/// Answers with the method, the path and the body.
pub(crate) fn echo(request: Request<'_>, reply: &mut dyn Reply) -> Verdict {
    let mut text =
        format!("{} {} ", request.head.method(), String::from_utf8_lossy(request.head.path())).into_bytes();
    text.extend(whole(request.body));
    let _ = reply.send_whole(&ok(&[]), &text);
    Verdict::Complete
}

pub(crate) fn whole(body: Body) -> Vec<u8> {
    match body {
        Body::Empty => Vec::new(),
        Body::Memory(bytes) => bytes.to_vec(),
        Body::File { mut file, .. } => {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            bytes
        }
    }
}
