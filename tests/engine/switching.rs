//! Connections that the application takes, to speak another protocol on them.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mcsup_core::Phase;
use mcsup_py::app::{App, Reply, Request, Verdict};
use mcsup_py::engine::{EngineConfig, Timeouts};

use crate::fixture::*;
use crate::hold::Hold;

pub(crate) const ASKS: &str =
    "GET /lines HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: lines\r\n\r\n";
pub(crate) const SWITCHED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: lines\r\n\r\n";

/// Takes the connection at `/lines`, and says each line in capitals until one is empty. Answers elsewhere.
pub(crate) fn lines(request: Request<'_>, reply: &mut dyn Reply) -> Verdict {
    if request.head.path() != b"/lines" {
        return echo(request, reply);
    }
    let mut socket = TcpStream::from(reply.socket().unwrap().unwrap());
    let received = reply.take().unwrap();
    socket.set_nonblocking(false).unwrap();
    socket.write_all(SWITCHED).unwrap();
    let mut reader = BufReader::new(received.chain(socket.try_clone().unwrap()));
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) <= 1 {
            return Verdict::Complete;
        }
        socket.write_all(line.to_uppercase().as_bytes()).unwrap();
    }
}

/// A client that speaks lines.
fn switched(server: &Server, behind: &str) -> Client {
    let mut client = server.connect();
    assert_eq!(client.send(format!("{ASKS}{behind}")).response().status, 101);
    client
}

#[track_caller]
fn assert_line(client: &mut Client, expected: &str) {
    let mut line = vec![0; expected.len()];
    let already = client.unread().len().min(line.len());
    line[..already].copy_from_slice(&client.unread()[..already]);
    client.unread().drain(..already);
    client.stream.read_exact(&mut line[already..]).unwrap();
    assert_eq!(String::from_utf8(line).unwrap(), expected);
}

fn started() -> Server {
    Setup::default().start_threads(vec![lines, lines])
}

#[test]
fn a_taken_connection_is_the_applications_until_its_call_ends() {
    let server = started();
    let mut client = switched(&server, "");
    client.send("one\n");
    assert_line(&mut client, "ONE\n");
    // Beside it others are served.
    assert_eq!(server.connect().get("/a").text(), "GET /a ");
    assert!(server.host.connections.load(Ordering::SeqCst) >= 1);
    client.send("GET / HTTP/1.1\n");
    assert_line(&mut client, "GET / HTTP/1.1\n");
    client.send("\n").assert_ended();
    drop(client);
    wait_for("its end", || server.host.connections.load(Ordering::SeqCst) == 0);
}

#[test]
fn bytes_that_were_received_behind_the_request_are_the_applications_too() {
    let server = started();
    let mut client = switched(&server, "early\n\n");
    assert_line(&mut client, "EARLY\n");
    client.assert_ended();
}

#[test]
fn a_request_for_another_protocol_that_gets_an_answer_leaves_the_connection_as_it_was() {
    let server = started();
    let mut client = server.connect();
    for _ in 0..3 {
        client.send(ASKS.replace("/lines", "/a")).send(ASKS.replace("/lines", "/b"));
        assert_eq!(client.response().text(), "GET /a ");
        assert_eq!(client.response().text(), "GET /b ");
    }
    client.send(ASKS);
    assert_eq!(client.response().status, 101);
    client.send("x\n");
    assert_line(&mut client, "X\n");
}

#[test]
fn a_connection_that_is_taken_has_no_request_timeout_and_its_worker_shows_that_it_lives() {
    let limit = Duration::from_millis(100);
    let timeouts = Timeouts { request: Some(limit), ..Setup::default().config.timeouts };
    let config = EngineConfig { timeouts, ..EngineConfig::default() };
    let server = Setup { config, ..Setup::default() }.start(lines);
    let mut client = switched(&server, "");
    std::thread::sleep(3 * limit);
    client.send("still\n");
    assert_line(&mut client, "STILL\n");
    assert!(server.host.left.lock().unwrap().is_empty());

    // With one permit and without a limit only the permit's thread beats otherwise.
    let server = serve(lines);
    let mut client = switched(&server, "");
    let beats = server.host.beats.load(Ordering::SeqCst);
    wait_for("beats", || server.host.beats.load(Ordering::SeqCst) > beats + 1);
    client.send("\n").assert_ended();
}

/// An application that stays for long behind its first conversation, as a finalizer may.
struct Hangs {
    hold: Hold,
    has_spoken: bool,
}

impl App for Hangs {
    fn call(&mut self, request: Request<'_>, reply: &mut dyn Reply) -> Verdict {
        self.has_spoken = true;
        lines(request, reply)
    }

    fn has_garbage(&self) -> bool {
        self.has_spoken
    }

