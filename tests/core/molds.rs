//! What pools do whose workers are forked by a mold.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::net::TcpListener;

use mcsup_core::host::processes;
use rustix::process::Signal;

use crate::pool::{Pool, is_gone, kill, read_all, wait_for};

/// Where a worker is its supervisor's child although a mold has forked it.
pub const ADOPTS: bool = cfg!(all(target_os = "linux", not(mcsup_force_fallback)));

/// The pids that the log names behind `before`, oldest first.
fn named(pool: &Pool, before: &str) -> Vec<i32> {
    let number = |rest: &str| rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
    pool.log().split(before).skip(1).filter_map(number).collect()
}

fn molds(pool: &Pool) -> Vec<i32> {
    named(pool, "Booting mold with pid: ")
}

fn workers(pool: &Pool) -> Vec<i32> {
    named(pool, "Booting worker with pid: ")
}

fn start(role: &str) -> Pool {
    let pool = Pool::start(role);
    pool.wait_ready(3);
    pool
}

/// The marks of both workers: asks until both have answered.
fn ask_both(pool: &Pool) -> HashSet<String> {
    let mut marks = HashMap::new();
    wait_until("both workers to have answered", || {
        // Two at a time, so that the second worker gets one while the first is busy.
        let mut streams = [pool.connect(), pool.connect()];
        for stream in &mut streams {
            stream.write_all(b"pid and mark\n").unwrap();
        }
        for stream in &mut streams {
            let answer = read_all(stream);
            let (pid, mark) = answer.split_once(' ').unwrap();
            marks.insert(pid.to_owned(), mark.to_owned());
        }
        marks.len() >= 2
    });
    marks.into_values().collect()
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let condition = std::cell::RefCell::new(&mut condition);
    wait_for(what, || (condition.borrow_mut())());
}

fn stop(mut pool: Pool) {
    let all: Vec<i32> = molds(&pool).into_iter().chain(workers(&pool)).collect();
    assert_eq!(pool.stop().code(), Some(0), "{}", pool.log());
    wait_for("all processes to be gone", || all.iter().all(|pid| is_gone(*pid)));
    TcpListener::bind(pool.address).unwrap();
}

pub fn workers_share_what_a_mold_has_loaded() {
    let pool = start("molded");
    let (mold, workers) = (molds(&pool), workers(&pool));
    assert_eq!((mold.len(), workers.len()), (1, 2), "{}", pool.log());
    let marks = ask_both(&pool);
    assert_eq!(marks.len(), 1, "{marks:?}");
    assert!(marks.iter().all(|mark| mark.ends_with(&format!(" by {}", mold[0]))), "{marks:?}");
    let children: HashSet<i32> = processes::children_of(pool.pid()).into_iter().collect();
    assert!(children.contains(&mold[0]));
    assert_eq!(workers.iter().all(|worker| children.contains(worker)), ADOPTS);
    stop(pool);
}

fn descriptors(pid: i32) -> Vec<String> {
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    links
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .map(|to| to.display().to_string())
        .collect()
}

fn count(all: &[String], kind: &str) -> usize {
    // All processes inherit the descriptors that the parent of this test has left open.
    let inherited = descriptors(std::process::id().try_into().unwrap());
    all.iter().filter(|one| one.starts_with(kind) && !inherited.contains(one)).count()
}

pub fn a_worker_from_a_mold_has_what_it_needs() {
    let pool = start("molded");
    kill(workers(&pool)[0], Signal::KILL);
    pool.wait_ready(4);
    for _ in 0..10 {
        let descriptors: Vec<String> = pool.ask("fds").lines().map(str::to_owned).collect();
        // The listener, the link, the handover's two ends, the accepted connection; the ends of the pipes
        // that wake the worker and its lifeline.
        let found = ["socket:", "pipe:", "anon_inode:"].map(|kind| count(&descriptors, kind));
        assert_eq!(found, [5, 4, 0], "{descriptors:?}");
    }
    let status = pool.ask("status");
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(field("SigBlk:"), "0000000000000000");
    assert_eq!(field("Threads:"), "2");
    let mask = |name: &str| u64::from_str_radix(&field(name), 16).unwrap();
    let has = |name: &str, signal: Signal| mask(name) & (1 << (signal.as_raw() - 1)) != 0;
    assert!(!has("SigCgt:", Signal::CHILD) && !has("SigIgn:", Signal::CHILD));
    assert!(has("SigCgt:", Signal::TERM) && has("SigIgn:", Signal::PIPE));
    stop(pool);
}

