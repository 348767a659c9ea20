use super::super::fixture::{FakeSupervisor, obey, place};
use super::super::protocol::{Command, Outcome};
use super::super::server::Server;
use super::*;
use std::os::unix::net::UnixListener;

const PATIENCE: Option<Duration> = Some(Duration::from_secs(5));

fn status() -> Request {
    Request::new(Command::Status)
}

#[test]
fn every_command_gets_its_answer_on_one_connection() {
    let supervisor = FakeSupervisor::start(obey);
    let mut client = Client::connect(&supervisor.path).unwrap();
    for command in
        [Command::Reload, Command::Scale { workers: 3 }, Command::Stop { quick: true }, Command::ReopenLogs]
    {
        let reply = client.ask(&Request::new(command.clone()), PATIENCE).unwrap();
        assert_eq!((reply.outcome, reply.message), (Outcome::Done, format!("{command:?}")));
        let reply = client.ask(&Request { command, wait: false }, PATIENCE).unwrap();
        assert_eq!(reply.outcome, Outcome::Begun);
    }
    assert_eq!(client.ask(&status(), PATIENCE).unwrap().status.unwrap().pid, Some(1));
}

#[test]
fn an_answer_comes_when_it_is_known_and_not_before() {
    let mut waiting = Vec::new();
    let supervisor = FakeSupervisor::start(move |client, request| match request.command {
        Command::Reload => {
            waiting.push((client, Reply::new(Outcome::Superseded, "a newer one")));
            Vec::new()
        }
        _ => std::mem::take(&mut waiting).into_iter().chain(obey(client, request)).collect(),
    });
    let path = supervisor.path.clone();
    let reload = std::thread::spawn(move || {
        Client::connect(&path).unwrap().ask(&Request::new(Command::Reload), PATIENCE).unwrap()
    });
    let mut other = Client::connect(&supervisor.path).unwrap();
    while !reload.is_finished() {
        assert_eq!(other.ask(&status(), PATIENCE).unwrap().outcome, Outcome::Done);
    }
    assert_eq!(reload.join().unwrap().outcome, Outcome::Superseded);
}

#[test]
fn a_dead_server_is_reported_like_a_missing_one() {
    let (directory, path) = place();
    let error = Client::connect(&path).unwrap_err();
    assert!(matches!(error, AskError::NoServer { .. }), "{error:?}");
    assert_eq!(error.to_string(), format!("no server listens at {}", path.display()));
    drop(UnixListener::bind(&path).unwrap());
    assert!(matches!(Client::connect(&path).unwrap_err(), AskError::NoServer { .. }));
    let missing = directory.path().join("no/such/app.ctl");
    assert!(matches!(Client::connect(&missing).unwrap_err(), AskError::NoServer { .. }));
}

#[test]
fn no_answer_in_time_is_not_the_servers_end() {
    let supervisor = FakeSupervisor::start(|_, _| Vec::new());
    let mut client = Client::connect(&supervisor.path).unwrap();
    let error = client.ask(&status(), Some(Duration::from_millis(20))).unwrap_err();
    assert!(matches!(error, AskError::TimedOut), "{error:?}");
    // Its late reply is not taken for that to the next request.
    assert!(matches!(client.ask(&status(), PATIENCE).unwrap_err(), AskError::Ended));
}

#[test]
fn a_server_that_ends_has_not_answered() {
    let (_directory, path) = place();
    let mut server = Server::open(&path).unwrap();
    let mut client = Client::connect(&path).unwrap();
    let thread = std::thread::spawn(move || client.ask(&status(), PATIENCE));
    while server.receive().is_empty() {
        std::thread::yield_now();
    }
    drop(server);
    let error = thread.join().unwrap().unwrap_err();
    assert!(matches!(error, AskError::Ended), "{error:?}");
}

#[test]
fn an_invalid_reply_is_an_error() {
    let (_directory, path) = place();
    let listener = UnixListener::bind(&path).unwrap();
    for line in ["hello\n", "{\"version\":2,\"outcome\":\"done\"}\n", "{\"version\":1}\n"] {
        let mut client = Client::connect(&path).unwrap();
        let mut stream = listener.accept().unwrap().0;
        stream.write_all(line.as_bytes()).unwrap();
        let error = client.ask(&status(), PATIENCE).unwrap_err();
        assert!(matches!(error, AskError::NotUnderstood(_)), "{error:?}");
    }
}

#[test]
fn an_answer_may_come_in_pieces_and_be_long() {
    let (_directory, path) = place();
    let listener = UnixListener::bind(&path).unwrap();
    let reply = Reply::new(Outcome::Failed, "no").with_detail("x".repeat(500_000));
    let line = reply.to_line();
    let thread = std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        for piece in line.chunks(70_001) {
            stream.write_all(piece).unwrap();
        }
        stream
    });
    assert_eq!(Client::connect(&path).unwrap().ask(&status(), PATIENCE).unwrap(), reply);
    drop(thread.join());
}

#[test]
fn the_reply_of_a_server_that_refuses_a_client_is_read() {
    let (_directory, path) = place();
    let listener = UnixListener::bind(&path).unwrap();
    let mut client = Client::connect(&path).unwrap();
    let mut stream = listener.accept().unwrap().0;
    stream.write_all(&Reply::new(Outcome::Refused, "not you").to_line()).unwrap();
    drop(stream);
    assert_eq!(client.ask(&status(), PATIENCE).unwrap().outcome, Outcome::Refused);
}
