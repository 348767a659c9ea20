//! More permits than one, and the spare thread that has none.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mcsup_core::Phase;
use mcsup_py::app::{Reply, Request, Verdict};
use mcsup_py::engine::{EngineConfig, Timeouts};

use crate::fixture::*;
use crate::hold::Hold;

#[test]
fn as_many_requests_as_permits_are_inside_at_once_and_no_more() {
    let hold = Hold::default();
    let server = Setup::default().start_threads(hold.apps(4));
    let mut clients = hold.occupy(&server, 4);
    // A fifth waits.
    let mut fifth = server.connect();
    fifth.send("GET /fifth HTTP/1.1\r\nHost: h\r\n\r\n");
    hold.let_go();
    clients.push(fifth);
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    assert_eq!(hold.most.load(Ordering::SeqCst), 4);
}

#[test]
fn a_free_permit_answers_while_the_others_are_busy() {
    let hold = Hold::default();
    let server = Setup::default().start_threads(hold.apps(4));
    let mut clients = hold.occupy(&server, 3);
    let mut kept = server.connect();
    for _ in 0..20 {
        assert_eq!(kept.get("/kept").status, 200);
        assert_eq!(server.connect().get("/fresh").status, 200);
    }
    hold.let_go();
    assert!(clients.iter_mut().all(|client| client.response().status == 200));
}

#[test]
fn many_clients_of_many_permits_all_get_their_own_answers() {
    let apps = (0..8).map(|_| {
        |request: Request<'_>, reply: &mut dyn Reply| {
            if request.head.query() == b"slow" {
                std::thread::sleep(Duration::from_millis(2));
            }
            echo(request, reply)
        }
    });
    let server = Setup::default().start_threads(apps.collect());
    std::thread::scope(|scope| {
        for client in 0..16 {
            let server = &server;
            scope.spawn(move || {
                let mut kept = server.connect();
                for round in 0..100 {
                    let path = format!("/{client}-{round}{}", if round % 3 == 0 { "?slow" } else { "" });
                    let expected = format!("GET {} ", path.split('?').next().unwrap());
                    if round % 10 == 9 {
                        kept = server.connect();
                    }
                    assert_eq!(kept.get(&path).text(), expected);
                }
            });
        }
    });
    assert_eq!(server.host.requests.load(Ordering::SeqCst), 1600);
}

#[test]
fn a_spare_thread_goes_on_receiving_sending_and_closing_while_every_permit_is_inside() {
    for permits in [1, 2] {
        let short = Duration::from_millis(300);
        let timeouts = Timeouts { keep_alive: short, ..Setup::default().config.timeouts };
        let config = EngineConfig { timeouts, ..EngineConfig::default() };
        let hold = Hold::default();
        let apps = (0..permits).map(|_| {
            let hold = hold.clone();
            move |request: Request<'_>, reply: &mut dyn Reply| match request.head.path() {
                b"/hold" => {
                    hold.stay();
                    echo(request, reply)
                }
                b"/large" => {
                    let _ = reply.send_whole(&ok(&[]), &vec![b'x'; 8 << 20]);
                    Verdict::Complete
                }
                _ => echo(request, reply),
            }
        });
        let server = Setup { config, ..Setup::default() }.start_threads(apps.collect());
        let mut idle = server.connect();
        assert_eq!(idle.get("/").status, 200);
        let mut upload = server.connect();
        upload.send("POST /upload HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\nabc");
        let mut download = server.connect();
        download.send("GET /large HTTP/1.1\r\nHost: h\r\n\r\n");
        wait_for("the large answer to be on its way", || server.host.requests.load(Ordering::SeqCst) == 2);
        let mut held = hold.occupy(&server, permits);
        // Deadlines pass, a download is flushed, an upload and a refusal are received.
        idle.assert_ended();
        assert_eq!(download.response().body.len(), 8 << 20);
        upload.send("def nonsense");
        // The rest of the upload has been received when what follows it is looked at; it is answered by a permit.
        assert_eq!(hold.inside.load(Ordering::SeqCst), permits);
        hold.let_go();
        assert_eq!(upload.response().text(), "POST /upload abcdef");
        assert!(held.iter_mut().all(|client| client.response().status == 200));
        // And the quick way is back: one thread, no spare.
        for _ in 0..50 {
            assert_eq!(server.connect().get("/after").status, 200);
        }
    }
}

#[test]
fn while_every_permit_is_inside_new_connections_are_left_to_others() {
    let hold = Hold::default();
    let server = Setup::default().start_threads(hold.apps(1));
    let mut held = hold.occupy(&server, 1);
    // The spare leads by now, or soon: then a connection that arrives stays in the kernel's queue.
    let start = Instant::now();
    let before = server.host.connections.load(Ordering::SeqCst);
    let mut waiting = server.connect();
    waiting.send("GET /waiting HTTP/1.1\r\nHost: h\r\n\r\n");
    while start.elapsed() < Duration::from_millis(100) {
        assert_eq!(server.host.connections.load(Ordering::SeqCst), before, "it was accepted");
        std::thread::yield_now();
    }
    hold.let_go();
    assert_eq!(waiting.response().text(), "GET /waiting ");
    assert_eq!(held[0].response().status, 200);
}

