//! The log messages: each notice of the policy as one line with the object, the cause and the next step.

use std::time::Duration;

use crate::host::processes;
use crate::policy::{
    BootFailure, Evidence, Exit, ExitStatus, KillReason, MoldNotice, Notice, OutOfMemory, Outcome,
    PoolNotice, RecycleNotice, ReloadNotice, ScaleNotice, StopMode, UpgradeNotice, WorkerNotice,
};

/// Writes `notice` to the log.
pub(crate) fn write(notice: &Notice) {
    match notice {
        Notice::Worker(notice) => worker(notice),
        Notice::Mold(notice) => mold(notice),
        Notice::Recycle(notice) => recycling(notice),
        Notice::Reload(notice) => reload(notice),
        Notice::Scale(notice) => scaling(notice),
        Notice::Upgrade(notice) => upgrade(notice),
        Notice::Pool(notice) => pool(notice),
    }
}

fn worker(notice: &WorkerNotice) {
    match notice {
        WorkerNotice::Booting { slot, generation, pid } => {
            log::info!("Booting worker with pid: {pid} (slot {slot}, generation {generation})");
        }
        WorkerNotice::Ready { pid, slot, after } => {
            log::info!("Worker {pid} is ready after {} (slot {slot})", seconds(*after));
        }
        WorkerNotice::BootFailed { pid, failure } => boot_failed("Worker", *pid, failure),
        WorkerNotice::BootTimeout { pid, after } => boot_timed_out("Worker", *pid, *after),
        WorkerNotice::SpawnFailed { slot, reason, retry_in } => {
            let again = retry_in.map(|delay| format!("; again in {}", seconds(delay))).unwrap_or_default();
            log::error!("Cannot fork a worker for slot {slot}: {reason}{again}");
        }
        WorkerNotice::Died { pid, slot, exit, killed, respawn_in } => {
            died(*pid, *slot, exit, *killed, *respawn_in);
        }
        WorkerNotice::Silent { pid, since } => {
            log::error!("WORKER TIMEOUT (pid: {pid}): no sign of life for {}; aborting it", seconds(*since));
        }
        WorkerNotice::Overdue { pid, reason } => log::warn!("Worker {pid} is killed: {}", why(*reason)),
        WorkerNotice::Leaving { pid, slot, reason, respawn_in } => {
            let next = respawning(*respawn_in);
            log::warn!("Worker {pid} (slot {slot}) leaves when its successor is ready: {reason}{next}");
        }
        WorkerNotice::Unkillable { pid, slot, since, respawn_in } => {
            let (since, next) = (seconds(*since), respawning(*respawn_in));
            log::error!(
                "{} (slot {slot}) was sent SIGKILL {since} ago and is still there; it is no longer waited for{next}",
                named("Worker", *pid)
            );
        }
        WorkerNotice::Retired { pid } => log::info!("Worker {pid} has finished"),
        WorkerNotice::Gone { pid, exit, killed, .. } => log::debug!("worker {pid} {}", cause(exit, *killed)),
    }
}

fn mold(notice: &MoldNotice) {
    match notice {
        MoldNotice::Booting { generation, pid } => {
            log::info!("Booting mold with pid: {pid} (generation {generation})");
        }
        MoldNotice::Ready { pid, generation, after } => {
            log::info!("Mold {pid} is ready after {} (generation {generation})", seconds(*after));
        }
        MoldNotice::BootFailed { pid, failure } => boot_failed("Mold", *pid, failure),
        MoldNotice::BootTimeout { pid, after } => boot_timed_out("Mold", *pid, *after),
        MoldNotice::Died { pid, generation, exit, killed } => {
            let (cause, detail) = (cause(exit, *killed), detail(exit));
            log::error!("Mold {pid} (generation {generation}) {cause}; its workers serve on{detail}");
        }
        MoldNotice::Gone { pid, exit, killed, .. } => log::debug!("mold {pid} {}", cause(exit, *killed)),
        MoldNotice::Failed { generation, reason, again_in } => {
            let again = seconds(*again_in);
            log::error!("No mold for generation {generation}: {reason}; workers serve on; again in {again}");
        }
        MoldNotice::Unkillable { pid, since } => {
            let since = seconds(*since);
            log::error!(
                "Mold {pid} was sent SIGKILL {since} ago and is still there; it is no longer waited for"
            );
        }
    }
}

