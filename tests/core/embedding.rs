//! Pools in programs that do more than run them: handles, observers, loops of their own.

use mcsup_core::control::{Command, Outcome};
use rustix::process::Signal;

use crate::pool::{Pool, is_gone, kill, wait_for};
use crate::programs::ask;
use crate::roles::CONTROL;

/// A program, and the path of its console.
fn start(role: &str) -> (tempfile::TempDir, std::path::PathBuf, Pool) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("console");
    let pool = Pool::start_with(role, &[(CONTROL, &path)]);
    wait_for("the console", || path.exists());
    (directory, path, pool)
}

pub fn a_program_steps_its_pool_and_changes_it_by_a_handle() {
    let (_directory, console, mut pool) = start("embedder-with-a-loop");
    pool.wait_ready(2);
    let first = pool.ask("pid");
    let reload = ask(&console, Command::Reload);
    assert_eq!(reload.outcome, Outcome::Done, "{reload:?}");
    assert_ne!(pool.ask("pid"), first);
    assert_eq!(ask(&console, Command::Scale { workers: 3 }).outcome, Outcome::Done);
    assert_eq!(ask(&console, Command::Recycle { slot: 0 }).outcome, Outcome::Done);
    assert_eq!(ask(&console, Command::Recycle { slot: 9 }).outcome, Outcome::Refused);
    let status = ask(&console, Command::Status).status.unwrap();
    let ready = status.workers.iter().filter(|worker| worker.state.as_deref() == Some("ready")).count();
    assert_eq!((status.target, status.generation, ready), (Some(3), Some(2), 3));
    let workers = pool.workers();
    assert_eq!(ask(&console, Command::Stop { quick: false }).message, "stopped");
    assert_eq!(pool.wait().code(), Some(0));
    assert!(workers.into_iter().all(is_gone));
    let log = pool.log();
    assert!(log.contains("Asked by the program: reload"), "{log}");
    assert!(log.contains("a further step: Some(Some(Stopped))"), "{log}");
}

pub fn a_programs_observer_sees_all_that_the_log_tells() {
    let (_directory, console, mut pool) = start("embedder-with-a-loop");
    pool.wait_ready(2);
    let victim: i32 = pool.ask("pid").parse().unwrap();
    kill(victim, Signal::KILL);
    pool.wait_ready(3);
    pool.ask("panic");
    pool.wait_ready(4);
    assert_eq!(ask(&console, Command::Reload).outcome, Outcome::Done);
    pool.stop();
    let log = pool.log();
    let expected = [
        r#"PhaseChanged { from: "starting", to: "serving" }"#.to_owned(),
        format!("Born {{ process: PoolProcess {{ pid: Some({victim}), slot: Some("),
        format!("Ready {{ process: PoolProcess {{ pid: Some({victim}), slot: Some("),
        format!("Died {{ process: PoolProcess {{ pid: Some({victim}), slot: Some("),
        "cause: \"died, cause unknown: SIGKILL".to_owned(),
        "cause: \"exited with code 1\", error: Some(\"".to_owned(),
        "asked to".to_owned(),
        "ReloadBegan { generation: 2 }".to_owned(),
        r#"PhaseChanged { from: "serving", to: "reloading" }"#.to_owned(),
        "ReloadDone { generation: 2".to_owned(),
        "Retired { process: PoolProcess".to_owned(),
        "StopBegan { is_quick: false }".to_owned(),
        "Ended { outcome: Stopped }".to_owned(),
    ];
    for event in expected {
        assert!(log.lines().any(|line| line.contains("observed") && line.contains(&event)), "{event}\n{log}");
    }
}

pub fn workers_cannot_use_the_handles_of_their_program() {
    let (_directory, _console, mut pool) = start("embedder-with-a-loop");
    pool.wait_ready(2);
    let sockets = |text: &str| text.lines().filter(|line| line.contains("socket:")).count();
    let (plain, with_handle) = (Pool::start("answering"), pool.ask("fds"));
    plain.wait_ready(2);
    assert_eq!(sockets(&with_handle), sockets(&plain.ask("fds")), "{with_handle}");
    assert!(!with_handle.contains("eventpoll"), "{with_handle}");
    pool.stop();
}
