//! An engine that retires while a sibling goes on: its clients notice nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use mcsup_core::Phase;

use crate::fixture::*;
use crate::hold::Hold;
use crate::pool::Pool;

fn start(pool: &Arc<Pool>, index: usize, hold: &Hold) -> Server {
    start_with(pool, index, hold, Setup::default())
}

fn start_with(pool: &Arc<Pool>, index: usize, hold: &Hold, setup: Setup) -> Server {
    let server = Setup { seat: pool.seat(index), ..setup }.start_threads(hold.apps(1));
    wait_for("the engine to accept", || pool.line(index).permits.load(Ordering::SeqCst) == 1);
    server
}

fn connections(server: &Server) -> usize {
    server.host.connections.load(Ordering::SeqCst)
}

/// Clients that have had an answer, and some that have said nothing.
fn clients(server: &Server, kept: usize, fresh: usize) -> (Vec<Client>, Vec<Client>) {
    let before = connections(server);
    let mut kept: Vec<Client> = (0..kept).map(|_| server.connect()).collect();
    assert!(kept.iter_mut().all(|client| client.get("/").status == 200));
    let fresh: Vec<Client> = (0..fresh).map(|_| server.connect()).collect();
    wait_for("them all", || connections(server) == before + kept.len() + fresh.len());
    (kept, fresh)
}

/// Asserts that the connection goes on.
fn goes_on(client: &mut Client) {
    let response = client.get("/next");
    assert_eq!((response.text(), response.field("connection")), ("GET /next ", None));
}

#[test]
fn idle_clients_go_to_the_sibling_and_the_engine_ends_at_once() {
    // The real queue takes as few as ten.
    for room in [usize::MAX, 1] {
        let (pool, hold) = (Pool::of(2), Hold::default());
        pool.room.store(room, Ordering::SeqCst);
        let old = start(&pool, 0, &hold);
        let (mut kept, mut fresh) = clients(&old, 20, 5);
        let new = start(&pool, 1, &hold);
        old.enter(Phase::Retiring);
        old.join();
        wait_for("them to arrive", || connections(&new) == 25);
        kept.iter_mut().chain(&mut fresh).for_each(goes_on);
        assert_eq!(connections(&new), 25);
        assert_eq!(pool.handed().len(), 25);
    }
}

#[test]
fn a_client_that_has_sent_only_an_empty_line_goes_to_the_sibling() {
    let (pool, hold) = (Pool::of(2), Hold::default());
    let old = start(&pool, 0, &hold);
    let (mut kept, mut fresh) = clients(&old, 2, 2);
    kept[0].send("\r\n");
    kept[1].send("\r");
    fresh[0].send("\r\n");
    fresh[1].send("\r\n\r");
    // Answered behind those bytes.
    kept.extend(clients(&old, 1, 0).0);
    let new = start(&pool, 1, &hold);
    old.enter(Phase::Retiring);
    old.join();
    wait_for("them to arrive", || connections(&new) == 5);
    kept[1].send("\n");
    fresh[1].send("\n");
    kept.iter_mut().chain(&mut fresh).for_each(goes_on);
}

