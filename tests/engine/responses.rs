//! Responses: framing, what may not be sent, what breaks off.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use mcsup_py::app::ResponseHead;
use mcsup_py::app::{Gone, Verdict};
use mcsup_py::engine::{EngineConfig, ServerField};

use crate::fixture::*;

#[test]
fn a_streamed_body_is_chunked_and_its_pieces_leave_at_once() {
    let (go, gate) = mpsc::channel::<()>();
    let server = serve(move |_, reply| {
        reply.send(&ok(&[]), b"first").unwrap();
        gate.recv_timeout(PATIENCE).unwrap();
        reply.send(&ok(&[]), b"").unwrap();
        reply.send(&ok(&[]), b"second").unwrap();
        Verdict::Complete
    });
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    // The head and the first piece are here before the application goes on.
    assert!(client.more());
    go.send(()).unwrap();
    let response = client.response();
    assert_eq!((response.field("transfer-encoding"), response.text()), (Some("chunked"), "firstsecond"));
    drop(server);
}

#[test]
fn a_streamed_body_for_1_0_ends_with_the_connection() {
    let server = serve(|_, reply| {
        reply.send(&ok(&[]), b"a").unwrap();
        reply.send(&ok(&[]), b"b").unwrap();
        Verdict::Complete
    });
    let mut client = server.connect();
    let response = client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").response();
    assert_eq!((response.field("transfer-encoding"), response.text()), (None, "ab"));
    assert_eq!((response.field("content-length"), response.field("connection")), (None, Some("close")));
}

#[test]
fn a_body_that_is_known_whole_has_its_length_and_keeps_the_connection() {
    let server = serve(echo);
    let mut client = server.connect();
    for request in
        ["GET /1.1 HTTP/1.1\r\nHost: h\r\n\r\n", "GET /1.0 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"]
    {
        let response = client.send(request).response();
        assert_eq!(
            (response.field("content-length"), response.field("transfer-encoding")),
            (Some("9"), None)
        );
    }
    let server = serve(|_, reply| {
        let _ = reply.send_whole(&ok(&[]), b"");
        Verdict::Complete
    });
    assert_eq!(server.connect().get("/").field("content-length"), Some("0"));
}

