//! Reloads whose settings take time: the pool serves meanwhile.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use mcsup_core::host::inquiry::Inquiry;
use mcsup_core::{Config, Error, ErrorKind, Prefork, Preparation, Supervisor};
use rustix::process::Signal;

use crate::pool::{Pool, is_gone, kill, wait_for};
use crate::roles::{Answering, CONTROL};

/// A supervisor whose settings come from a process that waits for a file.
struct Preparing {
    gate: PathBuf,
    inquiries: BTreeMap<u64, Inquiry>,
}

impl Supervisor for Preparing {
    type Worker = Answering;

    fn worker(&mut self, _: u64) -> Answering {
        Answering
    }

    fn prepare_reload(&mut self, generation: u64) -> mcsup_core::Result<Option<Preparation>> {
        let (gate, limit) = (self.gate.clone(), Duration::from_secs(60));
        let inquiry = Inquiry::start(limit, |_| (), move || read(&gate))?;
        log::info!("generation {generation} is prepared by {}", inquiry.pid());
        let preparation = Preparation::new(inquiry.readiness()?, limit);
        self.inquiries.insert(generation, inquiry);
        Ok(Some(preparation))
    }

    fn reload(&mut self, generation: u64) -> mcsup_core::Result<Option<Config>> {
        let text = self.inquiries.remove(&generation).unwrap().finish()?;
        log::info!("generation {generation} has the settings {}", text.trim());
        Ok(None)
    }

    fn forget(&mut self, generation: u64) {
        if self.inquiries.remove(&generation).is_some() {
            log::info!("generation {generation} is forgotten");
        }
    }
}

/// Waits for the file, and returns its text.
fn read(gate: &Path) -> mcsup_core::Result<String> {
    loop {
        match std::fs::read_to_string(gate) {
            Ok(text) if text.starts_with("wrong") => return Err(Error::new(ErrorKind::Setting, text.trim())),
            Ok(text) if text.ends_with('\n') => return Ok(text),
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

pub fn play(address: &str) -> ExitCode {
    let gate = std::env::var_os(CONTROL).map(PathBuf::from).unwrap();
    let mut config = Config { addresses: vec![address.parse().unwrap()], ..Config::default() };
    config.policy.workers = 2;
    config.policy.plan.soak = Duration::ZERO;
    config.policy.reload_interval = Duration::from_millis(50);
    Prefork::with_config(Preparing { gate, inquiries: BTreeMap::new() }, config).run().into()
}

/// A pool, and the file that its reloads wait for.
fn start() -> (tempfile::TempDir, PathBuf, Pool) {
    let directory = tempfile::tempdir().unwrap();
    let gate = directory.path().join("gate");
    let pool = Pool::start_with("preparing", &[(CONTROL, &gate)]);
    pool.wait_ready(2);
    (directory, gate, pool)
}

/// The process that prepares `generation`.
fn preparer(pool: &Pool, generation: u64) -> i32 {
    let text = format!("generation {generation} is prepared by ");
    pool.wait_log(&text, 1);
    let log = pool.log();
    log.split_once(&text).unwrap().1.lines().next().unwrap().parse().unwrap()
}

pub fn a_pool_serves_and_replaces_workers_while_a_reload_is_prepared() {
    let (_directory, gate, mut pool) = start();
    pool.signal(Signal::HUP);
    let preparer = preparer(&pool, 2);
    let victim: i32 = pool.ask("pid").parse().unwrap();
    kill(victim, Signal::KILL);
    pool.wait_ready(3);
    assert_ne!(pool.ask("pid").parse(), Ok(victim));
    std::fs::write(gate, "three\n").unwrap();
    pool.wait_log("Reload done: generation 2", 1);
    wait_for("the end of the preparing process", || is_gone(preparer));
    let log = pool.log();
    assert!(log.contains("generation 2 has the settings three") && !log.contains("Left behind"), "{log}");
    assert_eq!(pool.stop().code(), Some(0));
}

pub fn a_newer_reload_ends_the_preparation_of_the_one_before() {
    let (_directory, gate, mut pool) = start();
    pool.signal(Signal::HUP);
    let first = preparer(&pool, 2);
    pool.signal(Signal::HUP);
    preparer(&pool, 3);
    wait_for("the end of the first preparing process", || is_gone(first));
    std::fs::write(gate, "three\n").unwrap();
    pool.wait_log("Reload done: generation 3", 1);
    let log = pool.log();
    assert!(log.contains("generation 2 is forgotten") && !log.contains("generation 2 has"), "{log}");
    assert_eq!(pool.stop().code(), Some(0));
}

pub fn a_failed_preparation_leaves_the_serving_generation() {
    let (_directory, gate, mut pool) = start();
    std::fs::write(&gate, "wrong: line 3\n").unwrap();
    let pids = pool.workers();
    pool.signal(Signal::HUP);
    pool.wait_log("generation 2: wrong: line 3", 1);
    assert_eq!(pool.log().matches("is ready after").count(), 2);
    assert!(pids.into_iter().all(|pid| !is_gone(pid)));
    std::fs::write(gate, "three\n").unwrap();
    pool.signal(Signal::HUP);
    pool.wait_log("Reload done: generation 3", 1);
    assert_eq!(pool.stop().code(), Some(0));
}

pub fn a_stop_does_not_wait_for_a_preparation() {
    let (_directory, _gate, mut pool) = start();
    pool.signal(Signal::HUP);
    let preparer = preparer(&pool, 2);
    assert_eq!(pool.stop().code(), Some(0));
    wait_for("the end of the preparing process", || is_gone(preparer));
    assert!(!pool.log().contains("Left behind"), "{}", pool.log());
}
