//! How a worker's process ended: waitpid, and what else can be known about the cause.

use std::fs;

use rustix::process::{Pid, WaitOptions, WaitStatus, waitpid};

use crate::policy::ExitStatus;

/// How `pid` ended; `None` while it runs.
pub(crate) fn try_reap(pid: Pid) -> Option<ExitStatus> {
    match waitpid(Some(pid), WaitOptions::NOHANG) {
        Ok(Some((_, status))) => Some(read(status)),
        Ok(None) | Err(rustix::io::Errno::INTR) => None,
        // Somebody else in this process has reaped it: gone, and nobody knows how.
        Err(_) => Some(ExitStatus::Code(-1)),
    }
}

/// Reaps the processes that the kernel gave us because we are the first process of a container. Only then: in any
/// other process a child that is not ours is somebody's.
pub(crate) fn reap_adopted(is_ours: impl Fn(Pid) -> bool) {
    if rustix::process::getpid() != Pid::INIT {
        return;
    }
    for pid in crate::host::processes::children_of(1).into_iter().filter_map(Pid::from_raw) {
        if !is_ours(pid) {
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
    }
}

fn read(status: WaitStatus) -> ExitStatus {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => ExitStatus::Code(code),
        (None, Some(signal)) => ExitStatus::Signal(signal),
        (None, None) => ExitStatus::Code(-1),
    }
}

/// How many processes the kernel has killed for lack of memory; 0 where it does not say.
pub(crate) fn out_of_memory_kills() -> u64 {
    let text = fs::read_to_string("/proc/vmstat").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}
