//! Programs that step their pool: when they must, what they may do meanwhile, and what is left of a start that fails.

use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mcsup_core::{Children, Config, Pool, PoolEvent, Prefork, Supervisor};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, WaitOptions, getrlimit, kill_process, setrlimit,
    test_kill_process, wait, waitid,
};

use crate::hosts;
use crate::molds::ADOPTS;
use crate::pool::{self, kill};
use crate::roles::Answering;

/// Plays a program to its end. It ends with 0 if all is as expected.
pub fn play(role: &str, address: &str) -> ExitCode {
    match role {
        "stepping-without-descriptors" => without_descriptors(address),
        "stepping-late" => late(address),
        "stepping-with-calls" => with_calls(address),
        "stepping-after-a-pause" => after_a_pause(address),
        "stepping-with-helpers" => with_helpers(address),
        "stepping-ignoring-children" => ignoring_children(address),
        "stepping-reaping" => reaping(address),
        "stepping-at-the-limit" => at_the_limit(address),
        _ => panic!("there is no program {role}"),
    }
    ExitCode::SUCCESS
}

static READIES: AtomicUsize = AtomicUsize::new(0);
static STALLS: AtomicUsize = AtomicUsize::new(0);
static DEATHS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Counts the events of its pool.
struct Counting;

impl Supervisor for Counting {
    type Worker = Answering;

    fn worker(&mut self, _: u64) -> Answering {
        Answering
    }

    fn observe(&mut self, event: &PoolEvent) {
        match event {
            PoolEvent::Ready { .. } => drop(READIES.fetch_add(1, Ordering::SeqCst)),
            PoolEvent::Stalled { .. } => drop(STALLS.fetch_add(1, Ordering::SeqCst)),
            PoolEvent::Died { cause, .. } => DEATHS.lock().unwrap().push(cause.clone()),
            _ => {}
        }
    }
}

fn builder(address: &str, change: impl FnOnce(&mut Config)) -> Prefork<Counting> {
    let mut config = Config { addresses: vec![address.parse().unwrap()], ..Config::default() };
    config.policy.workers = 2;
    change(&mut config);
    Prefork::with_config(Counting, config)
}

fn readies() -> usize {
    READIES.load(Ordering::SeqCst)
}

/// Waits until the pool is readable or its deadline has come.
fn wait_for_event(pool: &Pool<Counting>) {
    let patience = pool.deadline().map(|at| at.saturating_duration_since(Instant::now()));
    let timeout = patience.map(|patience| Timespec::try_from(patience).unwrap());
    let _ = poll(&mut [PollFd::new(pool, PollFlags::IN)], timeout.as_ref());
}

/// Steps until `is_done`; returns the number of steps.
fn step_until(pool: &mut Pool<Counting>, is_done: impl Fn() -> bool) -> usize {
    let mut steps = 0;
    while !is_done() {
        wait_for_event(pool);
        assert!(pool.step().is_none());
        steps += 1;
    }
    steps
}

/// A program at its limit of descriptors after the start.
fn without_descriptors(address: &str) {
    let mut pool = builder(address, |_| {}).start().unwrap();
    step_until(&mut pool, || readies() == 2);
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(3), ..limit }).unwrap();
    assert!(pool.step().is_none());
    let deadline = pool.deadline();
    setrlimit(Resource::Nofile, limit).unwrap();
    assert!(deadline.is_some_and(|at| at < Instant::now() + Duration::from_secs(1)), "{deadline:?}");
}

/// A program that asks for the deadline more than once before it steps.
fn late(address: &str) {
    // Nothing reports the end of an orphan.
    let pool = builder(address, |config| config.children = Children::Name).signals(false);
    let mut pool = pool.start().unwrap();
    step_until(&mut pool, || readies() == 2);
    let first = pool.deadline().unwrap();
    std::thread::sleep(Duration::from_millis(900));
    let second = pool.deadline().unwrap();
    // One that has passed is now.
    let latest = first.max(Instant::now()) + Duration::from_millis(450);
    assert!(second < latest, "later by {:?}", second - first);
}

/// A supervisor with work that no event brings about.
struct Called(u32);

impl Supervisor for Called {
    type Worker = Answering;

    fn worker(&mut self, _: u64) -> Answering {
        Answering
    }

    fn before_wait(&mut self) -> Option<Duration> {
        self.0 += 1;
        CALLS.fetch_add(1, Ordering::SeqCst);
        assert_ne!(self.0, 1, "a panic");
        Some(Duration::from_millis(20))
    }

    fn observe(&mut self, event: &PoolEvent) {
        Counting.observe(event);
    }
}

static CALLS: AtomicUsize = AtomicUsize::new(0);

/// A program whose supervisor wants to be called without an event.
fn with_calls(address: &str) {
    let config = Config { addresses: vec![address.parse().unwrap()], ..Config::default() };
    let mut pool = Prefork::with_config(Called(0), config).start().unwrap();
    // The first call has panicked, and says no time.
    while readies() < 1 || CALLS.load(Ordering::SeqCst) < 2 {
        assert!(pool.step().is_none());
    }
    let (begun, before) = (Instant::now(), CALLS.load(Ordering::SeqCst));
    while CALLS.load(Ordering::SeqCst) < before + 5 {
        let left = pool.deadline().unwrap().saturating_duration_since(Instant::now());
        assert!(left <= Duration::from_millis(20));
        let _ = poll(&mut [PollFd::new(&pool, PollFlags::IN)], Timespec::try_from(left).ok().as_ref());
        assert!(pool.step().is_none());
    }
    assert!(begun.elapsed() < Duration::from_secs(60));
}

