//! Two engines that share a listener: no client waits for a busy one while the other is idle.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mcsup_core::Phase;

use crate::fixture::*;
use crate::hold::Hold;
use crate::pool::Pool;

/// Starts the engine of a place, and waits until its siblings know.
fn start(pool: &Arc<Pool>, index: usize, hold: &Hold) -> Server {
    let server = Setup { seat: pool.seat(index), ..Setup::default() }.start_threads(hold.apps(1));
    wait_for("the engine to accept", || pool.line(index).permits.load(Ordering::SeqCst) == 1);
    server
}

fn requests(server: &Server) -> usize {
    server.host.requests.load(Ordering::SeqCst)
}

/// A pool whose first engine is inside the application and has these clients besides; each has had an answer.
struct Busy {
    pool: Arc<Pool>,
    hold: Hold,
    server: Server,
    held: Vec<Client>,
    kept: Vec<Client>,
}

impl Busy {
    /// `prepare` is called with the clients before the engine is busy.
    fn with(count: usize, prepare: impl FnOnce(&mut [Client])) -> Self {
        let (pool, hold) = (Pool::of(2), Hold::default());
        let server = start(&pool, 0, &hold);
        let mut kept: Vec<Client> = (0..count).map(|_| server.connect()).collect();
        assert!(kept.iter_mut().all(|client| client.get("/").status == 200));
        prepare(&mut kept);
        // What came before has been received when the next request is answered.
        assert_eq!(server.connect().get("/").status, 200);
        wait_for("it to be closed", || server.host.connections.load(Ordering::SeqCst) == count);
        let held = hold.occupy(&server, 1);
        Self { pool, hold, server, held, kept }
    }

    fn let_go(&mut self) {
        assert_eq!(self.hold.inside.load(Ordering::SeqCst), 1);
        self.hold.let_go();
        assert_eq!(self.held[0].response().status, 200);
    }
}

/// Whether what was handed over ends with what a client had sent; otherwise none of it was read.
fn goes_with(handed: &[u8], request: &str) -> bool {
    let goes = handed.ends_with(request.as_bytes());
    assert!(goes || !String::from_utf8_lossy(handed).contains("HTTP"), "a part of it goes");
    goes
}

#[test]
fn a_request_to_a_busy_engine_goes_unread_to_an_idle_one() {
    let mut busy = Busy::with(2, |_| ());
    let idle = start(&busy.pool, 1, &busy.hold);
    let before = requests(&busy.server);
    let get = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
    assert_eq!(busy.kept[0].send(get).response().text(), "GET /a ");
    let post = "POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody";
    wait_for("the other to be idle", || busy.pool.line(1).running.load(Ordering::SeqCst) == 0);
    assert_eq!(busy.kept[1].send(post).response().text(), "POST /b body");
    assert_eq!((requests(&busy.server), requests(&idle)), (before, 2));
    let handed = busy.pool.handed();
    assert_eq!(handed.len(), 2);
    assert!(!goes_with(&handed[0], get) && !goes_with(&handed[1], post));
    busy.let_go();
}

#[test]
fn a_request_that_was_read_goes_with_what_was_read_of_it() {
    let (begin, end) = ("GET /a HTTP/1.1\r\n", "Host: h\r\n\r\n");
    let mut busy = Busy::with(1, |kept| {
        kept[0].send(begin);
    });
    let idle = start(&busy.pool, 1, &busy.hold);
    assert_eq!(busy.kept[0].send(end).response().text(), "GET /a ");
    assert_eq!(requests(&idle), 1);
    let handed = busy.pool.handed();
    assert!(handed.len() == 1 && goes_with(&handed[0], &format!("{begin}{end}")));
    // And the connection goes on there.
    assert_eq!(busy.kept[0].get("/next").text(), "GET /next ");
    assert_eq!(requests(&idle), 2);
    busy.let_go();
}

