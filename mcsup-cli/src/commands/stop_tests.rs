use super::super::fixture::FakeServer;
use super::*;
use crate::args::operator::ServerArgs;
use mcsup_core::control::Status;
use std::process::Child;

/// A process that stands for a supervisor, and a control socket that names it.
fn sleeper() -> (Child, FakeServer) {
    let child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let pid = i32::try_from(child.id()).ok();
    let server = FakeServer::start(move |_| {
        let status = Status { pid, ..Status::default() };
        Some(Reply::new(Outcome::Done, "it sleeps").with_status(status))
    });
    (child, server)
}

fn signal_of(mut child: Child) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap())
}

#[test]
fn a_server_is_found_by_its_socket_and_ended_by_the_signal_that_was_meant() {
    for (quick, signal) in [(false, 15), (true, 2)] {
        let (child, server) = sleeper();
        let args = StopArgs { server: server.args(), quick, no_wait: false };
        let expected = (Exit::Done, format!("stopped (pid {})", child.id()));
        // Elsewhere a child of ours is there until it is waited for.
        if cfg!(target_os = "linux") {
            assert_eq!(run(&args), Ok(expected));
            assert_eq!(signal_of(child), Some(signal));
        }
    }
}

#[test]
fn a_socket_that_is_named_wins_over_a_pid_file() {
    let (child, server) = sleeper();
    // Held by somebody else: ourselves.
    let other = FakeServer::start(|_| None);
    let _held = PidFile::hold(other.pid_file().as_ref()).unwrap();
    let meant = ServerArgs { pid: Some(other.pid_file()), ..server.args() };
    let args = StopArgs { server: meant, no_wait: true, ..StopArgs::default() };
    let (exit, text) = run(&args).unwrap();
    assert_eq!((exit, text), (Exit::Done, format!("begun: the end of pid {}", child.id())));
    assert_eq!(signal_of(child), Some(15));
}

#[test]
fn a_stop_that_is_not_waited_for_is_begun() {
    let (child, server) = sleeper();
    let args =
        StopArgs { server: ServerArgs { json: true, ..server.args() }, no_wait: true, ..StopArgs::default() };
    let (exit, text) = run(&args).unwrap();
    let reply = Reply::from_line(text.as_bytes()).unwrap();
    assert_eq!((exit, reply.outcome), (Exit::Done, Outcome::Begun));
    assert_eq!(signal_of(child), Some(15));
}

#[test]
fn a_socket_where_nobody_listens_is_a_server_that_is_stopped() {
    let (mut child, server) = sleeper();
    std::fs::remove_file(&server.path).unwrap();
    let args = StopArgs { server: server.args(), ..StopArgs::default() };
    assert_eq!(run(&args), Ok((Exit::Done, "not running".to_owned())));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_server_that_does_not_say_who_it_is_is_left_alone() {
    let server = FakeServer::start(|_| Some(Reply::new(Outcome::Refused, "too many clients")));
    let args = StopArgs { server: server.args(), ..StopArgs::default() };
    let failure = run(&args).unwrap_err();
    assert_eq!(failure.exit, Exit::Refused);
    assert!(failure.to_string().ends_with("too many clients"), "{failure}");
}
