//! Whose signals they are: before, during and after a run, and in workers.

use std::os::unix::process::CommandExt;

use rustix::process::Signal;

use crate::pool::{Pool, is_gone, kill, wait_for};

/// All that a supervisor handles.
const HANDLED: [i32; 10] = [
    libc::SIGCHLD,
    libc::SIGUSR1,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGHUP,
    libc::SIGUSR2,
    libc::SIGWINCH,
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGQUIT,
];

/// Does what `change` does to the signals of a process, before that becomes the pool.
fn start_with_signals(role: &str, change: fn(i32)) -> Pool {
    Pool::start_changed(role, |command| {
        let act = move || {
            HANDLED.into_iter().for_each(change);
            Ok(())
        };
        // SAFETY: it makes system calls alone, on memory of its own.
        #[allow(unsafe_code, reason = "the only way to inherit such signals")]
        unsafe {
            command.pre_exec(act);
        }
    })
}

#[allow(unsafe_code, reason = "rustix has no signal masks")]
fn block(number: i32) {
    // SAFETY: the set is initialised before it is read.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, number);
        libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
    }
}

#[allow(unsafe_code, reason = "rustix has no dispositions")]
fn ignore(number: i32) {
    // SAFETY: no code of ours is entered by SIG_IGN.
    unsafe { libc::signal(number, libc::SIG_IGN) };
}

/// Kills a worker and waits for its replacement, reloads, and stops.
fn lives_as_any_other(mut pool: Pool, ready: usize) {
    pool.wait_ready(ready);
    let worker: i32 = pool.ask("pid").parse().unwrap();
    kill(worker, Signal::KILL);
    wait_for("the worker to be reaped", || !pool.workers().contains(&worker));
    pool.wait_ready(ready + 1);
    pool.signal(Signal::HUP);
    pool.wait_ready(2 * ready + 1);
    assert_eq!(pool.stop().code(), Some(0));
}

pub fn signals_that_a_parent_has_blocked_are_handled() {
    lives_as_any_other(start_with_signals("answering", block), 2);
}

pub fn signals_that_a_parent_ignores_are_handled() {
    lives_as_any_other(start_with_signals("answering", ignore), 2);
}

pub fn a_mold_and_its_workers_are_free_of_what_a_parent_has_done_to_signals() {
    for change in [block as fn(i32), ignore] {
        let pool = start_with_signals("molded", change);
        pool.wait_ready(3);
        let handled = HANDLED.into_iter().fold(0, |mask, number| mask | 1 << (number - 1));
        for pid in pool.workers() {
            let is_free = || {
                let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
                let mask = |name: &str| {
                    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
                    u64::from_str_radix(line.trim(), 16).unwrap()
                };
                (mask("SigBlk:"), mask("SigIgn:") & handled) == (0, 0)
            };
            // A mold blocks all signals for as long as it forks.
            wait_for("no signal to be blocked or ignored", is_free);
        }
        lives_as_any_other(pool, 3);
    }
}

pub fn a_second_run_in_one_process_is_as_good_as_the_first() {
    let mut pool = Pool::start("twice");
    pool.wait_ready(2);
    pool.signal(Signal::TERM);
    pool.wait_log("Listening at", 2);
    pool.wait_ready(4);
    kill(pool.workers()[0], Signal::KILL);
    pool.wait_ready(5);
    assert_eq!(pool.stop().code(), Some(0), "{}", pool.log());
}

pub fn a_host_has_its_own_handlers_back_after_a_run() {
    for role in ["hosted", "hosted-molded"] {
        let workers = if role == "hosted" { 2 } else { 3 };
        let mut pool = Pool::start(role);
        pool.wait_ready(workers);
        let worker: i32 = pool.ask("pid").parse().unwrap();
        kill(worker, Signal::KILL);
        pool.wait_ready(workers + 1);
        wait_for("the worker to be gone", || is_gone(worker));
        pool.signal(Signal::TERM);
        pool.wait_log("the host goes on", 1);
        assert!(pool.log().contains("the host has seen 0 signals"), "{}", pool.log());
        assert!(pool.log().contains("its process is what it was"), "{}", pool.log());
        pool.signal(Signal::INT);
        assert_eq!(pool.wait().code(), Some(42));
    }
}

pub fn handlers_of_a_worker_run_though_its_host_has_registered_every_signal() {
    for (role, workers, expected) in [
        ("hosted-widely", 2, "4 of 4, host 0, its CHLD 0"),
        ("hosted-more-widely", 2, "4 of 4, host 0, its CHLD 1"),
        ("hosted-more-widely-molded", 3, "4 of 4, host 0, its CHLD 1"),
    ] {
        let mut pool = Pool::start(role);
        pool.wait_ready(workers);
        assert_eq!(pool.ask("register-widely"), expected, "{role}");
        assert_eq!(pool.stop().code(), Some(0));
    }
}

pub fn handlers_that_a_worker_registers_run_and_those_of_its_host_do_not() {
    for (role, workers) in [("answering", 2), ("hosted", 2), ("hosted-molded", 3)] {
        let mut pool = Pool::start(role);
        pool.wait_ready(workers);
        assert_eq!(pool.ask("register"), "CHLD 1, USR2 1, host 0", "{role}");
        let worker = pool.workers()[0];
        kill(worker, Signal::TERM);
        wait_for("the worker to be gone", || is_gone(worker));
        pool.wait_ready(workers + 1);
        pool.signal(Signal::TERM);
        if role != "answering" {
            pool.wait_log("the host goes on", 1);
            pool.signal(Signal::INT);
        }
        pool.wait();
    }
}