#[test]
fn a_request_that_waits_goes_to_an_engine_that_is_idle_only_later() {
    let (begin, end) = ("GET /a HTTP/1.1\r\n", "Host: h\r\n\r\n");
    let mut busy = Busy::with(1, |kept| {
        kept[0].send(begin);
    });
    let other = Hold::default();
    let second = start(&busy.pool, 1, &other);
    let mut second_held = other.occupy(&second, 1);
    // Both are busy: the engine that receives this has no sibling for it.
    busy.kept[0].send(end);
    other.let_go();
    assert_eq!(busy.kept[0].response().text(), "GET /a ");
    assert_eq!(second_held[0].response().status, 200);
    assert_eq!(requests(&second), 2);
    busy.let_go();
}

#[test]
fn a_large_upload_that_was_read_stays() {
    for length in [20_000, 200_000] {
        let body = "x".repeat(length);
        let mut busy = Busy::with(2, |kept| {
            kept[0].send(format!("POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n"));
            kept[0].send(&body[..3]);
        });
        let idle = start(&busy.pool, 1, &busy.hold);
        let before = requests(&busy.server);
        busy.kept[0].send(&body[3..]);
        // News comes in order: when this one is answered, that one is whole.
        assert_eq!(busy.kept[1].get("/a").text(), "GET /a ");
        assert_eq!((busy.pool.handed().len(), requests(&idle)), (1, 1));
        busy.let_go();
        assert_eq!(busy.kept[0].response().text(), format!("POST /up {body}"));
        assert_eq!(requests(&busy.server), before + 1);
    }
}

