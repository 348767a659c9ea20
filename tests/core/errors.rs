//! Errors and panics of the embedder's code: their text in the log, the status and the ending.

use std::io::Write;
use std::path::Path;
use std::process::{ExitCode, Termination};

use mcsup_core::control::{Client, Command, Request};
use mcsup_core::{
    Config, Error, ErrorKind, ForkSide, Local, Prefork, Result, Supervisor, Worker, WorkerContext,
    WorkerResult,
};

use crate::pool::{Pool, wait_for};
use crate::roles::{self, CONTROL};

/// The role of a pool that fails at the place that follows.
pub const ROLE: &str = "fails-in-";
/// The same with a mold.
const MOLDED: &str = "fails-in-molded-";

/// Runs a pool whose code fails at `role`'s place.
pub fn play(role: &str, address: &str) -> ExitCode {
    let (place, has_mold) = match role.strip_prefix(MOLDED) {
        Some(place) => (place, true),
        None => (role.strip_prefix(ROLE).unwrap(), false),
    };
    let mut config = Config { addresses: vec![address.parse().unwrap()], ..Config::default() };
    config.policy.preload = has_mold;
    config.control_socket = std::env::var_os(CONTROL).map(Into::into);
    if place == "address" {
        // As `main` ends that returns it.
        return Termination::report(Prefork::with_config(Faulty(String::new(), 0), config).run());
    }
    roles::reason_of(Prefork::with_config(Faulty(place.to_owned(), 0), config).run())
}

/// Panics in the method that it names, or answers until a client names a fault.
struct Faulty(String, usize);

impl Faulty {
    fn reach(&self, place: &str) {
        assert!(self.0 != place, "asked to");
    }
}

impl Supervisor for Faulty {
    type Worker = Self;

    fn worker(&mut self, _: u64) -> Self {
        self.reach("worker");
        Self(self.0.clone(), 0)
    }

    fn listening(&mut self, _: &[&Local]) {
        self.reach("supervisor");
    }

    fn ready(&mut self, _: usize, _: usize) {
        self.reach("supervisor");
    }

    /// Yields settings that a start refuses.
    fn reload(&mut self, _: u64) -> Result<Option<Config>> {
        self.reach("supervisor");
        let address = std::env::var(roles::ADDRESS).unwrap();
        let mut config = Config { addresses: vec![address.parse().unwrap()], ..Config::default() };
        match self.0.as_str() {
            "reload-without-workers" => config.policy.workers = 0,
            "reload-without-addresses" => config.addresses.clear(),
            _ => {}
        }
        Ok(Some(config))
    }

    fn forget(&mut self, _: u64) {
        self.reach("supervisor");
    }

    fn reopen_logs(&mut self) {
        self.reach("supervisor");
    }

    fn before_fork(&mut self) {
        // The second fork replaces a worker.
        self.1 += 1;
        assert!(self.0 != "before_fork" || self.1 != 2, "asked to");
    }

    fn after_fork(&mut self, side: ForkSide) {
        match side {
            ForkSide::Worker => self.reach("after_fork"),
            ForkSide::Supervisor => self.reach("supervisor"),
            ForkSide::Mold => {}
        }
    }
}

impl Worker for Faulty {
    fn load(&mut self, _: Option<&WorkerContext>) -> WorkerResult {
        self.reach("load");
        Ok(())
    }

    fn prepare_to_fork(&mut self) {
        self.reach("prepare_to_fork");
    }

    fn boot(&mut self, _: &WorkerContext) -> WorkerResult {
        self.reach("boot");
        if self.0 == "foreign" {
            "x".parse::<u8>()?;
        }
        Ok(())
    }

    fn run(&mut self, context: &WorkerContext) -> WorkerResult {
        while let Some(mut connection) = context.accept()? {
            let line = roles::read_line(&mut connection)?;
            match line.trim() {
                "own" => {
                    let error = Error::new(ErrorKind::Worker, "the queue is gone");
                    return Err(error.with_detail("at the first\nat the second").into());
                }
                "foreign" => drop("x".parse::<u8>()?),
                "panic" => panic!("asked to\nby a client"),
                _ => write!(connection, "{}", std::process::id())?,
            }
        }
        Ok(())
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        log::info!("dropped in {}", std::process::id());
        self.reach("drop");
    }
}

/// The pool that fails at no place, with a control socket in `dir`.
fn sound(dir: &Path) -> Pool {
    let pool = Pool::start_with("fails-in-nothing", &[(CONTROL, &dir.join("control"))]);
    pool.wait_ready(1);
    pool
}

pub fn the_text_of_a_workers_error_is_in_the_log_and_in_the_status() {
    let dir = tempfile::tempdir().unwrap();
    let mut pool = sound(dir.path());
    let faults = [
        ("own", "exited with code 1: the queue is gone"),
        ("foreign", "exited with code 1: invalid digit found in string"),
        ("panic", concat!("exited with code 1: panicked in Worker::run at ", file!(), ":")),
    ];
    for (round, (fault, text)) in faults.into_iter().enumerate() {
        assert_eq!(pool.ask(fault), "");
        pool.wait_log(text, 1);
        pool.wait_ready(round + 2);
        let mut client = Client::connect(&dir.path().join("control")).unwrap();
        let status = client.ask(&Request::new(Command::Status), None).unwrap().status.unwrap();
        let cause = &status.slots[0].last_death.as_ref().unwrap().cause;
        assert!(cause.contains(text), "{cause}");
    }
    let log = pool.log();
    assert!(log.contains("the queue is gone; respawning\nat the first\nat the second\n"), "{log}");
    // The line of the log is one line.
    assert!(log.contains(": asked to by a client; respawning"), "{log}");
    assert_eq!(pool.stop().code(), Some(0));
}

