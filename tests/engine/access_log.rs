//! The access log as a file.

use std::fs;

use crate::fixture::*;

fn logging(format: &str) -> (tempfile::TempDir, std::path::PathBuf, Server) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let access = Some((format.to_owned(), path.to_str().unwrap().to_owned()));
    let server = Setup { access, ..Setup::default() }.start(echo);
    (dir, path, server)
}

#[test]
fn every_answer_is_a_line_refusals_too() {
    let (_dir, path, server) = logging(r#"%(m)s %(U)s %(s)s %(b)s"#);
    server.connect().get("/a");
    server.connect().send("nonsense\r\n\r\n").response();
    wait_for("two lines", || fs::read_to_string(&path).unwrap().lines().count() == 2);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().next(), Some("GET /a 200 7"));
    assert!(text.lines().nth(1).unwrap().starts_with("- - 400 "), "{text}");
}

#[test]
fn a_log_that_was_moved_away_is_reopened_on_request() {
    let (dir, path, server) = logging("%(U)s");
    server.connect().get("/before");
    wait_for("a line", || !fs::read_to_string(&path).unwrap().is_empty());
    fs::rename(&path, dir.path().join("old")).unwrap();
    server.reopen_logs();
    wait_for("the new file", || path.exists());
    server.connect().get("/after");
    wait_for("a line", || fs::read_to_string(&path).unwrap() == "/after\n");
    assert_eq!(fs::read_to_string(dir.path().join("old")).unwrap(), "/before\n");
}

#[test]
fn a_refused_head_is_named_where_it_was_understood() {
    let (_dir, path, server) = logging(r#"%(r)s %(s)s %(a)s"#);
    let fields = [
        ("Content-Length: 9999999999999", 413),
        ("Expect: x", 417),
        ("Host: i", 400),
        ("Transfer-Encoding: x", 501),
        ("Content-Length: 1, 1", 400),
    ];
    let mut lines = String::new();
    for (field, status) in fields {
        let head = format!("POST /up HTTP/1.1\r\nHost: h\r\n{field}\r\nUser-Agent: me\r\n\r\n");
        assert_eq!(server.connect().send(head).response().status, status);
        lines.push_str(&format!("POST /up HTTP/1.1 {status} me\n"));
        wait_for("a line", || fs::read_to_string(&path).unwrap() == lines);
    }
}

#[test]
fn a_refused_head_is_named_by_its_line_where_its_fields_were_not_taken_apart() {
    let (_dir, path, server) = logging(r#"%(r)s %(s)s %(a)s"#);
    let long = "x".repeat(9000);
    let mut lines = String::new();
    for (fields, status) in [
        (format!("Cookie: {long}\r\n\r\n"), 431),
        (format!("Cookie: {long}"), 431),
        ("X: y\r\n".repeat(200), 431),
        ("X : y\r\n\r\n".to_owned(), 400),
        ("X: y\r\n z\r\n\r\n".to_owned(), 400),
        ("X: y\x01\r\n\r\n".to_owned(), 400),
        ("X: y\n\r\n".to_owned(), 400),
    ] {
        for (target, version, shown) in [("/a?b", "1.0", "1.0"), ("http://h/\u{e9}", "1.5", "1.1")] {
            let head = format!("PUT {target} HTTP/{version}\r\nHost: h\r\n{fields}");
            assert_eq!(server.connect().send(head).response().status, status);
            let target = target.replace('\u{e9}', r"\xc3\xa9");
            lines.push_str(&format!("PUT {target} HTTP/{shown} {status} -\n"));
            wait_for("a line", || fs::read_to_string(&path).unwrap() == lines);
        }
    }
}

#[test]
fn a_request_that_is_too_slow_is_named_where_its_line_has_come() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let mut setup = Setup::default();
    setup.config.timeouts.head = std::time::Duration::from_millis(100);
    setup.access = Some(("%(r)s %(s)s".to_owned(), path.to_str().unwrap().to_owned()));
    let server = setup.start(echo);
    let mut lines = String::new();
    for (head, line) in [
        ("GET /slow HTTP/1.1\r\nHost: h\r\n", "GET /slow HTTP/1.1 408\n"),
        ("GET /slow HTTP/1.1\r\n", "GET /slow HTTP/1.1 408\n"),
        ("GET /slow", "- 408\n"),
    ] {
        assert_eq!(server.connect().send(head).response().status, 408);
        lines.push_str(line);
        wait_for("a line", || fs::read_to_string(&path).unwrap() == lines);
    }
}

#[test]
fn a_refused_upload_is_named() {
    let (_dir, path, server) = logging(r#"%(m)s %(U)s %(s)s"#);
    let head = "POST /up HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(server.connect().send(head).send("x\r\n").response().status, 400);
    wait_for("a line", || fs::read_to_string(&path).unwrap() == "POST /up 400\n");
}
