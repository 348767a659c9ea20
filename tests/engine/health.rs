//! The health check, and the load that the host sees.

use std::sync::atomic::Ordering;
use std::sync::mpsc;

use mcsup_core::Phase;
use mcsup_py::engine::EngineConfig;

use crate::fixture::*;
use crate::hold::Hold;
use crate::pool::Pool;

fn setup() -> Setup {
    let config = EngineConfig { health_path: Some("/health".into()), ..Setup::default().config };
    Setup { config, ..Setup::default() }
}

fn requests(server: &Server) -> usize {
    server.host.requests.load(Ordering::SeqCst)
}

#[test]
fn the_engine_says_that_it_serves_and_the_application_hears_nothing_of_it() {
    let server = setup().start(echo);
    let mut client = server.connect();
    for _ in 0..3 {
        let response = client.get("/health?verbose");
        assert_eq!((response.status, response.text(), response.field("connection")), (200, "ok\n", None));
        let fields = ["content-type", "cache-control", "content-length"].map(|name| response.field(name));
        assert_eq!(fields, [Some("text/plain"), Some("no-store"), Some("3")]);
    }
    let response = client.send("HEAD /health HTTP/1.1\r\nHost: h\r\n\r\n").response_to("HEAD");
    assert_eq!((response.status, response.field("content-length")), (200, Some("3")));
    assert_eq!(requests(&server), 0);
    // Whatever else is asked for is the application's.
    for path in ["/health/", "/healt", "/%68ealth"] {
        assert_eq!(client.get(path).text(), format!("GET {path} "));
    }
    let post = "POST /health HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(client.send(post).response().text(), "POST /health ");
    assert_eq!(requests(&server), 4);
}

#[test]
fn without_the_setting_the_path_is_the_applications() {
    let server = serve(echo);
    assert_eq!(server.connect().get("/health").text(), "GET /health ");
}

#[test]
fn a_lame_duck_says_that_it_drains_and_serves_all_the_same() {
    let server = setup().start(echo);
    server.enter(Phase::LameDuck);
    let mut client = server.connect();
    let response = client.get("/health");
    assert_eq!((response.status, response.text(), response.field("connection")), (503, "draining\n", None));
    assert_eq!(client.get("/").text(), "GET / ");
    server.enter(Phase::Retiring);
    let response = client.get("/health");
    assert_eq!((response.status, response.field("connection")), (503, Some("close")));
    client.assert_ended();
    server.join();
}

#[test]
fn one_that_retires_says_that_the_pool_serves_while_a_sibling_goes_on() {
    let (pool, hold) = (Pool::of(2), Hold::default());
    // Connected clients stay.
    pool.room.store(0, Ordering::SeqCst);
    let old = Setup { seat: pool.seat(0), ..setup() }.start_threads(hold.apps(1));
    let (mut client, mut other) = (old.connect(), old.connect());
    assert_eq!((client.get("/health").status, other.get("/health").status), (200, 200));
    let new = Setup { seat: pool.seat(1), ..setup() }.start_threads(hold.apps(1));
    wait_for("the sibling to accept", || pool.line(1).permits.load(Ordering::SeqCst) == 1);
    old.enter(Phase::Retiring);
    let response = client.get("/health");
    assert_eq!(
        (response.status, response.text(), response.field("connection")),
        (200, "ok\n", Some("close"))
    );
    client.assert_ended();
    new.enter(Phase::Draining);
    new.join();
    old.enter(Phase::Draining);
    let response = other.get("/health");
    assert_eq!(
        (response.status, response.text(), response.field("connection")),
        (503, "draining\n", Some("close"))
    );
}

