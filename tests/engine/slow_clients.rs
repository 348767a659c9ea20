//! Slow clients delay no other client, and end at their deadline.

use std::sync::atomic::Ordering;
use std::time::Duration;

use mcsup_py::engine::{EngineConfig, Timeouts};

use crate::fixture::*;

fn hasty(timeouts: Timeouts) -> Setup {
    Setup { config: EngineConfig { timeouts, ..EngineConfig::default() }, ..Setup::default() }
}

#[test]
fn limits_that_the_clock_cannot_hold_are_none() {
    let ever = Duration::MAX;
    let server =
        hasty(Timeouts { head: ever, body: ever, keep_alive: ever, write: ever, request: Some(ever) })
            .start(echo);
    let mut client = server.connect();
    for _ in 0..2 {
        client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n");
        client.send("hello");
        assert_eq!(client.response().status, 200);
    }
}

fn long() -> Timeouts {
    Setup::default().config.timeouts
}

const SHORT: Duration = Duration::from_millis(300);

#[test]
fn half_heads_and_silent_clients_delay_no_other_and_end_at_their_deadline() {
    let server = hasty(Timeouts { head: SHORT, ..long() }).start(echo);
    let mut half: Vec<Client> = (0..50).map(|_| server.connect()).collect();
    for client in &mut half {
        client.send("GET / HTTP/1.1\r\nHos");
    }
    let mut silent: Vec<Client> = (0..50).map(|_| server.connect()).collect();
    for _ in 0..20 {
        assert_eq!(server.connect().get("/").status, 200);
    }
    for client in &mut half {
        assert_eq!(client.response().status, 408);
        client.assert_ended();
    }
    for client in &mut silent {
        client.assert_ended();
    }
    drop((half, silent));
    wait_for("all connections to be gone", || server.host.connections.load(Ordering::SeqCst) == 0);
}

#[test]
fn a_head_that_drips_does_not_move_its_deadline() {
    let server = hasty(Timeouts { head: SHORT, ..long() }).start(echo);
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n");
    let mut dripping = client.stream.try_clone().unwrap();
    let drip = std::thread::spawn(move || {
        use std::io::Write;
        while dripping.write_all(b"X: y\r\n").is_ok() {
            std::thread::sleep(SHORT / 20);
        }
    });
    assert_eq!(client.response().status, 408);
    client.stream.shutdown(std::net::Shutdown::Both).unwrap();
    drip.join().unwrap();
}

#[test]
fn a_body_may_take_long_while_it_moves_and_is_given_up_when_it_stands() {
    let server = hasty(Timeouts { body: SHORT, ..long() }).start(echo);
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n");
    let start = std::time::Instant::now();
    for _ in 0..9 {
        client.send("x");
        // The pace of the client is what is tested here.
        std::thread::sleep(SHORT / 6);
    }
    assert!(start.elapsed() > SHORT);
    client.send("x");
    assert_eq!(client.response().text(), "POST / xxxxxxxxxx");
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nx");
    assert_eq!(client.response().status, 408);
}

#[test]
fn an_idle_connection_ends_at_its_deadline_without_a_word() {
    let server = hasty(Timeouts { keep_alive: SHORT, ..long() }).start(echo);
    let mut client = server.connect();
    assert_eq!(client.get("/").status, 200);
    client.assert_ended();
}

#[test]
fn a_connection_that_has_sent_only_empty_lines_is_idle() {
    let timeouts = Timeouts { head: long().head, keep_alive: SHORT, ..long() };
    let server = hasty(timeouts).start(echo);
    let mut kept = server.connect();
    kept.send("POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx\r\n\r\n");
    assert_eq!(kept.response().text(), "POST /p x");
    kept.assert_ended();
    let server = hasty(Timeouts { head: SHORT, ..long() }).start(echo);
    for sent in ["\r\n", "\r", "\r\n\r\n\r"] {
        let mut fresh = server.connect();
        fresh.send(sent);
        fresh.assert_ended();
    }
}

#[test]
fn a_client_that_takes_nothing_is_given_up() {
    let server = hasty(Timeouts { write: SHORT, ..long() }).start(|request, reply| {
        if request.head.path() == b"/large" {
            let _ = reply.send_whole(&ok(&[]), &vec![b'x'; 16 << 20]);
            return mcsup_py::app::Verdict::Complete;
        }
        echo(request, reply)
    });
    let mut client = server.connect();
    client.send("GET /large HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_for("the request", || server.host.requests.load(Ordering::SeqCst) == 1);
    wait_for("the connection's end", || server.host.connections.load(Ordering::SeqCst) == 0);
}