#[test]
fn clients_that_never_pause_see_no_failure_and_no_closed_connection() {
    let (pool, hold) = (Pool::of(2), Hold::default());
    pool.room.store(3, Ordering::SeqCst);
    let mut engines = [Some(start(&pool, 0, &hold)), Some(start(&pool, 1, &hold))];
    let (over, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for number in 0..8 {
            let mut client = engines[0].as_ref().unwrap().connect();
            let (over, answers) = (&over, &answers);
            scope.spawn(move || {
                let post = "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nbody.";
                while !over.load(Ordering::SeqCst) {
                    let (response, text) = if number % 2 == 0 {
                        (client.get("/g"), "GET /g ")
                    } else {
                        (client.send(post).response(), "POST /p body.")
                    };
                    assert_eq!((response.text(), response.field("connection")), (text, None));
                    answers.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        // Stops the clients also where this fails.
        let stop = Stop(&over);
        for round in 0..20 {
            let before = answers.load(Ordering::SeqCst);
            wait_for("answers", || answers.load(Ordering::SeqCst) > before + 200);
            let index = round % 2;
            let old = engines[index].take().unwrap();
            old.enter(Phase::Retiring);
            old.join();
            engines[index] = Some(start(&pool, index, &hold));
        }
        drop(stop);
    });
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_connection_with_an_open_answer_follows_after_that_answer() {
    let (pool, hold, other) = (Pool::of(2), Hold::default(), Hold::default());
    let old = start(&pool, 0, &hold);
    let (mut kept, _) = clients(&old, 1, 0);
    let mut held = hold.occupy(&old, 1);
    let new = start(&pool, 1, &other);
    old.enter(Phase::Retiring);
    goes_on(&mut kept[0]);
    assert_eq!(connections(&new), 1);
    hold.let_go();
    let response = held[0].response();
    assert_eq!((response.text(), response.field("connection")), ("GET /hold ", None));
    old.join();
    goes_on(&mut held[0]);
    assert_eq!(connections(&new), 2);
}

#[test]
fn where_no_sibling_takes_them_their_time_is_bounded() {
    let (pool, hold) = (Pool::of(2), Hold::default());
    let mut setup = Setup::default();
    setup.config.timeouts.keep_alive = Duration::from_millis(300);
    let old = start_with(&pool, 0, &hold, setup);
    let (mut kept, _) = clients(&old, 2, 0);
    // A sibling that is inside the application, for good.
    pool.line(1).running.store(1, Ordering::SeqCst);
    pool.line(1).permits.store(1, Ordering::SeqCst);
    old.enter(Phase::Retiring);
    goes_on(&mut kept[0]);
    let mut said = None;
    while said.is_none() {
        let response = kept[0].get("/");
        assert_eq!(response.status, 200);
        said = response.field("connection").map(str::to_owned);
    }
    assert_eq!(said.as_deref(), Some("close"));
    // Active clients and silent ones.
    kept.iter_mut().for_each(Client::assert_ended);
    old.join();
    assert!(pool.handed().is_empty());
}

#[test]
fn the_last_one_takes_back_connections_that_no_sibling_has_taken() {
    let (pool, hold) = (Pool::of(2), Hold::default());
    let old = start(&pool, 0, &hold);
    let (mut kept, _) = clients(&old, 2, 0);
    let mut held = hold.occupy(&old, 1);
    // A sibling that looks idle, and is gone before it takes anything.
    pool.line(1).permits.store(1, Ordering::SeqCst);
    for client in &mut kept {
        client.send("GET /queued HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    wait_for("both to be handed over", || pool.handed().len() == 2);
    pool.line(1).permits.store(0, Ordering::SeqCst);
    old.enter(Phase::Retiring);
    hold.let_go();
    assert_eq!(held[0].response().field("connection"), Some("close"));
    for client in &mut kept {
        let response = client.response();
        assert_eq!((response.text(), response.field("connection")), ("GET /queued ", Some("close")));
        client.assert_ended();
    }
    old.join();
}

#[test]
fn a_busy_client_gets_connection_close_in_a_drain_and_is_not_cut_off() {
    for _ in 0..20 {
        let server = serve(echo);
        let mut client = server.connect();
        assert_eq!(client.get("/").status, 200);
        std::thread::scope(|scope| {
            let client = scope.spawn(move || {
                while client.get("/").field("connection").is_none() {}
                client.assert_ended();
            });
            let before = server.host.requests.load(Ordering::SeqCst);
            wait_for("requests", || server.host.requests.load(Ordering::SeqCst) > before + 5);
            server.enter(Phase::Draining);
            client.join().unwrap();
        });
        server.join();
    }
}
