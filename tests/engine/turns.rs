//! No connection takes more than its turn, however fast its client sends or reads.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use mcsup_py::app::{Reply, Request, Verdict};

use crate::fixture::*;
use crate::hold::Hold;

/// Clients that send for as long as they are let, and beside them those that they must not keep waiting.
fn beside_floods(head: &str, flood: &[u8], small: impl FnOnce(&Server)) {
    let server = serve(echo);
    let goes_on = &AtomicBool::new(true);
    let mut clients: Vec<Client> = (0..20).map(|_| server.connect()).collect();
    std::thread::scope(|scope| {
        let (begun, has_begun) = mpsc::channel();
        for client in &mut clients {
            let (mut stream, begun) = (client.send(head).stream.try_clone().unwrap(), begun.clone());
            scope.spawn(move || {
                while goes_on.load(Ordering::SeqCst) && stream.write_all(flood).is_ok() {
                    let _ = begun.send(());
                }
            });
        }
        for _ in 0..200 {
            has_begun.recv_timeout(PATIENCE).unwrap();
        }
        let _end = End(goes_on, &clients);
        small(&server);
    });
}

/// Ends floods, also where the test fails.
struct End<'a>(&'a AtomicBool, &'a [Client]);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
        for client in self.1 {
            let _ = client.stream.shutdown(Shutdown::Both);
        }
    }
}

fn ask_some_times(server: &Server) {
    let beats = server.host.beats.load(Ordering::SeqCst);
    let mut kept = server.connect();
    for _ in 0..20 {
        assert_eq!(kept.get("/kept").status, 200);
        assert_eq!(server.connect().get("/new").status, 200);
    }
    assert!(server.host.beats.load(Ordering::SeqCst) > beats, "no sign of life");
}

#[test]
fn chunks_of_a_byte_without_end_keep_no_other_client_waiting() {
    let head = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    beside_floods(head, &b"1\r\nx\r\n".repeat(4096), ask_some_times);
}

#[test]
fn a_body_that_is_sent_as_fast_as_it_is_taken_keeps_no_other_client_waiting() {
    let head = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1073741824\r\n\r\n";
    beside_floods(head, &[b'x'; 64 * 1024], ask_some_times);
}

#[test]
fn many_requests_that_were_sent_ahead_do_not_come_before_one_of_another_client() {
    let (order, came) = mpsc::channel();
    let hold = Hold::default();
    let held = hold.clone();
    let server = serve(move |request: Request<'_>, reply: &mut dyn Reply| {
        order.send(String::from_utf8_lossy(request.head.path()).into_owned()).unwrap();
        if request.head.path() == b"/first" {
            held.stay();
        }
        echo(request, reply)
    });
    let (mut many, mut one) = (server.connect(), server.connect());
    assert_eq!(one.get("/").status, 200);
    many.send("GET /first HTTP/1.1\r\nHost: h\r\n\r\n");
    hold.wait_inside(1);
    many.send("GET /many HTTP/1.1\r\nHost: h\r\n\r\n".repeat(50));
    one.send("GET /one HTTP/1.1\r\nHost: h\r\n\r\n");
    hold.let_go();
    assert_eq!(one.response().status, 200);
    for _ in 0..51 {
        assert_eq!(many.response().status, 200);
    }
    let paths: Vec<String> = came.try_iter().collect();
    let place = paths.iter().position(|path| path == "/one").unwrap();
    assert!(place < 10, "{place} came before it: {paths:?}");
}

#[test]
fn a_file_and_a_block_leave_whole_in_many_turns() {
    const SIZE: usize = 5 << 20;
    let bytes: Vec<u8> = (0..SIZE).map(|i| (i % 251) as u8).collect();
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    let sent = bytes.clone();
    let server = serve(move |request: Request<'_>, reply: &mut dyn Reply| {
        let _ = match request.head.path() {
            b"/file" => reply.send_file(&ok(&[]), file.try_clone().unwrap(), 0, SIZE as u64),
            b"/block" => reply.send_block(&ok(&[]), Box::new(sent.clone())),
            _ => return echo(request, reply),
        };
        Verdict::Complete
    });
    let mut clients: Vec<Client> = (0..6).map(|_| server.connect()).collect();
    for _ in 0..2 {
        for (client, path) in clients.iter_mut().zip(["/file", "/block"].into_iter().cycle()) {
            // The next request is there before the answer has left.
            client
                .send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\nGET /next HTTP/1.1\r\nHost: h\r\n\r\n"));
        }
        std::thread::scope(|scope| {
            for client in &mut clients {
                let bytes = &bytes;
                scope.spawn(move || {
                    assert!(client.response().body == *bytes);
                    assert_eq!(client.response().text(), "GET /next ");
                });
            }
        });
    }
}

#[test]
fn a_large_answer_that_waits_for_its_client_lets_the_permit_go() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 30).unwrap();
    let server = serve(move |request: Request<'_>, reply: &mut dyn Reply| {
        if request.head.path() != b"/file" {
            return echo(request, reply);
        }
        let _ = reply.send_file(&ok(&[]), file.try_clone().unwrap(), 0, 1 << 30);
        Verdict::Complete
    });
    let goes_on = AtomicBool::new(true);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (mut reader, goes_on) = (server.connect(), &goes_on);
            scope.spawn(move || {
                let mut piece = vec![0; 1 << 20];
                reader.send("GET /file HTTP/1.1\r\nHost: h\r\n\r\n");
                while goes_on.load(Ordering::SeqCst) && matches!(reader.stream.read(&mut piece), Ok(1..)) {}
            });
        }
        wait_for("both to be asked for", || server.host.requests.load(Ordering::SeqCst) == 2);
        ask_some_times(&server);
        goes_on.store(false, Ordering::SeqCst);
    });
}

/// How many bytes a thread has read, from files and otherwise.
#[cfg(target_os = "linux")]
fn read_by(thread: i32) -> u64 {
    let told = std::fs::read_to_string(format!("/proc/self/task/{thread}/io")).unwrap();
    told.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn the_thread_that_has_called_the_application_does_not_read_a_large_file_for_a_client() {
    const SIZE: u64 = 512 * 1024;
    let file = tempfile::tempfile().unwrap();
    file.set_len(SIZE).unwrap();
    let (tell, told) = mpsc::channel();
    let server = serve(move |request: Request<'_>, reply: &mut dyn Reply| {
        tell.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
        if request.head.path() == b"/file" {
            let _ = reply.send_file(&ok(&[]), file.try_clone().unwrap(), 0, SIZE);
            return Verdict::Complete;
        }
        echo(request, reply)
    });
    let mut client = server.connect();
    assert_eq!(client.get("/").status, 200);
    let thread = told.recv().unwrap();
    let before = read_by(thread);
    // Alone, and with requests behind it, so that answers may leave together.
    client.send("GET /file HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.response().body.len() as u64, SIZE);
    let mut others = [server.connect(), server.connect()];
    for other in &mut others {
        other.send("GET /file HTTP/1.1\r\nHost: h\r\n\r\n".repeat(2));
    }
    for other in &mut others {
        assert!([other.response(), other.response()].iter().all(|file| file.body.len() as u64 == SIZE));
    }
    assert!(told.try_iter().all(|other| other == thread));
    assert!(read_by(thread) - before < SIZE, "{}", read_by(thread) - before);
}