    fn free(&mut self) {
        if std::mem::take(&mut self.has_spoken) {
            self.hold.stay();
        }
    }
}

#[test]
fn a_worker_that_hangs_behind_a_conversation_shows_that_it_hangs() {
    let hold = Hold::default();
    let app = Hangs { hold: hold.clone(), has_spoken: false };
    let server = Setup::default().start_apps(vec![Box::new(app)]);
    let mut client = switched(&server, "");
    let beats = || server.host.beats.load(Ordering::SeqCst);
    let before = beats();
    wait_for("a beat of the spare", || beats() > before + 1);
    client.send("\n").assert_ended();
    hold.wait_inside(1);
    let before = beats();
    // The spare leads now, and beats twice a second where it may.
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!((beats(), hold.inside.load(Ordering::SeqCst)), (before, 1));
    hold.let_go();
    assert_eq!(server.connect().get("/a").text(), "GET /a ");
}

#[test]
fn the_access_log_has_one_line_for_it_at_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let access = Some(("%(m)s %(U)s %(s)s".to_owned(), path.to_str().unwrap().to_owned()));
    let server = Setup { access, ..Setup::default() }.start_threads(vec![lines, lines]);
    let mut client = switched(&server, "");
    server.connect().get("/a");
    wait_for("a line", || !fs::read_to_string(&path).unwrap().is_empty());
    assert_eq!(fs::read_to_string(&path).unwrap(), "GET /a 200\n");
    client.send("\n").assert_ended();
    wait_for("a line", || fs::read_to_string(&path).unwrap() == "GET /a 200\nGET /lines 101\n");
}

#[test]
fn a_drain_waits_for_it() {
    let server = started();
    let mut client = switched(&server, "");
    server.enter(Phase::Draining);
    client.send("on\n");
    assert_line(&mut client, "ON\n");
    client.send("\n").assert_ended();
    drop(client);
    server.join();
}

#[test]
fn a_conversation_is_ended_before_its_process_would_be_killed() {
    let setup = Setup { graceful_timeout: Some(Duration::from_millis(400)), ..Setup::default() };
    let server = setup.start(lines);
    let mut client = switched(&server, "");
    let began = std::time::Instant::now();
    server.enter(Phase::Draining);
    client.send("on\n");
    assert_line(&mut client, "ON\n");
    client.assert_ended();
    assert!(began.elapsed() >= Duration::from_millis(300), "a quarter of the time is left");
    server.join();
}

#[test]
fn the_end_of_the_call_ends_it_also_for_a_descriptor_that_the_application_has_kept() {
    let (kept, keeps) = std::sync::mpsc::channel();
    let server = serve(move |_, reply| {
        let socket = TcpStream::from(reply.socket().unwrap().unwrap());
        reply.take().unwrap();
        socket.set_nonblocking(false).unwrap();
        kept.send(socket).unwrap();
        Verdict::Failed
    });
    let mut client = server.connect();
    client.send(ASKS).assert_ended();
    let mut kept: TcpStream = keeps.recv_timeout(PATIENCE).unwrap();
    kept.set_read_timeout(Some(PATIENCE)).unwrap();
    // The client says nothing, and does not close.
    assert_eq!(kept.read(&mut [0]).unwrap(), 0);
}

#[test]
fn an_application_that_is_too_late_takes_nothing() {
    let limit = Duration::from_millis(50);
    let timeouts = Timeouts { request: Some(limit), ..Setup::default().config.timeouts };
    let config = EngineConfig { timeouts, ..EngineConfig::default() };
    let (took, takes) = std::sync::mpsc::channel();
    let (go_on, waits) = std::sync::mpsc::channel::<()>();
    let server = Setup { config, ..Setup::default() }.start(move |_, reply| {
        waits.recv_timeout(PATIENCE).unwrap();
        took.send(reply.take().is_ok()).unwrap();
        Verdict::Complete
    });
    let mut client = server.connect();
    assert_eq!(client.send(ASKS).response().status, 504);
    go_on.send(()).unwrap();
    assert!(!takes.recv_timeout(PATIENCE).unwrap());
}

#[test]
fn the_answer_100_comes_before_another_protocol_if_the_client_expects_it() {
    let server = started();
    for length in ["", "Content-Length: 0\r\n"] {
        let mut client = server.connect();
        client
            .send(ASKS.replace("Upgrade: lines", &format!("{length}Expect: 100-continue\r\nUpgrade: lines")));
        let interim = "HTTP/1.1 100 Continue\r\n\r\n";
        assert_line(&mut client, interim);
        assert_eq!(client.response().status, 101);
        client.send("x\n\n");
        assert_line(&mut client, "X\n");
    }
}
