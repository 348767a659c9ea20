//! Request bodies.

use std::sync::atomic::Ordering;

use mcsup_py::app::{Body, Reply, Request, Verdict};
use mcsup_py::engine::EngineConfig;
use mcsup_py::engine::Limits;

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
fn a_body_that_the_application_left_alone_is_not_taken_for_a_request() {
    let server = serve(|request, reply| {
        let path = String::from_utf8_lossy(request.head.path()).into_owned();
        let _ = reply.send_whole(&ok(&[]), path.as_bytes());
        Verdict::Complete
    });
    let mut client = server.connect();
    let small = "GET /forged HTTP/1.1\r\nHost: h\r\n\r\n";
    // Beyond what is kept in memory.
    let large = small.repeat(4000);
    for body in [small, &large] {
        let (post, length) = ("POST /asked HTTP/1.1\r\nHost: h\r\n", body.len());
        for request in [
            format!("{post}Content-Length: {length}\r\n\r\n{body}"),
            format!("{post}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"),
        ] {
            // The next request comes along with it.
            client.send(format!("{request}GET /next HTTP/1.1\r\nHost: h\r\n\r\n"));
            assert_eq!(client.response().text(), "/asked");
            assert_eq!(client.response().text(), "/next");
        }
    }
}

#[test]
fn a_body_ends_where_it_was_said_to_end_and_what_follows_is_the_next_request() {
    let server = serve(echo);
    let mut client = server.connect();
    client.send("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcPOST /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\nGET /c HTTP/1.1\r\nHost: h\r\n\r\n");
    for expected in ["POST /a abc", "POST /b de", "GET /c "] {
        assert_eq!(client.response().text(), expected);
    }
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
fn a_size_may_have_zeros_in_front_and_a_trailer_many_fields() {
    let server = serve(echo);
    let mut client = server.connect();
    let fields = |count: usize| "X: y\r\n".repeat(count);
    let head = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(format!("{head}00000000000000005\r\nhello\r\n000000000000000000\r\n{}\r\n", fields(100)));
    assert_eq!(client.response().text(), "POST / hello");
    client.send(format!("{head}0\r\n{}\r\n", fields(101)));
    assert_eq!(client.response().status, 431);
}

#[test]
fn a_client_that_expects_it_gets_100_continue() {
    let server = serve(echo);
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert_eq!(client.response().status, 100);
    client.send("hi");
    assert_eq!(client.response().text(), "POST / hi");
    // Bytes that are there already need no permission.
    client.send("POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nho");
    assert_eq!(client.response().text(), "POST / ho");
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(client.response().status, 100);
    client.send("2\r\nhi\r\n0\r\n\r\n");
    assert_eq!(client.response().text(), "POST / hi");
}

#[test]
fn an_expectation_is_a_list_whose_empty_members_say_nothing() {
    let server = serve(echo);
    for (value, continues) in [
        ("", false),
        (",", false),
        ("100-continue, 100-continue", true),
        ("100-continue,", true),
        (" , 100-Continue", true),
    ] {
        let mut client = server.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: h\r\nExpect: {value}\r\nContent-Length: 2\r\n\r\n"));
        if continues {
            assert_eq!(client.response().status, 100, "{value:?}");
        }
        client.send("hi");
        assert_eq!(client.response().text(), "POST / hi", "{value:?}");
    }
}

#[test]
fn a_client_without_a_body_or_of_http_1_0_gets_no_100_continue() {
    let server = serve(echo);
    for head in [
        "GET / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n",
    ] {
        assert_eq!(server.connect().send(head).response().status, 200, "{head}");
    }
    let mut client = server.connect();
    client.send("GET /warm HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(client.response().status, 200);
    client.send("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    // The engine has read that head once it has answered a client that came after it.
    assert_eq!(server.connect().get("/").status, 200);
    client.send("hi");
    let response = client.response();
    assert_eq!((response.status, response.text()), (200, "POST / hi"));
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

#[test]
fn bodies_of_some_size_are_kept_in_memory_and_give_it_back() {
    let server = serve(|request, reply| {
        let text = match &request.body {
            Body::Memory(bytes) => format!("memory {}", bytes.len()),
            other => format!("{other:?}"),
        };
        let _ = reply.send_whole(&ok(&[]), text.as_bytes());
        Verdict::Complete
    });
    let body = vec![b'x'; 1 << 20];
    let mut client = server.connect();
    // More in all than there is memory for at once: answered, refused and given up alike.
    for round in 0..60 {
        let mut own = server.connect();
        let client = if round % 3 == 0 { &mut client } else { &mut own };
        client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1048576\r\n\r\n");
        if round % 3 == 1 {
            client.send(&body[..1000]).stream.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(client.response().status, 400);
        } else {
            assert_eq!(client.send(&body).response().text(), "memory 1048576");
        }
    }
}

#[test]
fn bodies_that_all_come_at_once_do_not_take_more_memory_than_there_is_for_them() {
    let server = serve(|request, reply| {
        let kind = if matches!(request.body, Body::Memory(_)) { "memory" } else { "file" };
        let _ = reply.send_whole(&ok(&[]), kind.as_bytes());
        Verdict::Complete
    });
    let body = vec![b'x'; 2 << 20];
    let mut clients: Vec<Client> = (0..20).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2097152\r\n\r\nx");
        // The engine has seen it: a request of its own is answered after it.
        assert_eq!(server.connect().get("/").text(), "file");
    }
    // The others hold the memory meanwhile: those that came last do not get it.
    let mut kinds: Vec<String> =
        clients.iter_mut().rev().map(|client| client.send(&body[1..]).response().text().to_owned()).collect();
    kinds.dedup();
    assert_eq!(kinds, ["file", "memory"]);
}

#[test]
fn a_long_head_stays_that_of_its_request_until_its_small_body_has_come() {
    let server = serve(|request: Request<'_>, reply: &mut dyn Reply| {
        let head = request.head;
        let text = format!("{} {}", head.method(), String::from_utf8_lossy(head.target()));
        let _ = reply.send_whole(&ok(&[]), format!("{text} {}", head.headers().count()).as_bytes());
        Verdict::Complete
    });
    // What this one was received with is there for the next that receives.
    let mut other = server.connect();
    assert_eq!(other.get("/other").text(), "GET /other 1");
    let mut client = server.connect();
    let fields = format!("X: {}\r\n", "x".repeat(8000)).repeat(3);
    let head = "POST /long HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n";
    client.send(format!("{head}{fields}\r\n"));
    assert_eq!(client.response().status, 100);
    assert_eq!(other.get("/other").text(), "GET /other 1");
    client.send("he");
    assert_eq!(other.get("/other").text(), "GET /other 1");
    assert_eq!(client.send("llo").response().text(), "POST /long 6");
}

#[test]
fn bodies_that_hold_all_memory_and_do_not_end_do_not_make_others_wait_for_it() {
    let server = serve(|request, reply| {
        let kind = if matches!(request.body, Body::Memory(_)) { "memory" } else { "file" };
        let _ = reply.send_whole(&ok(&[]), kind.as_bytes());
        Verdict::Complete
    });
    let mut held: Vec<Client> = (0..16).map(|_| server.connect()).collect();
    for (count, client) in (0..).zip(&mut held) {
        // A little is left, enough for the next one.
        let length = if count == 0 { 1_900_000 } else { 2 << 20 };
        client.send(format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\nx"));
    }
    let body = "x".repeat(70_000);
    let request = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    for _ in 0..5 {
        assert_eq!(server.connect().send(&request).response().text(), "memory");
    }
}

#[test]
fn a_chunk_size_line_that_the_grammar_does_not_have_is_refused() {
    let server = serve(echo);
    let head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    for line in [
        &b"5 "[..],
        b"5\t",
        b"5;",
        b"5; ",
        b"5;a;;b",
        b"5;a;",
        b"5;a ",
        b"5;a=",
        b"5;a=b ",
        b"5;bad[=x",
        b"5;\xe9",
        b"5;a=\xe9",
        b"5;a=\"b",
        b"5;a=\"b\"c",
        b"5 5",
        b" 5",
        b"5;a b",
    ] {
        let mut client = server.connect();
        let response = client.send([head, line, b"\r\nhello\r\n0\r\n\r\n"].concat()).response();
        assert_eq!(
            (response.status, response.field("connection")),
            (400, Some("close")),
            "{}",
            line.escape_ascii()
        );
    }
    for line in [&b"5"[..], b"5;a;b", b"5 ;\ta = b;c", b"5;a=\"\xe9 ;=\\\"\""] {
        let mut client = server.connect();
        for byte in [head, line, b"\r\nhello\r\n0", &line[1..], b"\r\n\r\n"].concat() {
            client.send([byte]);
        }
        assert_eq!(client.response().text(), "POST / hello", "{}", line.escape_ascii());
    }
    assert_eq!(server.host.requests.load(Ordering::SeqCst), 4);
}