/// A program that wants a further handle after a time without an event.
fn after_a_pause(address: &str) {
    let mut pool = builder(address, |_| {}).start().unwrap();
    step_until(&mut pool, || readies() == 2);
    while pool.deadline().is_some() {
        wait_for_event(&pool);
        assert!(pool.step().is_none());
    }
    std::thread::sleep(Duration::from_millis(1500));
    let _handle = pool.handle().unwrap();
    assert!(pool.step().is_none());
    assert_eq!(STALLS.load(Ordering::SeqCst), 0);
}

/// A program that starts processes beside a pool that ends its leftovers.
fn with_helpers(address: &str) {
    use std::os::unix::process::CommandExt;
    // At a terminal workers lead no groups.
    rustix::process::setsid().unwrap();
    let mut pool = builder(address, |config| config.children = Children::End).start().unwrap();
    let sleep = || {
        let mut command = Command::new("sleep");
        command.arg("60");
        command
    };
    let mut helpers = [sleep().spawn().unwrap(), sleep().process_group(0).spawn().unwrap()];
    step_until(&mut pool, || readies() == 3);
    while pool.step().is_none() {
        wait_for_event(&pool);
    }
    drop(pool);
    for helper in &mut helpers {
        let lives = helper.try_wait().unwrap().is_none();
        helper.kill().unwrap();
        helper.wait().unwrap();
        assert!(lives, "the pool has ended a process of the program");
    }
}

/// A program whose parent has ignored SIGCHLD.
#[allow(unsafe_code, reason = "rustix has no dispositions")]
fn ignoring_children(address: &str) {
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    let before = hosts::state();
    let pool = builder(address, |config| config.policy.preload = true).signals(false);
    let mut pool = pool.start().unwrap();
    step_until(&mut pool, || readies() == 3);
    kill_one(address);
    let steps = step_until(&mut pool, || readies() == 4);
    assert!(steps < 500, "{steps} steps");
    let deaths = DEATHS.lock().unwrap().join(" ");
    assert!(deaths.contains("SIGKILL"), "{deaths}");
    drop(pool);
    assert_eq!(hosts::state(), before);
}

/// A program that reaps all its children itself.
fn reaping(address: &str) {
    let pool = builder(address, |config| config.policy.preload = true).signals(false);
    let mut pool = pool.start().unwrap();
    step_until(&mut pool, || readies() == 3);
    let victim = kill_one(address);
    let is_reaped = || test_kill_process(victim).is_err();
    while !is_reaped() {
        let _ = wait(WaitOptions::NOHANG);
    }
    let steps = step_until(&mut pool, || readies() == 4);
    assert!(steps < 500, "{steps} steps");
    assert_eq!(DEATHS.lock().unwrap().len(), 1);
}

/// Kills the worker that answers.
fn kill_one(address: &str) -> Pid {
    use std::io::Write;
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.write_all(b"pid\n").unwrap();
    let victim = Pid::from_raw(pool::read_all(&mut stream).parse().unwrap()).unwrap();
    kill_process(victim, Signal::KILL).unwrap();
    victim
}

/// A program that starts its pool again and again, each time with one more free descriptor.
fn at_the_limit(address: &str) {
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: Some(64) }).unwrap();
    let mut taken: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    let has_children = || {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(waitid(WaitId::All, look), Err(rustix::io::Errno::CHILD))
    };
    let mut failures = 0;
    while readies() < 2 {
        match builder(address, |_| {}).start() {
            Ok(mut pool) => while readies() < 2 && pool.step().is_none() {},
            Err(_) => failures += 1,
        }
        assert!(!has_children(), "{} free descriptors", failures);
        assert!(taken.pop().is_some() || readies() >= 2, "it never starts");
    }
    assert!(failures > 3, "{failures}");
}

fn ends_well(role: &str) {
    let mut pool = pool::Pool::start(role);
    assert_eq!(pool.wait().code(), Some(0), "{}", pool.log());
}

pub fn a_pool_whose_descriptors_cannot_be_watched_is_stepped_after_a_time() {
    ends_well("stepping-without-descriptors");
}

pub fn a_deadline_stays_until_the_next_step() {
    ends_well("stepping-late");
}

pub fn a_supervisor_is_called_again_after_the_time_that_it_wants() {
    ends_well("stepping-with-calls");
}

pub fn a_handle_after_a_time_without_events_is_no_stall() {
    ends_well("stepping-after-a-pause");
}

pub fn a_pool_ends_what_its_worker_has_left_and_no_process_of_its_program() {
    let mut pool = pool::Pool::start("stepping-with-helpers");
    pool.wait_ready(2);
    let answer = pool.ask("orphan");
    let (worker, left) = answer.split_once(' ').unwrap();
    let (worker, left): (i32, i32) = (worker.parse().unwrap(), left.parse().unwrap());
    kill(worker, Signal::KILL);
    pool.wait_ready(3);
    // Where no process can adopt orphans there are no leftovers.
    match ADOPTS {
        true => pool.wait_log(&format!("Left behind by worker {worker}: pid {left} (sleep)"), 1),
        false => kill(left, Signal::KILL),
    }
    assert_eq!(pool.stop().code(), Some(0), "{}", pool.log());
    assert_eq!(pool.log().matches("Left behind").count(), usize::from(ADOPTS), "{}", pool.log());
    pool::wait_for("the leftover to end", || pool::is_gone(left));
}

pub fn a_death_is_noticed_with_its_cause_although_the_parent_has_ignored_the_ends_of_children() {
    ends_well("stepping-ignoring-children");
}

pub fn a_death_is_noticed_although_the_program_has_reaped_the_worker() {
    ends_well("stepping-reaping");
}

pub fn a_start_that_fails_leaves_no_process() {
    ends_well("stepping-at-the-limit");
}
