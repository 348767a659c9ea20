//! Pools in programs that do more than run them: handles, observers, loops of their own.

use std::io::Write;
use std::net::TcpStream;
use std::process::Stdio;

use mcsup_core::control::{Command, Outcome};
use mcsup_core::host::processes;
use rustix::process::Signal;

use crate::pool::{Pool, is_gone, kill, read_all, wait_for};
use crate::programs::ask;
use crate::roles::{CONTROL, IMAGE};

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
    // Until then the old workers accept as well.
    pool.wait_log("has finished", 2);
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
    let number = format!("number: Some({})", pool.ask("number"));
    let is_born = |line: &str| line.contains("observed Born") && line.contains(&number);
    assert!(pool.log().lines().any(is_born), "{number}\n{}", pool.log());
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

pub fn a_program_with_own_signals_ends_its_pool_by_a_handle_and_nothing_of_it_is_changed() {
    let (_directory, console, mut pool) = start("embedder-with-own-signals");
    pool.wait_ready(2);
    // No SIGCHLD reports it.
    let victim: i32 = pool.ask("pid").parse().unwrap();
    kill(victim, Signal::KILL);
    pool.wait_ready(3);
    assert!(pool.log().contains(&format!("Worker {victim} (slot ")), "{}", pool.log());
    assert_eq!(ask(&console, Command::Reload).outcome, Outcome::Done);
    let workers = pool.workers();
    assert_eq!(pool.stop().code(), Some(0));
    assert!(workers.into_iter().all(is_gone));
    pool.wait_log("the program has stopped its pool: Some(\"stopped\")", 1);
    pool.wait_log("its process is what it was", 1);
    assert!(!pool.log().contains("Handling signal"), "{}", pool.log());
}

/// The addresses that the log names.
pub fn addresses(pool: &Pool) -> Vec<String> {
    let log = pool.log();
    let after = log.lines().filter_map(|line| line.split_once("Listening at: ")?.1.split(' ').next());
    after.map(str::to_owned).collect()
}

/// Asks the second pool of a program.
fn ask_second(pool: &Pool, question: &str) -> String {
    let mut stream = TcpStream::connect(&addresses(pool)[1]).unwrap();
    writeln!(stream, "{question}").unwrap();
    read_all(&mut stream)
}

pub fn two_pools_in_one_program_have_their_own_workers() {
    let (_directory, console, mut pool) = start("embedder-with-two-pools");
    pool.wait_ready(4);
    // Each replaces its own.
    let victims: Vec<i32> =
        [pool.ask("pid"), ask_second(&pool, "pid")].map(|pid| pid.parse().unwrap()).into();
    victims.iter().for_each(|victim| kill(*victim, Signal::KILL));
    pool.wait_ready(6);
    for victim in victims {
        pool.wait_log(&format!("Worker {victim} (slot "), 1);
    }
    assert!(!pool.log().contains("Left behind"), "{}", pool.log());
    // No worker has a socket of the other pool, also none of the second forks.
    let sockets = |text: &str| text.lines().filter(|line| line.contains("socket:")).count();
    let plain = Pool::start("answering");
    plain.wait_ready(2);
    let expected = sockets(&plain.ask("fds"));
    for _ in 0..8 {
        for text in [pool.ask("fds"), ask_second(&pool, "fds")] {
            // The program's own console is one more: a fork keeps the program's descriptors.
            assert!(sockets(&text) <= expected + 1, "{expected}: {text}");
            assert!(!text.contains("eventpoll") && !text.contains("eventfd"), "{text}");
        }
    }
    assert_eq!(ask(&console, Command::Reload).outcome, Outcome::Done);
    let refused = ask(&console, Command::Upgrade);
    assert_eq!(refused.outcome, Outcome::Failed, "{refused:?}");
    wait_for("four workers", || pool.workers().len() == 4);
    assert_eq!(ask(&console, Command::Stop { quick: false }).outcome, Outcome::Done);
    pool.wait_log("the second pool has ended: Some(Stopped)", 1);
    // The first one still has signals and serves.
    pool.signal(Signal::HUP);
    pool.wait_log("Reload done", 2);
    assert!(!pool.ask("pid").is_empty());
    assert_eq!(pool.stop().code(), Some(0));
    pool.wait_log("its process is what it was", 1);
}

pub fn a_signal_reaches_both_pools_of_a_program_and_no_worker_outlives_it() {
    let (_directory, _console, mut pool) = start("embedder-with-two-pools");
    pool.wait_ready(4);
    pool.signal(Signal::HUP);
    pool.wait_log("Reload done", 2);
    // Until then old workers finish.
    wait_for("four workers", || pool.workers().len() == 4);
    let workers = pool.workers();
    // The lifeline of a worker would miss the end if a worker of the other pool had a copy of its link.
    pool.signal(Signal::KILL);
    pool.wait();
    wait_for("the workers of both pools to end", || workers.iter().all(|worker| is_gone(*worker)));
}

