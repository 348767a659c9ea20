//! What a freshly forked process does to become a worker. Entered with every signal blocked; never returns.
//!
//! The order matters: signals are taken over before they are unblocked (a TERM must not end up in the supervisor's
//! pipe), privileges are dropped before the parent-death signal is set (the kernel clears it at a change of user), and
//! the parent is compared after it was set (it may have died in between).

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Pid;

use crate::error::{Error, ErrorKind, Result};
use crate::host::privileges::RunAs;
use crate::link::channel::WorkerEnd;
use crate::link::handover::Handover;
use crate::link::lifeline::{self, Duty, Phase};
use crate::link::message::{MAX_PAYLOAD, Report};
use crate::link::scoreboard::Seat;
use crate::listener::open::OpenSet;
use crate::policy::BootFailure;
use crate::sys::{credentials, fork, signal};
use crate::worker::{Worker, WorkerContext};

/// Everything that a worker is born with.
#[derive(Debug)]
pub(crate) struct Birth {
    pub(crate) slot: usize,
    pub(crate) generation: u64,
    pub(crate) listeners: OpenSet,
    pub(crate) handover: Arc<Handover>,
    pub(crate) end: WorkerEnd,
    pub(crate) seat: Seat,
    pub(crate) run_as: Option<RunAs>,
    pub(crate) supervisor: Pid,
    pub(crate) graceful_timeout: Duration,
    pub(crate) name: Option<String>,
    /// After so many requests it asks for a successor; 0: never.
    pub(crate) max_requests: u64,
}

/// Exit codes of a worker process; the supervisor has the reason from the link, others see it here.
mod code {
    pub(super) const FAILED: i32 = 1;
    pub(super) const BOOT: i32 = 3;
    pub(super) const APPLICATION: i32 = 4;
}

/// Becomes a worker: prepares the process, boots, says that it is ready, runs, ends.
pub(crate) fn live<W: Worker>(birth: Birth, make: impl FnOnce() -> W) -> ! {
    let code = guarded(|| run(birth, make)).unwrap_or(code::FAILED);
    let _ = std::io::stdout().flush();
    fork::exit_now(code)
}

fn run<W: Worker>(mut birth: Birth, make: impl FnOnce() -> W) -> i32 {
    let prepared = prepare(&mut birth);
    let booted = prepared.and_then(|context| {
        let mut worker = make();
        let boot = guarded(|| worker.load(Some(&context)).and_then(|()| worker.boot(&context)));
        boot.unwrap_or_else(|| Err(Error::new(ErrorKind::Boot, "the worker panicked while it booted")))?;
        Ok((worker, context))
    });
    let (mut worker, context) = match booted {
        Ok(booted) => booted,
        Err(error) => return report_failure(&mut birth.end, &error),
    };
    context.booted();
    if birth.end.say(Report::Ready).is_err() {
        // The supervisor is gone, and nobody has connected because of us yet.
        return code::FAILED;
    }
    match guarded(|| worker.run(&context)) {
        Some(Ok(())) => 0,
        Some(Err(error)) => {
            log::error!("worker failed: {error}");
            code::FAILED
        }
        None => code::FAILED,
    }
}

/// Runs code that is not ours; `None`: it panicked (and the panic hook has said so).
fn guarded<T>(code: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(code)).ok()
}

fn prepare(birth: &mut Birth) -> Result<WorkerContext> {
    let failed = |step: &str, error: std::io::Error| Error::system(step, error).of_kind(ErrorKind::Boot);
    let duty = Arc::new(Duty::new().map_err(|error| failed("make a pipe", error))?);
    take_over_signals(&duty, &birth.seat).map_err(|error| failed("take over signals", error))?;
    if let Some(RunAs(wanted)) = &birth.run_as {
        credentials::drop_to(wanted)
            .map_err(|error| failed("drop privileges", error).of_kind(ErrorKind::Privileges))?;
    }
    die_with_supervisor(birth.supervisor);
    if let Some(name) = &birth.name {
        set_name(name);
    }
    let listeners = Arc::new(std::mem::take(&mut birth.listeners));
    lifeline::start(birth.end.clone(), Arc::clone(&duty), Arc::clone(&listeners), birth.graceful_timeout)
        .map_err(|error| failed("start the lifeline", error))?;
    signal::unblock_all();
    let (seat, handover, end) = (birth.seat.clone(), Arc::clone(&birth.handover), birth.end.clone());
    let place = (birth.slot, birth.generation, birth.max_requests);
    Ok(WorkerContext::new(place, listeners, duty, seat, handover, end))
}

/// Which signals mean something to a worker. The others go back to their defaults.
fn take_over_signals(duty: &Arc<Duty>, seat: &Seat) -> std::io::Result<()> {
    for number in [libc::SIGCHLD, libc::SIGALRM, libc::SIGVTALRM, libc::SIGPROF, libc::SIGABRT] {
        signal::reset(number);
    }
    // A client that goes away is an error of one write, never the end of a process.
    signal::ignore(libc::SIGPIPE);
    // For the group, by a terminal or `pkill`: the supervisor gets them too and decides. A handler that does nothing
    // rather than SIG_IGN, because programs that the worker starts must not inherit it.
    for number in [
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGHUP,
        libc::SIGUSR2,
        libc::SIGTTIN,
        libc::SIGTTOU,
        libc::SIGWINCH,
    ] {
        signal::on_signal(number, |_, _| {})?;
    }
    let (term, reopen, seat) = (Arc::clone(duty), Arc::clone(duty), seat.clone());
    signal::on_signal(libc::SIGTERM, move |number, sender| {
        if let Some(sender) = sender {
            seat.signalled(number, sender);
        }
        term.raise(Phase::Draining);
    })?;
    signal::on_signal(libc::SIGUSR1, move |_, _| reopen.reopen_logs())?;
    Ok(())
}

/// The kernel's own lifeline, where it has one. If the supervisor died before it was set, the link says so.
#[cfg(target_os = "linux")]
fn die_with_supervisor(supervisor: Pid) {
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
    if rustix::process::getppid() != Some(supervisor) {
        fork::exit_now(code::FAILED);
    }
}

#[cfg(not(target_os = "linux"))]
fn die_with_supervisor(_: Pid) {}

#[cfg(target_os = "linux")]
fn set_name(name: &str) {
    // The kernel keeps 15 bytes.
    let short: Vec<u8> = name.bytes().filter(|byte| *byte != 0).take(15).collect();
    if let Ok(name) = std::ffi::CString::new(short) {
        let _ = rustix::thread::set_name(&name);
    }
}

#[cfg(not(target_os = "linux"))]
fn set_name(_: &str) {}

fn report_failure(end: &mut WorkerEnd, error: &Error) -> i32 {
    let (kind, code) = match error.kind() {
        ErrorKind::Application => (ErrorKind::Application, code::APPLICATION),
        _ => (ErrorKind::Boot, code::BOOT),
    };
    let detail = error.detail().map(|detail| {
        // Its end says what went wrong.
        let start = detail.len().saturating_sub(MAX_PAYLOAD / 2);
        let start = (start..detail.len()).find(|at| detail.is_char_boundary(*at)).unwrap_or(0);
        detail[start..].to_owned()
    });
    let failure = BootFailure { kind, summary: error.to_string(), detail };
    if end.say(Report::Failed(failure)).is_err() {
        log::error!("{error}");
    }
    code
}
