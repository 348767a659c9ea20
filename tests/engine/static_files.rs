//! Files that the engine serves itself.

use std::fs;
use std::io::Read;
use std::sync::atomic::Ordering;

use mcsup_core::Phase;
use mcsup_py::engine::{EngineConfig, StaticFiles};

use crate::fixture::*;
use crate::hold::Hold;

/// A folder that is served under `/static`, with a small file and one of several turns.
fn folder() -> (tempfile::TempDir, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let large: Vec<u8> = (0..5_000_000_u32).map(|at| (at % 251) as u8).collect();
    fs::write(folder.path().join("small.txt"), "small").unwrap();
    fs::write(folder.path().join("large.bin"), &large).unwrap();
    (folder, large)
}

fn setup(folder: &tempfile::TempDir) -> Setup {
    let mut static_files = StaticFiles::default();
    static_files.add("/static", folder.path()).unwrap();
    let setup = Setup::default();
    Setup { config: EngineConfig { static_files, ..setup.config }, ..setup }
}

#[test]
fn a_file_needs_no_permit_and_is_not_a_request_of_the_application() {
    let (folder, _) = folder();
    let hold = Hold::default();
    let server = setup(&folder).start_threads(hold.apps(1));
    let mut busy = hold.occupy(&server, 1);
    let requests = server.host.requests.load(Ordering::SeqCst);
    let mut client = server.connect();
    for _ in 0..3 {
        let response = client.get("/static/small.txt");
        assert_eq!((response.status, response.text()), (200, "small"));
        assert_eq!(response.field("connection"), None);
    }
    assert_eq!(server.host.requests.load(Ordering::SeqCst), requests);
    hold.let_go();
    assert_eq!(busy.remove(0).response().status, 200);
}

#[test]
fn files_and_answers_of_the_application_keep_their_order_on_a_connection() {
    let (folder, large) = folder();
    let server = setup(&folder).start(echo);
    let mut client = server.connect();
    for path in ["/static/large.bin", "/a", "/static/small.txt", "/static/none", "/static/large.bin", "/b"] {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
    }
    assert!(client.response().body == large);
    assert_eq!(client.response().text(), "GET /a ");
    assert_eq!(client.response().text(), "small");
    // Without a file a path is the application's.
    assert_eq!(client.response().text(), "GET /static/none ");
    assert!(client.response().body == large);
    assert_eq!(client.response().text(), "GET /b ");
}

#[test]
fn ranges_conditions_and_head_are_answered() {
    let (folder, large) = folder();
    let server = setup(&folder).start(echo);
    let mut client = server.connect();
    let mut ask = |method: &str, field: &str| {
        client.send(format!("{method} /static/large.bin HTTP/1.1\r\nHost: h\r\n{field}\r\n"));
        client.response_to(method)
    };
    let head = ask("HEAD", "");
    assert_eq!((head.status, head.field("content-length")), (200, Some("5000000")));
    let part = ask("GET", "Range: bytes=-3000000\r\n");
    assert_eq!((part.status, part.field("content-range")), (206, Some("bytes 2000000-4999999/5000000")));
    assert!(part.body == large[2_000_000..]);
    let tag = head.field("etag").unwrap();
    assert_eq!(ask("GET", &format!("If-None-Match: {tag}\r\n")).status, 304);
    assert_eq!(ask("GET", "Range: bytes=5000000-\r\n").status, 416);
    assert_eq!(ask("POST", "Content-Length: 0\r\n").text(), "POST /static/large.bin ");
}

#[test]
fn each_file_is_a_line_of_the_access_log() {
    let (folder, _) = folder();
    let log = folder.path().join("access.log");
    let access = Some(("%(m)s %(U)s %(s)s %(B)s".to_owned(), log.to_str().unwrap().to_owned()));
    let server = Setup { access, ..setup(&folder) }.start(echo);
    let mut client = server.connect();
    client.get("/static/small.txt");
    client.get("/static/none");
    let lines = "GET /static/small.txt 200 5\nGET /static/none 200 17\n";
    wait_for("two lines", || fs::read_to_string(&log).unwrap() == lines);
}

#[test]
fn the_engine_ends_when_its_files_have_left() {
    let (folder, large) = folder();
    let server = setup(&folder).start(echo);
    let mut client = server.connect();
    client.send("GET /static/large.bin HTTP/1.1\r\nHost: h\r\n\r\n");
    // Some of it has come.
    assert!(client.more());
    server.enter(Phase::Draining);
    assert!(client.response().body == large);
    client.assert_ended();
    server.join();
}

