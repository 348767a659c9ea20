//! Small answers of a quick application leave together, and none waits for long.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use mcsup_py::app::{Reply, Request, Verdict};

use crate::fixture::*;

/// Clients that ask for something quick all the time, so that there are always requests that are ready together.
fn busy(server: &Server, over: &AtomicBool) {
    let mut client = server.connect();
    while !over.load(Ordering::SeqCst) {
        assert_eq!(client.get("/quick").status, 200);
    }
}

#[test]
fn a_complete_answer_reaches_its_client_while_the_application_still_closes_it() {
    for permits in [1, 3] {
        let (received, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let app = move |request: Request<'_>, reply: &mut dyn Reply| {
            reply.send(&ok(&[("Content-Length", "2")]), b"ok").unwrap();
            if request.head.path() == b"/slow-close" {
                // A close() that waits for the client would never end if the answer waited for the close.
                gate.lock().unwrap().recv_timeout(PATIENCE).expect("the client to have its answer");
            }
            Verdict::Complete
        };
        let server = Setup::default().start_threads(vec![app; permits]);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..6).map(|_| scope.spawn(|| busy(&server, &over))).collect();
            let mut slow = server.connect();
            for _ in 0..30 {
                assert_eq!(slow.get("/slow-close").text(), "ok");
                received.send(()).unwrap();
                // The application has become quick again.
                let before = server.host.requests.load(Ordering::SeqCst);
                wait_for("quick requests", || server.host.requests.load(Ordering::SeqCst) > before + 100);
            }
            over.store(true, Ordering::SeqCst);
            for client in clients {
                client.join().unwrap();
            }
        });
    }
}

#[test]
fn answers_that_leave_together_are_each_whole_and_each_at_its_own_client() {
    let server = serve(|request, reply| {
        let text = String::from_utf8_lossy(request.head.path()).into_owned();
        let length = text.len().to_string();
        // In one piece, in two, of unknown length, and the last one of its connection.
        let sent = match text.len() % 4 {
            0 => reply.send_whole(&ok(&[]), text.as_bytes()),
            1 => reply.send(&ok(&[("Content-Length", &length)]), text.as_bytes()),
            2 => reply
                .send(&ok(&[("Content-Length", &length)]), &text.as_bytes()[..1])
                .and_then(|()| reply.send(&ok(&[]), &text.as_bytes()[1..])),
            _ => reply.send(&ok(&[]), text.as_bytes()),
        };
        assert!(sent.is_ok());
        Verdict::Complete
    });
    std::thread::scope(|scope| {
        for client in 0..8 {
            let server = &server;
            scope.spawn(move || {
                let mut kept = server.connect();
                for round in 0..300 {
                    let path = format!("/{client}/{}", "x".repeat(round % 37));
                    assert_eq!(kept.get(&path).text(), path);
                    if round % 50 == 0 {
                        let mut last = server.connect();
                        last.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"));
                        assert_eq!(last.response().text(), path);
                        last.assert_ended();
                    }
                }
            });
        }
    });
}

#[test]
fn pieces_reach_their_client_although_the_application_stays_away_right_behind_them() {
    for permits in [1, 3] {
        let (received, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let app = move |_: Request<'_>, reply: &mut dyn Reply| {
            for round in 0..20 {
                // The others follow on the heels of the first.
                for piece in [format!("{round:02}").as_bytes(), b"ab", b"cd"] {
                    reply.send(&ok(&[]), piece).unwrap();
                }
                gate.lock().unwrap().recv_timeout(PATIENCE).expect("the client to have all of them");
            }
            Verdict::Complete
        };
        let server = Setup::default().start_threads(vec![app; permits]);
        let mut client = server.connect();
        client.send("GET /stream HTTP/1.1\r\nHost: h\r\n\r\n");
        let mut seen = Vec::new();
        for round in 0..20 {
            let end = format!("2\r\n{round:02}\r\n2\r\nab\r\n2\r\ncd\r\n");
            while !String::from_utf8_lossy(&seen).ends_with(&end) {
                let mut piece = [0; 4096];
                let count = std::io::Read::read(&mut client.stream, &mut piece).unwrap();
                assert!(count > 0, "it ended after {:?}", String::from_utf8_lossy(&seen));
                seen.extend_from_slice(&piece[..count]);
            }
            received.send(()).unwrap();
        }
    }
}

#[test]
fn a_file_or_a_block_behind_pieces_in_quick_succession_stays_behind_them() {
    let server = serve(|request, reply| {
        let head = ok(&[("Content-Length", "8")]);
        for piece in [b"a", b"b", b"c", b"d"] {
            reply.send(&head, piece).unwrap();
        }
        if request.head.path() == b"/block" {
            reply.send_block(&head, Box::new(*b"efgh")).unwrap();
        } else {
            let mut file = tempfile::tempfile().unwrap();
            std::io::Write::write_all(&mut file, b"efgh").unwrap();
            reply.send_file(&head, file, 0, 4).unwrap();
        }
        Verdict::Complete
    });
    let mut client = server.connect();
    for _ in 0..50 {
        assert_eq!((client.get("/block").text(), client.get("/file").text()), ("abcdefgh", "abcdefgh"));
    }
}
