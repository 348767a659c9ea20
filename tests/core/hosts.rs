//! A program that has a life before and after its pool, with handlers of its own.

use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mcsup_core::Ending;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How many signals the host has seen.
static SEEN: AtomicUsize = AtomicUsize::new(0);

/// How many signals its handler of SIGCHLD has seen, where it is not one of those.
static HOSTS_CHILDREN: AtomicUsize = AtomicUsize::new(0);

/// What a worker has seen by handlers that it has registered itself.
static CHILDREN: AtomicUsize = AtomicUsize::new(0);
static OTHERS: AtomicUsize = AtomicUsize::new(0);

#[allow(unsafe_code, reason = "the registry's interface")]
fn register(number: i32, counter: &'static AtomicUsize) {
    let count = move || {
        counter.fetch_add(1, Ordering::SeqCst);
    };
    // SAFETY: the action is one atomic addition.
    unsafe { signal_hook_registry::register(number, count) }.unwrap();
}

/// What a run must leave as it was.
pub fn state() -> Vec<String> {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).unwrap();
    let (status, limits) = (read("status"), read("limits"));
    let kept = ["SigBlk", "SigIgn", "SigCgt", "Umask"];
    let lines = status.lines().filter(|line| kept.iter().any(|name| line.starts_with(name)));
    let limits = limits.lines().filter(|line| line.starts_with("Max open files"));
    let subreaper = rustix::process::child_subreaper().unwrap();
    let flags = [libc::SIGUSR1, libc::SIGHUP, libc::SIGCHLD].map(disposition);
    let rest = [format!("{subreaper:?}"), format!("{flags:?}")];
    lines.chain(limits).map(str::to_owned).chain(rest).collect()
}

/// Handler, flags and mask.
#[allow(unsafe_code, reason = "rustix has no dispositions")]
fn disposition(number: i32) -> (usize, i32, bool) {
    // SAFETY: nothing is changed; the call fills in what is read.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        libc::sigaction(number, std::ptr::null(), &mut now);
        // The C library's own flag comes with every change.
        let flags = now.sa_flags & !0x0400_0000;
        (now.sa_sigaction, flags, libc::sigismember(&now.sa_mask, libc::SIGURG) == 1)
    }
}

extern "C" fn seen(_: i32) {
    SEEN.fetch_add(1, Ordering::SeqCst);
}

/// A handler that is not the registry's, with flags and a mask of its own.
#[allow(unsafe_code, reason = "rustix has no dispositions")]
fn handle(number: i32) {
    // SAFETY: all of it is initialised, and the handler is one atomic addition.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = seen as extern "C" fn(i32) as libc::sighandler_t;
        action.sa_flags = libc::SA_NODEFER | libc::SA_NOCLDSTOP;
        libc::sigaddset(&mut action.sa_mask, libc::SIGURG);
        libc::sigaction(number, &action, std::ptr::null_mut());
    }
}

/// Registers handlers, runs the pool, and goes on until INT.
pub fn play(run: impl FnOnce() -> Ending) -> ExitCode {
    for number in [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGUSR2] {
        register(number, &SEEN);
    }
    handle(libc::SIGHUP);
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(250), ..limit }).unwrap();
    let before = state();
    let ending = run();
    let after = state();
    log::info!("the host has seen {} signals", SEEN.load(Ordering::SeqCst));
    match before == after {
        true => log::info!("its process is what it was"),
        false => log::error!("its process was {before:?} and is {after:?}"),
    }
    log::info!("the host goes on");
    while SEEN.load(Ordering::SeqCst) == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    if ending.code() == 0 { ExitCode::from(42) } else { ending.into() }
}

/// What a worker handles itself.
const HANDLED: [i32; 9] = [
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGHUP,
    libc::SIGUSR2,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGWINCH,
];

/// What a worker does nothing at, beside SIGCHLD.
const OTHERS_ENDING: [i32; 4] = [libc::SIGALRM, libc::SIGVTALRM, libc::SIGPROF, libc::SIGABRT];

/// Registers every signal that a worker handles, and with `others` those that it does nothing at. Runs the pool.
pub fn play_widely(others: bool, run: impl FnOnce() -> Ending) -> ExitCode {
    let others = others.then_some(OTHERS_ENDING).into_iter().flatten();
    for number in HANDLED.into_iter().chain(others.clone()) {
        register(number, &SEEN);
    }
    if others.count() > 0 {
        register(libc::SIGCHLD, &HOSTS_CHILDREN);
    }
    run().into()
}

/// In a worker: registers four handlers, causes their signals and those that the host has registered, and tells which
/// handlers have run.
pub fn register_widely() -> String {
    let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
    HOSTS_CHILDREN.store(0, Ordering::SeqCst);
    let raised = [libc::SIGCHLD, libc::SIGHUP, libc::SIGALRM, libc::SIGWINCH];
    raised.iter().for_each(|number| register(*number, &OTHERS));
    let of_host = OTHERS_ENDING.into_iter().filter(|number| disposition(*number).0 != libc::SIG_DFL);
    for number in of_host.filter(|number| !raised.contains(number)).chain(raised) {
        let signal = rustix::process::Signal::from_named_raw(number).unwrap();
        rustix::process::kill_process(rustix::process::getpid(), signal).unwrap();
    }
    format!("{} of 4, host {}, its CHLD {}", count(&OTHERS), count(&SEEN), count(&HOSTS_CHILDREN))
}

/// In a worker: registers handlers, causes signals, and tells which handlers have run.
pub fn register_and_raise() -> String {
    // In a mold the host's handler of SIGCHLD may have run.
    SEEN.store(0, Ordering::SeqCst);
    register(libc::SIGCHLD, &CHILDREN);
    register(libc::SIGUSR2, &OTHERS);
    Command::new("true").status().unwrap();
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::USR2).unwrap();
    let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
    // The host's handler of SIGCHLD is inherited, as by any fork: of those at which a worker does something itself none
    // may run.
    let host = count(&SEEN).saturating_sub(count(&CHILDREN));
    format!("CHLD {}, USR2 {}, host {host}", count(&CHILDREN), count(&OTHERS))
}