fn recycling(notice: &RecycleNotice) {
    match notice {
        RecycleNotice::Begun { pid, slot, reason } => {
            log::info!("Recycling worker {pid} (slot {slot}): {reason}; booting its successor");
        }
        RecycleNotice::Postponed { slot, reason } => {
            log::info!("Recycling of slot {slot} waits until nothing else is under way: {reason}");
        }
        RecycleNotice::Done { slot } => {
            log::info!("Slot {slot} has a new worker; the old one finishes");
        }
        RecycleNotice::Failed { slot, reason, again_in } => {
            let again = seconds(*again_in);
            log::error!("Recycling of slot {slot} failed, its worker goes on; again in {again}: {reason}");
        }
    }
}

fn reload(notice: &ReloadNotice) {
    match notice {
        ReloadNotice::Wanted { reason } => log::info!("Reload wanted: {reason}"),
        ReloadNotice::Begun { generation } => {
            log::info!("Reloading: booting generation {generation} beside the serving one");
        }
        ReloadNotice::Postponed { reason } => log::info!("Reload waits: {reason}"),
        ReloadNotice::Done { generation, took } => {
            log::info!("Reload done: generation {generation} serves after {}", seconds(*took));
        }
        ReloadNotice::Failed { generation, reason } => {
            log::error!(
                "Reload failed, the old generation goes on serving: generation {generation}: {reason}"
            );
        }
        ReloadNotice::Superseded { generation } => {
            log::warn!("Reload superseded by a newer one: generation {generation} is given up");
        }
        ReloadNotice::NewWorkerFailed { generation, reason, left } => {
            log::warn!("A worker of generation {generation} failed; {left} more may: {reason}");
        }
        ReloadNotice::RollingBack { slots } => {
            log::warn!("Rolling back: workers of the old generation are booted for {slots} slots");
        }
        ReloadNotice::RolledBack => log::info!("Rolled back: the old generation serves every slot"),
        ReloadNotice::RollbackFailed { reason } => {
            log::error!("Cannot roll back, the new workers go on serving where there are any: {reason}");
        }
    }
}

fn scaling(notice: &ScaleNotice) {
    match notice {
        ScaleNotice::Begun { from, to } => log::info!("Scaling from {from} to {to} workers"),
        ScaleNotice::Failed { from, to, reason } => {
            log::error!("Scaling to {to} workers failed, going on with {from}: {reason}");
        }
    }
}

fn upgrade(notice: &UpgradeNotice) {
    match notice {
        UpgradeNotice::Postponed => log::info!("Upgrade waits until nothing else is under way"),
        UpgradeNotice::Begun => log::info!("Upgrading: asking the new image whether it can take over"),
        UpgradeNotice::Failed { reason } => log::error!("Upgrade failed, this image goes on: {reason}"),
        UpgradeNotice::Done { workers } => {
            log::info!("Upgraded: a new image supervises {workers} workers");
        }
    }
}

fn pool(notice: &PoolNotice) {
    match notice {
        PoolNotice::LameDuck { lasts } => {
            log::info!("Asked to stop: serving on for {}, and saying so to whoever asks", seconds(*lasts));
        }
        PoolNotice::Stopping { mode } => stopping(*mode),
        PoolNotice::Escalated => log::warn!("Asked to stop again: stopping faster"),
        PoolNotice::Woke { by } => {
            log::warn!("The supervisor did not run for {}; no worker is blamed for it", seconds(*by));
        }
        PoolNotice::Ended { outcome } => ended(*outcome),
    }
}

fn boot_failed(role: &str, pid: i32, failure: &BootFailure) {
    match &failure.detail {
        Some(detail) => {
            log::error!("{role} {pid} failed to boot: {}\n{}", failure.summary, detail.trim_end());
        }
        None => log::error!("{role} {pid} failed to boot: {}", failure.summary),
    }
}

fn boot_timed_out(role: &str, pid: i32, after: Duration) {
    let process = named(role, pid);
    log::error!("{process} was not ready within the boot timeout of {}: killed", seconds(after));
}

/// A process by its role and pid. A worker that its mold has not forked has no pid.
pub(super) fn named(role: &str, pid: i32) -> String {
    match pid {
        0 => format!("{role} without a process"),
        pid => format!("{role} {pid}"),
    }
}

fn respawning(after: Option<Duration>) -> String {
    match after {
        Some(Duration::ZERO) => "; respawning".to_owned(),
        Some(delay) => format!("; respawning in {}", seconds(delay)),
        None => String::new(),
    }
}

fn died(pid: i32, slot: usize, exit: &Exit, killed: Option<KillReason>, respawn_in: Option<Duration>) {
    let next = respawning(respawn_in);
    let cause = cause(exit, killed);
    let (worker, detail) = (named("Worker", pid), detail(exit));
    match exit.status {
        ExitStatus::Code(0) => log::info!("{worker} (slot {slot}) {cause}{next}{detail}"),
        _ => log::error!("{worker} (slot {slot}) {cause}{next}{detail}"),
    }
}

