//! Reloads while clients send requests before they have the responses to earlier ones.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::Client;
use crate::reloads::{FIRST_HALF, Gate, SECOND_HALF, reload};

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
