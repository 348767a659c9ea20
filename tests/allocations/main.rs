//! What a request costs the allocator: nothing, once a connection has its buffers.
//!
//! The counting allocator is that of the whole program, so this is a program of its own, with one test: another one
//! beside it would be counted along.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod counting;
#[path = "../engine/fixture.rs"]
#[allow(dead_code, reason = "made for the tests of the engine, which need more of it")]
mod fixture;
#[path = "../engine/pool.rs"]
#[allow(dead_code, reason = "made for the tests of the engine, as above")]
mod pool;

use std::sync::{Arc, Barrier};

use mcsup_py::app::ResponseHead;
use mcsup_py::app::{Reply, Request, Verdict};
use mcsup_py::engine::EngineConfig;

use fixture::*;

/// What a browser asks.
const REQUEST: &str = "GET /news/today?page=2 HTTP/1.1\r\n\
    Host: www.example.org\r\n\
    Connection: keep-alive\r\n\
    Cache-Control: max-age=0\r\n\
    sec-ch-ua: \"Chromium\";v=\"130\", \"Not?A_Brand\";v=\"99\"\r\n\
    sec-ch-ua-mobile: ?0\r\n\
    sec-ch-ua-platform: \"Linux\"\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-User: ?1\r\n\
    Sec-Fetch-Dest: document\r\n\
    Referer: https://www.example.org/news\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\r\n";

const BODY: &[u8] = b"hello\n";
const REQUESTS: usize = 1000;

/// Answers with a prepared head; a request for `/all_threads` only when all threads have one.
fn hello(
    head: ResponseHead,
    all_threads: Arc<Barrier>,
) -> impl FnMut(Request<'_>, &mut dyn Reply) -> Verdict + Send + 'static {
    move |request, reply| {
        if request.head.path() == b"/all_threads" {
            all_threads.wait();
        }
        let _ = reply.send_whole(&head, BODY);
        Verdict::Complete
    }
}

/// What the engine allocates for [`REQUESTS`] requests on one connection, after as many that are not counted and one for
/// each thread.
fn allocations(permits: usize, access_format: Option<&str>) -> counting::Counted {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log").to_str().unwrap().to_owned();
    let access = access_format.map(|format| (format.to_owned(), path));
    let all_threads = Arc::new(Barrier::new(permits));
    let app = |_| hello(ok(&[("Content-Type", "text/plain")]), Arc::clone(&all_threads));
    let config = EngineConfig { health_path: Some("/health".into()), ..Setup::default().config };
    let server = Setup { access, config, ..Setup::default() }.start_threads((0..permits).map(app).collect());
    let mut clients: Vec<Client> = (0..permits).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(REQUEST.replace("/news/today", "/all_threads"));
    }
    for client in &mut clients {
        assert_eq!(client.response().body, BODY);
    }
    let mut ask = || {
        for _ in 0..REQUESTS {
            assert_eq!(clients[0].send(REQUEST).response().body, BODY);
        }
    };
    ask();
    counting::of_younger_threads(ask)
}

#[test]
fn a_plain_get_costs_no_allocation_and_neither_does_its_line_in_the_access_log() {
    counting::threads_from_now_on_are_younger();
    let common = mcsup_py::access::Format::DEFAULT;
    for (permits, access_format) in [(1, None), (4, None), (1, Some(common)), (4, Some(common))] {
        let counted = allocations(permits, access_format);
        assert_eq!(
            counted.count, 0,
            "for {REQUESTS} requests, with {permits} threads and the access log {access_format:?}; the first:\n{}",
            counted.first
        );
    }
}
