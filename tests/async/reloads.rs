//! What clients notice of a reload: nothing.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::Signal;

use crate::client::Client;
use crate::pool::{Pool, wait_for, wait_within};
use crate::roles::{ADDRESS, GATE};

/// A file that handlers wait for.
pub struct Gate(tempfile::TempDir);

impl Gate {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn start(&self, role: &str) -> Pool {
        let pool = Pool::start_with(role, &[(GATE, &self.0.path().join("gate"))]);
        pool.wait_ready(2);
        pool
    }

    pub fn open(&self) {
        std::fs::write(self.0.path().join("gate"), "").unwrap();
    }
}

/// Reloads and waits for the end of the reload. The soak of the example alone takes two seconds.
pub fn reload(pool: &Pool, generation: usize) {
    pool.signal(Signal::HUP);
    let done = format!("Reload done: generation {generation} ");
    wait_within(Duration::from_secs(30), &done, || pool.log().contains(&done));
}

/// A client that asks until it is stopped. It returns the number of responses and the pids in them, in order.
fn closed_loop(
    address: SocketAddr,
    is_over: &Arc<AtomicBool>,
    keeps: bool,
) -> JoinHandle<(usize, Vec<String>)> {
    let is_over = Arc::clone(is_over);
    let mut client = Client::new(address);
    // The connection is with a worker before a reload begins.
    let first = client.get("/").unwrap().body;
    std::thread::spawn(move || {
        let (mut count, mut pids) = (1, vec![first]);
        while !is_over.load(Ordering::Relaxed) {
            let response = client.get("/").unwrap();
            count += 1;
            if pids.last() != Some(&response.body) {
                pids.push(response.body.clone());
            }
            assert!(!response.closes(), "{}", response.head);
            if !keeps {
                client = Client::new(address);
            }
        }
        (count, pids)
    })
}

pub fn clients_of_axum_lose_nothing_over_reloads() {
    let with_argument = |command: &mut Command| {
        let address = command.get_envs().find(|(name, _)| *name == ADDRESS).unwrap().1.unwrap().to_owned();
        command.arg(address);
    };
    let mut pool = Pool::start_changed("example", with_argument);
    pool.wait_ready(4);
    let is_over = Arc::new(AtomicBool::new(false));
    let kept: Vec<_> = (0..6).map(|_| closed_loop(pool.address, &is_over, true)).collect();
    let new: Vec<_> = (0..2).map(|_| closed_loop(pool.address, &is_over, false)).collect();
    for generation in 2..=3 {
        reload(&pool, generation);
        pool.wait_log("has finished", 4 * (generation - 1));
    }
    is_over.store(true, Ordering::Relaxed);
    for client in kept {
        let (_, pids) = client.join().unwrap();
        // The connection was with a worker of each generation.
        assert!(pids.len() >= 3, "{pids:?}");
    }
    let new: usize = new.into_iter().map(|client| client.join().unwrap().0).sum();
    assert!(new > 0);
    assert_eq!(pool.stop().code(), Some(0));
}

pub const FIRST_HALF: &str = "GET / HTTP/1.1\r\nHo";
pub const SECOND_HALF: &str = "st: test\r\n\r\n";

pub fn half_a_request_moves_with_its_connection() {
    let pool = Gate::new().start("web");
    let mut kept: Vec<_> = (0..10).map(|_| Client::new(pool.address)).collect();
    let before: Vec<_> = kept.iter_mut().map(|client| client.get("/").unwrap().body).collect();
    let first = (0..10).map(|_| Client::new(pool.address));
    let mut clients: Vec<_> = kept.into_iter().chain(first).collect();
    clients.iter_mut().for_each(|client| client.send(FIRST_HALF).unwrap());
    reload(&pool, 2);
    pool.wait_log("has finished", 2);
    for mut client in clients {
        client.send(SECOND_HALF).unwrap();
        let response = client.response().unwrap();
        assert!(!before.contains(&response.body) && !response.closes(), "{}", response.head);
        client.get("/").unwrap();
    }
}

pub fn a_connection_whose_upgrade_was_refused_moves_with_half_a_request() {
    let pool = Gate::new().start("web");
    let mut clients = [(); 2].map(|()| Client::new(pool.address));
    let before = clients.each_mut().map(|client| {
        client
            .send("GET / HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: TLS/1.0\r\n\r\n")
            .unwrap();
        client.response().unwrap().body
    });
    clients[0].send(FIRST_HALF).unwrap();
    reload(&pool, 2);
    pool.wait_log("has finished", 2);
    let [mut begun, mut idle] = clients;
    begun.send(SECOND_HALF).unwrap();
    for response in [begun.response(), idle.get("/")].map(Result::unwrap) {
        assert!(!before.contains(&response.body) && !response.closes(), "{}", response.head);
    }
}

pub fn half_a_request_is_answered_at_a_stop() {
    let mut pool = Gate::new().start("web");
    let mut clients = [(); 2].map(|()| Client::new(pool.address));
    clients[0].get("/").unwrap();
    clients.iter_mut().for_each(|client| client.send(FIRST_HALF).unwrap());
    let mut idle = Client::new(pool.address);
    idle.get("/").unwrap();
    pool.signal(Signal::TERM);
    assert!(idle.is_closed());
    for mut client in clients {
        client.send(SECOND_HALF).unwrap();
        assert!(client.response().unwrap().closes());
    }
    assert_eq!(pool.wait().code(), Some(0));
}

pub fn a_response_in_progress_ends_and_its_connection_moves() {
    let gate = Gate::new();
    let pool = gate.start("web");
    let mut streamed = Client::new(pool.address);
    let before = streamed.get("/").unwrap().body;
    streamed.send("GET /streamed HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let head = streamed.head().unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(streamed.line().unwrap(), "first\n");
    let mut gated = Client::new(pool.address);
    gated.send("GET /gated HTTP/1.1\r\nHost: test\r\n\r\nGET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    reload(&pool, 2);
    gate.open();
    assert_eq!(streamed.line().unwrap(), "second\n");
    // The old worker answers a request that arrives before the connection has moved.
    let streamed = RefCell::new(streamed);
    wait_for("the connection to move", || streamed.borrow_mut().get("/").unwrap().body != before);
    // The second request was sent with the first one.
    for _ in 0..2 {
        assert!(!gated.response().unwrap().closes());
    }
    let peer = gated.get("/peer").unwrap().body;
    assert!(peer.starts_with("Some(127.0.0.1:"), "{peer}");
}

pub fn a_request_whose_client_leaves_does_not_hold_its_worker() {
    let pool = Gate::new().start("web");
    let mut client = Client::new(pool.address);
    client.get("/").unwrap();
    client.send("GET /gated HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    reload(&pool, 2);
    drop(client);
    pool.wait_log("has finished", 2);
}

pub fn a_body_that_was_not_read_does_not_become_a_request() {
    let gate = Gate::new();
    let pool = gate.start("web");
    let hidden = "GET / HTTP/1.1\r\nHost: test\r\n\r\n".repeat(1000);
    let mut client = Client::new(pool.address);
    let length = hidden.len();
    client.send(&format!("POST /unread HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n")).unwrap();
    client.send(&hidden[..31]).unwrap();
    reload(&pool, 2);
    gate.open();
    client.response().unwrap();
    // The server may reset the connection meanwhile.
    let _ = client.send(&hidden[31..]);
    assert!(client.response().is_err());
}
