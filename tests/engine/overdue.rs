//! Requests that take longer than they may.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mcsup_core::Phase;
use mcsup_py::app::ResponseHead;
use mcsup_py::app::{Gone, Verdict};
use mcsup_py::engine::{EngineConfig, Timeouts};

use crate::fixture::*;
use crate::hold::Hold;

fn setup() -> Setup {
    let timeouts = Timeouts { request: Some(Duration::from_millis(200)), ..Setup::default().config.timeouts };
    Setup { config: EngineConfig { timeouts, ..EngineConfig::default() }, ..Setup::default() }
}

fn wait_until_it_wants_to_leave(server: &Server) {
    wait_for("the wish to be replaced", || !server.host.left.lock().unwrap().is_empty());
}

#[test]
fn a_request_over_its_time_gets_504_and_the_worker_wants_to_be_replaced_once() {
    let hold = Hold::default();
    let server = setup().start_threads(hold.apps(1));
    let mut client = hold.occupy(&server, 1).remove(0);
    let response = client.response();
    assert_eq!((response.status, response.text()), (504, "the application did not answer in time\n"));
    assert_eq!(response.field("connection"), Some("close"));
    wait_until_it_wants_to_leave(&server);
    server.enter(Phase::Retiring);
    hold.let_go();
    // The late answer of the application reaches no client.
    client.assert_ended();
    let host = std::sync::Arc::clone(&server.host);
    server.join();
    let left = host.left.lock().unwrap();
    assert_eq!((left.len(), host.stacks_shown.load(Ordering::SeqCst)), (1, 1));
    assert!(left[0].starts_with("GET /hold from 127.0.0.1:"), "{left:?}");
    assert!(left[0].contains("over the request timeout; its client was told (504)"), "{left:?}");
}

#[test]
fn an_answer_that_has_begun_goes_on_to_its_end() {
    let hold = Hold::default();
    let server = setup().start({
        let hold = hold.clone();
        move |_, reply| {
            reply.send(&ok(&[]), b"one ").unwrap();
            hold.stay();
            reply.send(&ok(&[]), b"two").unwrap();
            Verdict::Complete
        }
    });
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    wait_until_it_wants_to_leave(&server);
    assert!(server.host.left.lock().unwrap()[0].ends_with("its client has a part of the answer"));
    hold.let_go();
    assert_eq!(client.response().text(), "one two");
}

#[test]
fn other_permits_go_on_and_finish_what_they_have() {
    let hold = Hold::default();
    let server = setup().start_threads(hold.apps(2));
    let mut stuck = hold.occupy(&server, 1).remove(0);
    assert_eq!(stuck.response().status, 504);
    wait_until_it_wants_to_leave(&server);
    let mut kept = server.connect();
    for _ in 0..20 {
        assert_eq!(kept.get("/").status, 200);
    }
    hold.let_go();
}

#[test]
fn what_waits_when_no_permit_will_ever_be_free_is_refused() {
    let hold = Hold::default();
    let server = setup().start_threads(hold.apps(1));
    let mut kept = server.connect();
    assert_eq!(kept.get("/").status, 200);
    let mut stuck = hold.occupy(&server, 1).remove(0);
    kept.send("GET /waiting HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(stuck.response().status, 504);
    let refused = kept.response();
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("overdue"), "{}", refused.text());
    hold.let_go();
}

#[test]
fn a_request_in_time_is_none_of_the_deadlines_business() {
    let server = setup().start(echo);
    let mut client = server.connect();
    let start = std::time::Instant::now();
    while start.elapsed() < Duration::from_millis(500) {
        assert_eq!(client.get("/").status, 200);
    }
    assert!(server.host.left.lock().unwrap().is_empty());
}

#[test]
fn early_hints_never_follow_the_answer_of_the_deadline() {
    let (hold, said) = (Hold::default(), Arc::new(Mutex::new(None)));
    let server = setup().start({
        let (hold, said) = (hold.clone(), Arc::clone(&said));
        move |_, reply| {
            let mut hints = ResponseHead::new();
            hints.begin(103, b"Early Hints").unwrap();
            reply.send_interim(&hints).unwrap();
            hold.stay();
            *said.lock().unwrap() = Some(reply.send_interim(&hints));
            Verdict::Failed
        }
    });
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.response().status, 103);
    assert_eq!(client.response().status, 504);
    wait_until_it_wants_to_leave(&server);
    server.enter(Phase::Retiring);
    hold.let_go();
    client.assert_ended();
    server.join();
    assert_eq!(*said.lock().unwrap(), Some(Err(Gone)));
}

#[test]
fn head_over_its_time_gets_504_without_a_body() {
    let hold = Hold::default();
    let server = setup().start_threads(hold.apps(1));
    let mut client = server.connect();
    let response = client.send("HEAD /hold HTTP/1.1\r\nHost: h\r\n\r\n").response_to("HEAD");
    assert_eq!((response.status, response.field("content-length")), (504, Some("39")));
    wait_until_it_wants_to_leave(&server);
    server.enter(Phase::Retiring);
    hold.let_go();
    client.assert_ended();
    server.join();
}
