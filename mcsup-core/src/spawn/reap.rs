//! Exit statuses of child processes.

use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions, WaitStatus, wait, waitid, waitpid};

use crate::policy::ExitStatus;

/// The exit status of `pid`; `None`: it runs.
pub(crate) fn try_reap(pid: Pid) -> Option<ExitStatus> {
    match waitpid(Some(pid), WaitOptions::NOHANG) {
        Ok(Some((_, status))) => Some(read(status)),
        Ok(None) | Err(rustix::io::Errno::INTR) => None,
        // Other code in this process has reaped it, and its status is lost.
        Err(_) => Some(ExitStatus::Code(-1)),
    }
}

/// Reaps any ended child; `None`: there is none.
///
/// For a process that the kernel gives children to (the first one of a container, or a subreaper): no other
/// process will reap them. In any other process an unknown child belongs to the host program.
pub(crate) fn reap_any() -> Option<(Pid, ExitStatus)> {
    loop {
        // `waitpid(None)` would wait for the own process group only.
        match wait(WaitOptions::NOHANG) {
            Ok(ended) => return ended.map(|(pid, status)| (pid, read(status))),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// Whether `pid` is a child of this process, or a zombie of one.
pub(crate) fn is_child(pid: Pid) -> bool {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(waitid(WaitId::Pid(pid), look), Err(rustix::io::Errno::CHILD))
}

/// Converts a wait status.
pub(crate) fn read(status: WaitStatus) -> ExitStatus {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => ExitStatus::Code(code),
        (None, Some(signal)) => ExitStatus::Signal(signal),
        (None, None) => ExitStatus::Code(-1),
    }
}