#[test]
fn a_file_that_becomes_shorter_while_it_is_sent_does_not_end_like_a_whole_one() {
    let (folder, _) = folder();
    let path = folder.path().join("shrinks.bin");
    // More than the buffers of both sockets have room for.
    fs::write(&path, vec![b'x'; 64 << 20]).unwrap();
    let server = setup(&folder).start(echo);
    let mut client = server.connect();
    client.send("GET /static/shrinks.bin HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(client.more());
    fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    let end = client.stream.read_to_end(&mut Vec::new());
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn a_request_with_a_large_body_gets_the_file_as_one_with_a_small_body_does() {
    let (folder, _) = folder();
    let server = setup(&folder).start(echo);
    let mut client = server.connect();
    // Up to a piece that comes with the head, one that is kept in memory, and one that is kept in a file.
    for length in [3, 100_000, 3_000_000] {
        for path in ["small.txt", "none"] {
            let head = format!("GET /static/{path} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
            client.send(head).send(vec![b'x'; length]);
            let response = client.response();
            match path {
                "none" => assert_eq!(response.body.len(), "GET /static/none ".len() + length),
                _ => assert_eq!(response.text(), "small"),
            }
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_file_that_cannot_be_opened_for_now_is_not_one_that_is_missing() {
    use std::os::fd::AsRawFd;
    let (folder, _) = folder();
    let server = setup(&folder).start(echo);
    let mut client = server.connect();
    assert_eq!(client.get("/static/small.txt").text(), "small");
    let next = fs::File::open("/dev/null").unwrap().as_raw_fd();
    let before = limit_descriptors(u64::try_from(next).unwrap());
    let refused = client.get("/static/small.txt");
    assert_eq!((refused.status, refused.text()), (503, "the file cannot be opened now\n"));
    limit_descriptors(before);
    assert_eq!(server.connect().get("/static/small.txt").text(), "small");
}

#[test]
#[cfg(target_os = "linux")]
fn files_that_clients_take_slowly_leave_descriptors_to_the_application() {
    leaves_descriptors_to_the_application(0);
}

#[test]
#[cfg(target_os = "linux")]
fn connections_that_are_closed_for_a_file_admit_no_more_files_than_there_may_be() {
    leaves_descriptors_to_the_application(20);
}

/// With as many idle connections, which make room.
#[cfg(target_os = "linux")]
fn leaves_descriptors_to_the_application(idle: usize) {
    use std::os::fd::AsRawFd;
    let (folder, _) = folder();
    let open = || fs::File::open("/dev/null").unwrap();
    let limit = u64::try_from(open().as_raw_fd()).unwrap() + 250;
    limit_descriptors(limit);
    let server = setup(&folder).start(|_, reply| {
        let _ = reply.send_block(&ok(&[]), Box::new(vec![b'x'; 16 << 20]));
        mcsup_py::app::Verdict::Complete
    });
    let mut idle: Vec<_> = (0..idle).map(|_| server.connect()).collect();
    for client in &mut idle {
        assert_eq!(client.get("/static/small.txt").status, 200);
    }
    // More than there are in any case. None of them is idle: each waits for its client.
    let mut clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
    let mut last = clients.pop().unwrap();
    for client in &mut clients {
        client.send("GET /large HTTP/1.1\r\nHost: h\r\n\r\n");
        assert!(client.more());
    }
    wait_for("the answers", || server.host.requests.load(Ordering::SeqCst) == clients.len());
    // Of the 64 that are the application's it uses all but a quarter.
    let mut used = Vec::new();
    while used.last().is_none_or(|file: &fs::File| file.as_raw_fd() < i32::try_from(limit).unwrap() - 16) {
        used.push(open());
    }
    assert_eq!(last.get("/static/large.bin").status, 503);
    drop(used);
    assert_eq!(server.connect().get("/static/large.bin").status, 200);
}

/// Sets the limit of descriptors; returns the one before.
#[cfg(target_os = "linux")]
fn limit_descriptors(limit: u64) -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(limit), ..before }).unwrap();
    before.current.unwrap()
}

#[test]
fn a_health_check_is_no_request_for_a_file() {
    let (folder, _) = folder();
    let mut setup = setup(&folder);
    setup.config.health_path = Some("/static/small.txt".into());
    let response = setup.start(echo).connect().get("/static/small.txt");
    assert_eq!(response.status, 200);
    assert_ne!(response.text(), "small");
}
