//! One exchange after the other on a connection.

use std::sync::atomic::Ordering;

use mcsup_py::app::Local;
use mcsup_py::engine::EngineConfig;

use crate::fixture::*;

#[test]
fn a_connection_serves_one_request_after_the_other() {
    let server = serve(echo);
    let mut client = server.connect();
    for path in ["/a", "/b", "/c"] {
        let response = client.get(path);
        assert_eq!((response.status, response.text()), (200, format!("GET {path} ").as_str()));
        assert_eq!(response.field("connection"), None);
        assert!(response.field("date").unwrap().ends_with("GMT"));
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = serve(echo);
    let mut client = server.connect();
    let requests: String = (0..20).map(|i| format!("GET /{i} HTTP/1.1\r\nHost: h\r\n\r\n")).collect();
    client.send(&requests);
    for i in 0..20 {
        assert_eq!(client.response().text(), format!("GET /{i} "));
    }
}

#[test]
fn a_connection_ends_when_the_client_says_so() {
    let server = serve(echo);
    for request in ["GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"] {
        let mut client = server.connect();
        let response = client.send(request).response();
        assert_eq!(response.field("connection"), Some("close"));
        client.assert_ended();
    }
    let mut client = server.connect();
    let response = client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").response();
    assert_eq!(response.field("connection"), Some("keep-alive"));
    assert_eq!(client.get("/again").status, 200);
}

#[test]
fn a_client_that_ended_its_side_still_gets_its_answer() {
    let server = serve(echo);
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.response().status, 200);
    client.assert_ended();
}

#[test]
fn a_request_in_single_bytes_is_a_request() {
    let server = serve(echo);
    let mut client = server.connect();
    client.stream.set_nodelay(true).unwrap();
    for byte in b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc" {
        client.send([*byte]);
    }
    assert_eq!(client.response().text(), "POST /x abc");
}

#[test]
fn a_refusal_says_why_and_ends_the_connection() {
    let server = serve(echo);
    let long = "a".repeat(9000);
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("nonsense\r\n\r\n".to_owned(), 400),
        (format!("GET /{long} HTTP/1.1\r\nHost: h\r\n\r\n"), 414),
        (format!("GET / HTTP/1.1\r\nHost: h\r\nX: {long}\r\n\r\n"), 431),
        ("GET / HTTP/3.0\r\nHost: h\r\n\r\n".to_owned(), 505),
        ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n".to_owned(), 501),
        ("POST / HTTP/1.1\r\nHost: h\r\nExpect: x\r\nContent-Length: 1\r\n\r\n".to_owned(), 417),
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9999999999999\r\n\r\n".to_owned(), 413),
        ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: h\r\nno colon\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: h\r\nX: folded\r\n line\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n".to_owned(), 400),
        (format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "X: y\r\n".repeat(200)), 431),
    ] {
        let mut client = server.connect();
        let response = client.send(&request).response();
        assert_eq!(response.status, status, "{:.60}", request);
        assert_eq!(response.field("connection"), Some("close"));
        client.stream.shutdown(std::net::Shutdown::Write).unwrap();
        client.assert_ended();
    }
    assert_eq!(server.connect().get("/").status, 200);
}

#[test]
fn what_could_be_read_in_two_ways_is_refused_and_nothing_behind_it_is_served() {
    let server = serve(echo);
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 6\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Host: other\r\n",
    ] {
        let mut client = server.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n0\r\n\r\n{smuggled}"));
        let response = client.response();
        assert_eq!((response.status, response.field("connection")), (400, Some("close")), "{fields}");
        client.stream.shutdown(std::net::Shutdown::Write).unwrap();
        client.assert_ended();
    }
    assert_eq!(server.host.requests.load(Ordering::SeqCst), 0);
}

#[test]
fn a_refused_upload_still_gets_the_refusal_not_a_reset() {
    let server = serve(echo);
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9999999999999\r\n\r\n");
    client.send(vec![b'x'; 32 * 1024]);
    assert_eq!(client.response().status, 413);
}

#[test]
fn a_unix_socket_serves_too() {
    let server = Setup { unix: true, ..Setup::default() }.start(|request, reply| {
        assert_eq!((request.peer.remote, &request.peer.local), (None, &Local::Unix("s".to_owned())));
        echo(request, reply)
    });
    use std::io::{Read, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(server.unix_path()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /u HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.ends_with("GET /u "), "{text}");
}

#[test]
fn no_more_connections_are_accepted_than_there_may_be_and_the_others_wait() {
    let config = EngineConfig { connections: 2, ..Setup::default().config };
    let server = Setup { config, ..Setup::default() }.start(echo);
    let (mut one, mut two, mut three) = (server.connect(), server.connect(), server.connect());
    assert_eq!((one.get("/1").status, two.get("/2").status), (200, 200));
    three.send("GET /3 HTTP/1.1\r\nHost: h\r\n\r\n");
    for _ in 0..10 {
        assert_eq!(one.get("/1").status, 200);
    }
    assert_eq!(server.host.requests.load(Ordering::SeqCst), 12);
    drop(two);
    assert_eq!(three.response().text(), "GET /3 ");
}
