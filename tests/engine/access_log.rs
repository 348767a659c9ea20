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
fn a_log_that_was_moved_away_is_opened_anew_when_asked() {
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
fn a_refused_upload_is_named() {
    let (_dir, path, server) = logging(r#"%(m)s %(U)s %(s)s"#);
    let head = "POST /up HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(server.connect().send(head).send("x\r\n").response().status, 400);
    wait_for("a line", || fs::read_to_string(&path).unwrap() == "POST /up 400\n");
}
