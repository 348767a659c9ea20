use super::super::fixture::FakeServer;
use super::*;
use crate::args::operator::ServerArgs;
use mcsup_core::control::{Outcome, Reply};
use mcsup_core::host::pidfile::PidFile;
use std::time::Duration;

fn order(server: ServerArgs) -> ControlArgs {
    ControlArgs { server, no_wait: false }
}

#[test]
fn what_is_done_is_said_and_what_is_begun_too() {
    let server = FakeServer::start(|request| {
        let outcome = if request.wait { Outcome::Done } else { Outcome::Begun };
        Some(Reply::new(outcome, format!("{:?}", request.command)))
    });
    let scale = Command::Scale { workers: 4 };
    let done = run(scale.clone(), &order(server.args()));
    assert_eq!(done, Ok((Exit::Done, "Scale { workers: 4 }".to_owned())));
    let begun = run(scale, &ControlArgs { server: server.args(), no_wait: true });
    assert_eq!(begun, Ok((Exit::Done, "begun: Scale { workers: 4 }".to_owned())));
}

#[test]
fn a_reload_that_failed_shows_the_traceback_whole() {
    let traceback = "Traceback (most recent call last):\n  File \"app.py\", line 1\nRuntimeError: no\n";
    let server = FakeServer::start(move |_| {
        Some(Reply::new(Outcome::Failed, "the reload failed, nothing has changed").with_detail(traceback))
    });
    let failure = run(Command::Reload, &order(server.args())).expect_err("it failed");
    assert_eq!(failure.exit, Exit::BootFailed);
    let expected = format!("the reload failed, nothing has changed\n{}", traceback.trim_end());
    assert_eq!(failure.to_string(), expected);
}

#[test]
fn no_server_an_ended_one_and_a_slow_one_are_distinguished() {
    let asked = |server: &FakeServer, timeout| {
        let failure =
            run(Command::Reload, &order(ServerArgs { timeout, ..server.args() })).expect_err("no answer");
        (failure.exit, failure.to_string())
    };
    let ending = FakeServer::start(|_| None);
    let expected = (Exit::NotRunning, "the server ended before it answered".to_owned());
    assert_eq!(asked(&ending, None), expected);
    let (_keep, silence) = std::sync::mpsc::channel::<Reply>();
    let slow = FakeServer::start(move |_| silence.recv().ok());
    let expected = (Exit::Unfinished, "not finished within 0.05 seconds; it goes on".to_owned());
    assert_eq!(asked(&slow, Some(Duration::from_millis(50))), expected);
    std::fs::remove_file(&ending.path).expect("its socket");
    let expected = format!("not running: no server listens at {}", ending.path.display());
    assert_eq!(asked(&ending, None), (Exit::NotRunning, expected));
}

#[test]
fn a_server_without_a_control_socket_is_no_missing_server() {
    let server = FakeServer::start(|_| None);
    std::fs::remove_file(&server.path).expect("its socket");
    let args = ServerArgs { pid: Some(server.pid_file()), ..ServerArgs::default() };
    let ask = || run(Command::Reload, &order(args.clone())).expect_err("no socket");
    assert_eq!(ask().exit, Exit::NotRunning);
    let _held = PidFile::hold(server.pid_file().as_ref()).expect("a pid file");
    let failure = ask();
    assert_eq!(failure.exit, Exit::Refused);
    assert!(failure.to_string().contains("but has no control socket"), "{failure}");
}
