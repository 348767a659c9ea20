//! A broken listener is logged, and the others go on.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use mcsup_py::app::{Reply, Request};

use crate::fixture::*;
use crate::logged::logged;
use crate::pool::Pool;

#[test]
fn a_listener_that_was_shut_down_is_logged_once_and_the_others_serve_on() {
    logged();
    let pool = Pool::of(1);
    let server = Setup { unix: true, seat: pool.seat(0), ..Setup::default() }.start(
        |request: Request<'_>, reply: &mut dyn Reply| {
            // Until no thread accepts any more.
            std::thread::sleep(Duration::from_millis(20));
            echo(request, reply)
        },
    );
    rustix::net::shutdown(&pool.listener, rustix::net::Shutdown::Both).unwrap();
    for _ in 0..10 {
        let mut client = UnixStream::connect(server.unix_path()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    let lines = logged();
    assert_eq!(
        lines.iter().filter(|line| line.contains("no more connections are accepted")).count(),
        1,
        "{lines:?}"
    );
}
