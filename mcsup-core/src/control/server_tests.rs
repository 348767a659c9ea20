use super::super::fixture::{obey, place, turn, wait};
use super::super::protocol::Command;
use super::super::protocol::MAX_REQUEST;
use super::*;
use proptest::prelude::*;
use std::io::{BufRead, BufReader, Read};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

const PATIENCE: Duration = Duration::from_secs(5);

const SOON: Duration = Duration::from_millis(5);

fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Turns the loop until the condition holds.
fn until(server: &mut Server, mut hoped: impl FnMut(&mut Server) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !hoped(server) {
        assert!(Instant::now() < deadline, "nothing came in time");
        turn(server, SOON, &mut obey);
    }
}

/// Turns the loop until requests arrive, and returns them.
fn next_requests(server: &mut Server) -> Vec<(ClientId, Request)> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        wait(server, SOON);
        let received = server.receive();
        if !received.is_empty() {
            return received;
        }
        assert!(Instant::now() < deadline, "no request came in time");
    }
}

/// The next line that a client gets; `None`: the connection was closed.
fn line(stream: &mut impl BufRead) -> Option<Reply> {
    let mut line = Vec::new();
    stream.read_until(b'\n', &mut line).unwrap();
    (!line.is_empty()).then(|| Reply::from_line(&line).unwrap())
}

fn reload() -> Vec<u8> {
    Request::new(Command::Reload).to_line()
}

#[test]
fn the_socket_is_its_owners_alone_whatever_the_umask() {
    let before = rustix::process::umask(rustix::fs::Mode::empty());
    let (_directory, path) = place();
    let server = Server::open(&path).unwrap();
    rustix::process::umask(before);
    let file = fs::symlink_metadata(server.path().unwrap()).unwrap();
    assert_eq!(file.permissions().mode() & 0o7777, 0o600);
}

#[test]
fn the_error_of_a_second_instance_names_the_first() {
    let (directory, path) = place();
    let first = Server::open(&path).unwrap();
    let error = Server::open(&path).unwrap_err().to_string();
    assert!(error.contains("app.ctl: the path is held by pid"), "{error}");
    assert!(error.contains(&format!("pid {} ", std::process::id())), "{error}");
    drop(first);
    assert!(!path.exists());
    drop(Server::open(&path).unwrap());
    // No lock file is left either.
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn of_many_that_start_at_once_one_gets_the_path() {
    let (_directory, path) = place();
    drop(UnixListener::bind(&path).unwrap());
    let all: Vec<_> = (0..8)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || Server::open(&path))
        })
        .collect();
    let all: Vec<_> = all.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(all.iter().filter(|server| server.is_ok()).count(), 1, "{all:?}");
    assert!(UnixStream::connect(&path).is_ok());
}

#[test]
fn a_dead_servers_socket_is_replaced_and_another_file_is_not() {
    let (directory, path) = place();
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    drop(Server::open(&path).unwrap());
    fs::write(&path, "mine").unwrap();
    let error = Server::open(&path).unwrap_err().to_string();
    assert!(error.ends_with("the path is taken by something that is no socket"), "{error}");
    drop(directory);
}

#[test]
fn a_missing_directory_is_one_clear_line() {
    let error = Server::open(Path::new("/no/such/dir/app.ctl")).unwrap_err().to_string();
    let expected = "cannot open the control socket /no/such/dir/app.ctl: there is no directory /no/such/dir";
    assert_eq!(error, expected);
}

#[test]
fn a_path_that_is_no_longer_ours_is_left_alone() {
    let (_directory, path) = place();
    let server = Server::open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let newer = UnixListener::bind(&path).unwrap();
    drop(server);
    assert!(path.exists());
    drop(newer);
}

#[test]
fn a_forked_child_lets_go_without_removing_the_path() {
    let (_directory, path) = place();
    Server::open(&path).unwrap().close_in_child();
    assert!(path.exists());
    assert_eq!(UnixStream::connect(&path).unwrap_err().kind(), IoKind::ConnectionRefused);
}