#[test]
fn what_may_have_no_body_has_none() {
    let server = serve(|request, reply| {
        let mut head = ResponseHead::new();
        let status = std::str::from_utf8(&request.head.path()[1..4]).unwrap().parse().unwrap();
        head.begin(status, b"X").unwrap();
        if request.head.query() == b"length" {
            head.push(b"Content-Length", b"4").unwrap();
        }
        let _ = match request.head.path()[1..].split(|byte| *byte == b'/').nth(1) {
            Some(b"whole") => reply.send_whole(&head, b"body"),
            Some(b"file") => {
                let mut file = tempfile::tempfile().unwrap();
                file.write_all(b"body").unwrap();
                reply.send_file(&head, file, 0, 4)
            }
            _ => reply.send(&head, b"body"),
        };
        let has_body = status == 200 && request.head.method() == "GET";
        assert!(has_body || reply.is_full(), "it would go on asking for what is dropped");
        Verdict::Complete
    });
    let mut client = server.connect();
    assert_eq!(client.get("/204?length").field("content-length"), None);
    assert_eq!(client.get("/304?length").field("content-length"), Some("4"));
    assert_eq!(server.connect().get("/199?length").field("content-length"), None);
    for status in ["103", "199", "204", "304"] {
        for way in ["", "/whole", "/file"] {
            let mut own = server.connect();
            // No client takes an interim status for the final one: only the end tells it that nothing follows.
            let client = if status < "200" { &mut own } else { &mut client };
            let response = client.get(&format!("/{status}{way}"));
            assert_eq!(response.status.to_string(), status);
            assert_eq!((response.field("content-length"), response.field("transfer-encoding")), (None, None));
            if status < "200" {
                client.assert_ended();
            }
        }
    }
    for request in ["/205", "/205?length", "/205/whole", "/205/file"] {
        let response = client.get(request);
        assert_eq!((response.status, response.field("content-length")), (205, Some("0")), "{request}");
        assert_eq!((response.field("transfer-encoding"), response.text()), (None, ""), "{request}");
    }
    for way in ["", "/whole", "/file"] {
        client.send(format!("HEAD /200{way} HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_eq!(client.response_to("HEAD").status, 200);
    }
    assert_eq!(client.get("/200").text(), "body");
}

#[test]
fn a_head_request_keeps_the_announced_length() {
    let server = serve(|_, reply| {
        let _ = reply.send_whole(&ok(&[("Content-Length", "4")]), b"body");
        Verdict::Complete
    });
    let mut client = server.connect();
    client.send("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.response_to("HEAD").field("content-length"), Some("4"));
    assert_eq!(client.get("/").text(), "body");
}

#[test]
fn more_than_announced_is_cut_and_less_ends_the_connection() {
    let server = serve(|request, reply| {
        let head = ok(&[("Content-Length", "4")]);
        let body: &[u8] = if request.head.path() == b"/long" { b"123456" } else { b"12" };
        let _ = reply.send(&head, body);
        if request.head.path() == b"/long" {
            assert!(reply.is_full());
        }
        Verdict::Complete
    });
    let mut client = server.connect();
    assert_eq!(client.get("/long").text(), "1234");
    assert_eq!(client.get("/long").text(), "1234");
    client.send("GET /short HTTP/1.1\r\nHost: h\r\n\r\nGET /long HTTP/1.1\r\nHost: h\r\n\r\n");
    let mut all = Vec::new();
    // Nothing that follows may be taken for the rest of it.
    let _ = client.stream.read_to_end(&mut all);
    assert_eq!(String::from_utf8_lossy(&all).matches("HTTP/1.1").count(), 1);
    assert!(all.ends_with(b"\r\n\r\n12"), "{:?}", String::from_utf8_lossy(&all));
}

#[test]
fn an_application_that_fails_before_it_spoke_is_a_500() {
    let server = serve(|_, _| Verdict::Failed);
    let response = server.connect().get("/");
    assert_eq!((response.status, response.field("connection")), (500, Some("close")));
    let mut client = server.connect();
    let to_head = client.send("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n").response_to("HEAD");
    assert_eq!(to_head.field("content-length"), response.field("content-length"));
    assert_eq!(to_head.field("content-length"), Some(response.body.len().to_string().as_str()));
    client.assert_ended();
}

#[test]
fn a_response_that_breaks_off_is_a_reset_not_an_end() {
    let server = serve(|_, reply| {
        reply.send(&ok(&[]), b"part").unwrap();
        Verdict::Failed
    });
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    let mut all = Vec::new();
    let end = client.stream.read_to_end(&mut all);
    assert!(end.is_err() || !all.ends_with(b"0\r\n\r\n"), "{:?}", String::from_utf8_lossy(&all));
    // To a client of 1.0 an end of the connection would be the end of the body.
    let mut client = server.connect();
    client.send("GET / HTTP/1.0\r\n\r\n");
    let end = client.stream.read_to_end(&mut Vec::new());
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn a_large_body_to_a_slow_reader_does_not_keep_the_application() {
    let server = serve(|request, reply| {
        if request.head.path() == b"/large" {
            let _ = reply.send_whole(&ok(&[]), &vec![b'x'; 8 << 20]);
            return Verdict::Complete;
        }
        echo(request, reply)
    });
    let mut slow = server.connect();
    slow.send("GET /large HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(server.connect().get("/fast").text(), "GET /fast ");
    assert_eq!(slow.response().body.len(), 8 << 20);
    assert_eq!(slow.get("/next").status, 200);
}

#[test]
fn a_streaming_application_waits_for_a_slow_reader_and_notices_its_end() {
    let gone = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&gone);
    let server = serve(move |_, reply| {
        for _ in 0..10_000 {
            if reply.send(&ok(&[]), &[b'x'; 64 * 1024]) == Err(Gone) {
                seen.store(true, Ordering::SeqCst);
                return Verdict::Failed;
            }
        }
        Verdict::Complete
    });
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(client.more());
    drop(client);
    wait_for("the application to notice it", || gone.load(Ordering::SeqCst));
}

#[test]
fn a_file_is_sent_from_the_place_that_was_asked_for() {
    let server = serve(|request, reply| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![b'y'; 3 << 20]).unwrap();
        file.write_all(b"end").unwrap();
        let length = (3 << 20) + 2;
        let head = if request.head.query() == b"cut" { ok(&[("Content-Length", "5")]) } else { ok(&[]) };
        reply.send_file(&head, file, 1, length).unwrap();
        Verdict::Complete
    });
    let mut client = server.connect();
    let response = client.get("/");
    assert_eq!(response.body.len(), (3 << 20) + 2);
    assert!(response.body.ends_with(b"yyend"));
    assert_eq!(client.get("/?cut").text(), "yyyyy");
    assert_eq!(client.get("/?cut").text(), "yyyyy");
}

#[test]
fn what_is_sent_behind_a_file_comes_behind_it() {
    let server = serve(|_, reply| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![b'y'; 4 << 20]).unwrap();
        let head = ok(&[("Content-Length", &((4 << 20) + 9).to_string())]);
        reply.send(&head, b"before").unwrap();
        reply.send_file(&head, file, 0, 4 << 20).unwrap();
        reply.send(&head, b"end").unwrap();
        assert!(reply.is_full());
        Verdict::Complete
    });
    let mut client = server.connect();
    let body = client.get("/").body;
    assert_eq!(
        (body.len(), &body[..7], &body[body.len() - 4..]),
        ((4 << 20) + 9, &b"beforey"[..], &b"yend"[..])
    );
    assert_eq!(client.get("/").status, 200);
}

