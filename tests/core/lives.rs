//! What pools do, seen from outside.

use std::collections::HashSet;
use std::io::Write;
use std::net::TcpListener;

use rustix::process::Signal;

use crate::pool::{Pool, is_gone, kill, read_all, wait_for};

pub fn a_pool_serves_and_stops_when_asked() {
    let mut pool = Pool::start("answering");
    pool.wait_ready(2);
    let workers = pool.workers();
    assert!(workers.contains(&pool.ask("pid").parse().unwrap()));
    assert_eq!(pool.stop().code(), Some(0));
    assert!(workers.iter().all(|worker| is_gone(*worker)));
    TcpListener::bind(pool.address).unwrap();
}

pub fn a_worker_has_nothing_of_its_supervisors() {
    let mut pool = Pool::start("answering");
    pool.wait_ready(2);
    // A replacement is forked while another worker's link is open.
    kill(pool.workers()[0], Signal::KILL);
    pool.wait_ready(3);
    // All processes inherit the descriptors that the parent of this test has left open.
    let inherited: Vec<String> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .map(|target| target.display().to_string())
        .collect();
    for _ in 0..10 {
        let descriptors = pool.ask("fds");
        let own = || descriptors.lines().filter(|line| !inherited.iter().any(|other| other == line));
        let of = |kind: &str| own().filter(|line| line.starts_with(kind)).count();
        // The listener, the link, the handover's two ends, the accepted connection; the ends of the pipes
        // that wake the worker and its lifeline.
        assert_eq!((of("socket:"), of("pipe:")), (5, 4), "{descriptors}");
        assert_eq!(of("anon_inode:"), 0, "{descriptors}");
    }
    assert_eq!(pool.stop().code(), Some(0));
}

/// A field of proc_pid_status(5).
fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn has(mask: &str, signal: Signal) -> bool {
    let mask = u64::from_str_radix(mask, 16).unwrap();
    mask & (1 << (signal.as_raw() - 1)) != 0
}

pub fn a_worker_starts_with_clean_signals() {
    let mut pool = Pool::start("answering");
    pool.wait_ready(2);
    let status = pool.ask("status");
    assert_eq!(field(&status, "SigBlk"), "0000000000000000");
    let (caught, ignored) = (field(&status, "SigCgt"), field(&status, "SigIgn"));
    assert!(!has(&caught, Signal::CHILD) && !has(&ignored, Signal::CHILD));
    assert!(has(&caught, Signal::TERM) && has(&caught, Signal::HUP) && has(&ignored, Signal::PIPE));
    assert_eq!(pool.stop().code(), Some(0));
}

/// The soft and the hard limit of open files, of proc_pid_limits(5).
fn limits(text: &str) -> (String, String) {
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let mut words = line.split_whitespace().map(str::to_owned);
    (words.next().unwrap(), words.next().unwrap())
}

pub fn workers_have_the_limit_given() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(200), ..before }).unwrap();
    for (role, count) in [("answering", 2), ("molded", 3)] {
        let mut pool = Pool::start(role);
        pool.wait_ready(count);
        let (soft, hard) = limits(&pool.ask("limits"));
        assert_eq!(soft, "200");
        let own = std::fs::read_to_string(format!("/proc/{}/limits", pool.pid())).unwrap();
        assert_eq!(limits(&own), (hard.clone(), hard));
        assert_eq!(pool.stop().code(), Some(0));
    }
}

pub fn privileges_are_dropped_completely() {
    if !rustix::process::geteuid().is_root() {
        println!("only root has privileges to drop: nothing to see here");
        return;
    }
    let mut pool = Pool::start("unprivileged");
    pool.wait_ready(1);
    let status = pool.ask("status");
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let entry = passwd.lines().find(|line| line.starts_with("nobody:")).unwrap().to_owned();
    let (uid, gid) = (entry.split(':').nth(2).unwrap(), entry.split(':').nth(3).unwrap());
    assert_eq!(field(&status, "Uid"), [uid; 4].join(" "));
    assert_eq!(field(&status, "Gid"), [gid; 4].join(" "));
    assert_eq!(field(&status, "Groups"), gid);
    assert_eq!(field(&status, "CapEff"), "0000000000000000");
    // The parent-death signal was set after the change of user, which clears it.
    pool.signal(Signal::KILL);
    pool.wait();
    wait_for_port(&pool);
}