#[test]
fn garbage_is_answered_and_the_connection_goes_on() {
    let (_directory, path) = place();
    let mut server = Server::open(&path).unwrap();
    let mut client = BufReader::new(connect(&path));
    for garbage in [&b"hello\n"[..], b"\xff\xfe\n", b"[]\n", b"{\"version\":3}\n", b"\0\n"] {
        client.get_mut().write_all(garbage).unwrap();
        client.get_mut().write_all(&reload()).unwrap();
        let thread = std::thread::spawn(move || {
            let replies = [line(&mut client).unwrap().outcome, line(&mut client).unwrap().outcome];
            (client, replies)
        });
        until(&mut server, |_| thread.is_finished());
        let (back, replies) = thread.join().unwrap();
        client = back;
        assert_eq!(replies, [Outcome::Mistaken, Outcome::Done], "{garbage:?}");
    }
}

#[test]
fn half_a_line_is_waited_for() {
    let (_directory, path) = place();
    let mut server = Server::open(&path).unwrap();
    let mut client = connect(&path);
    let line = reload();
    for byte in &line[..line.len() - 1] {
        client.write_all(&[*byte]).unwrap();
        assert!(wait(&server, PATIENCE / 10));
        assert_eq!(server.receive(), []);
    }
    client.write_all(b"\n").unwrap();
    assert_eq!(next_requests(&mut server)[0].1, Request::new(Command::Reload));
}

#[test]
fn the_end_of_the_requests_is_an_end_of_line_and_the_answer_still_comes() {
    let (_directory, path) = place();
    let mut server = Server::open(&path).unwrap();
    let mut client = BufReader::new(connect(&path));
    client.get_mut().write_all(reload().trim_ascii_end()).unwrap();
    client.get_ref().shutdown(Shutdown::Write).unwrap();
    let (id, _) = next_requests(&mut server).remove(0);
    // It is not readable forever.
    server.receive();
    assert!(!wait(&server, SOON));
    server.answer(id, &Reply::new(Outcome::Done, "well"));
    assert_eq!(line(&mut client).unwrap().message, "well");
    assert_eq!(line(&mut client), None);
    assert!(server.clients.is_empty());
}

#[test]
fn a_client_that_goes_while_it_waits_is_forgotten() {
    let (_directory, path) = place();
    let mut server = Server::open(&path).unwrap();
    let mut client = connect(&path);
    client.write_all(&reload()).unwrap();
    let (id, _) = next_requests(&mut server).remove(0);
    drop(client);
    until(&mut server, |server| server.clients.is_empty());
    server.answer(id, &Reply::new(Outcome::Done, "the client is gone"));
}

#[test]
fn each_request_of_a_client_that_has_gone_is_carried_out() {
    let (_directory, path) = place();
    let mut server = Server::open(&path).unwrap();
    let mut client = connect(&path);
    let scale = Request::new(Command::Scale { workers: 7 });
    client.write_all(&[reload(), scale.to_line(), reload()].concat()).unwrap();
    let (id, _) = next_requests(&mut server).remove(0);
    drop(client);
    for expected in [scale, Request::new(Command::Reload)] {
        assert_eq!(server.receive(), []);
        server.answer(id, &Reply::new(Outcome::Done, "to nothing"));
        assert_eq!(next_requests(&mut server), [(id, expected)]);
    }
    server.receive();
    assert!(server.clients.is_empty());
}

#[test]
fn a_reset_leaves_the_requests_before_it() {
    let (_directory, path) = place();
    let mut server = Server::open(&path).unwrap();
    let mut client = connect(&path);
    client.write_all(&reload()).unwrap();
    let (id, _) = next_requests(&mut server).remove(0);
    server.answer(id, &Reply::new(Outcome::Done, "not read"));
    client.write_all(&reload()).unwrap();
    drop(client);
    assert_eq!(next_requests(&mut server), [(id, Request::new(Command::Reload))]);
}

#[test]
fn clients_are_answered_in_the_order_of_completion() {
    let (_directory, path) = place();
    let mut server = Server::open(&path).unwrap();
    let mut clients = [0, 1].map(|_| BufReader::new(connect(&path)));
    let mut ids = Vec::new();
    for client in &mut clients {
        client.get_mut().write_all(&reload()).unwrap();
        ids.push(next_requests(&mut server)[0].0);
    }
    for place in [1, 0] {
        server.answer(ids[place], &Reply::new(Outcome::Done, format!("for {place}")));
        assert_eq!(line(&mut clients[place]).unwrap().message, format!("for {place}"));
    }
}