pub fn a_mold_holds_no_listener() {
    let pool = start("molded");
    let mold = molds(&pool)[0];
    // The link, the orders, the handover's two ends; where it has children, the pipe that says that one has ended. While it
    // forks it has what goes to the new worker as well.
    wait_until("the mold to hold nothing else", || {
        let descriptors = descriptors(mold);
        let found = ["socket:", "pipe:", "anon_inode:"].map(|kind| count(&descriptors, kind));
        found == [4, if ADOPTS { 0 } else { 2 }, 0]
    });
    stop(pool);
}

pub fn a_worker_from_a_mold_serves_its_slot() {
    let pool = start("molded-own-sockets");
    let mut seen = HashSet::new();
    wait_until("both slots to be served", || {
        seen.insert(pool.ask("slot"));
        seen.len() == 2
    });
    stop(pool);
}

pub fn a_worker_from_a_mold_has_no_privileges() {
    if !rustix::process::geteuid().is_root() {
        println!("only root has privileges to drop: nothing to see here");
        return;
    }
    let pool = Pool::start("molded-unprivileged");
    pool.wait_ready(3);
    let status = pool.ask("status");
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
    assert_eq!(effective, "0000000000000000");
    let (mold, worker) = (molds(&pool)[0], pool.ask("pid").parse::<i32>().unwrap());
    // Both notice their supervisor's death after the change of user, which makes the kernel forget that they want to.
    kill(pool.pid(), Signal::KILL);
    wait_for("all processes to be gone", || is_gone(mold) && is_gone(worker));
}

pub fn a_dead_worker_is_replaced_from_the_mold() {
    let pool = start("molded");
    let marks = ask_both(&pool);
    let dead = workers(&pool)[0];
    kill(dead, Signal::KILL);
    pool.wait_log(&format!("Worker {dead} (slot"), 1);
    pool.wait_log("died, cause unknown: SIGKILL", 1);
    pool.wait_ready(4);
    assert_eq!(ask_both(&pool), marks);
    assert_eq!(molds(&pool).len(), 1);
    stop(pool);
}

pub fn a_dead_mold_is_replaced() {
    let pool = start("molded");
    let (mold, first) = (molds(&pool)[0], workers(&pool));
    let marks = ask_both(&pool);
    kill(mold, Signal::KILL);
    pool.wait_log(&format!("Mold {mold} (generation 1) died, cause unknown: SIGKILL"), 1);
    assert!(first.contains(&pool.ask("pid").parse().unwrap()));
    pool.wait_ready(4);
    assert_eq!(ask_both(&pool), marks);
    assert_eq!(workers(&pool), first);
    kill(first[0], Signal::KILL);
    wait_for("a successor", || workers(&pool).len() == 3);
    pool.wait_ready(5);
    assert_eq!(ask_both(&pool).len(), 2);
    kill(first[1], Signal::KILL);
    pool.wait_ready(6);
    let now = ask_both(&pool);
    assert!(now.len() == 1 && now != marks, "{now:?}");
    stop(pool);
}

pub fn a_mold_that_is_asked_to_end_is_replaced() {
    let pool = start("molded");
    // By the group, as a terminal does it: those are its supervisor's business.
    for signal in [Signal::INT, Signal::HUP, Signal::USR1, Signal::USR2, Signal::QUIT] {
        kill(molds(&pool)[0], signal);
    }
    kill(molds(&pool)[0], Signal::TERM);
    pool.wait_log(&format!("Mold {} (generation 1) exited with code 0", molds(&pool)[0]), 1);
    pool.wait_ready(4);
    assert_eq!(workers(&pool).len(), 2);
    stop(pool);
}