pub fn a_worker_that_panics_is_replaced() {
    let mut pool = Pool::start("answering");
    pool.wait_ready(2);
    assert_eq!(pool.ask("panic"), "");
    pool.wait_log("exited with code 1", 1);
    pool.wait_ready(3);
    assert!(pool.ask("pid").parse::<i32>().is_ok());
    assert_eq!(pool.stop().code(), Some(0));
}

pub fn a_boot_that_panics_ends_the_start() {
    let mut pool = Pool::start("panicking-boot");
    assert_eq!(pool.wait().code(), Some(3));
    assert!(pool.log().contains("the worker panicked while it booted"));
}

pub fn a_supervisor_with_threads_refuses_to_fork() {
    let mut pool = Pool::start("threaded");
    assert_eq!(pool.wait().code(), Some(1));
    let log = pool.log();
    assert!(log.contains("outcome None") && log.contains("companion"), "{log}");
    assert!(!log.contains("Listening at"), "{log}");
}

pub fn the_caller_hears_why_the_first_workers_could_not_boot() {
    for (role, reason) in [
        ("exiting-boot", "exited with code 7"),
        ("killed-boot", "SIGKILL"),
        ("hanging-boot", "was not ready within the boot timeout of 0.100 s"),
        ("exiting-mold", "exited with code 7"),
        ("threaded-late", "companion"),
        ("threaded-late-molded", "companion"),
    ] {
        let mut pool = Pool::start(role);
        assert_eq!(pool.wait().code(), Some(3), "{role}: {}", pool.log());
        let log = pool.log();
        let told = log.lines().find(|line| line.contains("outcome Some(BootFailed(")).unwrap();
        assert!(told.contains("reason Some(") && told.contains(reason), "{role}: {told}");
        // The error is in the log already.
        let before = log.lines().take_while(|line| *line != told).any(|line| line.contains(reason));
        assert!(before, "{role}: {log}");
    }
}

pub fn an_inherited_listener_outlives_a_start_that_fails() {
    let mut pool = Pool::start_with_listener("inherited-twice");
    pool.wait_ready(2);
    assert!(pool.workers().contains(&pool.ask("pid").parse().unwrap()));
    assert_eq!(pool.stop().code(), Some(0));
}

pub fn a_killed_supervisor_takes_its_pool_along() {
    let mut pool = Pool::start("answering");
    pool.wait_ready(2);
    let workers = pool.workers();
    pool.signal(Signal::KILL);
    pool.wait();
    wait_for("the workers to go", || workers.iter().all(|worker| is_gone(*worker)));
    wait_for_port(&pool);
}

pub fn a_port_is_free_though_a_worker_has_no_descriptor_left() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(100), ..before }).unwrap();
    for (role, count) in [("answering", 2), ("upgradable-molded", 3)] {
        let mut pool = Pool::start(role);
        pool.wait_ready(count);
        let mut stream = pool.connect();
        writeln!(stream, "exhaust").unwrap();
        pool.wait_log("no descriptor is left", 1);
        pool.signal(Signal::KILL);
        pool.wait();
        // The worker is inside of its request until the client says more.
        wait_for_port(&pool);
        writeln!(stream, "goes on").unwrap();
        assert_eq!(read_all(&mut stream), "goes on");
    }
    setrlimit(Resource::Nofile, before).unwrap();
}

pub fn an_inherited_listener_is_served() {
    let mut pool = Pool::start_with_listener("answering");
    pool.wait_ready(2);
    assert!(pool.workers().contains(&pool.ask("pid").parse().unwrap()));
    assert_eq!(pool.stop().code(), Some(0));
}

pub fn a_worker_that_is_stopped_is_noticed() {
    let mut pool = Pool::start("hasty");
    pool.wait_ready(2);
    let stopped = pool.workers()[0];
    kill(stopped, Signal::STOP);
    pool.wait_log(&format!("WORKER TIMEOUT (pid: {stopped})"), 1);
    wait_for("the stopped worker to be gone", || is_gone(stopped));
    pool.wait_ready(3);
    assert_eq!(pool.stop().code(), Some(0));
}

pub fn a_drain_hands_out_what_is_queued() {
    let mut pool = Pool::start("answering");
    pool.wait_ready(2);
    let mut streams: Vec<_> = (0..8).map(|_| pool.connect()).collect();
    for stream in &mut streams {
        writeln!(stream, "sleep").unwrap();
    }
    pool.signal(Signal::TERM);
    for stream in &mut streams {
        assert!(read_all(stream).parse::<i32>().is_ok());
    }
    assert_eq!(pool.wait().code(), Some(0));
}

