//! What a freshly forked process does to become a worker. Entered with every signal blocked.
//!
//! The order matters: signals are taken over before they are unblocked (a TERM must not end up in the supervisor's
//! pipe), privileges are dropped before the parent-death signal is set (the kernel clears it at a change of user), and
//! the parent is compared after it was set (it may have died in between). A worker that a mold has forked is its
//! supervisor's child only when the process between them has ended: until then the signal would be about that one.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Pid;

use super::birth::{Birth, Common, Listeners, Origin};
use super::{Embedder, code, guarded};
use crate::error::{Error, ErrorKind, Result};
use crate::host::privileges::RunAs;
use crate::link::channel::WorkerEnd;
use crate::link::lifeline::{self, Duty};
use crate::link::message::{MAX_PAYLOAD, Report};
use crate::listener::open::OpenSet;
use crate::policy::{BootFailure, ExitStatus};
use crate::sys::ancestry::ADOPTS;
use crate::sys::caught::{self, Act};
use crate::sys::companion::Companion;
use crate::sys::unshared::Marks;
use crate::sys::{credentials, descriptor, fork, forked, signal};
use crate::worker::{Worker, WorkerContext};

/// A worker that is ready to boot.
struct Prepared {
    context: WorkerContext,
    duty: Arc<Duty>,
    _lifeline: Companion,
    /// Processes that the worker's own code forks share none of its descriptors.
    _marks: Marks,
}

/// Becomes a worker: prepares the process, loads where its mold has not, boots, says that it is ready, runs. Returns the
/// exit code.
pub(super) fn live<E: Embedder>(birth: Birth, loaded: &mut Option<E::Worker>, embedder: &mut E) -> i32 {
    let (end, is_reaped) = (birth.end.clone(), ADOPTS || birth.origin == Origin::Supervisor);
    let code = run(birth, loaded, embedder);
    if !is_reaped {
        // The mold may be gone by then.
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let _ = end.say(Report::ChildExited { pid, status: ExitStatus::Code(code) });
    }
    code
}

fn run<E: Embedder>(mut birth: Birth, loaded: &mut Option<E::Worker>, embedder: &mut E) -> i32 {
    let booted = prepare(&mut birth).and_then(|prepared| {
        let boot = guarded(|| boot(&prepared.context, birth.common.generation, loaded, embedder));
        boot.unwrap_or_else(|| Err(Error::new(ErrorKind::Boot, "the worker panicked while it booted")))?;
        Ok(prepared)
    });
    let (prepared, Some(worker)) = (match booted {
        Ok(prepared) => (prepared, loaded.as_mut()),
        Err(error) => return report_failure(&birth.end, &error),
    }) else {
        return code::FAILED;
    };
    prepared.context.booted();
    if birth.end.say(Report::Ready).is_err() {
        // The supervisor is gone, and nobody has connected because of us yet.
        return code::FAILED;
    }
    if !prepared.duty.may_begin() {
        return 0;
    }
    match guarded(|| worker.run(&prepared.context)) {
        Some(Ok(())) => 0,
        Some(Err(error)) => {
            log::error!("worker failed: {error}");
            code::FAILED
        }
        None => code::FAILED,
    }
}

fn boot<E: Embedder>(
    context: &WorkerContext,
    generation: u64,
    loaded: &mut Option<E::Worker>,
    embedder: &mut E,
) -> Result<()> {
    let worker = match loaded {
        Some(worker) => worker,
        None => {
            let worker = loaded.insert(embedder.make(generation));
            worker.load(Some(context))?;
            worker
        }
    };
    worker.boot(context)
}