/// The lines below the one about an exit.
fn detail(exit: &Exit) -> String {
    let detail = exit.evidence.error.as_ref().and_then(|error| error.detail.as_ref());
    detail.map(|detail| format!("\n{}", detail.trim_end())).unwrap_or_default()
}

/// The cause of a worker's end, as far as known, with its last error.
pub(crate) fn cause(exit: &Exit, killed: Option<KillReason>) -> String {
    let mut cause = observed_cause(exit, killed);
    if let Some(error) = &exit.evidence.error {
        cause.push_str(": ");
        cause.push_str(&error.summary);
    }
    cause
}

pub(super) fn observed_cause(exit: &Exit, killed: Option<KillReason>) -> String {
    let Exit { status, evidence } = exit;
    let busy =
        evidence.request_age.map(|age| format!(", {} into a request", seconds(age))).unwrap_or_default();
    match (status, killed) {
        (_, Some(reason)) => format!("was killed by its supervisor: {}{busy}", why(reason)),
        (ExitStatus::Code(code), None) => format!("exited with code {code}{}{busy}", told_by(evidence)),
        (ExitStatus::Signal(libc::SIGKILL), None) => killed_by_others(&evidence.out_of_memory, &busy),
        (ExitStatus::Signal(signal), None) => {
            format!("died of {}{}{busy}", signal_name(*signal), told_by(evidence))
        }
    }
}

/// The cause of a SIGKILL that the supervisor did not send: the kernel names neither sender nor victim.
fn killed_by_others(out_of_memory: &OutOfMemory, busy: &str) -> String {
    let unknown = |what: &str| format!("died, cause unknown: SIGKILL{busy} (not by this supervisor{what})");
    match out_of_memory {
        OutOfMemory::Kill => {
            format!("was killed by the kernel, which ran out of memory{busy} (its cgroup counts the kill)")
        }
        OutOfMemory::Perhaps { kills, deaths } => format!(
            "was probably killed by the kernel, which ran out of memory{busy} (out-of-memory kills that its cgroup \
             counts: {kills}; processes that died of SIGKILL at that moment: {deaths})"
        ),
        OutOfMemory::Earlier { kills, within } => unknown(&format!(
            "; out-of-memory kills in its cgroup in the last {}, perhaps of other processes: {kills}",
            seconds(*within)
        )),
        OutOfMemory::None => unknown("; its cgroup counts no out-of-memory kill"),
        OutOfMemory::NotCounted => unknown(""),
    }
}

fn told_by(evidence: &Evidence) -> String {
    match &evidence.sender {
        Some(sender) => {
            format!(" after {} from {}", signal_name(sender.signal), processes::name(sender.pid))
        }
        None => String::new(),
    }
}

pub(super) fn why(reason: KillReason) -> String {
    match reason {
        KillReason::BootTimeout(limit) => format!("not ready within the boot timeout of {}", seconds(limit)),
        KillReason::Silent(limit) => format!("no sign of life within the timeout of {}", seconds(limit)),
        KillReason::GracefulTimeout(limit) => {
            format!("not finished within the graceful timeout of {}", seconds(limit))
        }
        KillReason::QuickStop => "a quick stop left it no more time".to_owned(),
        KillReason::GivenUp => "its generation was given up".to_owned(),
        KillReason::Barren => "it did not fork what it was told to".to_owned(),
        KillReason::Crowded => "later workers of its slot have asked to be replaced too".to_owned(),
    }
}

fn stopping(mode: StopMode) {
    match mode {
        StopMode::Quick => log::info!("Stopping at once"),
        StopMode::Graceful => log::info!("Stopping: finishing what has arrived"),
    }
}

fn ended(outcome: Outcome) {
    match outcome {
        Outcome::Stopped => log::info!("Stopped"),
        Outcome::Forced { killed } => {
            log::error!("Stopped; workers killed before they had finished: {killed}");
        }
        Outcome::BootFailed(_) => log::error!("Stopped: the first workers could not boot"),
        Outcome::Unkillable { left } => {
            log::error!("Stopped; processes that SIGKILL did not end are still there: {left}");
        }
    }
}

pub(super) fn seconds(duration: Duration) -> String {
    format!("{:.3} s", duration.as_secs_f64())
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGHUP => "SIGHUP",
        libc::SIGILL => "SIGILL",
        libc::SIGINT => "SIGINT",
        libc::SIGKILL => "SIGKILL",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGTERM => "SIGTERM",
        _ => return format!("signal {signal}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_its_mold_has_not_forked_is_not_named_by_a_pid() {
        assert_eq!(named("Worker", 0), "Worker without a process");
        assert_eq!(named("Worker", 4711), "Worker 4711");
    }
}