#[test]
fn it_is_answered_while_all_permits_are_in_the_application() {
    for permits in [1, 2] {
        let hold = Hold::default();
        let server = setup().start_threads(hold.apps(permits));
        let mut kept = server.connect();
        assert_eq!(kept.get("/").status, 200);
        let mut held = hold.occupy(&server, permits);
        assert_eq!(kept.get("/health").text(), "ok\n");
        // Accepted for it alone; what else comes along waits.
        let mut waiting = server.connect();
        waiting.send("GET /waiting HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(server.connect().get("/health").text(), "ok\n");
        assert_eq!(hold.inside.load(Ordering::SeqCst), permits);
        hold.let_go();
        assert_eq!(waiting.response().text(), "GET /waiting ");
        assert!(held.iter_mut().all(|client| client.response().status == 200));
        assert_eq!(server.connect().get("/after").text(), "GET /after ");
    }
}

#[test]
fn a_client_that_is_accepted_for_its_sake_goes_to_a_free_sibling() {
    let (pool, hold) = (Pool::of(2), Hold::default());
    let busy = Setup { seat: pool.seat(0), ..setup() }.start_threads(hold.apps(1));
    let _held = hold.occupy(&busy, 1);
    let idle = Setup { seat: pool.seat(1), ..setup() }.start_threads(hold.apps(1));
    wait_for("the engine to accept", || pool.line(1).permits.load(Ordering::SeqCst) == 1);
    for count in 1..20 {
        assert_eq!(busy.connect().get("/new").text(), "GET /new ");
        assert_eq!(requests(&idle), count);
    }
    assert_eq!(hold.inside.load(Ordering::SeqCst), 1);
    hold.let_go();
}

#[test]
fn many_checks_that_were_sent_ahead_do_not_keep_the_engine() {
    let server = setup().start(echo);
    let mut client = server.connect();
    client.send("GET /health HTTP/1.1\r\nHost: h\r\n\r\n".repeat(200));
    let answers = std::iter::from_fn(|| {
        let response = client.response();
        assert_eq!(response.status, 200);
        response.field("connection").is_none().then_some(())
    });
    assert_eq!(answers.count(), 15);
    assert_eq!(server.connect().get("/").status, 200);
}

#[test]
fn what_follows_a_check_on_its_connection_is_served() {
    let server = setup().start(echo);
    let mut client = server.connect();
    client.send(
        "GET /health HTTP/1.1\r\nHost: h\r\n\r\nPOST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nxGET /health HTTP/1.0\r\n\r\n",
    );
    assert_eq!(client.response().text(), "ok\n");
    assert_eq!(client.response().text(), "POST /a x");
    let response = client.response();
    assert_eq!((response.text(), response.field("connection")), ("ok\n", Some("close")));
    client.assert_ended();
}

#[test]
fn a_check_is_a_line_in_the_access_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let access = Some(("%(m)s %(U)s %(s)s %(b)s".to_owned(), path.to_str().unwrap().to_owned()));
    let server = Setup { access, ..setup() }.start(echo);
    assert_eq!(server.connect().get("/health").status, 200);
    wait_for("a line", || std::fs::read_to_string(&path).unwrap() == "GET /health 200 3\n");
}

#[test]
fn the_host_hears_how_many_wait_and_since_when_the_oldest_of_several_runs() {
    let hold = Hold::default();
    let server = Setup::default().start_threads(hold.apps(2));
    let mut kept: Vec<Client> = (0..3).map(|_| server.connect()).collect();
    assert!(kept.iter_mut().all(|client| client.get("/").status == 200));
    let mut held = hold.occupy(&server, 2);
    let oldest = || *server.host.oldest.lock().unwrap();
    wait_for("the oldest", || oldest().is_some());
    for client in &mut kept {
        client.send("GET /waiting HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    wait_for("three to wait", || server.host.waiting.load(Ordering::SeqCst) == 3);
    hold.let_go();
    assert!(kept.iter_mut().chain(&mut held).all(|client| client.response().status == 200));
    wait_for("none to wait", || server.host.waiting.load(Ordering::SeqCst) == 0);
    wait_for("none to run", || oldest().is_none());
}

#[test]
fn one_permit_tells_no_oldest_since_the_host_knows_it() {
    let (go, gate) = mpsc::channel::<()>();
    let server = serve(move |request, reply| {
        gate.recv_timeout(PATIENCE).unwrap();
        echo(request, reply)
    });
    let (mut client, mut other) = (server.connect(), server.connect());
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_for("the request", || requests(&server) == 1);
    let beats = server.host.beats.load(Ordering::SeqCst);
    go.send(()).unwrap();
    assert_eq!(client.response().status, 200);
    go.send(()).unwrap();
    assert_eq!(other.get("/").status, 200);
    wait_for("a turn", || server.host.beats.load(Ordering::SeqCst) > beats + 1);
    assert_eq!(*server.host.oldest.lock().unwrap(), None);
}
