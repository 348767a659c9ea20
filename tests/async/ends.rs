//! What is left to clients of a worker that ends, by order or not.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;

use crate::client::Client;
use crate::pool::{kill, wait_for};
use crate::reloads::Gate;

pub fn a_killed_worker_loses_only_its_own() {
    let pool = Gate::new().start("web");
    let mut own = Client::new(pool.address);
    let killed = own.get("/").unwrap().body;
    let is_over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..6)
        .map(|_| {
            let (is_over, address) = (Arc::clone(&is_over), pool.address);
            let mut client = Client::new(address);
            let mut worker = client.get("/").unwrap().body;
            std::thread::spawn(move || {
                // Workers whose connections were lost.
                let mut lost = Vec::new();
                while !is_over.load(Ordering::Relaxed) {
                    match client.get("/") {
                        Ok(response) => worker = response.body,
                        Err(_) => {
                            lost.push(worker.clone());
                            client = Client::new(address);
                            worker = client.get("/").unwrap().body;
                        }
                    }
                }
                lost
            })
        })
        .collect();
    kill(killed.parse().unwrap(), Signal::KILL);
    pool.wait_ready(3);
    is_over.store(true, Ordering::Relaxed);
    for lost in clients.into_iter().flat_map(|client| client.join().unwrap()) {
        assert_eq!(lost, killed);
    }
    assert!(own.get("/").is_err());
}

pub fn a_stop_answers_what_has_arrived() {
    let gate = Gate::new();
    let mut pool = gate.start("web");
    let [mut idle, mut silent, mut gated] = [(); 3].map(|()| Client::new(pool.address));
    idle.get("/").unwrap();
    gated.get("/").unwrap();
    gated.send("GET /gated HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let mut queued = Client::new(pool.address);
    queued.send("GET /gated HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    pool.signal(Signal::TERM);
    assert!(idle.is_closed());
    assert!(silent.is_closed());
    gate.open();
    for mut client in [gated, queued] {
        assert!(client.response().unwrap().closes());
        assert!(client.is_closed());
    }
    assert_eq!(pool.wait().code(), Some(0));
}

pub fn an_upgraded_connection_holds_its_worker_until_it_ends() {
    let gate = Gate::new();
    let mut pool = gate.start("web");
    let mut client = Client::new(pool.address);
    client
        .send("GET /upgraded HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: lines\r\n\r\nhello\n")
        .unwrap();
    let head = client.head().unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert_eq!(client.line().unwrap(), "hello\n");
    let mut idle = Client::new(pool.address);
    idle.get("/").unwrap();
    pool.signal(Signal::TERM);
    assert!(idle.is_closed());
    wait_for("one worker with the connection", || pool.workers().len() == 1);
    gate.open();
    assert_eq!(client.line().unwrap(), "the end\n");
    assert_eq!(pool.wait().code(), Some(0));
}

pub fn an_upgrade_whose_request_ends_after_the_order_to_stop_is_granted() {
    let gate = Gate::new();
    let mut pool = gate.start("web");
    let mut client = Client::new(pool.address);
    client.get("/").unwrap();
    client.send("GET /upgraded HTTP/1.1\r\nHost: te").unwrap();
    let mut idle = Client::new(pool.address);
    idle.get("/").unwrap();
    pool.signal(Signal::TERM);
    assert!(idle.is_closed());
    client.send("st\r\nConnection: upgrade\r\nUpgrade: lines\r\n\r\nhello\n").unwrap();
    let head = client.head().unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    gate.open();
    assert_eq!(client.line().unwrap(), "hello\n");
    assert_eq!(client.line().unwrap(), "the end\n");
    assert_eq!(pool.wait().code(), Some(0));
}

pub fn a_worker_of_many_requests_is_replaced() {
    let pool = Gate::new().start("web-of-3-requests");
    let mut client = Client::new(pool.address);
    let mut pids = std::collections::BTreeSet::new();
    while pids.len() < 3 {
        let response = client.get("/").unwrap();
        assert!(!response.closes(), "{}", response.head);
        pids.insert(response.body);
    }
}

pub fn without_a_supervisor_the_port_is_free_at_once() {
    let gate = Gate::new();
    let pool = gate.start("web");
    let mut client = Client::new(pool.address);
    client.get("/").unwrap();
    client.send("GET /gated HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    pool.signal(Signal::KILL);
    wait_for("a free port", || TcpListener::bind(pool.address).is_ok());
    gate.open();
    assert!(client.response().unwrap().closes());
}