#[test]
fn a_second_request_waits_for_the_reply_to_the_first() {
    let (_directory, path) = place();
    let mut server = Server::open(&path).unwrap();
    let mut client = BufReader::new(connect(&path));
    let scale = Request::new(Command::Scale { workers: 7 });
    client
        .get_mut()
        .write_all(&[&*reload(), b"nonsense\n", &scale.to_line(), b"more nonsense"].concat())
        .unwrap();
    client.get_ref().shutdown(Shutdown::Write).unwrap();
    let (id, first) = next_requests(&mut server).remove(0);
    assert_eq!(first, Request::new(Command::Reload));
    // Neither the lines that wait nor the end of the stream wake the supervisor meanwhile.
    assert_eq!(server.receive(), []);
    assert_eq!(server.deadline(), None);
    assert!(!wait(&server, SOON));
    server.answer(id, &Reply::new(Outcome::Done, "well"));
    assert_eq!(line(&mut client).unwrap().message, "well");
    // No event reports lines that were read before.
    assert_eq!(server.deadline(), Some(Duration::ZERO));
    assert_eq!(server.receive(), [(id, scale)]);
    assert_eq!(line(&mut client).unwrap().outcome, Outcome::Mistaken);
    server.answer(id, &Reply::new(Outcome::Done, "scaled"));
    assert_eq!(line(&mut client).unwrap().message, "scaled");
    assert_eq!(server.receive(), []);
    assert_eq!(line(&mut client).unwrap().outcome, Outcome::Mistaken);
    assert_eq!(line(&mut client), None);
    assert!(server.clients.is_empty());
}

#[test]
fn requests_far_ahead_of_their_replies_stay_in_the_socket() {
    let (_directory, path) = place();
    let mut server = Server::open(&path).unwrap();
    let mut client = connect(&path);
    client.set_nonblocking(true).unwrap();
    let mut sent = 0;
    let mut id = None;
    // Until the kernel takes no more.
    for _ in 0..1000 {
        match client.write(&reload().repeat(100)) {
            Ok(count) => sent += count,
            Err(_) => break,
        }
        id = id.or(server.receive().first().map(|(id, _)| *id));
    }
    let unread =
        serde_json::to_value(server.describe()).unwrap()["clients"][0][1]["unread"].as_array().unwrap().len();
    assert!(unread <= MAX_REQUEST + 64 * 1024 && unread < sent, "{unread} of {sent}");
    assert!(!wait(&server, SOON));
}

#[test]
fn a_request_that_is_too_long_ends_the_session() {
    for bytes in [vec![b'x'; MAX_REQUEST + 1], [vec![b' '; MAX_REQUEST], b"x\n".to_vec()].concat()] {
        let (_directory, path) = place();
        let mut server = Server::open(&path).unwrap();
        let mut client = BufReader::new(connect(&path));
        let mut writer = client.get_ref().try_clone().unwrap();
        let thread = std::thread::spawn(move || {
            let _ = writer.write_all(&bytes);
        });
        until(&mut server, |server| server.next == 1 && server.clients.is_empty());
        thread.join().unwrap();
        let reply = line(&mut client).unwrap();
        assert_eq!((reply.outcome, &*reply.message), (Outcome::Mistaken, "a request is at most 65536 bytes"));
    }
}

#[test]
fn a_client_that_does_not_read_delays_no_other() {
    let (_directory, path) = place();
    let mut server = Server::open(&path).unwrap();
    let mut slow = connect(&path);
    slow.write_all(&reload()).unwrap();
    let id = next_requests(&mut server)[0].0;
    let long = Reply::new(Outcome::Failed, "no").with_detail("x".repeat(300_000));
    server.answer(id, &long);
    // The rest of its reply is kept, and it is not polled for further requests.
    assert!(!server.clients[&id].unsent.is_empty());
    assert_eq!(server.descriptors().filter(|(_, wants_write)| *wants_write).count(), 1);
    let mut other = BufReader::new(connect(&path));
    other.get_mut().write_all(&reload()).unwrap();
    let (second, _) = next_requests(&mut server).remove(0);
    server.answer(second, &Reply::new(Outcome::Done, "quick"));
    assert_eq!(line(&mut other).unwrap().message, "quick");
}

