//! The end of an engine: it answers every request that has arrived, and waits for no silent client.

use std::sync::atomic::Ordering;
use std::sync::mpsc;

use mcsup_core::Phase;

use crate::fixture::*;
use crate::hold::Hold;

#[test]
fn a_lame_duck_accepts_and_keeps_connections_as_before() {
    let server = serve(echo);
    let mut kept = server.connect();
    assert_eq!(kept.get("/").status, 200);
    server.enter(Phase::LameDuck);
    for client in [&mut kept, &mut server.connect()] {
        for _ in 0..3 {
            let response = client.get("/");
            assert_eq!((response.status, response.field("connection")), (200, None));
        }
    }
    server.enter(Phase::Draining);
    kept.assert_ended();
    server.join();
}

#[test]
fn a_draining_engine_answers_what_is_queued_and_returns() {
    let (go, gate) = mpsc::channel::<()>();
    let server = serve(move |request, reply| {
        if request.head.path() == b"/0" {
            gate.recv_timeout(PATIENCE).unwrap();
        }
        echo(request, reply)
    });
    let mut first = server.connect();
    first.send("GET /0 HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_for("the first request", || server.host.requests.load(Ordering::SeqCst) == 1);
    // These nine are connected by the kernel; the engine has not seen them.
    let mut others: Vec<Client> = (1..10).map(|_| server.connect()).collect();
    for (i, client) in others.iter_mut().enumerate() {
        client.send(format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", i + 1));
    }
    server.enter(Phase::Draining);
    go.send(()).unwrap();
    assert_eq!(first.response().text(), "GET /0 ");
    for client in &mut others {
        let response = client.response();
        assert_eq!((response.status, response.field("connection")), (200, Some("close")));
        client.assert_ended();
    }
    server.join();
}

#[test]
fn an_idle_keep_alive_client_does_not_delay_the_drain() {
    let server = serve(echo);
    let mut client = server.connect();
    assert_eq!(client.get("/").status, 200);
    server.enter(Phase::Draining);
    client.assert_ended();
    server.join();
}

#[test]
fn empty_lines_behind_a_body_do_not_delay_the_drain() {
    for sent in ["\r\n", "\r\n\r"] {
        let server = serve(echo);
        let mut client = server.connect();
        client.send(format!("POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx{sent}"));
        assert_eq!(client.response().status, 200);
        server.enter(Phase::Draining);
        client.assert_ended();
        server.join();
    }
}

#[test]
fn a_retiring_engine_answers_a_keep_alive_clients_next_request_and_says_that_it_is_the_last() {
    let server = serve(echo);
    let mut client = server.connect();
    assert_eq!(client.get("/").field("connection"), None);
    server.enter(Phase::Retiring);
    let response = client.get("/next");
    assert_eq!((response.status, response.field("connection")), (200, Some("close")));
    client.assert_ended();
    server.join();
}

#[test]
fn a_half_sent_request_is_finished_in_a_drain() {
    let server = serve(echo);
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nab");
    wait_for("the connection", || server.host.connections.load(Ordering::SeqCst) == 1);
    server.enter(Phase::Draining);
    client.send("cd");
    assert_eq!(client.response().text(), "POST / abcd");
    server.join();
}

#[test]
fn a_quitting_engine_returns_at_once() {
    let server = serve(echo);
    let mut client = server.connect();
    assert_eq!(client.get("/").status, 200);
    server.enter(Phase::Quitting);
    client.assert_ended();
    server.join();
}

#[test]
fn a_request_that_came_while_the_application_was_busy_is_answered_in_a_drain() {
    for phase in [Phase::Draining, Phase::Retiring] {
        let (go, gate) = mpsc::channel::<()>();
        let server = serve(move |request, reply| {
            if request.head.path() == b"/slow" {
                gate.recv_timeout(PATIENCE).unwrap();
            }
            echo(request, reply)
        });
        let mut open = server.connect();
        assert_eq!(open.get("/first").status, 200);
        let mut busy = server.connect();
        busy.send("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n");
        wait_for("the slow request", || server.host.requests.load(Ordering::SeqCst) == 2);
        // In the socket, and unknown to the engine, when the phase changes.
        open.send("GET /next HTTP/1.1\r\nHost: h\r\n\r\n");
        server.enter(phase);
        go.send(()).unwrap();
        for client in [&mut busy, &mut open] {
            let response = client.response();
            assert_eq!((response.status, response.field("connection")), (200, Some("close")), "{phase:?}");
            client.assert_ended();
        }
        server.join();
    }
}

#[test]
fn a_client_that_takes_its_answer_slowly_is_not_kept_open_by_a_drain_afterwards() {
    let server = serve(|_, reply| {
        let _ = reply.send_whole(&ok(&[]), &vec![b'x'; 8 << 20]);
        mcsup_py::app::Verdict::Complete
    });
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    // The head has left, and promised to keep the connection.
    assert!(client.more());
    server.enter(Phase::Draining);
    let response = client.response();
    assert_eq!((response.field("connection"), response.body.len()), (None, 8 << 20));
    client.assert_ended();
    server.join();
}

#[test]
fn a_silent_keep_alive_client_does_not_hold_a_retiring_engine_for_long() {
    let mut setup = Setup::default();
    setup.config.timeouts.keep_alive = std::time::Duration::from_millis(200);
    let server = setup.start(echo);
    let mut client = server.connect();
    assert_eq!(client.get("/").status, 200);
    server.enter(Phase::Retiring);
    client.assert_ended();
    server.join();
}

#[test]
fn a_client_that_connected_and_said_nothing_is_let_go_by_a_drain() {
    let server = serve(echo);
    let mut client = server.connect();
    wait_for("the connection", || server.host.connections.load(Ordering::SeqCst) == 1);
    server.enter(Phase::Draining);
    client.assert_ended();
    server.join();
}

#[test]
fn a_client_that_connects_when_a_drain_has_begun_and_says_nothing_is_let_go_as_well() {
    for _ in 0..3 {
        let server = serve(echo);
        assert_eq!(server.connect().get("/").status, 200);
        let beats = server.host.beats.load(Ordering::SeqCst);
        server.enter(Phase::Draining);
        // The listeners are open for some milliseconds more.
        wait_for("the drain", || server.host.beats.load(Ordering::SeqCst) > beats);
        let _silent = std::net::TcpStream::connect(server.address);
        server.join();
    }
}

#[test]
#[cfg(target_os = "linux")]
fn what_is_queued_when_no_descriptor_is_left_is_answered_as_soon_as_there_is_one() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    use std::os::fd::AsRawFd;
    let hold = Hold::default();
    let server = Setup::default().start_threads(hold.apps(1));
    let mut held = hold.occupy(&server, 1);
    // These are connected by the kernel.
    let mut queued: Vec<Client> = (0..3).map(|_| server.connect()).collect();
    for client in &mut queued {
        client.send("GET /queued HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    let before = getrlimit(Resource::Nofile);
    let next = std::fs::File::open("/dev/null").unwrap().as_raw_fd();
    setrlimit(Resource::Nofile, Rlimit { current: Some(u64::try_from(next).unwrap()), ..before }).unwrap();
    server.enter(Phase::Draining);
    // Longer than a drain looks for those that are queued, where it finds none.
    std::thread::sleep(std::time::Duration::from_millis(100));
    setrlimit(Resource::Nofile, before).unwrap();
    hold.let_go();
    assert_eq!(held[0].response().status, 200);
    for client in &mut queued {
        assert_eq!(client.response().text(), "GET /queued ");
    }
    server.join();
}
