//! The steps from a fork to a worker. They begin with every signal blocked.
//!
//! The order matters. Handlers are installed before signals are unblocked: a TERM must not reach the
//! supervisor's pipe. Privileges are dropped before the parent-death signal is set: the kernel clears it at a
//! change of user. The parent is compared after that: it may have died before. A worker forked by a mold
//! becomes its supervisor's child when the process between them ends; until then the signal would concern
//! that process.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Pid;

use super::guard::{Panic, guarded};
use super::spec::{GenerationSpec, Listeners, Origin, WorkerSpec};
use super::{Hooks, code, drop_worker};
use crate::error::{Error, ErrorKind, Result};
use crate::host::privileges::RunAs;
use crate::host::processes::own_pid;
use crate::link::channel::WorkerEnd;
use crate::link::lifeline::{self, Alone, WorkerControl};
use crate::link::message::Report;
use crate::listener::open::OpenSet;
use crate::policy::{BootFailure, ExitStatus, LastError};
use crate::sys::ancestry::ADOPTS;
use crate::sys::caught::{self, Act};
use crate::sys::companion::Companion;
use crate::sys::unshared::Marks;
use crate::sys::{credentials, descriptor, fork, forked, signal, title};
use crate::worker::{Worker, WorkerContext};

/// A worker that is ready to boot.
struct Prepared {
    context: WorkerContext,
    control: Arc<WorkerControl>,
    _lifeline: Companion,
    // Keeps the worker's descriptors from processes that its own code forks.
    _marks: Marks,
}

/// Runs a worker: prepares the process, loads unless the mold has, boots, reports ready, serves. Returns the
/// exit code.
pub(super) fn run<E: Hooks>(spec: WorkerSpec, loaded: &mut Option<E::Worker>, hooks: &mut E) -> i32 {
    let (end, is_reaped) = (spec.end.clone(), ADOPTS || spec.origin == Origin::Supervisor);
    let code = serve(spec, loaded, hooks);
    if !is_reaped {
        // The mold may be gone by then.
        let pid = own_pid();
        let _ = end.send(Report::ChildExited { pid, status: ExitStatus::Code(code) });
    }
    code
}

fn serve<E: Hooks>(mut spec: WorkerSpec, loaded: &mut Option<E::Worker>, hooks: &mut E) -> i32 {
    let forked = boot_step("Supervisor::after_fork", || hooks.after_fork(true));
    let booted = prepare::<E::Worker>(&mut spec).and_then(|prepared| {
        forked?;
        boot(&prepared.context, spec.common.generation, loaded, hooks)?;
        Ok(prepared)
    });
    let (prepared, Some(worker)) = (match booted {
        Ok(prepared) => (prepared, loaded.as_mut()),
        Err(error) => {
            let code = report_failure(&spec.end, &error);
            end_orderly(&spec.end, loaded);
            return code;
        }
    }) else {
        return code::FAILED;
    };
    if let Some(code) = await_begin::<E::Worker>(&prepared, &spec.end) {
        return code;
    }
    let code = match guarded("Worker::run", || worker.run(&prepared.context)) {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => {
            report_error(&spec.end, "worker failed", &Error::of_worker(error, ErrorKind::Worker))
        }
        // Its state after a panic is unknown, so it is not dropped.
        Err(panic) => return report_panic(&spec.end, &panic),
    };
    code.max(end_orderly(&spec.end, loaded))
}

/// Reports that the worker is ready, and waits until it may serve. Returns the exit code of a worker that ends
/// instead.
fn await_begin<W: Worker>(prepared: &Prepared, end: &WorkerEnd) -> Option<i32> {
    if W::serves_while_booting() && !prepared.context.phase().accepts() {
        // It is to end, and may have clients.
        return None;
    }
    prepared.context.booted();
    if end.send(Report::Ready).is_err() && !W::serves_while_booting() {
        // The supervisor is gone, and no client has connected because of this worker yet.
        return Some(code::FAILED);
    }
    (!prepared.control.may_begin() && !W::serves_while_booting()).then_some(0)
}

/// Drops the worker; returns the exit code.
fn end_orderly<W>(end: &WorkerEnd, loaded: &mut Option<W>) -> i32 {
    drop_worker(loaded).map_or_else(|panic| report_panic(end, &panic), |()| 0)
}

/// Reports the error of a booted process; returns the exit code. Without a supervisor it is logged here,
/// after `subject`.
pub(super) fn report_error(end: &WorkerEnd, subject: &str, error: &Error) -> i32 {
    let last = LastError { summary: error.to_string(), detail: error.detail().map(str::to_owned) };
    if end.send(Report::Error(last)).is_err() {
        log::error!("{subject}: {error}");
    }
    code::FAILED
}

/// Reports a panic of a booted process; returns the exit code.
pub(super) fn report_panic(end: &WorkerEnd, panic: &Panic) -> i32 {
    // The panic hook has already printed it.
    let _ = end.send(Report::Error(LastError { summary: format!("panicked {panic}"), detail: None }));
    code::FAILED
}

/// Runs a step of the boot.
fn boot_step<T>(call: &'static str, code: impl FnOnce() -> T) -> Result<T> {
    guarded(call, code)
        .map_err(|panic| Error::new(ErrorKind::Boot, format!("the worker panicked while it booted, {panic}")))
}

fn boot<E: Hooks>(
    context: &WorkerContext,
    generation: u64,
    loaded: &mut Option<E::Worker>,
    hooks: &mut E,
) -> Result<()> {
    let failed = |error| Error::of_worker(error, ErrorKind::Boot);
    let worker = match loaded {
        Some(worker) => worker,
        None => {
            let made = boot_step("Supervisor::worker", || hooks.make(generation))?;
            let worker = loaded.insert(made);
            boot_step("Worker::load", || worker.load(Some(context)))?.map_err(failed)?;
            worker
        }
    };
    boot_step("Worker::boot", || worker.boot(context))?.map_err(failed)
}