fn prepare(birth: &mut Birth) -> Result<Prepared> {
    let failed = |step: &str, error: io::Error| Error::system(step, error).of_kind(ErrorKind::Boot);
    let common = Arc::clone(&birth.common);
    if birth.origin == Origin::Mold {
        await_adoption(common.supervisor, &birth.end);
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        birth.end.say(Report::Born { pid }).map_err(|error| failed("say that it is born", error))?;
    }
    let duty = Arc::new(Duty::new().map_err(|error| failed("make a pipe", error))?);
    take_over_signals([(libc::SIGTERM, Act::Count), (libc::SIGUSR1, Act::Count)])
        .map_err(|error| failed("take over signals", error))?;
    duty.join_signals(birth.seat.clone());
    if birth.origin == Origin::Supervisor {
        common.descriptors.restore();
        drop_privileges(common.run_as.as_ref())?;
    }
    if ADOPTS || birth.origin == Origin::Supervisor {
        die_with_supervisor(common.supervisor);
    }
    lead_group(&common);
    if let Some(name) = &common.name {
        set_name(name);
    }
    // Before the application, which may use up all descriptors.
    descriptor::prepare_to_let_go().map_err(|error| failed("prepare to let go of listeners", error))?;
    let listeners = std::mem::replace(&mut birth.listeners, Listeners::Open(OpenSet::default()));
    let listeners = Arc::new(listeners.open()?);
    let marks = keep_from_children(birth, &duty, &listeners);
    let (end, patience) = (birth.end.clone(), common.graceful_timeout);
    let lifeline = lifeline::start(end.clone(), Arc::clone(&duty), Arc::clone(&listeners), patience)
        .map_err(|error| failed("start the lifeline", error))?;
    signal::unblock_all();
    let (seat, handover) = (birth.seat.clone(), Arc::clone(&common.handover));
    let place = (birth.slot, common.generation, birth.max_requests);
    let context = WorkerContext::new(place, listeners, Arc::clone(&duty), seat, handover, end);
    Ok(Prepared { context, duty, _lifeline: lifeline, _marks: marks })
}

/// Processes that the worker's own code forks get nothing of this.
fn keep_from_children(birth: &Birth, duty: &Duty, listeners: &OpenSet) -> Marks {
    birth.seat.is_not_for_children();
    let own = duty.ends().into_iter().chain(birth.common.handover.ends()).chain([birth.end.as_fd()]);
    Marks::on(own.chain(listeners.iter().map(|listener| listener.as_fd())))
}

/// How often a worker looks whether its supervisor has adopted it.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Waits until the supervisor is the parent. It is at once, as a rule: the process between them does nothing but end.
fn await_adoption(supervisor: Pid, end: &WorkerEnd) {
    while ADOPTS && rustix::process::getppid() != Some(supervisor) {
        if end.is_orphaned_within(LOOK_EVERY) {
            fork::exit_now(code::FAILED);
        }
    }
}

pub(super) fn drop_privileges(run_as: Option<&RunAs>) -> Result<()> {
    let Some(RunAs(wanted)) = run_as else { return Ok(()) };
    credentials::drop_to(wanted)
        .map_err(|error| Error::system("drop privileges", error).of_kind(ErrorKind::Privileges))
}

/// Signals that mean nothing to a worker or a mold. A terminal or `pkill` sends them to the whole group: the supervisor
/// gets them too, and decides.
pub(super) const OF_THE_GROUP: [i32; 7] =
    [libc::SIGINT, libc::SIGQUIT, libc::SIGHUP, libc::SIGUSR2, libc::SIGTTIN, libc::SIGTTOU, libc::SIGWINCH];

/// Takes over the signals of a worker: what it and a mold handle, by `own`, and those of the group. Processes that its own
/// code forks handle none.
pub(super) fn take_over_signals(own: [(i32, Act); 2]) -> io::Result<()> {
    forked::watch()?;
    let of_the_group = OF_THE_GROUP.map(|number| (number, Act::Nothing));
    caught::take_over(&own.into_iter().chain(of_the_group).collect::<Vec<_>>())
}

/// The kernel's own lifeline, where it has one. If the supervisor died before it was set, the link says so.
#[cfg(target_os = "linux")]
pub(super) fn die_with_supervisor(supervisor: Pid) {
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
    if rustix::process::getppid() != Some(supervisor) {
        fork::exit_now(code::FAILED);
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn die_with_supervisor(_: Pid) {}

/// What it starts is in the group too, and known by it when this process is gone.
pub(super) fn lead_group(common: &Common) {
    if common.has_own_group {
        let _ = rustix::process::setpgid(None, None);
    }
}

#[cfg(target_os = "linux")]
pub(super) fn set_name(name: &str) {
    let name = name.replace('\0', "");
    if let Ok(name) = std::ffi::CString::new(crate::sys::kernel_text::thread_name(&name)) {
        let _ = rustix::thread::set_name(&name);
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn set_name(_: &str) {}

/// Says why it could not get ready; returns the exit code.
pub(super) fn report_failure(end: &WorkerEnd, error: &Error) -> i32 {
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