pub fn what_is_queued_for_a_slot_outlives_its_worker() {
    let mut pool = Pool::start("own-sockets");
    pool.wait_ready(2);
    let first = pool.workers();
    first.iter().for_each(|worker| kill(*worker, Signal::STOP));
    let mut streams: Vec<_> = (0..40).map(|_| pool.connect()).collect();
    for stream in &mut streams {
        writeln!(stream, "pid").unwrap();
    }
    first.iter().for_each(|worker| kill(*worker, Signal::KILL));
    let served: HashSet<i32> = streams.iter_mut().map(|stream| read_all(stream).parse().unwrap()).collect();
    // Each by the next worker of its slot.
    assert_eq!(served.len(), 2);
    assert!(served.is_disjoint(&first.into_iter().collect()));
    assert_eq!(pool.stop().code(), Some(0));
}

pub fn clients_of_a_slot_that_is_scaled_away_are_answered() {
    let mut pool = Pool::start("own-sockets");
    pool.wait_ready(2);
    let workers = pool.workers();
    workers.iter().for_each(|worker| kill(*worker, Signal::STOP));
    let mut streams: Vec<_> = (0..20).map(|_| pool.connect()).collect();
    for stream in &mut streams {
        writeln!(stream, "pid").unwrap();
    }
    pool.signal(Signal::TTOU);
    pool.wait_log("Handling signal: TTOU", 1);
    // The worker of the second slot ends before it has accepted any of its own.
    let of_second = |worker: &i32| pool.log().contains(&format!("pid: {worker} (slot 1,"));
    let (second, first): (Vec<i32>, Vec<i32>) = workers.iter().partition(|worker| of_second(worker));
    kill(second[0], Signal::KILL);
    kill(first[0], Signal::CONT);
    for stream in &mut streams {
        assert_eq!(read_all(stream), first[0].to_string());
    }
    wait_for("the second worker to be reaped", || pool.workers() == first);
    assert_eq!(pool.stop().code(), Some(0));
}

pub fn workers_without_free_descriptors_serve_when_there_are_some_again() {
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
    let mut pool = Pool::start("answering");
    pool.wait_ready(2);
    let workers = pool.workers();
    let limit = |current| {
        for worker in &workers {
            let limit = Rlimit { current, ..getrlimit(Resource::Nofile) };
            prlimit(Pid::from_raw(*worker), Resource::Nofile, limit).unwrap();
        }
    };
    limit(Some(3));
    let mut streams: Vec<_> = (0..8).map(|_| pool.connect()).collect();
    for stream in &mut streams {
        writeln!(stream, "pid").unwrap();
    }
    pool.wait_log("cannot accept connections for a moment", 1);
    limit(getrlimit(Resource::Nofile).current);
    for stream in &mut streams {
        assert!(workers.contains(&read_all(stream).parse().unwrap()));
    }
    assert_eq!(pool.stop().code(), Some(0));
}

pub fn a_pool_outlives_a_lowered_limit_of_descriptors() {
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
    let mut pool = Pool::start("answering");
    pool.wait_ready(2);
    let limit = |limit| prlimit(Pid::from_raw(pool.pid()), Resource::Nofile, limit);
    // Lower than the supervisor has descriptors to wait for, and nothing that it may raise.
    let low = Rlimit { current: Some(1), maximum: Some(1) };
    limit(low).unwrap();
    kill(pool.workers()[0], Signal::KILL);
    pool.wait_log("are looked at in turns", 1);
    pool.wait_log("cause unknown: SIGKILL", 1);
    assert!(!pool.ask("pid").is_empty());
    let ours = getrlimit(Resource::Nofile);
    if limit(ours).is_ok() {
        pool.wait_ready(3);
    } else {
        // Not by eprintln, which the lints forbid here too.
        let _ = std::io::stderr().write_all(b"SKIPPED: only root may raise the limit again\n");
    }
    assert_eq!(pool.stop().code(), Some(0));
}

/// A process's first thread may be gone a moment before its last one, which holds the listener.
fn wait_for_port(pool: &Pool) {
    wait_for("the port to be free", || TcpListener::bind(pool.address).is_ok());
}