#[test]
fn a_file_that_is_shorter_than_was_said_is_never_ended_cleanly() {
    let server = serve(|_, reply| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"short").unwrap();
        reply.send(&ok(&[]), b"chunk").unwrap();
        assert_eq!(reply.send_file(&ok(&[]), file, 0, 10), Err(Gone));
        Verdict::Complete
    });
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    let mut all = Vec::new();
    let end = client.stream.read_to_end(&mut all);
    assert!(end.is_err() || !all.ends_with(b"0\r\n\r\n"), "{:?}", String::from_utf8_lossy(&all));
}

#[test]
fn a_last_answer_is_not_lost_to_what_the_client_still_sends() {
    let (go, gate) = mpsc::channel::<()>();
    let server = serve(move |request, reply| {
        gate.recv_timeout(PATIENCE).unwrap();
        echo(request, reply)
    });
    let mut client = server.connect();
    client.send("GET /last HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    wait_for("the request", || server.host.requests.load(Ordering::SeqCst) == 1);
    client.send("GET /ignored HTTP/1.1\r\nHost: h\r\n\r\n");
    go.send(()).unwrap();
    assert_eq!(client.response().text(), "GET /last ");
    // An end, not a reset.
    assert_eq!(client.stream.read(&mut [0; 16]).unwrap(), 0);
}

#[test]
fn a_large_block_is_held_until_it_has_left_and_never_copied() {
    /// A body that tells when it is let go.
    struct Shared(Arc<Vec<u8>>);
    impl AsRef<[u8]> for Shared {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    let body = Arc::new(vec![b'x'; 32 << 20]);
    let server = serve({
        let body = Arc::clone(&body);
        move |_, reply| {
            reply.send_block(&ok(&[]), Box::new(Shared(Arc::clone(&body)))).unwrap();
            Verdict::Complete
        }
    });
    let mut clients: Vec<Client> = (0..3).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    // The application is done with all of them, and no client has read anything: ours, its own, and one for each client.
    wait_for("three calls", || server.host.requests.load(Ordering::SeqCst) == 3);
    wait_for("three held blocks", || Arc::strong_count(&body) == 5);
    for client in &mut clients {
        assert!(client.response().body == *body);
        assert_eq!(client.send("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n").response_to("HEAD").status, 200);
    }
    wait_for("the blocks to be let go", || Arc::strong_count(&body) == 2);
}

#[test]
fn a_block_is_framed_like_any_other_body() {
    let server = serve(|request, reply| {
        match request.head.path() {
            b"/less" => reply.send_block(&ok(&[("Content-Length", "3")]), Box::new(*b"abcdef")).unwrap(),
            b"/after" => {
                reply.send(&ok(&[]), b"one ").unwrap();
                reply.send_block(&ok(&[]), Box::new(*b"two ")).unwrap();
                reply.send(&ok(&[]), b"three").unwrap();
            }
            _ => {
                reply.send_block(&ok(&[("Content-Length", "7")]), Box::new(*b"abcd")).unwrap();
                reply.send(&ok(&[]), b"efg").unwrap();
            }
        }
        Verdict::Complete
    });
    let mut client = server.connect();
    for (path, body) in [("/less", "abc"), ("/after", "one two three"), ("/more", "abcdefg")] {
        assert_eq!(client.get(path).text(), body);
    }
}

#[test]
fn early_hints_come_before_the_head_and_only_to_clients_that_understand_them() {
    let server = serve(|_, reply| {
        let mut hints = ok(&[("Link", "</style.css>; rel=preload")]);
        hints.begin(103, b"Early Hints").unwrap();
        hints.push(b"Link", b"</style.css>; rel=preload").unwrap();
        reply.send_interim(&hints).unwrap();
        reply.send_interim(&hints).unwrap();
        reply.send(&ok(&[]), b"body").unwrap();
        // Too late.
        reply.send_interim(&hints).unwrap();
        Verdict::Complete
    });
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    for _ in 0..2 {
        let hints = client.response();
        assert_eq!(hints.head, "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n");
    }
    assert_eq!(client.response().text(), "body");
    let mut old = server.connect();
    assert_eq!(old.send("GET / HTTP/1.0\r\n\r\n").response().text(), "body");
}

#[test]
fn the_server_field_is_the_configured_one_in_refusals_too() {
    for (text, expected) in [("mine 2", Some("mine 2")), ("", None)] {
        let field = ServerField::new(text).unwrap();
        let config = EngineConfig { server: field, ..Setup::default().config };
        let server = Setup { config, ..Setup::default() }.start(echo);
        let mut client = server.connect();
        assert_eq!(client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").response().field("server"), expected);
        let refused = client.send("GET / HTTP/1.1\r\n\r\n").response();
        assert_eq!((refused.status, refused.field("server")), (400, expected));
    }
    for text in ["a\r\nB: c", "a\0", "gr\u{f6}\u{df}e", " a", "a "] {
        assert_eq!(ServerField::new(text), None, "{text:?}");
    }
}
