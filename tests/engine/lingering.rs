//! A refusal arrives also where the client first sends all that it has.

use std::sync::atomic::Ordering;

use mcsup_core::Phase;
use mcsup_py::engine::EngineConfig;
use mcsup_py::engine::Limits;

use crate::fixture::*;

/// More than the buffers of both ends take.
const REST: usize = 20 << 20;

fn strict() -> Server {
    let limits = Limits { body: 1000, ..Limits::default() };
    let config = EngineConfig { limits, ..Setup::default().config };
    Setup { config, ..Setup::default() }.start(echo)
}

#[test]
fn a_client_that_sends_twenty_megabytes_before_it_reads_still_reads_why_it_is_refused() {
    let server = strict();
    let rest = vec![b'0'; REST];
    let long = "x".repeat(10_000);
    for (head, status) in [
        (format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {REST}\r\n\r\n"), 413),
        (format!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{REST:x}\r\n"), 413),
        ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n".to_owned(), 400),
        ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: br\r\n\r\n".to_owned(), 501),
        ("POST / HTTP/1.1\r\nHost: h\r\nExpect: wonders\r\n\r\n".to_owned(), 417),
        ("POST / HTTP/3.0\r\nHost: h\r\n\r\n".to_owned(), 505),
        (format!("POST /{long} HTTP/1.1\r\nHost: h\r\n\r\n"), 414),
        (format!("POST / HTTP/1.1\r\nHost: h\r\nX: {long}\r\n\r\n"), 431),
        ("post / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 400),
    ] {
        let mut client = server.connect();
        client.send(&head).send(&rest);
        assert_eq!(client.response().status, status, "{head:.60}");
    }
}

#[test]
fn a_client_that_is_gone_after_its_refusal_leaves_nothing_behind() {
    let server = strict();
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5000\r\n\r\nbegin");
    assert_eq!(client.response().status, 413);
    assert_eq!(server.host.connections.load(Ordering::SeqCst), 1);
    drop(client);
    wait_for("the connection's end", || server.host.connections.load(Ordering::SeqCst) == 0);
}

#[test]
fn a_client_that_says_no_more_after_its_refusal_does_not_hold_a_drain_for_long() {
    let server = strict();
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5000\r\n\r\nbegin");
    assert_eq!(client.response().status, 413);
    server.enter(Phase::Draining);
    server.join();
}
