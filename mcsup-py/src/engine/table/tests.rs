use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use super::*;
use crate::app::{Local, Peer};
use crate::net::stream::Stream;

pub(in crate::engine) struct NoHost(pub UnixStream);

impl Host for NoHost {
    fn wake_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
    fn acknowledge(&self) {}
    fn phase(&self) -> Phase {
        Phase::Serving
    }
    fn log_epoch(&self) -> u32 {
        0
    }
    fn beat(&self) {}
    fn request_began(&self) {}
    fn request_ended(&self) {}
    fn connections(&self, _: usize) {}
    fn close_listeners(&self) {}
}

/// Calls `check` with a table.
pub(in crate::engine) fn with_table(check: impl FnOnce(&mut Table<'_>)) {
    let (host, _) = UnixStream::pair().unwrap();
    let (host, poller) = (NoHost(host), Poller::new().unwrap());
    check(&mut Table::new(EngineConfig::default(), Vec::new(), &host, &poller, None));
}

/// Adds a connection; its token, the table's end and its client.
pub(in crate::engine) fn add_connection(
    table: &mut Table<'_>,
    now: Instant,
) -> (u64, UnixStream, UnixStream) {
    let (ours, client) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let peer = Peer { remote: None, local: Local::Unix("s".to_owned()), proxied: None };
    let stream = Stream::from(OwnedFd::from(ours.try_clone().unwrap()));
    (table.connections.add(|token| Connection::new(stream, peer, token, now, now)), ours, client)
}

/// Calls `check` with a table that has one connection, and with its client.
fn with_connection(check: impl FnOnce(&mut Table<'_>, u64, UnixStream)) {
    with_table(|table| {
        let (token, _, client) = add_connection(table, Instant::now());
        check(table, token, client);
    });
}

#[test]
fn a_connection_that_was_queued_when_its_request_was_taken_can_be_queued_again() {
    use std::io::Write;
    with_connection(|table, token, mut client| {
        client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        table.queue(token);
        table.advance(token, Instant::now());
        let job = table.take_job().unwrap();
        // A turn, while the application has the request.
        let next = table.next_in_queue().unwrap();
        assert!(table.begin_turn(next, Instant::now()).is_none());
        table.put_back(job.connection);
        table.queue(token);
        assert_eq!(table.turns.queue.len(), 1);
    });
}

#[test]
fn a_connection_in_its_turn_gets_a_shorter_deadline_too_when_the_engine_begins_to_end() {
    use crate::engine::connection::Step;
    use crate::engine::turn::Work;
    let now = Instant::now();
    for (state, step) in [
        (State::Handshake { begun: true }, Step::Wait),
        (State::Handshake { begun: false }, Step::Wait),
        (State::Idle { fresh: true }, Step::Later),
    ] {
        with_connection(|table, token, _client| {
            let mut connection = table.connections.take(token).unwrap();
            (connection.state, connection.deadline) = (state, now + Duration::from_secs(15));
            table.change_phase(Phase::Draining, now);
            table.end_turn(Work::Connection(connection, step), now);
            assert_eq!(table.find(token).unwrap().deadline, now + Duration::from_secs(1));
        });
    }
}

#[test]
fn the_deadline_of_a_body_does_not_pass_while_it_waits_for_its_place() {
    use std::io::Write;
    with_connection(|table, token, mut client| {
        client.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 70000\r\n\r\n").unwrap();
        table.advance(token, Instant::now());
        assert!(table.has_work() && table.turns.queue.is_empty());
        let much_later = table.connections.find(token).unwrap().deadline + Duration::from_secs(1);
        table.expire(much_later);
        let connection = table.connections.find(token).unwrap();
        assert!(matches!(connection.state, State::Body { .. }) && connection.deadline > much_later);
    });
}
