//! Where no further connection may be open, those that wait for nothing make room.

use mcsup_py::engine::EngineConfig;
use mcsup_py::engine::Limits;

use crate::fixture::*;

/// An engine with room for `connections`.
fn small(connections: usize) -> Server {
    let limits = Limits { body: 10, ..Limits::default() };
    let config = EngineConfig { connections, limits, ..Setup::default().config };
    Setup { config, ..Setup::default() }.start(echo)
}

const POST: &str = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n";

#[test]
fn silent_clients_keep_no_other_out() {
    let server = small(8);
    let _silent: Vec<Client> = (0..50).map(|_| server.connect()).collect();
    assert_eq!(server.connect().get("/").status, 200);
}

#[test]
fn the_connection_that_has_been_idle_for_the_longest_time_makes_room() {
    let server = small(2);
    let (mut first, mut second) = (server.connect(), server.connect());
    assert_eq!((second.get("/").status, first.get("/").status), (200, 200));
    assert_eq!(server.connect().get("/").status, 200);
    second.assert_ended();
    assert_eq!(first.get("/").status, 200);
}

#[test]
fn a_connection_whose_request_is_arriving_does_not_make_room() {
    let server = small(2);
    let (mut first, mut second) = (server.connect(), server.connect());
    for client in [&mut first, &mut second] {
        client.send(POST).send("ab");
    }
    let mut third = server.connect();
    third.send("GET /third HTTP/1.1\r\nHost: h\r\n\r\n");
    for client in [&mut first, &mut second] {
        // The time is that in which a connection would be closed.
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert_eq!(client.send("cd").response().text(), "POST / abcd");
    }
    assert_eq!(third.response().text(), "GET /third ");
}

#[test]
fn a_connection_that_lingers_makes_room_before_one_that_may_have_another_request() {
    let server = small(2);
    let mut kept = server.connect();
    assert_eq!(kept.get("/").status, 200);
    let mut refused = server.connect();
    refused.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\n");
    assert_eq!(refused.response().status, 413);
    let mut other = server.connect();
    assert_eq!(other.get("/").status, 200);
    for client in [&mut kept, &mut other] {
        assert_eq!(client.get("/").status, 200);
    }
}

#[test]
fn clients_that_do_not_go_on_with_a_head_get_408_and_keep_no_other_out() {
    let server = small(4);
    let mut unfinished: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    for client in &mut unfinished {
        client.send("GET / HTTP/1.1\r\nHo");
    }
    assert_eq!(server.connect().get("/").status, 200);
    assert_eq!(unfinished[0].response().status, 408);
    unfinished[0].assert_ended();
    assert_eq!(unfinished[3].send("st: h\r\n\r\n").response().status, 200);
}
