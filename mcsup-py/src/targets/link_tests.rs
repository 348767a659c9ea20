use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener};

use super::*;

fn link(address: &str) -> Link {
    Link::open(Address::syslog(address).unwrap()).unwrap()
}

/// Sends until the queue is empty, as the rounds of an engine do.
fn drive(link: &Link) {
    let begun = Instant::now();
    while !link.state().queue.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the queue does not become empty");
        let _ = link.drive();
        std::thread::yield_now();
    }
}

#[test]
fn a_datagram_is_sent_at_once_by_udp() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let link = link(&format!("udp://127.0.0.1:{}", server.local_addr().unwrap().port()));
    assert!(link.send(b"one").is_none());
    let mut buffer = [0; 64];
    let length = server.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"one");
}

#[test]
fn a_stream_gets_whole_lines_in_order_also_those_sent_while_it_was_connected() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let link = link(&format!("tcp://127.0.0.1:{}", server.local_addr().unwrap().port()));
    for message in [&b"one"[..], b"two\nlines", b"three"] {
        assert!(link.send(message).is_none());
    }
    drive(&link);
    let (client, _) = server.accept().unwrap();
    let lines: Vec<String> = BufReader::new(client).lines().take(3).map(Result::unwrap).collect();
    assert_eq!(lines, ["one", "two#012lines", "three"]);
}

#[test]
fn a_unix_socket_may_take_datagrams_or_a_stream() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (folder.path().join("dgram"), folder.path().join("stream"));
    let datagrams = UnixDatagram::bind(&one).unwrap();
    let streams = UnixListener::bind(&other).unwrap();
    assert!(link(&format!("unix://{}", one.display())).send(b"to one").is_none());
    let mut buffer = [0; 64];
    let length = datagrams.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"to one");
    let link = link(&format!("unix://{}", other.display()));
    assert!(link.send(b"to the other").is_none());
    drop(link);
    let mut text = String::new();
    streams.accept().unwrap().0.read_to_string(&mut text).unwrap();
    assert_eq!(text, "to the other\n");
}

#[test]
fn a_target_that_does_not_read_makes_nothing_wait_and_its_losses_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("full");
    let server = UnixDatagram::bind(&path).unwrap();
    let link = link(&format!("unix://{}", path.display()));
    let mut reports = Vec::new();
    for _ in 0..5000 {
        reports.extend(link.send(b"a message"));
    }
    assert!(matches!(&reports[..], [Report::Loses(..)]), "{reports:?}");
    let lost = link.state().lost;
    assert!(lost > 1000, "{lost}");
    let mut buffer = [0; 64];
    let mut got = 0;
    server.set_nonblocking(true).unwrap();
    while server.recv(&mut buffer).is_ok() {
        got += 1;
    }
    assert_eq!(got + lost, 5000);
    match link.send(b"a message") {
        Some(Report::TakesAgain(_, count)) => assert_eq!(count, lost),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_queue_of_a_stream_that_does_not_read_is_bounded() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let link = link(&format!("tcp://127.0.0.1:{}", server.local_addr().unwrap().port()));
    let message = vec![b'x'; 60_000];
    let mut reports = Vec::new();
    for _ in 0..500 {
        reports.extend(link.send(&message));
    }
    assert!(link.state().queue.len() <= QUEUE);
    assert!(reports.iter().filter(|report| report.is_loss()).count() == 1, "{reports:?}");
    assert!(link.state().lost > 0);
}

#[test]
fn a_stream_that_was_closed_is_connected_again_and_gets_no_part_of_a_message() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let link = link(&format!("tcp://127.0.0.1:{}", server.local_addr().unwrap().port()));
    assert!(link.send(b"first").is_none());
    drive(&link);
    let (client, _) = server.accept().unwrap();
    // A reset, and the messages that follow are for the next connection.
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    let begun = Instant::now();
    let acceptor = std::thread::spawn(move || {
        let (client, _) = server.accept().unwrap();
        let mut line = String::new();
        BufReader::new(client).read_line(&mut line).unwrap();
        line
    });
    while !acceptor.is_finished() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it is not connected again");
        let _ = link.send(b"second");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(acceptor.join().unwrap(), "second\n");
}

