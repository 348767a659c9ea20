//! The supervisors that this process has spawned and not reaped.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions, waitid, waitpid};

use crate::policy::ExitStatus;
use crate::spawn::reap;

#[derive(Debug, Clone, Copy)]
struct SpawnedProcess {
    pid: Pid,
    /// Whether the program has dropped its value, so that only [`reap_abandoned`] reaps it.
    is_abandoned: bool,
}

/// A process that is forked later finds no child of its own here.
static PROCESSES: Mutex<Vec<SpawnedProcess>> = Mutex::new(Vec::new());

fn processes() -> MutexGuard<'static, Vec<SpawnedProcess>> {
    PROCESSES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Adds a process, and reaps the abandoned ones that have ended.
pub(super) fn add(pid: Pid) {
    reap_abandoned();
    processes().push(SpawnedProcess { pid, is_abandoned: false });
}

/// Leaves the reaping of a process to the next [`add`], unless it has ended already.
pub(super) fn abandon(pid: Pid) {
    processes().iter_mut().filter(|process| process.pid == pid).for_each(|it| it.is_abandoned = true);
    reap_abandoned();
}

fn reap_abandoned() {
    processes().retain(|process| !process.is_abandoned || ended(process.pid, WaitOptions::NOHANG).is_none());
}

/// Waits for the end of a process; `None`: other code has reaped it.
pub(super) fn wait(pid: Pid) -> Option<ExitStatus> {
    loop {
        if let Some(status) = ended(pid, WaitOptions::empty()) {
            forget(pid);
            return status;
        }
    }
}

/// The same without waiting; `None`: it runs.
pub(super) fn try_wait(pid: Pid) -> Option<Option<ExitStatus>> {
    let status = ended(pid, WaitOptions::NOHANG)?;
    forget(pid);
    Some(status)
}

fn forget(pid: Pid) {
    processes().retain(|process| process.pid != pid);
}

/// Reaps a process if it has ended; `Some(None)`: other code has reaped it.
fn ended(pid: Pid, options: WaitOptions) -> Option<Option<ExitStatus>> {
    match waitpid(Some(pid), options) {
        Ok(Some((_, status))) => Some(Some(reap::read(status))),
        Ok(None) | Err(Errno::INTR) => None,
        Err(_) => Some(None),
    }
}

/// Whether a spawned supervisor runs. It stops when this process executes another image.
pub(in crate::supervisor) fn any_runs() -> bool {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    processes().iter().any(|process| matches!(waitid(WaitId::Pid(process.pid), look), Ok(None)))
}