#[test]
fn a_client_that_reads_late_gets_everything() {
    let (_directory, path) = place();
    let mut server = Server::open(&path).unwrap();
    let mut client = BufReader::new(connect(&path));
    client.get_mut().write_all(&reload()).unwrap();
    let id = next_requests(&mut server)[0].0;
    let long = Reply::new(Outcome::Failed, "no").with_detail("x".repeat(2 << 20));
    server.answer(id, &long);
    let thread = std::thread::spawn(move || line(&mut client));
    until(&mut server, |_| thread.is_finished());
    assert_eq!(thread.join().unwrap(), Some(long));
}

#[test]
fn the_last_replies_are_sent_before_the_end_but_not_waited_for_without_end() {
    let (_directory, path) = place();
    let mut server = Server::open(&path).unwrap();
    let mut client = BufReader::new(connect(&path));
    let mut deaf = connect(&path);
    for stream in [client.get_mut(), &mut deaf] {
        stream.write_all(&reload()).unwrap();
    }
    let mut ids = next_requests(&mut server);
    if ids.len() == 1 {
        ids.extend(next_requests(&mut server));
    }
    let long = Reply::new(Outcome::Done, "stopped").with_detail("x".repeat(900_000));
    for (id, _) in ids {
        server.answer(id, &long);
    }
    let thread = std::thread::spawn(move || line(&mut client));
    server.finish();
    drop(server);
    assert_eq!(thread.join().unwrap(), Some(long));
}

#[test]
fn the_sixty_fifth_client_is_refused_until_another_has_gone() {
    let (_directory, path) = place();
    let mut server = Server::open(&path).unwrap();
    let mut clients: Vec<_> = (0..MAX_CLIENTS).map(|_| connect(&path)).collect();
    until(&mut server, |server| server.clients.len() == MAX_CLIENTS);
    let mut extra = BufReader::new(connect(&path));
    turn(&mut server, SOON, &mut obey);
    let reply = line(&mut extra).unwrap();
    assert_eq!((reply.outcome, &*reply.message), (Outcome::Refused, "64 clients are connected already"));
    assert_eq!(line(&mut extra), None);
    clients.pop();
    until(&mut server, |server| server.clients.len() == MAX_CLIENTS - 1);
    let _next = connect(&path);
    until(&mut server, |server| server.clients.len() == MAX_CLIENTS);
}

#[test]
fn only_the_own_user_and_root_may_command() {
    for (peer, ours, may) in
        [(0, 0, true), (1000, 1000, true), (0, 1000, true), (1000, 0, false), (1000, 1001, false)]
    {
        assert_eq!(may_command(peer, ours), may, "{peer} {ours}");
    }
}

/// A duplicate without an owner, as an exec leaves a descriptor.
fn kept(source: BorrowedFd<'_>) -> RawFd {
    std::os::fd::IntoRawFd::into_raw_fd(source.try_clone_to_owned().unwrap())
}

fn socket_of(server: &Server) -> BorrowedFd<'_> {
    server.socket.as_ref().unwrap().listening.as_fd()
}

#[test]
fn the_program_that_waits_is_answered_by_the_next_image_and_its_handle_works_on() {
    let (handle, end) = super::super::handle::pair().unwrap();
    let mut server = Server::default();
    server.serve(end);
    let mut ticket = handle.reload().unwrap();
    let id = next_requests(&mut server)[0].0;
    let mut record: ServerRecord =
        serde_json::from_str(&serde_json::to_string(&server.describe()).unwrap()).unwrap();
    assert_eq!(record.listening, None);
    record.handles[0] = kept(server.handles[0].as_fd());
    record.clients[0].1.fd = kept(server.clients[&id].as_fd());
    drop(server);
    let mut server = Server::adopt(record).unwrap();
    assert!(server.is_the_program(id));
    server.answer(id, &Reply::new(Outcome::Done, "by the next image"));
    assert_eq!(ticket.wait(Some(PATIENCE)).unwrap().message, "by the next image");
    let _later = handle.status().unwrap();
    assert_eq!(next_requests(&mut server), [(ClientId(1), Request::new(Command::Status))]);
}