#[test]
fn a_missing_target_is_reported_once_and_costs_no_connection_at_each_message() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("late");
    let link = link(&format!("unix://{}", path.display()));
    let reports = (0..100).filter_map(|_| link.send(b"lost")).count();
    assert_eq!(reports, 1);
    assert!(link.state().retry_at.is_some());
}

#[test]
fn a_host_without_an_address_is_an_error_that_names_it() {
    let error = Link::open(Address::Udp("no.such.host.invalid".to_owned(), 1)).unwrap_err().to_string();
    assert!(error.contains("no.such.host.invalid"), "{error}");
}

/// A server that completes no further connection until it has accepted those of `clients`.
struct Busy {
    server: Socket,
    clients: Vec<Socket>,
}

impl Busy {
    fn new() -> Self {
        let server = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        server.bind(&SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
        server.listen(0).unwrap();
        let mut clients = Vec::new();
        loop {
            let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            client.set_nonblocking(true).unwrap();
            let _ = client.connect(&server.local_addr().unwrap());
            let mut source = [PollFd::new(&client, PollFlags::OUT)];
            let wait = Timespec { tv_sec: 0, tv_nsec: 300_000_000 };
            let is_connected = poll(&mut source, Some(&wait)).unwrap() > 0;
            clients.push(client);
            if !is_connected {
                return Self { server, clients };
            }
        }
    }

    fn link(&self) -> Link {
        let port = self.server.local_addr().unwrap().as_socket().unwrap().port();
        link(&format!("tcp://127.0.0.1:{port}"))
    }

    /// Takes all connections from now on, and returns the first line of one.
    fn first_line(self) -> std::thread::JoinHandle<String> {
        drop(self.clients);
        let server = TcpListener::from(self.server);
        std::thread::spawn(move || {
            loop {
                let (client, _) = server.accept().unwrap();
                let mut line = String::new();
                if BufReader::new(client).read_line(&mut line).is_ok_and(|length| length > 0) {
                    return line;
                }
            }
        })
    }
}

#[test]
fn a_flush_waits_for_a_connection_that_is_being_made_and_not_again_for_one_that_takes_long() {
    let busy = Busy::new();
    let link = busy.link();
    assert!(link.send(b"the only message").is_none());
    assert!(link.has_waiting());
    assert!(link.flush(Duration::from_millis(20)).is_none());
    let begun = Instant::now();
    // This one would fail only after a minute.
    assert!(link.flush(Duration::from_secs(600)).is_none());
    assert!(begun.elapsed() < Duration::from_secs(60) && link.has_waiting(), "it waits again");
    let line = busy.first_line();
    drive(&link);
    assert_eq!(line.join().unwrap(), "the only message\n");

    let busy = Busy::new();
    let link = busy.link();
    assert!(link.send(b"the last message").is_none());
    let line = busy.first_line();
    assert!(link.flush(Duration::from_secs(60)).is_none());
    assert!(!link.has_waiting());
    assert_eq!(line.join().unwrap(), "the last message\n");
}

#[test]
fn a_host_with_an_address_that_refuses_gets_the_first_message_at_another_one() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::Tcp("two.addresses".to_owned(), closed.port());
    let resolved = vec![closed, server.local_addr().unwrap()];
    let link = Link { address, resolved, state: Mutex::default() };
    let _ = link.send(b"the only message");
    let _ = link.flush(Duration::from_secs(60));
    assert!(!link.has_waiting());
    let mut line = String::new();
    BufReader::new(server.accept().unwrap().0).read_line(&mut line).unwrap();
    assert_eq!(line, "the only message\n");
}
