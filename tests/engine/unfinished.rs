//! Heads that do not end take a bounded part of the memory, however many connections they come on.

use mcsup_py::engine::EngineConfig;
use mcsup_py::engine::Limits;

use crate::fixture::*;

/// The memory for heads, as the engine documents it.
const HEAD_MEMORY: usize = 8 << 20;

/// A head without its end.
fn unfinished(fields: usize) -> String {
    let field = format!("X: {}\r\n", "x".repeat(8000));
    format!("GET / HTTP/1.1\r\nHost: h\r\n{}", field.repeat(fields))
}

/// Whether the server has answered; the connection is left as it is.
fn is_answered(client: &Client) -> bool {
    client.stream.set_nonblocking(true).unwrap();
    let is_answered = client.stream.peek(&mut [0]).is_ok();
    client.stream.set_nonblocking(false).unwrap();
    is_answered
}

/// Returns when the engine has received what was sent before, and has seen to it.
fn sync(server: &Server) {
    wait_for("all to be received", || unread(server.address.port()) == 0);
    assert_eq!(server.connect().get("/").status, 200);
}

/// How many bytes wait in the sockets of a server, as the kernel tells (proc_net(5), rx_queue).
#[cfg(target_os = "linux")]
fn unread(port: u16) -> u64 {
    let (own, established) = (format!(":{port:04X}"), "01");
    let told = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let sockets = told.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let ours = sockets.filter(|fields| fields[1].ends_with(&own) && fields[3] == established);
    ours.map(|fields| u64::from_str_radix(fields[4].split_once(':').unwrap().1, 16).unwrap()).sum()
}

#[cfg(not(target_os = "linux"))]
fn unread(_: u16) -> u64 {
    0
}

#[test]
fn the_oldest_of_many_large_unfinished_heads_are_refused_and_the_newest_are_served() {
    let server = serve(echo);
    let text = unfinished(90);
    let mut clients: Vec<Client> = (0..60)
        .map(|_| {
            let mut client = server.connect();
            client.send(&text);
            sync(&server);
            client
        })
        .collect();
    let most = HEAD_MEMORY / text.len();
    wait_for("refusals", || clients.iter().filter(|client| is_answered(client)).count() >= 60 - most);
    let kept = clients.iter().position(|client| !is_answered(client)).unwrap();
    for client in &mut clients[..kept] {
        assert_eq!(client.response().status, 431);
    }
    // A buffer takes less than twice what is in it.
    assert!(clients.len() - kept >= most / 2, "{kept} of {} were refused", clients.len());
    for client in &mut clients[kept..] {
        assert_eq!(client.send("\r\n").response().status, 200);
    }
    // What was refused or answered takes nothing any more.
    let mut last = server.connect();
    last.send(&text);
    sync(&server);
    assert_eq!(last.send("\r\n").response().status, 200);
}

#[test]
fn heads_whose_bodies_do_not_end_count_as_well() {
    let server = serve(echo);
    let text = unfinished(90).replace("GET", "POST") + "Content-Length: 9\r\n\r\n";
    let mut clients: Vec<Client> = (0..30)
        .map(|_| {
            let mut client = server.connect();
            client.send(&text);
            sync(&server);
            client
        })
        .collect();
    assert_eq!(clients[0].response().status, 431);
    assert_eq!(clients.last_mut().unwrap().send("nine byte").response().status, 200);
}

#[test]
fn small_unfinished_heads_are_kept_however_many_there_are() {
    let server = serve(echo);
    let mut clients: Vec<Client> = (0..200).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: ");
    }
    sync(&server);
    for client in &mut clients {
        assert_eq!(client.send("h\r\n\r\n").response().status, 200);
    }
}

#[test]
fn one_head_may_be_as_large_as_the_limits_allow_and_the_memory_for_heads() {
    let limits = Limits { field_size: 0, fields: 2000, ..Limits::default() };
    let config = EngineConfig { limits, ..Setup::default().config };
    let server = Setup { config, ..Setup::default() }.start(echo);
    for (fields, status) in [(400, 200), (999, 200), (1100, 431)] {
        let mut client = server.connect();
        client.send(unfinished(fields));
        if status == 200 {
            client.send("\r\n");
        }
        assert_eq!(client.response().status, status, "{fields}");
    }
}
