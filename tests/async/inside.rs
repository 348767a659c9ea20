//! Workers in the process of the test: what real clients cannot time.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use mcsup_core::listener::Local;
use mcsup_core::testing::WorkerSetup;
use mcsup_core::{Connection, Listener, Worker, WorkerContext, WorkerResult};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;

use crate::pool::wait_within;

const LIMIT: Duration = Duration::from_secs(30);

type Accept = dyn FnMut() -> io::Result<UnixStream> + Send;

/// A listener whose connections come from a function. It is always readable.
struct Scripted {
    accept: Mutex<Box<Accept>>,
    local: Local,
    readable: UnixStream,
}

impl Scripted {
    fn new(accept: impl FnMut() -> io::Result<UnixStream> + Send + 'static) -> Self {
        // The other end is closed.
        let (readable, _) = UnixStream::pair().unwrap();
        Self { accept: Mutex::new(Box::new(accept)), local: Local::Other("scripted".to_owned()), readable }
    }
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scripted")
    }
}

impl AsFd for Scripted {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }
}

impl Listener for Scripted {
    fn local(&self) -> &Local {
        &self.local
    }

    fn accept(&self) -> io::Result<Connection> {
        (self.accept.lock().unwrap())().map(Connection::Unix)
    }

    fn with_socket(&self, _: OwnedFd) -> io::Result<Arc<dyn Listener>> {
        Err(ErrorKind::Unsupported.into())
    }
}

/// A runtime of one thread: spawned tasks have their turns before the runtime asks the kernel.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

pub fn a_request_that_only_the_kernel_has_is_answered_at_a_stop() {
    let (mut client, server) = UnixStream::pair().unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    // The first look finds nothing, the last one finds the connection.
    let mut found = vec![Some(server), None];
    let listener = Scripted::new(move || found.pop().flatten().ok_or_else(|| ErrorKind::WouldBlock.into()));
    let (context, remote) = WorkerSetup::new().listener(listener).context().unwrap();
    remote.drain();
    let app = Router::new().route("/", get(|| async { "hello" }));
    runtime().block_on(mcsup_core::serve(&context, app)).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    let mut response = String::new();
    client.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 200") && response.ends_with("hello"), "{response:?}");
    assert!(response.contains("connection: close"), "{response:?}");
}

/// Serves an application in a runtime of one thread.
struct Web(Router);

impl Worker for Web {
    fn run(&mut self, context: &WorkerContext) -> WorkerResult {
        Ok(runtime().block_on(mcsup_core::serve(context, self.0.clone()))?)
    }
}

pub fn a_body_that_begins_as_its_worker_ends_does_not_become_a_request() {
    const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: test\r\n\r\n";
    let length = HIDDEN.len();
    for (rest, has_arrived) in [
        (format!("Content-Length: {length}\r\n\r\n"), false),
        (format!("Expect: 100-continue\r\nContent-Length: {length}\r\n\r\n"), false),
        (format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{HIDDEN}\r\n0\r\n\r\n"), true),
        (format!("Content-Length: {length}\r\n\r\n{HIDDEN}"), true),
    ] {
        let gate = Arc::new(Notify::new());
        let opened = Arc::clone(&gate);
        let gated = move || async move { opened.notified().await };
        let app = Router::new().route("/gated", get(gated)).route("/", get(|| async {}));
        let worker = WorkerSetup::new().run(Web(app)).unwrap();
        let sibling = worker.sibling().unwrap();
        let (mut client, server) = UnixStream::pair().unwrap();
        worker.hand_over(server, b"").unwrap();
        // No handler reads the body of the second request: 405.
        let requests =
            format!("GET /gated HTTP/1.1\r\nHost: test\r\n\r\nPOST / HTTP/1.1\r\nHost: test\r\n{rest}");
        client.write_all(requests.as_bytes()).unwrap();
        wait_within(LIMIT, "the first request", || worker.counters().in_flight == 1);
        worker.retire();
        wait_within(LIMIT, "the end of the accept loop", || worker.counters().permits == 0);
        sibling.update(0, 1);
        gate.notify_one();
        wait_within(LIMIT, "the end of the worker", || worker.has_ended());
        match worker.take_handed_over().unwrap() {
            Some((_, unread)) => assert!(has_arrived && unread.is_empty(), "{:?}", String::from_utf8(unread)),
            None => {
                let mut responses = String::new();
                client.set_read_timeout(Some(LIMIT)).unwrap();
                client.read_to_string(&mut responses).unwrap();
                assert_eq!(responses.matches("HTTP/1.1 ").count(), 2, "{responses}");
                assert!(responses.contains("HTTP/1.1 405"), "{responses}");
            }
        }
    }
}

pub fn tasks_run_while_a_worker_that_drains_accepts_without_a_pause() {
    let listener = Scripted::new(|| Ok(UnixStream::pair()?.0));
    let (context, remote) = WorkerSetup::new().listener(listener).context().unwrap();
    remote.drain();
    runtime().block_on(async {
        let has_run = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&has_run);
        tokio::spawn(async move { flag.store(true, Ordering::Relaxed) });
        let mut accepted = 0;
        while !has_run.load(Ordering::Relaxed) {
            context.accept_async().await.unwrap().unwrap();
            accepted += 1;
            assert!(accepted < 1000, "the task has not run");
        }
    });
}
