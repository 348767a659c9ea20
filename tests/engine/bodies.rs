//! Request bodies.

use std::sync::atomic::Ordering;

use mcsup_py::engine::EngineConfig;
use mcsup_py::http::head::Limits;

use crate::fixture::*;

#[test]
fn a_chunked_body_arrives_whole() {
    let server = serve(echo);
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nX: y\r\n\r\n");
    assert_eq!(client.response().text(), "POST / abcdefg");
    assert_eq!(client.get("/next").text(), "GET /next ");
}

#[test]
fn a_large_body_arrives_whole() {
    let server = serve(echo);
    let body: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 253) as u8).collect();
    let mut client = server.connect();
    client.send(format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len()));
    let mut writer = client.stream.try_clone().unwrap();
    let sent = body.clone();
    let sending = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &sent));
    let response = client.response();
    sending.join().unwrap().unwrap();
    assert!(response.body.strip_prefix(b"POST / ").unwrap() == body);
}

#[test]
fn a_client_that_expects_it_is_told_to_continue() {
    let server = serve(echo);
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert_eq!(client.response().status, 100);
    client.send("hi");
    assert_eq!(client.response().text(), "POST / hi");
    // Bytes that are there already need no permission.
    client.send("POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nho");
    assert_eq!(client.response().text(), "POST / ho");
}

#[test]
fn a_body_over_the_limit_is_refused_and_not_asked_for() {
    let limits = Limits { body: 10, ..Limits::default() };
    let config = EngineConfig { limits, ..Setup::default().config };
    let server = Setup { config, ..Setup::default() }.start(echo);
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n");
    assert_eq!(client.response().status, 413);
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nabcdefghijk\r\n");
    assert_eq!(client.response().status, 413);
}

#[test]
fn a_body_that_breaks_off_never_reaches_the_application() {
    let server = serve(echo);
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc");
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.response().status, 400);
    client.assert_ended();
    assert_eq!(server.host.requests.load(Ordering::SeqCst), 0);
}
