//! Reloads while clients send requests before they have the responses to earlier ones.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::Client;
use crate::pool::Pool;
use crate::reloads::{FIRST_HALF, Gate, SECOND_HALF, reload};

const GATED: &str = "GET /gated HTTP/1.1\r\nHost: test\r\n\r\n";
const HIDDEN: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

/// A client that has sent a second request, with these header fields and body, before its worker retired. It has
/// both responses. The handler of the second one does not read the body.
fn refused(rest: &str) -> (Client, Pool) {
    let gate = Gate::new();
    let pool = gate.start("web");
    let mut client = Client::new(pool.address);
    client.send(&format!("{GATED}POST / HTTP/1.1\r\nHost: test\r\n{rest}")).unwrap();
    reload(&pool, 2);
    gate.open();
    client.response().unwrap();
    let head = client.head().unwrap();
    assert!(head.starts_with("HTTP/1.1 405"), "{head}");
    (client, pool)
}

pub fn a_pipelined_body_that_was_not_read_does_not_become_a_request() {
    for expectation in ["", "Expect: 100-continue\r\n"] {
        let length = HIDDEN.len();
        let (mut client, _pool) = refused(&format!("{expectation}Content-Length: {length}\r\n\r\n"));
        // The server may reset the connection meanwhile.
        let _ = client.send(HIDDEN);
        assert!(client.head().is_err());
    }
}

pub fn a_pipelined_body_that_has_arrived_does_not_become_a_request() {
    let length = HIDDEN.len();
    for rest in [
        format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{HIDDEN}\r\n0\r\n\r\n"),
        format!("Content-Length: {length}\r\n\r\n{HIDDEN}"),
    ] {
        let (mut client, _pool) = refused(&format!("{rest}GET /peer HTTP/1.1\r\nHost: test\r\n\r\n"));
        // Either the body was read and the connection goes on, or it is closed.
        match client.response() {
            Ok(response) => assert!(response.body.starts_with("Some("), "{}", response.body),
            Err(error) => assert!(!error.to_string().starts_with("HTTP"), "{error}"),
        }
    }
}

pub fn a_connection_that_always_has_a_request_moves() {
    const SLOW: &str = "GET /slow HTTP/1.1\r\nHost: test\r\n\r\n";
    let pool = Gate::new().start("web");
    let mut client = Client::new(pool.address);
    let before = client.get("/").unwrap().body;
    client.send(SLOW).unwrap();
    pool.signal(Signal::HUP);
    let begin = Instant::now();
    loop {
        client.send(SLOW).unwrap();
        let response = client.response().unwrap();
        assert!(!response.closes(), "{}", response.head);
        if response.body != before {
            break;
        }
        // Before its supervisor kills the worker.
        assert!(begin.elapsed() < Duration::from_secs(20), "the connection has not moved");
    }
    client.response().unwrap();
    pool.wait_log("has finished", 2);
}

pub fn a_response_leaves_before_its_connection_moves() {
    let pool = Gate::new().start("web-of-flushed-pipelines");
    let mut client = Client::new(pool.address);
    let before = client.get("/").unwrap().body;
    client.send(&format!("GET /peer HTTP/1.1\r\nHost: test\r\n\r\n{FIRST_HALF}")).unwrap();
    reload(&pool, 2);
    pool.wait_log("has finished", 2);
    client.send(SECOND_HALF).unwrap();
    let first = client.response().unwrap().body;
    assert!(first.starts_with("Some("), "{first}");
    assert_ne!(client.response().unwrap().body, before);
}
