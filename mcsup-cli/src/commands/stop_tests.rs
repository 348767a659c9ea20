use super::super::fixture::{FakeProcess, FakeServer};
use super::*;
use crate::args::operator::ServerArgs;
use mcsup_core::host::pidfile::PidFile;

#[test]
fn a_server_is_found_by_its_socket_and_ended_by_the_signal_that_was_meant() {
    for (quick, signal) in [(false, 15), (true, 2)] {
        let mut server = FakeProcess::start(None);
        let args = StopArgs { server: server.args(), quick, no_wait: false };
        let expected = (Exit::Done, format!("stopped (pid {})", server.child.id()));
        // Elsewhere a child of ours is there until it is waited for.
        if cfg!(target_os = "linux") {
            assert_eq!(run(&args), Ok(expected));
            assert_eq!(server.signal(), Some(signal));
        }
    }
}

#[test]
fn a_socket_that_is_named_wins_over_a_pid_file() {
    let mut server = FakeProcess::start(None);
    // Held by another server: ourselves.
    let other = FakeServer::start(|_| None);
    let _held = PidFile::hold(other.pid_file().as_ref()).unwrap();
    let meant = ServerArgs { pid: Some(other.pid_file()), ..server.args() };
    let args = StopArgs { server: meant, no_wait: true, ..StopArgs::default() };
    let (exit, text) = run(&args).unwrap();
    assert_eq!((exit, text), (Exit::Done, format!("begun: the end of pid {}", server.child.id())));
    assert_eq!(server.signal(), Some(15));
}

#[test]
fn a_stop_that_is_not_waited_for_is_begun() {
    let mut server = FakeProcess::start(None);
    let args =
        StopArgs { server: ServerArgs { json: true, ..server.args() }, no_wait: true, ..StopArgs::default() };
    let (exit, text) = run(&args).unwrap();
    let reply = Reply::from_line(text.as_bytes()).unwrap();
    assert_eq!((exit, reply.outcome), (Exit::Done, Outcome::Begun));
    assert_eq!(server.signal(), Some(15));
}

#[test]
fn a_server_that_names_another_process_than_itself_is_not_trusted() {
    let mut victim = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let server = FakeProcess::start(Some(victim.id()));
    let failure = run(&StopArgs { server: server.args(), ..StopArgs::default() }).unwrap_err();
    let text = failure.to_string();
    assert_eq!(failure.exit, Exit::Refused);
    let told = format!("it is pid {}, but pid {} (", victim.id(), server.child.id());
    assert!(text.contains(&told), "{text}");
    assert_eq!(victim.try_wait().unwrap(), None, "it lives");
    victim.kill().unwrap();
    victim.wait().unwrap();
}

#[test]
fn a_socket_where_no_process_listens_is_a_server_that_is_stopped() {
    let server = FakeProcess::start(None);
    std::fs::remove_file(&server.path).unwrap();
    let args = StopArgs { server: server.args(), ..StopArgs::default() };
    assert_eq!(run(&args), Ok((Exit::Done, "not running".to_owned())));
}

#[test]
fn a_server_that_hangs_up_and_lives_on_is_not_said_to_be_stopped() {
    let server = FakeServer::start(|_| None);
    let failure = run(&StopArgs { server: server.args(), ..StopArgs::default() }).unwrap_err();
    assert_eq!(failure.exit, Exit::Refused);
    assert!(failure.to_string().contains("hung up without an answer"), "{failure}");
}

#[test]
fn a_server_that_does_not_identify_itself_is_left_alone() {
    let server = FakeServer::start(|_| Some(Reply::new(Outcome::Refused, "too many clients")));
    let args = StopArgs { server: server.args(), ..StopArgs::default() };
    let failure = run(&args).unwrap_err();
    assert_eq!(failure.exit, Exit::Refused);
    assert!(failure.to_string().ends_with("too many clients"), "{failure}");
}

#[test]
fn a_server_that_does_not_answer_is_waited_for_no_longer_than_asked() {
    let (sender, held) = std::sync::mpsc::channel::<()>();
    let server = FakeServer::start(move |_| {
        // Until the test is over.
        let _ = held.recv();
        None
    });
    let limit = Duration::from_millis(50);
    let meant = ServerArgs { timeout: Some(limit), ..server.args() };
    let begun = Instant::now();
    let failure = run(&StopArgs { server: meant, ..StopArgs::default() }).unwrap_err();
    assert_eq!(failure.exit, Exit::LeftRunning);
    assert_eq!(failure.to_string(), "the server does not answer within 0.05 seconds");
    assert!(begun.elapsed() < client::REPLY_TIMEOUT);
    drop(sender);
}