pub fn a_stopped_mold_does_not_stop_the_pool() {
    let pool = start("molded");
    let (mold, first) = (molds(&pool)[0], workers(&pool));
    kill(mold, Signal::STOP);
    kill(first[0], Signal::KILL);
    if ADOPTS {
        pool.wait_log(&format!("Worker {} (slot", first[0]), 1);
    }
    assert_eq!(pool.ask("pid"), first[1].to_string());
    // It is asked for a worker that it does not fork; all the same everything ends when asked.
    stop(pool);
}

pub fn a_mold_that_does_not_fork_is_replaced() {
    let pool = start("molded-hasty");
    let (mold, first) = (molds(&pool)[0], workers(&pool));
    kill(mold, Signal::STOP);
    if !ADOPTS {
        // No process would report a worker's end.
        kill(mold, Signal::CONT);
        return stop(pool);
    }
    kill(first[0], Signal::KILL);
    pool.wait_log(
        &format!(
            "Mold {mold} (generation 1) was killed by its supervisor: not ready within the boot timeout"
        ),
        1,
    );
    wait_for("a successor", || workers(&pool).len() == 3);
    pool.wait_ready(5);
    assert_eq!((molds(&pool).len(), ask_both(&pool).len()), (2, 2));
    stop(pool);
}

pub fn no_process_outlives_a_killed_supervisor() {
    let mut pool = start("molded");
    let all: Vec<i32> = molds(&pool).into_iter().chain(workers(&pool)).collect();
    pool.signal(Signal::KILL);
    pool.wait();
    wait_for("all processes to be gone", || all.iter().all(|pid| is_gone(*pid)));
    wait_for("the port to be free", || TcpListener::bind(pool.address).is_ok());
}

pub fn a_mold_that_loads_dies_with_its_supervisor() {
    let mut pool = Pool::start("loading-for-ever");
    pool.wait_log("Booting mold with pid", 1);
    let mold = molds(&pool)[0];
    // It has taken its signals over when it loads.
    let caught = || std::fs::read_to_string(format!("/proc/{mold}/status")).unwrap_or_default();
    wait_for("the mold to load", || caught().contains("SigBlk:\t0000000000000000"));
    pool.signal(Signal::KILL);
    pool.wait();
    if cfg!(target_os = "linux") {
        wait_for("the mold to go", || is_gone(mold));
    } else {
        kill(mold, Signal::KILL);
    }
}

pub fn a_mold_that_cannot_load_ends_the_start() {
    let mut pool = Pool::start("unloadable");
    assert_eq!(pool.wait().code(), Some(4));
    assert!(pool.log().contains("nothing to cast"), "{}", pool.log());
    assert!(workers(&pool).is_empty());
}

pub fn threads_in_a_mold_are_refused_by_name() {
    let mut pool = Pool::start("threaded-mold");
    assert_eq!(pool.wait().code(), Some(4));
    assert!(pool.log().contains("threads run in the mold (companion)"), "{}", pool.log());
}

pub fn threads_in_a_mold_are_left_behind() {
    let pool = start("threaded-mold-warned");
    assert_eq!(pool.log().matches("threads run in the mold (companion)").count(), 1);
    assert_eq!(ask_both(&pool).len(), 1);
    let status = pool.ask("status");
    // Its first one and the lifeline.
    assert!(status.contains("Threads:\t2\n"), "{status}");
    stop(pool);
}

pub fn a_reload_has_a_mold_of_its_own() {
    let pool = start("molded");
    let (cold, marks) = (molds(&pool)[0], ask_both(&pool));
    pool.signal(Signal::HUP);
    pool.wait_ready(6);
    wait_for("the old mold to be gone", || is_gone(cold));
    wait_for("the old workers to be gone", || workers(&pool)[..2].iter().all(|pid| is_gone(*pid)));
    let now = ask_both(&pool);
    assert!(now.len() == 1 && now != marks, "{now:?}");
    stop(pool);
}

pub fn orphans_of_workers_leave_no_zombie() {
    let pool = start("molded");
    let daemon: i32 = pool.ask("daemon").parse().unwrap();
    // Gone altogether, and not only dead.
    wait_for("it to be reaped", || !std::path::Path::new(&format!("/proc/{daemon}")).exists());
    stop(pool);
}