fn prepare<W: Worker>(spec: &mut WorkerSpec) -> Result<Prepared> {
    let failed = |step: &str, error: io::Error| Error::system(step, error).of_kind(ErrorKind::Boot);
    let common = Arc::clone(&spec.common);
    if spec.origin == Origin::Mold {
        await_adoption(common.supervisor, &spec.end);
        let pid = own_pid();
        spec.end.send(Report::Born { pid }).map_err(|error| failed("report the fork", error))?;
    }
    let control = Arc::new(WorkerControl::new().map_err(|error| failed("make a pipe", error))?);
    install_handlers([(libc::SIGTERM, Act::Count), (libc::SIGUSR1, Act::Count)])
        .map_err(|error| failed("install signal handlers", error))?;
    control.join_signals(spec.row.clone());
    if spec.origin == Origin::Supervisor {
        common.descriptors.restore();
        drop_privileges(common.run_as.as_ref())?;
    }
    if ADOPTS || spec.origin == Origin::Supervisor {
        die_with_supervisor(common.supervisor);
    }
    lead_group(&common);
    show(&common, "worker");
    // Before the application, which may use up all descriptors.
    descriptor::prepare_null().map_err(|error| failed("open /dev/null", error))?;
    let listeners = std::mem::replace(&mut spec.listeners, Listeners::Open(OpenSet::default()));
    let listeners = Arc::new(listeners.open(&common.own_listeners)?);
    let marks = keep_from_children(spec, &control, &listeners);
    let (end, patience) = (spec.end.clone(), common.graceful_timeout);
    let alone = Alone { patience, serves_while_booting: W::serves_while_booting() };
    let lifeline = lifeline::start(end.clone(), Arc::clone(&control), Arc::clone(&listeners), alone)
        .map_err(|error| failed("start the lifeline", error))?;
    signal::unblock_all();
    let (row, handover) = (spec.row.clone(), Arc::clone(&common.handover));
    let place = (spec.slot, spec.number, spec.max_requests);
    let context = WorkerContext::new(place, listeners, Arc::clone(&control), row, handover, end)
        .with_graceful_timeout(patience);
    Ok(Prepared { context, control, _lifeline: lifeline, _marks: marks })
}

/// Keeps the worker's descriptors and its scoreboard from processes that its own code forks.
fn keep_from_children(spec: &WorkerSpec, control: &WorkerControl, listeners: &OpenSet) -> Marks {
    spec.row.is_not_for_children();
    let own = control.ends().into_iter().chain(spec.common.handover.ends()).chain([spec.end.as_fd()]);
    Marks::on(own.chain(listeners.iter().map(|listener| listener.as_fd())))
}

/// The interval between checks whether the supervisor has adopted the worker.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Waits until the supervisor is the parent. Usually it is at once: the process between them only exits.
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

/// Signals of the process group that workers and molds ignore. A terminal or `pkill` sends them to the
/// supervisor too, and the supervisor acts on them.
pub(super) const OF_THE_GROUP: [i32; 7] =
    [libc::SIGINT, libc::SIGQUIT, libc::SIGHUP, libc::SIGUSR2, libc::SIGTTIN, libc::SIGTTOU, libc::SIGWINCH];

/// Installs the handlers of a worker or mold: those in `own`, and none-actions for the group's signals.
///
/// Processes that its own code forks have default actions.
pub(super) fn install_handlers(own: [(i32, Act); 2]) -> io::Result<()> {
    forked::watch()?;
    let of_the_group = OF_THE_GROUP.map(|number| (number, Act::Nothing));
    caught::install(&own.into_iter().chain(of_the_group).collect::<Vec<_>>())
}

/// Sets the kernel's parent-death signal, where it has one. Ends the process if the supervisor died before.
#[cfg(target_os = "linux")]
pub(super) fn die_with_supervisor(supervisor: Pid) {
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
    if rustix::process::getppid() != Some(supervisor) {
        fork::exit_now(code::FAILED);
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn die_with_supervisor(_: Pid) {}

/// Makes this process lead a group. The group identifies its descendants when this process is gone.
pub(super) fn lead_group(common: &GenerationSpec) {
    if common.has_own_group {
        let _ = rustix::process::setpgid(None, None);
    }
}

/// Shows a process of this kind in process listings.
pub(super) fn show(common: &GenerationSpec, kind: &str) {
    if let Some(name) = &common.name {
        set_name(name);
    }
    if let Some(title) = &common.title {
        title::set(&[title.replacen("{}", kind, 1).as_bytes()]);
    }
}

#[cfg(target_os = "linux")]
fn set_name(name: &str) {
    let name = name.replace('\0', "");
    if let Ok(name) = std::ffi::CString::new(crate::sys::kernel_text::thread_name(&name)) {
        let _ = rustix::thread::set_name(&name);
    }
}

#[cfg(not(target_os = "linux"))]
fn set_name(_: &str) {}

/// Reports the failed boot; returns the exit code.
pub(super) fn report_failure(end: &WorkerEnd, error: &Error) -> i32 {
    let (kind, code) = match error.kind() {
        ErrorKind::Application => (ErrorKind::Application, code::APPLICATION),
        _ => (ErrorKind::Boot, code::BOOT),
    };
    let detail = error.detail().map(str::to_owned);
    let failure = BootFailure { kind, summary: error.to_string(), detail };
    if end.send(Report::Failed(failure)).is_err() {
        log::error!("{error}");
    }
    code
}
