//! How a worker's process ended: waitpid, and what else can be known about the cause.

use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions, WaitStatus, wait, waitid, waitpid};

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

/// Some child that has ended, and how; `None`: all run, or there is none. For a process that is given children by the
/// kernel (the first one of a container, or one that adopts orphans): nobody else will reap them. In any other a child
/// that is not ours is somebody's.
pub(crate) fn reap_any() -> Option<(Pid, ExitStatus)> {
    loop {
        // `waitpid(None)` would be the children of our own process group alone.
        match wait(WaitOptions::NOHANG) {
            Ok(ended) => return ended.map(|(pid, status)| (pid, read(status))),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// Whether a process is a child of ours, also one that has ended and was not reaped.
pub(crate) fn is_child(pid: Pid) -> bool {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(waitid(WaitId::Pid(pid), look), Err(rustix::io::Errno::CHILD))
}

/// What a status says.
pub(crate) fn read(status: WaitStatus) -> ExitStatus {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => ExitStatus::Code(code),
        (None, Some(signal)) => ExitStatus::Signal(signal),
        (None, None) => ExitStatus::Code(-1),
    }
}
