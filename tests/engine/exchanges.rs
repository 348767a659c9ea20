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
        ("GET /a b HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 400),
        ("GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 400),
        ("GET * HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 400),
        ("GET h:80 HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 400),
        ("CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n".to_owned(), 501),
        ("CONNECT h: HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 400),
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
fn a_malformed_request_line_is_refused_at_its_end() {
    let server = serve(echo);
    for (line, status, reason) in [
        ("GET /", 400, "malformed request line"),
        ("SSH-2.0-x", 400, "malformed request line"),
        ("*1", 400, "malformed request line"),
        ("get / HTTP/1.1", 400, "method"),
        ("GET /a#b HTTP/1.1", 400, "fragment"),
        ("GET /\x1b[m HTTP/1.1", 400, "control character"),
        ("GET /\x7f HTTP/1.1", 400, "control character"),
        ("GET ftp://h/ HTTP/1.1", 400, "scheme"),
        ("GET * HTTP/1.1", 400, "a form that its method does not allow"),
        ("GET / HTTP/2.0", 505, "version"),
    ] {
        let mut client = server.connect();
        client.stream.set_nodelay(true).unwrap();
        client.send(&line[..2]);
        let response = client.send(format!("{}\r\n", &line[2..])).response();
        assert_eq!(response.status, status, "{line:?}");
        assert!(response.text().contains(reason), "{line:?}: {}", response.text());
    }
    let mut client = server.connect();
    client.stream.set_nodelay(true).unwrap();
    for part in ["GET /\u{e9} HTTP/1.2\r\n", "Host", ": h\r", "\n\r\n"] {
        client.send(part);
    }
    assert_eq!(client.response().status, 200);
}

#[test]
fn a_target_with_bytes_that_are_no_ascii_is_served() {
    let server = serve(|request, reply| {
        let parts = [request.head.target(), request.head.path(), request.head.query()].join(&b' ');
        let _ = reply.send_whole(&ok(&[]), &parts);
        mcsup_py::app::Verdict::Complete
    });
    let mut client = server.connect();
    for version in ["1.1", "1.5"] {
        for (target, path, query) in [
            (&b"/caf\xe9?\xff=\x80"[..], &b"/caf\xe9"[..], &b"\xff=\x80"[..]),
            (b"/x?q=\xc3\xa9", b"/x", b"q=\xc3\xa9"),
            (b"http://h/\xe9", b"/\xe9", b""),
        ] {
            let request = [b"GET ", target, b" HTTP/", version.as_bytes(), b"\r\nHost: h\r\n\r\n"].concat();
            let response = client.send(request).response();
            assert_eq!((response.status, response.body), (200, [target, path, query].join(&b' ')));
        }
    }
    let answer = all_of(&server, b"GET http://h\xe9/ HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("authority"), "{answer}");
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

/// Sends a request and reads all that comes until the server ends the connection.
fn all_of(server: &Server, request: impl AsRef<[u8]>) -> String {
    use std::io::Read;
    let mut client = server.connect();
    client.send(request).stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut bytes = Vec::new();
    client.stream.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn a_host_that_is_none_is_refused() {
    let server = serve(echo);
    for host in [
        &b"a b"[..],
        b"a/b",
        b"u@h",
        b"h, i",
        b"[::1",
        b"[::1]x",
        b"a:b",
        b"h:1:2",
        b"::1",
        b":80",
        b"caf\xc3\xa9",
        b"\xe9",
        b"h?",
        b"h#",
        b"h\\i",
        b"<h>",
        b"%",
        b"%zz",
        b"[::1%]",
        b"[::1%lo!]",
        b"h%lo",
        b"h\x01",
        b"http://h",
    ] {
        for version in ["1.0", "1.1"] {
            let request = [b"GET / HTTP/", version.as_bytes(), b"\r\nHost: ", host, b"\r\n\r\n"].concat();
            let answer = all_of(&server, request);
            assert!(answer.starts_with("HTTP/1.1 400 "), "{}: {answer}", host.escape_ascii());
        }
    }
    for host in [
        "h",
        "h:80",
        "h:",
        "H-1.example.",
        "127.0.0.1:8080",
        "[::1]",
        "[2001:db8::1]:443",
        "a_b",
        "%41",
        "",
        "[fe80::1%eth0]:80",
    ] {
        let answer = all_of(&server, format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 200 "), "{host:?}: {answer}");
    }
}

#[test]
fn an_absolute_target_overrides_host_and_names_one_itself() {
    let server = serve(|request, reply| {
        let _ = reply.send_whole(&ok(&[]), request.head.header("host").unwrap_or_default());
        mcsup_py::app::Verdict::Complete
    });
    for (target, expected) in [
        ("http://h/p", Some("h")),
        ("HTTP://h:81", Some("h:81")),
        ("https://[::1]:81?q", Some("[::1]:81")),
        ("http://u@h/", None),
        ("http://u:p@h/", None),
        ("http://@h/", None),
        ("http:///p", None),
        ("http://", None),
        ("http://?q", None),
        ("http://:80/", None),
        ("http://a:b/", None),
        ("http://[::1/", None),
        ("http://%zz/", None),
        ("ftp://h/", None),
    ] {
        let answer = all_of(&server, format!("GET {target} HTTP/1.1\r\nHost: other\r\n\r\n"));
        match expected {
            Some(host) => assert!(answer.ends_with(&format!("\r\n\r\n{host}")), "{target}: {answer}"),
            None => assert!(answer.starts_with("HTTP/1.1 400 "), "{target}: {answer}"),
        }
    }
}

#[test]
fn a_later_minor_version_is_served_as_the_latest_that_is_known() {
    let server = serve(echo);
    let mut client = server.connect();
    for minor in 2..=9 {
        let response = client.send(format!("GET /{minor} HTTP/1.{minor}\r\nHost: h\r\n\r\n")).response();
        assert_eq!((response.status, response.text()), (200, format!("GET /{minor} ").as_str()));
        assert!(response.head.starts_with("HTTP/1.1 ") && response.field("connection").is_none());
    }
}

#[test]
fn a_refusal_of_head_is_that_of_get_without_its_body() {
    let config = EngineConfig { waiting: 0, ..Setup::default().config };
    for (config, rest) in [
        (Setup::default().config, "/ HTTP/1.1\r\n\r\n".to_owned()),
        (Setup::default().config, "/ HTTP/2.0\r\nHost: h\r\n\r\n".to_owned()),
        (Setup::default().config, "/a b\r\n\r\n".to_owned()),
        (Setup::default().config, format!("/{} HTTP/1.1\r\n", "a".repeat(9000))),
        (Setup::default().config, "/ HTTP/1.1\r\nHost: h\r\nExpect: x\r\n\r\n".to_owned()),
        (
            Setup::default().config,
            "/ HTTP/1.1\r\nHost: h\r\nContent-Length: 9999999999999\r\n\r\n".to_owned(),
        ),
        (Setup::default().config, "/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nx".to_owned()),
        // No room to wait: 503.
        (config, "/ HTTP/1.1\r\nHost: h\r\n\r\n".to_owned()),
    ] {
        let server = Setup { config, ..Setup::default() }.start(echo);
        let of = |method: &str| {
            let answer = all_of(&server, format!("{method} {rest}"));
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            let lines: Vec<_> = head.lines().filter(|line| !line.starts_with("Date:")).collect();
            (lines.join("\n"), body.to_owned())
        };
        let (get, head) = (of("GET"), of("HEAD"));
        assert_eq!(get.0, head.0);
        assert!(
            get.0.contains(&format!("\nContent-Length: {}", get.1.len())) && !get.1.is_empty(),
            "{get:?}"
        );
        assert_eq!(head.1, "", "{rest:.60}");
        assert_eq!(server.host.requests.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn http2_without_tls_is_answered_in_http2() {
    let server = serve(echo);
    let answer = all_of(&server, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    // SETTINGS first, and status and reason on the first stream, which ends with them.
    assert!(answer.starts_with("\0\0\0\x04\0\0\0\0\0\0\0\x32\x01\x05\0\0\0\x01\x08\x03505"), "{answer:?}");
    assert!(answer.contains("this server speaks HTTP/1.1"), "{answer:?}");
}

#[test]
fn a_tls_handshake_is_refused_with_its_first_byte() {
    let server = serve(echo);
    let mut client = server.connect();
    assert_eq!(client.send(b"\x16").response().status, 400);
}
