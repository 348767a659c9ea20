//! Another image of the supervisor takes over, or cannot, seen from outside.

use std::collections::HashSet;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use mcsup_core::control::{Client, Command, Outcome, Request};
use mcsup_core::host::pidfile::{PidFile, Running};
use mcsup_core::host::processes;
use rustix::process::Signal;

use crate::pool::{Pool, is_gone, kill, read_all, wait_for};
use crate::roles::{CONTROL, IMAGE, PID_FILE, RAISE, ROLE};

/// A pool of two workers and the program that it is upgraded to.
struct Upgradable {
    pool: Pool,
    directory: tempfile::TempDir,
    image: PathBuf,
    upgrades: usize,
}

impl Upgradable {
    fn start() -> Self {
        Self::start_as("upgradable")
    }

    fn start_as(role: &str) -> Self {
        Self::start_with(role, &[])
    }

    fn start_with(role: &str, more: &[(&str, &Path)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        let path = |name: &str| directory.path().join(name);
        write_image(&image, &same());
        let variables = [(IMAGE, &*image), (PID_FILE, &*path("pid")), (CONTROL, &*path("ctl"))];
        let pool = Pool::start_with(role, &[&variables[..], more].concat());
        // A mold is ready too.
        pool.wait_ready(if role == "upgradable" { 2 } else { 3 });
        Self { pool, directory, image, upgrades: 0 }
    }

    /// From now on the image is this script.
    fn set_image(&self, script: &str) {
        write_image(&self.image, script);
    }

    fn pid_file(&self) -> PathBuf {
        self.directory.path().join("pid")
    }

    fn ask_for_upgrade(&self) {
        self.pool.signal(Signal::USR2);
    }

    /// Upgrades to whatever the image is.
    fn upgrade(&mut self) {
        self.ask_for_upgrade();
        self.upgrades += 1;
        self.pool.wait_log("Upgraded: a new image supervises 2 workers", self.upgrades);
    }

    /// Mold and workers. A worker is the child of its mold where no process adopts.
    fn sorted_workers(&self) -> Vec<i32> {
        let mut workers = self.pool.workers();
        let of_molds: Vec<_> = workers.iter().flat_map(|pid| processes::children_of(*pid)).collect();
        workers.extend(of_molds);
        workers.sort_unstable();
        workers
    }
}

/// Writes a script in one step, so that no reader finds a part of it.
fn write_image(path: &Path, script: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(new, path).unwrap();
}

/// This program again.
fn same() -> String {
    format!("exec '{}' \"$@\"", std::env::current_exe().unwrap().display())
}

/// This program in another role, in the dry run too.
fn in_role(role: &str) -> String {
    format!("export {ROLE}={role}\n{}", same())
}

/// This program, after something that is done between the old image's end and its own begin.
fn after(act: &str) -> String {
    format!("case $MCSUP_RESUME in resume:*) {act};; esac\n{}", same())
}

pub fn an_upgrade_keeps_everything_and_serves_what_is_queued() {
    let mut it = Upgradable::start();
    let workers = it.sorted_workers();
    workers.iter().for_each(|worker| kill(*worker, Signal::STOP));
    let mut stream = it.pool.connect();
    writeln!(stream, "pid").unwrap();
    it.upgrade();
    workers.iter().for_each(|worker| kill(*worker, Signal::CONT));
    assert!(workers.contains(&read_all(&mut stream).parse().unwrap()));
    assert_eq!(it.sorted_workers(), workers);
    assert_eq!(PidFile::running(&it.pid_file()).unwrap(), Running::Pid(it.pool.pid()));
    assert_eq!(it.pool.log().matches("Listening at").count(), 1);
    // The new image is a supervisor like the old one.
    kill(workers[0], Signal::KILL);
    it.pool.wait_ready(3);
    it.pool.signal(Signal::HUP);
    it.pool.wait_ready(5);
    assert_eq!(it.pool.stop().code(), Some(0));
    assert!(!it.pid_file().exists());
    assert!(!it.directory.path().join("ctl").exists());
}

pub fn a_worker_of_a_new_image_knows_nothing_of_the_upgrade() {
    let mut it = Upgradable::start();
    it.upgrade();
    let old = it.sorted_workers();
    old.iter().for_each(|worker| kill(*worker, Signal::KILL));
    it.pool.wait_ready(4);
    let environment = it.pool.ask("environment");
    assert!(!environment.contains("MCSUP_RESUME"), "{environment}");
    let status = it.pool.ask("status");
    assert!(status.contains("SigBlk:\t0000000000000000"), "{status}");
    assert_eq!(it.pool.stop().code(), Some(0));
}

pub fn clients_notice_nothing_of_ten_upgrades() {
    let mut it = Upgradable::start();
    let (address, stop, served) =
        (it.pool.address, Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let client = {
        let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let mut stream = std::net::TcpStream::connect(address).unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                writeln!(stream, "pid").unwrap();
                assert!(read_all(&mut stream).parse::<i32>().is_ok());
                served.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let workers = it.sorted_workers();
    for _ in 0..10 {
        let before = served.load(Ordering::Relaxed);
        it.upgrade();
        wait_for("a request after an upgrade", || served.load(Ordering::Relaxed) > before + 1);
    }
    stop.store(true, Ordering::Relaxed);
    client.join().unwrap();
    assert_eq!(it.sorted_workers(), workers);
    assert_eq!(it.pool.stop().code(), Some(0));
}

pub fn a_second_supervisor_is_refused_before_during_and_after_an_upgrade() {
    let mut it = Upgradable::start();
    let path = it.pid_file();
    let stop = Arc::new(AtomicBool::new(false));
    let rival = {
        let (stop, path) = (Arc::clone(&stop), path.clone());
        std::thread::spawn(move || {
            let mut tried = 0;
            while !stop.load(Ordering::Relaxed) {
                assert!(PidFile::hold(&path).is_err());
                tried += 1;
            }
            tried
        })
    };
    (0..3).for_each(|_| it.upgrade());
    stop.store(true, Ordering::Relaxed);
    assert!(rival.join().unwrap() > 0);
    assert!(PidFile::hold(&path).is_err());
    assert_eq!(it.pool.stop().code(), Some(0));
    drop(PidFile::hold(&path).unwrap());
}

pub fn an_image_that_crashes_hangs_or_is_of_another_version_is_refused() {
    let mut it = Upgradable::start();
    let workers = it.sorted_workers();
    let cases = [
        ("echo 'no module named x' >&2; exit 7", "exited with code 7: no module named x"),
        ("kill -SEGV $$", "ended by signal 11"),
        ("exec sleep 60", "did not answer within 2s"),
        ("exit 0", "exited with code 0"),
        (&in_role("ahead"), "record of version 99"),
    ];
    for (index, (script, reason)) in cases.iter().enumerate() {
        it.set_image(script);
        it.ask_for_upgrade();
        it.pool.wait_log("Upgrade failed, this image goes on", index + 1);
        assert!(it.pool.log().contains(reason), "{reason}");
        wait_for("the dry run to be gone", || it.sorted_workers() == workers);
        assert!(workers.contains(&it.pool.ask("pid").parse().unwrap()));
    }
    std::fs::remove_file(&it.image).unwrap();
    it.ask_for_upgrade();
    it.pool.wait_log("Upgrade failed, this image goes on", cases.len() + 1);
    assert!(it.pool.log().contains("cannot execute"));
    it.set_image(&same());
    it.upgrade();
    assert_eq!(it.sorted_workers(), workers);
    assert_eq!(it.pool.stop().code(), Some(0));
}

pub fn an_image_that_fails_or_panics_after_the_exec_gives_the_pool_back() {
    let mut it = Upgradable::start();
    let workers = it.sorted_workers();
    let cases = [("refusing", "0 workers: expected 1"), ("panicking", "it panicked")];
    for (index, (role, reason)) in cases.into_iter().enumerate() {
        it.set_image(&in_role(role));
        it.ask_for_upgrade();
        it.pool.wait_log("Upgrade failed, this image goes on", index + 1);
        assert!(it.pool.log().contains(reason), "{reason}");
        assert_eq!(it.sorted_workers(), workers);
        assert!(workers.contains(&it.pool.ask("pid").parse().unwrap()));
    }
    it.set_image(&in_role("upgradable"));
    it.upgrade();
    kill(workers[0], Signal::KILL);
    it.pool.wait_ready(3);
    assert_eq!(it.pool.stop().code(), Some(0));
}

/// Its threads are there from the dry run on, or from the exec on.
pub fn an_image_with_threads_gives_the_pool_back() {
    let mut it = Upgradable::start();
    let workers = it.sorted_workers();
    for (index, role) in ["threaded", "threaded-upgradable"].into_iter().enumerate() {
        it.set_image(&in_role(role));
        it.ask_for_upgrade();
        it.pool.wait_log("Upgrade failed, this image goes on", index + 1);
        let log = it.pool.log();
        let told = log.lines().filter(|line| line.contains("Upgrade failed")).nth(index).unwrap();
        assert!(told.contains("companion"), "{role}: {told}");
        assert_eq!(it.sorted_workers(), workers);
    }
    it.set_image(&in_role("upgradable"));
    it.upgrade();
    kill(workers[0], Signal::KILL);
    it.pool.wait_ready(3);
    assert_eq!(it.pool.stop().code(), Some(0));
}

pub fn signals_that_arrive_during_the_exec_wait_for_the_new_image() {
    let mut it = Upgradable::start();
    it.set_image(&after("kill -HUP $$"));
    it.upgrade();
    it.pool.wait_log("Handling signal: HUP", 1);
    it.pool.wait_ready(4);
    it.pool.wait_log("is now complete", 0);
    wait_for("two workers", || it.pool.workers().len() == 2);
    it.set_image(&after("kill -TERM $$"));
    it.ask_for_upgrade();
    assert_eq!(it.pool.wait().code(), Some(0));
    assert!(it.pool.log().contains("Handling signal: TERM"));
}

/// The supervisor is stopped until the dry run has ended, so that it handles that and a signal in one round. At the
/// line about that signal, which was taken then, the logger of the role raises another one.
pub fn signals_between_the_last_look_and_the_exec_reach_the_new_image() {
    for (number, signal) in [(libc::SIGTERM, Signal::TERM), (libc::SIGHUP, Signal::HUP)] {
        let variable = PathBuf::from(number.to_string());
        let mut it = Upgradable::start_with("upgradable", &[(RAISE, &variable)]);
        let (workers, go) = (it.sorted_workers(), it.directory.path().join("go"));
        let wait = format!("until [ -e '{}' ]; do sleep 0.01; done", go.display());
        it.set_image(&format!("case $MCSUP_RESUME in check:*) {wait};; esac\n{}", same()));
        it.ask_for_upgrade();
        wait_for("the dry run", || it.pool.workers().len() == 3);
        let trial = it.pool.workers().into_iter().find(|pid| !workers.contains(pid)).unwrap();
        it.pool.signal(Signal::STOP);
        std::fs::write(go, "").unwrap();
        wait_for("the dry run to end", || is_gone(trial));
        it.pool.signal(Signal::WINCH);
        it.pool.signal(Signal::CONT);
        it.pool.wait_log("waits for the next image", 1);
        if signal == Signal::HUP {
            it.pool.wait_ready(4);
            it.pool.signal(Signal::TERM);
        }
        assert_eq!(it.pool.wait().code(), Some(0));
        assert!(it.pool.log().contains("Upgraded: a new image"));
    }
}

pub fn a_worker_that_dies_during_the_exec_is_replaced() {
    let mut it = Upgradable::start();
    let workers = it.sorted_workers();
    it.set_image(&after(&format!("kill -KILL {}", workers[0])));
    it.ask_for_upgrade();
    it.pool.wait_log("Upgraded: a new image", 1);
    it.pool.wait_ready(3);
    assert!(is_gone(workers[0]));
    let now: HashSet<i32> = it.pool.workers().into_iter().collect();
    assert!(now.len() == 2 && now.contains(&workers[1]));
    assert_eq!(it.pool.stop().code(), Some(0));
}

pub fn a_supervisor_that_is_killed_after_an_upgrade_leaves_no_orphan() {
    let mut it = Upgradable::start();
    it.upgrade();
    let workers = it.sorted_workers();
    it.pool.signal(Signal::KILL);
    it.pool.wait();
    wait_for("the workers to go", || workers.iter().all(|worker| is_gone(*worker)));
    wait_for("the port to be free", || std::net::TcpListener::bind(it.pool.address).is_ok());
}

pub fn an_operator_gets_the_result_of_the_upgrade_from_the_new_image() {
    let mut it = Upgradable::start();
    let path = it.directory.path().join("ctl");
    let ask = |command| {
        let mut client = Client::connect(&path).unwrap();
        client.ask(&Request::new(command), Some(Duration::from_secs(5))).unwrap()
    };
    let reply = ask(Command::Upgrade);
    assert_eq!(reply.outcome, Outcome::Done, "{reply:?}");
    assert!(reply.message.contains(" -> mcsup "), "{reply:?}");
    let status = ask(Command::Status).status.unwrap();
    assert_eq!((status.upgrades, status.workers.len()), (Some(1), 2));
    it.set_image("exit 7");
    let reply = ask(Command::Upgrade);
    assert_eq!(reply.outcome, Outcome::Failed);
    it.set_image(&in_role("refusing"));
    let reply = ask(Command::Upgrade);
    assert_eq!(reply.outcome, Outcome::Failed);
    assert!(reply.message.contains("0 workers"), "{reply:?}");
    assert_eq!(it.pool.stop().code(), Some(0));
}

pub fn twenty_upgrades_leave_no_descriptor_open() {
    let mut it = Upgradable::start();
    let supervisors =
        |it: &Upgradable| std::fs::read_dir(format!("/proc/{}/fd", it.pool.pid())).unwrap().count();
    let workers = |it: &Upgradable| it.pool.ask("fds").lines().count();
    it.upgrade();
    let before = (supervisors(&it), workers(&it));
    for _ in 0..19 {
        it.upgrade();
    }
    // The last dry run's pipes and the letter are closed.
    wait_for("the descriptors to be as many as before", || supervisors(&it) == before.0);
    let old = it.sorted_workers();
    old.iter().for_each(|worker| kill(*worker, Signal::KILL));
    it.pool.wait_ready(4);
    assert_eq!(workers(&it), before.1);
    assert_eq!(it.pool.stop().code(), Some(0));
}

pub fn a_supervisor_that_is_asked_to_stop_ends_the_dry_run() {
    let mut it = Upgradable::start();
    let workers = it.sorted_workers();
    it.set_image("exec sleep 60");
    it.ask_for_upgrade();
    wait_for("the dry run", || it.pool.workers().len() == 3);
    let trial = it.pool.workers().into_iter().find(|pid| !workers.contains(pid)).unwrap();
    assert_eq!(it.pool.stop().code(), Some(0));
    wait_for("the dry run to be gone", || is_gone(trial));
}

pub fn without_an_image_an_upgrade_is_refused() {
    let mut pool = Pool::start("answering");
    pool.wait_ready(2);
    pool.signal(Signal::USR2);
    pool.wait_log("did not say how it was started", 1);
    assert!(pool.workers().contains(&pool.ask("pid").parse().unwrap()));
    assert_eq!(pool.stop().code(), Some(0));
}

pub fn a_mold_outlives_an_upgrade() {
    let mut it = Upgradable::start_as("upgradable-molded");
    let before = it.sorted_workers();
    it.upgrade();
    assert_eq!(it.sorted_workers(), before);
    let serving: i32 = it.pool.ask("pid").parse().unwrap();
    kill(serving, Signal::KILL);
    it.pool.wait_log("is ready after", 4);
    let after = it.sorted_workers();
    // One worker is new; the mold, which has forked it, is not.
    assert_eq!(after.len(), 3);
    assert_eq!(after.iter().filter(|pid| !before.contains(pid)).count(), 1);
    assert_eq!(it.pool.log().matches("Booting mold").count(), 1, "{}", it.pool.log());
    assert_eq!(it.pool.stop().code(), Some(0));
}