pub fn a_panic_before_a_worker_is_ready_is_reported_by_its_call() {
    let worker = "the worker panicked while it booted, in ";
    let mold = "the mold panicked while it loaded, in ";
    let places = [
        ("fails-in-worker", worker, "Supervisor::worker"),
        ("fails-in-after_fork", worker, "Supervisor::after_fork"),
        ("fails-in-load", worker, "Worker::load"),
        ("fails-in-boot", worker, "Worker::boot"),
        ("fails-in-molded-worker", mold, "Supervisor::worker"),
        ("fails-in-molded-after_fork", mold, "Supervisor::after_fork"),
        ("fails-in-molded-load", mold, "Worker::load"),
        ("fails-in-molded-prepare_to_fork", mold, "Worker::prepare_to_fork"),
        ("fails-in-molded-boot", worker, "Worker::boot"),
    ];
    for (role, text, call) in places {
        let mut pool = Pool::start(role);
        assert_eq!(pool.wait().code(), Some(3), "{role}");
        let log = pool.log();
        let text = format!("{text}{call} at {}:", file!());
        let reason = log.lines().find(|line| line.contains("outcome Some(BootFailed(Boot))")).unwrap();
        assert!(reason.contains(&text) && reason.contains(": asked to"), "{role}: {log}");
        // The code after `run` has run once, in the supervisor.
        assert_eq!(log.matches("outcome ").count(), 1, "{role}: {log}");
    }
}

pub fn an_error_of_any_type_ends_a_start_with_its_text() {
    let mut pool = Pool::start("fails-in-foreign");
    assert_eq!(pool.wait().code(), Some(3));
    let log = pool.log();
    assert!(log.contains("reason Some(\"invalid digit found in string\")"), "{log}");
}

pub fn a_worker_is_dropped_at_its_orderly_end_and_not_after_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let mut pool = sound(dir.path());
    let dropped = |pid: &str| pool.log().matches(&format!("dropped in {pid}\n")).count();
    for (round, (fault, drops)) in [("own", 1), ("panic", 0)].into_iter().enumerate() {
        let pid = pool.ask("pid");
        assert_eq!(pool.ask(fault), "");
        pool.wait_log("exited with code 1", round + 1);
        pool.wait_ready(round + 2);
        assert_eq!(dropped(&pid), drops, "{fault}");
    }
    let pid = pool.ask("pid");
    assert_eq!(pool.stop().code(), Some(0));
    assert_eq!(pool.log().matches(&format!("dropped in {pid}\n")).count(), 1);
}

pub fn a_panic_in_a_destructor_is_reported_by_its_call() {
    let pool = Pool::start("fails-in-drop");
    pool.wait_ready(1);
    assert_eq!(pool.ask("own"), "");
    pool.wait_log(concat!("exited with code 1: panicked in Worker::drop at ", file!(), ":"), 1);
    wait_for("another worker", || pool.log().matches("is ready after").count() == 2);
}

/// Asks for a change and returns the message of the reply.
fn ask(dir: &Path, command: Command) -> String {
    let mut client = Client::connect(&dir.join("control")).unwrap();
    client.ask(&Request::new(command), None).unwrap().message
}

pub fn a_panic_in_a_hook_of_the_supervisor_is_logged_by_its_name_and_the_pool_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut pool = Pool::start_with("fails-in-supervisor", &[(CONTROL, &dir.path().join("control"))]);
    pool.wait_ready(1);
    let message = ask(dir.path(), Command::Reload);
    assert!(message.starts_with("panicked in Supervisor::reload: asked to; the old generation"), "{message}");
    ask(dir.path(), Command::ReopenLogs);
    for hook in ["listening", "after_fork", "ready", "forget", "reopen_logs"] {
        let line = format!("panicked in Supervisor::{hook}: asked to; the pool goes on");
        assert!(pool.log().contains(&line), "{hook}: {}", pool.log());
    }
    assert!(!pool.ask("pid").is_empty());
    assert_eq!(pool.stop().code(), Some(0));
}

pub fn a_panic_before_a_fork_refuses_that_fork_and_the_next_one_is_tried() {
    let mut pool = Pool::start("fails-in-before_fork");
    pool.wait_ready(1);
    assert_eq!(pool.ask("own"), "");
    pool.wait_log(
        "Cannot fork a worker for slot 0: fork: panicked in Supervisor::before_fork: asked to; again",
        1,
    );
    pool.wait_ready(2);
    assert_eq!(pool.stop().code(), Some(0));
}

pub fn a_reload_refuses_the_settings_that_a_start_refuses() {
    for (role, reason) in [
        ("fails-in-reload-without-workers", "0 workers: expected 1 to 512"),
        ("fails-in-reload-without-addresses", "there is no address to listen on"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut pool = Pool::start_with(role, &[(CONTROL, &dir.path().join("control"))]);
        pool.wait_ready(1);
        let pid = pool.ask("pid");
        let message = ask(dir.path(), Command::Reload);
        assert_eq!(message, format!("{reason}; the old generation goes on serving"));
        assert_eq!(pool.ask("pid"), pid);
        assert_eq!(pool.stop().code(), Some(0));
    }
}

pub fn a_main_that_returns_its_ending_prints_the_reason() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut pool = Pool::start_with("fails-in-address", &[(roles::ADDRESS, Path::new(&address))]);
    assert_eq!(pool.wait().code(), Some(1));
    let log = pool.log();
    assert!(log.contains("Error: ") && log.contains(&address) && log.contains("(os error 98)"), "{log}");
}
