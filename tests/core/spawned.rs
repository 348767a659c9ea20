//! Spawned pools, and several pools in one program, seen from outside.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{ChildStdin, Stdio};
use std::time::Duration;

use mcsup_core::control::{Command, Outcome};
use rustix::process::Signal;

use crate::embedding::{addresses, supervisor};
use crate::pool::{Pool, is_gone, kill, read_all, wait_for};
use crate::programs::ask;
use crate::roles::{CONTROL, IMAGE};
use crate::services::Manager;

/// A program that obeys its input, with a request in progress.
fn start_holding() -> (Pool, ChildStdin, TcpStream) {
    let mut pool = Pool::start_changed("spawner-obeying-its-input", |command| {
        command.stdin(Stdio::piped());
    });
    let input = pool.take_stdin();
    pool.wait_ready(1);
    let mut client = pool.connect();
    client.write_all(b"hold\n").unwrap();
    client.read_exact(&mut [0; 5]).unwrap();
    (pool, input, client)
}

pub fn the_end_of_a_program_does_not_hurry_a_stop_that_has_begun() {
    let (mut pool, mut input, mut client) = start_holding();
    let supervisor = supervisor(&pool);
    input.write_all(b"stop\n").unwrap();
    pool.wait_log("Asked by the program: stop", 1);
    // The same stop again within this time would be none.
    std::thread::sleep(Duration::from_millis(300));
    drop(input);
    assert_eq!(pool.wait().code(), Some(0));
    pool.wait_log("The program that has spawned this pool has ended", 1);
    kill(supervisor, Signal::HUP);
    pool.wait_log("Handling signal: HUP", 1);
    client.write_all(b"on\n").unwrap();
    assert_eq!(read_all(&mut client), "it", "{}", pool.log());
    wait_for("the supervisor to end", || is_gone(supervisor));
    assert!(!pool.log().contains("Asked to stop again"), "{}", pool.log());
}

pub fn a_program_learns_of_the_death_of_its_supervisor_although_a_worker_is_busy() {
    let (mut pool, _input, mut client) = start_holding();
    kill(supervisor(&pool), Signal::KILL);
    assert_eq!(pool.wait().code(), Some(1), "{}", pool.log());
    pool.wait_log("the supervisor process ended without a report, with signal 9", 1);
    client.write_all(b"on\n").unwrap();
}

pub fn workers_of_a_spawned_pool_have_no_descriptor_of_its_program() {
    let directory = tempfile::tempdir().unwrap();
    let console = directory.path().join("console");
    let mut pool = Pool::start_with("embedder-with-threads", &[(CONTROL, &console)]);
    let plain = Pool::start("answering");
    pool.wait_ready(2);
    plain.wait_ready(2);
    let sockets = |text: &str| text.lines().filter(|line| line.contains("socket:")).count();
    for _ in 0..4 {
        assert_eq!(sockets(&pool.ask("fds")), sockets(&plain.ask("fds")), "{}", pool.ask("fds"));
    }
    pool.stop();
}

/// A program with a console and an image for upgrades.
fn start_upgradable(role: &str) -> (tempfile::TempDir, PathBuf, Pool) {
    let directory = tempfile::tempdir().unwrap();
    let console = directory.path().join("console");
    let image = std::env::current_exe().unwrap();
    let pool = Pool::start_with(role, &[(CONTROL, &console), (IMAGE, &image)]);
    (directory, console, pool)
}

pub fn an_upgrade_of_the_second_pool_of_a_program_has_its_code() {
    for role in ["spawner-of-two", "spawner-beside-a-loop"] {
        let (_directory, console, mut pool) = start_upgradable(role);
        wait_for("the console", || console.exists());
        pool.wait_ready(2);
        let first = addresses(&pool)[0].clone();
        let upgraded = ask(&console, Command::Upgrade);
        assert_eq!(upgraded.outcome, Outcome::Done, "{upgraded:?} {}", pool.log());
        assert_eq!(ask(&console, Command::Reload).outcome, Outcome::Done);
        // Until then the old workers accept as well.
        pool.wait_log("has finished", 1);
        assert_eq!(pool.ask("name"), "second");
        let mut stream = TcpStream::connect(&first).unwrap();
        stream.write_all(b"name\n").unwrap();
        assert_eq!(read_all(&mut stream), "first");
        assert_eq!(ask(&console, Command::Stop { quick: false }).outcome, Outcome::Done);
        assert_eq!(pool.wait().code(), Some(0));
        wait_for("the first pool to end", || TcpStream::connect(&first).is_err());
    }
}

pub fn an_upgrade_beside_a_spawned_pool_is_refused() {
    let (_directory, console, mut pool) = start_upgradable("spawner-beside-a-loop");
    wait_for("the console", || console.exists());
    pool.wait_ready(2);
    // This signal is for the pool in the loop of the program.
    pool.signal(Signal::USR2);
    pool.wait_log("would lose its program", 1);
    assert_eq!(pool.ask("name"), "second");
    assert_eq!(ask(&console, Command::Stop { quick: false }).outcome, Outcome::Done);
    assert_eq!(pool.wait().code(), Some(0));
}

pub fn each_of_two_pools_one_after_the_other_is_upgraded_to_itself() {
    let (_directory, _console, mut pool) = start_upgradable("spawner-after-a-run");
    pool.wait_ready(1);
    pool.signal(Signal::USR2);
    // Its dry run does not start the second pool.
    pool.wait_log("Upgraded: ", 1);
    assert_eq!(pool.ask("name"), "first");
    pool.signal(Signal::TERM);
    pool.wait_ready(2);
    pool.signal(Signal::USR2);
    pool.wait_log("Upgraded: ", 2);
    pool.signal(Signal::HUP);
    pool.wait_log("Reload done", 1);
    pool.wait_log("has finished", 1);
    assert_eq!(pool.ask("name"), "second");
    assert_eq!(pool.stop().code(), Some(0));
}

pub fn workers_have_nothing_of_a_pool_that_starts_later() {
    let mut pool = Pool::start("spawner-before-others");
    assert_eq!(pool.wait().code(), Some(0), "{}", pool.log());
    assert!(pool.log().contains("the other pools have nothing of the later one"), "{}", pool.log());
}

pub fn a_long_reason_does_not_hide_the_outcome_of_a_spawned_pool() {
    let mut pool = Pool::start("spawner-of-a-boot-that-fails");
    assert_eq!(pool.wait().code(), Some(4), "{}", pool.log());
    pool.wait_log("ended: Some(BootFailed(Application)), no application, ", 1);
    assert!(!pool.log().contains("no application, 0 bytes"), "{}", pool.log());
}

pub fn a_spawned_supervisor_leaves_the_messages_to_the_service_manager_to_its_program() {
    let directory = tempfile::tempdir().unwrap();
    let console = directory.path().join("console");
    let manager = Manager::new();
    let variables = [(CONTROL, &*console), ("NOTIFY_SOCKET", &*manager.path)];
    let mut pool = Pool::start_with("spawner-notifying", &variables);
    wait_for("the console", || console.exists());
    pool.wait_ready(1);
    assert_eq!(ask(&console, Command::Reload).outcome, Outcome::Done);
    assert_eq!(ask(&console, Command::Stop { quick: false }).outcome, Outcome::Done);
    assert_eq!(pool.wait().code(), Some(0));
    assert_eq!(manager.received(), ["READY=1"]);
}