#[test]
fn a_client_that_waits_is_answered_by_the_next_image() {
    let (_directory, path) = place();
    let mut server = Server::open(&path).unwrap();
    let mut client = BufReader::new(connect(&path));
    client.get_mut().write_all(&reload()).unwrap();
    let id = next_requests(&mut server)[0].0;
    let next = reload();
    let (head, tail) = next.split_at(10);
    client.get_mut().write_all(head).unwrap();
    wait(&server, PATIENCE / 10);
    server.receive();
    let text = serde_json::to_string(&server.describe()).unwrap();
    let mut record: ServerRecord = serde_json::from_str(&text).unwrap();
    // An exec keeps the numbers. Here one process has both servers, so the descriptors are duplicated.
    record.listening = Some(kept(socket_of(&server)));
    record.clients[0].1.fd = kept(server.clients[&id].as_fd());
    server.close_in_child();
    let mut server = Server::adopt(record).unwrap();
    server.answer(id, &Reply::new(Outcome::Done, "by the next image"));
    assert_eq!(line(&mut client).unwrap().message, "by the next image");
    client.get_mut().write_all(tail).unwrap();
    assert_eq!(next_requests(&mut server), [(id, Request::new(Command::Reload))]);
    let mut another = connect(&path);
    another.write_all(&reload()).unwrap();
    assert_eq!(next_requests(&mut server)[0].0, ClientId(1));
    drop(server);
    assert!(!path.exists());
}

#[test]
fn a_client_that_did_not_come_along_is_gone_and_a_listener_is_an_error() {
    let (_directory, path) = place();
    let server = Server::open(&path).unwrap();
    let mut client = Session::new(UnixStream::pair().unwrap().0).record();
    client.fd = -1;
    let mut record = server.describe();
    record.clients.push((ClientId(0), client));
    record.listening = Some(kept(socket_of(&server)));
    server.close_in_child();
    let adopted = Server::adopt(record.clone()).unwrap();
    assert!(adopted.clients.is_empty());
    record.listening = Some(-1);
    assert!(Server::adopt(record).is_err());
}

/// Bytes that resemble requests.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40),
        Just(reload()),
        Just(Request::new(Command::Scale { workers: 7 }).to_line()),
        Just(b"\n".to_vec()),
        Just(b"{\"version\":1,\"command\":\"".to_vec()),
        Just(b"[".repeat(300)),
        Just(b"{\"version\":1,\"command\":[1e999]}\n".to_vec()),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_bytes_come_each_answer_is_a_line_of_the_protocol(bytes in bytes()) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut session = Session::new(ours);
        let mut theirs = theirs;
        let reply = Reply::new(Outcome::Done, "\n\u{0}\"").with_detail("a\nb");
        let mut awaits_reply = false;
        for (index, piece) in bytes.chunks(97).enumerate() {
            theirs.write_all(piece).unwrap();
            if awaits_reply && index % 2 == 0 {
                session.reply(&reply);
                awaits_reply = false;
            }
            awaits_reply |= session.receive().is_some();
        }
        theirs.shutdown(Shutdown::Write).unwrap();
        while awaits_reply || session.receive().is_some() {
            session.reply(&reply);
            awaits_reply = session.receive().is_some();
        }
        prop_assert!(session.unsent.is_empty());
        drop(session);
        let mut answers = Vec::new();
        theirs.read_to_end(&mut answers).unwrap();
        prop_assert!(answers.is_empty() || answers.ends_with(b"\n"));
        let answers = answers.split_inclusive(|byte| *byte == b'\n').map(|line| Reply::from_line(line).map(|reply| reply.outcome));
        // Each line that is not empty has one answer, in the order of the lines.
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
        let outcome = |line| Request::from_line(line).map_or(Outcome::Mistaken, |_| Outcome::Done);
        prop_assert_eq!(answers.collect::<std::result::Result<Vec<_>, _>>().unwrap(), lines.map(outcome).collect::<Vec<_>>());
    }
}
