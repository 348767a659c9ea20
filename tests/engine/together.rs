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
                // What a close() does that waits for the client: in vain, if the answer waited for the close.
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