#[test]
fn a_drain_waits_for_every_permit_and_ends_every_thread() {
    for phase in [Phase::Draining, Phase::Retiring] {
        let hold = Hold::default();
        let server = Setup::default().start_threads(hold.apps(4));
        let mut held = hold.occupy(&server, 4);
        let mut idle = server.connect();
        idle.send("GET /idle HTTP/1.1\r\nHost: h\r\n\r\n");
        server.enter(phase);
        hold.let_go();
        for client in &mut held {
            assert_eq!(client.response().field("connection"), Some("close"));
        }
        if phase == Phase::Draining {
            assert_eq!(idle.response().status, 200);
        }
        drop(idle);
        server.join();
    }
}

#[test]
fn a_drain_begins_also_while_every_permit_is_inside() {
    let hold = Hold::default();
    let server = Setup::default().start_threads(hold.apps(1));
    let mut idle = server.connect();
    assert_eq!(idle.get("/").status, 200);
    let mut held = hold.occupy(&server, 1);
    server.enter(Phase::Draining);
    // The spare sees to it.
    idle.assert_ended();
    assert_eq!(hold.inside.load(Ordering::SeqCst), 1);
    hold.let_go();
    assert_eq!(held[0].response().field("connection"), Some("close"));
    server.join();
}

#[test]
fn a_new_client_is_served_while_others_never_let_the_engine_rest() {
    let server = Setup::default().start_threads(vec![|request: Request<'_>, reply: &mut dyn Reply| {
        let start = Instant::now();
        // Busy, as an application is: a sleep would let the engine rest.
        while start.elapsed() < Duration::from_micros(300) {
            std::hint::spin_loop();
        }
        echo(request, reply)
    }]);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let mut most = 0;
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut client = server.connect();
                while !stop.load(Ordering::Relaxed) {
                    client.send("GET /busy HTTP/1.1\r\nHost: h\r\n\r\n").response();
                }
            });
        }
        wait_for("the load", || server.host.requests.load(Ordering::SeqCst) > 200);
        for _ in 0..10 {
            let before = server.host.requests.load(Ordering::SeqCst);
            let _ = server.connect().get("/new");
            let meanwhile = server.host.requests.load(Ordering::SeqCst) - before;
            most = most.max(meanwhile);
        }
        stop.store(true, Ordering::Relaxed);
    });
    // A busy machine may keep the newcomer itself waiting; for ever means thousands.
    assert!(most < 16 * 100, "{most} others were served first");
}

#[test]
fn more_requests_than_may_wait_are_refused_at_once() {
    let hold = Hold::default();
    let config = EngineConfig { waiting: 2, ..Setup::default().config };
    let server = Setup { config, ..Setup::default() }.start_threads(hold.apps(1));
    let mut kept: Vec<Client> = (0..5).map(|_| server.connect()).collect();
    assert!(kept.iter_mut().all(|client| client.get("/").status == 200));
    let mut busy = hold.occupy(&server, 1);
    for client in &mut kept {
        client.send("GET /waiting HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    // The order is not fixed: of five clients two wait and three get 503.
    std::thread::scope(|scope| {
        let statuses: Vec<_> =
            kept.iter_mut().map(|client| scope.spawn(|| client.response().status)).collect();
        wait_for("three refusals", || statuses.iter().filter(|status| status.is_finished()).count() == 3);
        hold.let_go();
        let mut statuses: Vec<u16> = statuses.into_iter().map(|status| status.join().unwrap()).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 200, 503, 503, 503]);
    });
    assert_eq!(busy.remove(0).response().status, 200);
}

#[test]
fn a_spare_that_cannot_answer_waiting_requests_does_not_poll_all_the_time() {
    let hold = Hold::default();
    let server = Setup::default().start_threads(hold.apps(2));
    let mut clients = vec![server.connect()];
    assert_eq!(clients[0].get("/").status, 200);
    clients.extend(hold.occupy(&server, 2));
    clients[0].send("GET /waiting HTTP/1.1\r\nHost: h\r\n\r\n");
    // Two turns: the request has been seen. How many follow in a while is what is tested.
    let seen = server.host.beats.load(Ordering::SeqCst) + 2;
    wait_for("two turns", || server.host.beats.load(Ordering::SeqCst) >= seen);
    std::thread::sleep(Duration::from_millis(300));
    let turns = server.host.beats.load(Ordering::SeqCst) - seen;
    assert!(turns < 30, "{turns} turns without news");
    hold.let_go();
    assert!(clients.iter_mut().all(|client| client.response().status == 200));
}

#[test]
fn an_engine_ends_with_the_thread_of_a_permit() {
    let app = |request: Request<'_>, reply: &mut dyn Reply| {
        assert!(request.head.path() != b"/fails", "meant to fail");
        echo(request, reply)
    };
    let server = Setup::default().start_threads(vec![app; 3]);
    let mut client = server.connect();
    assert_eq!(client.get("/").status, 200);
    client.send("GET /fails HTTP/1.1\r\nHost: h\r\n\r\n");
    client.assert_ended();
    server.join_failed();
}

#[test]
#[cfg(target_os = "linux")]
fn an_engine_whose_threads_the_system_refuses_says_so_and_ends() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let memory = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = memory.split(' ').next().unwrap().parse().unwrap();
    let before = getrlimit(Resource::As);
    // Memory for the stacks of some threads.
    let few = Rlimit { current: Some(pages * 4096 + (64 << 20)), ..before };
    setrlimit(Resource::As, few).unwrap();
    let server = Setup::default().start_threads(vec![echo; 64]);
    server.join_failed();
    setrlimit(Resource::As, before).unwrap();
}