/// The pid of a spawned supervisor.
pub fn supervisor(pool: &Pool) -> i32 {
    // Its workers may be ready earlier.
    pool.wait_log("INFO: supervisor ", 1);
    let log = pool.log();
    let line = log.lines().find_map(|line| line.split_once("INFO: supervisor ")).unwrap();
    line.1.split(' ').next().unwrap().parse().unwrap()
}

pub fn a_program_with_threads_commands_a_pool_that_it_has_spawned() {
    let (_directory, console, mut pool) = start("embedder-with-threads");
    pool.wait_ready(2);
    assert_eq!(ask(&console, Command::Reload).outcome, Outcome::Done);
    assert_eq!(ask(&console, Command::Scale { workers: 3 }).outcome, Outcome::Done);
    let supervisor = supervisor(&pool);
    assert_eq!(ask(&console, Command::Status).status.unwrap().pid, Some(supervisor));
    assert_eq!(processes::children_of(pool.pid()), [supervisor]);
    let workers = processes::children_of(supervisor);
    assert_eq!(workers.len(), 3);
    assert_eq!(ask(&console, Command::Stop { quick: false }).outcome, Outcome::Done);
    assert_eq!(pool.wait().code(), Some(0));
    assert!(workers.into_iter().all(is_gone));
    pool.wait_log("ended: Some(Stopped), None", 1);
}

pub fn a_spawned_pool_ends_with_its_program_also_with_a_killed_one() {
    let (_directory, _console, mut pool) = start("embedder-with-threads");
    pool.wait_ready(2);
    let supervisor = supervisor(&pool);
    let workers = processes::children_of(supervisor);
    pool.signal(Signal::KILL);
    pool.wait();
    wait_for("the supervisor to end", || {
        is_gone(supervisor) && workers.iter().all(|worker| is_gone(*worker))
    });
    pool.wait_log("The program that has spawned this pool has ended", 1);
    pool.wait_log("Ended { outcome: Stopped }", 1);
}

pub fn a_program_learns_of_the_death_of_a_supervisor_that_it_has_spawned() {
    let (_directory, _console, mut pool) = start("embedder-with-threads");
    pool.wait_ready(2);
    kill(supervisor(&pool), Signal::KILL);
    assert_eq!(pool.wait().code(), Some(1));
    pool.wait_log("the supervisor process ended without a report, with signal 9", 1);
}

pub fn a_pool_that_cannot_start_is_an_error_of_its_spawn() {
    let mut pool = Pool::start("embedder-at-a-taken-port");
    assert_eq!(pool.wait().code(), Some(0));
    pool.wait_log("not spawned: Bind: ", 1);
    assert!(pool.log().contains("Address already in use"), "{}", pool.log());
}

pub fn a_handle_outlives_an_upgrade_of_the_supervisor_that_it_has_spawned() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("console");
    let image = std::env::current_exe().unwrap();
    let mut pool = Pool::start_with("embedder-with-threads", &[(CONTROL, &path), (IMAGE, &image)]);
    wait_for("the console", || path.exists());
    pool.wait_ready(2);
    let before = (supervisor(&pool), processes::children_of(supervisor(&pool)));
    // The ticket of the upgrade itself is answered by the new image.
    assert_eq!(ask(&path, Command::Upgrade).outcome, Outcome::Done);
    assert_eq!(ask(&path, Command::Status).status.unwrap().upgrades, Some(1));
    assert_eq!((supervisor(&pool), processes::children_of(supervisor(&pool))), before);
    assert_eq!(ask(&path, Command::Reload).outcome, Outcome::Done);
    // The observer of the new image knows the workers of the old one.
    pool.wait_log("Retired { process: PoolProcess { pid: Some(", 2);
    for worker in &before.1 {
        for event in ["Adopted", "Retired"] {
            let process = format!("{event} {{ process: PoolProcess {{ pid: Some({worker}), slot: Some(");
            assert!(pool.log().contains(&process), "{}", pool.log());
        }
    }
    assert_eq!(ask(&path, Command::Stop { quick: false }).outcome, Outcome::Done);
    assert_eq!(pool.wait().code(), Some(0));
    pool.wait_log("ended: Some(Stopped), None", 1);
}

pub fn the_example_with_an_own_loop_obeys_its_input() {
    let mut pool = Pool::start_changed("embedder-of-the-examples", |command| {
        command.stdin(Stdio::piped());
    });
    let mut input = pool.take_stdin();
    wait_for("the pool", || TcpStream::connect(pool.address).is_ok());
    assert!(read_all(&mut pool.connect()).contains("generation 1"));
    // Two lines at once, and the second one in two pieces.
    input.write_all(b"scale 3\nrel").unwrap();
    input.write_all(b"oad\n").unwrap();
    wait_for("the new generation", || read_all(&mut pool.connect()).contains("generation 2"));
    input.write_all(b"stop\n").unwrap();
    assert_eq!(pool.wait().code(), Some(0));
}