#[test]
fn a_request_behind_a_large_upload_goes_to_an_engine_that_is_idle_only_later() {
    let body = "x".repeat(20_000);
    let mut busy = Busy::with(2, |kept| {
        kept[0].send(format!("POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len()));
        kept[0].send(&body[..3]);
    });
    let other = Hold::default();
    let second = start(&busy.pool, 1, &other);
    let mut second_held = other.occupy(&second, 1);
    let waiting = || busy.server.host.waiting.load(Ordering::SeqCst);
    busy.kept[0].send(&body[3..]);
    wait_for("the upload to wait", || waiting() == 1);
    busy.kept[1].send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_for("both to wait", || waiting() == 2);
    other.let_go();
    assert_eq!(busy.kept[1].response().text(), "GET /a ");
    assert_eq!(second_held[0].response().status, 200);
    busy.let_go();
    assert_eq!(busy.kept[0].response().text(), format!("POST /up {body}"));
}

#[test]
fn new_connections_go_to_the_idle_engine() {
    let mut busy = Busy::with(0, |_| ());
    let idle = start(&busy.pool, 1, &busy.hold);
    for count in 1..20 {
        assert_eq!(idle.connect().get("/new").text(), "GET /new ");
        assert_eq!(requests(&idle), count);
    }
    busy.let_go();
}

#[test]
fn a_draining_engine_takes_handed_over_connections_that_no_sibling_has_taken() {
    let mut busy = Busy::with(2, |_| ());
    // A sibling that looks idle, and is gone before it takes anything.
    busy.pool.line(1).permits.store(1, Ordering::SeqCst);
    for client in &mut busy.kept {
        client.send("GET /queued HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    wait_for("both to be handed over", || busy.pool.handed().len() == 2);
    busy.pool.line(1).permits.store(0, Ordering::SeqCst);
    busy.server.enter(Phase::Draining);
    busy.let_go();
    for client in &mut busy.kept {
        let response = client.response();
        assert_eq!((response.text(), response.field("connection")), ("GET /queued ", Some("close")));
        client.assert_ended();
    }
    busy.server.join();
}

#[test]
fn a_draining_engine_leaves_what_was_handed_over_to_a_sibling_that_goes_on() {
    let mut busy = Busy::with(1, |_| ());
    // A sibling that goes on, and is slow to take.
    busy.pool.line(1).permits.store(1, Ordering::SeqCst);
    busy.kept[0].send("GET /queued HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_for("it to be handed over", || busy.pool.handed().len() == 1);
    busy.server.enter(Phase::Draining);
    busy.hold.let_go();
    assert_eq!(busy.held[0].response().status, 200);
    let Busy { pool, hold, server, mut kept, .. } = busy;
    server.join();
    let _second = start(&pool, 1, &hold);
    assert_eq!(kept[0].response().text(), "GET /queued ");
}

#[test]
fn an_engine_that_comes_later_is_given_its_share_of_the_connections() {
    let (pool, hold) = (Pool::of(2), Hold::default());
    let first = start(&pool, 0, &hold);
    let mut clients: Vec<Client> = (0..16).map(|_| first.connect()).collect();
    assert!(clients.iter_mut().all(|client| client.get("/").status == 200));
    let second = start(&pool, 1, &hold);
    let shares = || [&first, &second].map(|server| server.host.connections.load(Ordering::SeqCst));
    assert_eq!(shares(), [16, 0]);
    let start = std::time::Instant::now();
    while shares().into_iter().any(|share| share < 6) {
        assert!(start.elapsed() < PATIENCE, "{:?}", shares());
        assert!(clients.iter_mut().all(|client| client.get("/").status == 200));
    }
    assert!(requests(&second) > 0);
}

#[test]
fn a_small_upload_goes_with_all_of_it_and_with_what_came_behind() {
    let mut busy = Busy::with(2, |_| ());
    let other = Hold::default();
    let second = start(&busy.pool, 1, &other);
    let mut second_held = other.occupy(&second, 1);
    // No engine is idle when it arrives, so that it is read.
    busy.kept[0].send(
        "POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbodyGET /next HTTP/1.1\r\nHost: h\r\n\r\n",
    );
    // Refused by the spare: news comes in order, so what came before has been received.
    assert_eq!(busy.kept[1].send("nonsense\r\n\r\n").response().status, 400);
    other.let_go();
    assert_eq!(second_held[0].response().status, 200);
    assert_eq!(busy.kept[0].response().text(), "POST /up body");
    assert_eq!(busy.kept[0].response().text(), "GET /next ");
    busy.let_go();
}

/// Resets a client's connection.
fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

/// Starts the engine of a place, which notes whose requests it answers.
fn start_noting(pool: &Arc<Pool>, index: usize) -> (Server, Arc<Mutex<Vec<Option<SocketAddr>>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let server = Setup { seat: pool.seat(index), ..Setup::default() }.start(move |request, reply| {
        noted.lock().unwrap().push(request.peer.remote);
        echo(request, reply)
    });
    (server, seen)
}

#[test]
fn a_connection_that_its_client_resets_on_its_way_to_a_sibling_keeps_its_address() {
    let mut busy = Busy::with(1, |_| ());
    let address = busy.kept[0].stream.local_addr().unwrap();
    // A sibling that looks idle, and takes nothing yet.
    busy.pool.line(1).permits.store(1, Ordering::SeqCst);
    busy.kept[0].send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_for("it to be handed over", || busy.pool.handed().len() == 1);
    reset(busy.kept.remove(0).stream);
    let (second, seen) = start_noting(&busy.pool, 1);
    wait_for("its request", || requests(&second) == 1);
    wait_for("the answer", || !seen.lock().unwrap().is_empty());
    assert_eq!(*seen.lock().unwrap(), [Some(address)]);
    busy.let_go();
}

#[test]
fn a_connection_whose_client_is_not_known_any_more_is_not_served() {
    let pool = Pool::of(1);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut clients: Vec<TcpStream> =
        (0..2).map(|_| TcpStream::connect(listener.local_addr().unwrap()).unwrap()).collect();
    let accepted: Vec<TcpStream> = (0..2).map(|_| listener.accept().unwrap().0).collect();
    for client in &mut clients {
        client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    }
    let address = clients[1].local_addr().unwrap();
    reset(clients.remove(0));
    for stream in &accepted {
        stream.set_nonblocking(true).unwrap();
        // As the supervisor gives what no worker has accepted.
        pool.give(stream.as_fd(), &[]).unwrap();
    }
    drop(accepted);
    let (server, seen) = start_noting(&pool, 0);
    wait_for("the second request", || requests(&server) > 0);
    assert_eq!(server.connect().get("/").status, 200);
    let seen = seen.lock().unwrap();
    assert_eq!((seen.len(), seen[0]), (2, Some(address)));
    assert_eq!(requests(&server), 2);
}
