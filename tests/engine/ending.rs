//! How an engine ends: nobody is lost who had said something, nobody is waited for who says nothing.

use std::sync::atomic::Ordering;
use std::sync::mpsc;

use mcsup_py::engine::Phase;

use crate::fixture::*;

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
