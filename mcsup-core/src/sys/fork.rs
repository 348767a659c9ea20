//! Fork.

use std::io;

use rustix::process::Pid;

use super::ancestry::ADOPTS;
pub(crate) use super::exit::exit_now;
use super::{companion, forked};

/// The side of a fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The process that forked, with the child's pid.
    Parent(Pid),
    /// The new process.
    Child,
}

/// The treatment of other threads at a fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OtherThreads {
    /// Refuse the fork, and name them: a lock held by another thread would stay held in the child forever.
    Refuse,
    /// Fork, and leave them out of the child. For a caller that has been warned.
    LeaveBehind,
}

/// Forks a process with one thread. The error names the threads if there are more.
pub(crate) fn fork() -> io::Result<Side> {
    fork_beside(OtherThreads::Refuse)
}

/// Forks a process that becomes a child of the adopter of orphans. Without an adopter it stays a child of
/// this process, and its pid is returned for reaping.
pub(crate) fn fork_orphan(others: OtherThreads) -> io::Result<OrphanSide> {
    let between = match fork_beside(others)? {
        Side::Parent(child) if !ADOPTS => return Ok(OrphanSide::Parent { child: Some(child) }),
        Side::Parent(between) => between,
        Side::Child if !ADOPTS => return Ok(OrphanSide::Child),
        // This process has one thread, independent of its parent.
        Side::Child => match fork_beside(OtherThreads::LeaveBehind) {
            Ok(Side::Child) => return Ok(OrphanSide::Child),
            Ok(Side::Parent(_)) => exit_now(0),
            Err(error) => exit_now(error.raw_os_error().unwrap_or(libc::EAGAIN)),
        },
    };
    match ended(between) {
        Some(0) | None => Ok(OrphanSide::Parent { child: None }),
        Some(errno) => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// The side of a [`fork_orphan`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OrphanSide {
    /// The process that forked.
    Parent {
        /// The new process, if it stays a child of this one.
        child: Option<Pid>,
    },
    /// The new process.
    Child,
}

/// Waits for a child; returns its exit code, or `None` after another end, or if other code has reaped it.
fn ended(child: Pid) -> Option<i32> {
    loop {
        match rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty()) {
            Ok(Some((_, status))) => return status.exit_status(),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// Forks beside other threads, or refuses to.
pub(crate) fn fork_beside(others: OtherThreads) -> io::Result<Side> {
    if others == OtherThreads::Refuse {
        refuse_other_threads()?;
    }
    let held = companion::hold();
    // SAFETY: `fork` itself has no preconditions; the question is the code that the child may run. Where
    // other threads are refused the process has one thread (checked above, and nothing between starts one),
    // so the child is a whole copy of the parent: no lock is held by a thread that the child lacks, and any
    // code may run in it. Where they are left behind the child lacks them. The C library's own locks (memory,
    // streams) are reset by its fork, a host language's are held across it by its hooks, and this crate has
    // none that such a thread could hold. For a lock of other code the child may wait forever. That is safe,
    // and the operator was warned of it.
    let made = forked::as_our_own(|| unsafe { libc::fork() });
    drop(held);
    match made {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            super::caught::has_forked();
            forked::reset();
            companion::forget();
            Ok(Side::Child)
        }
        pid => match Pid::from_raw(pid) {
            Some(pid) => Ok(Side::Parent(pid)),
            None => Err(io::Error::other("fork returned no process id")),
        },
    }
}

/// Whether this is the process's only thread, as far as the system reports.
pub(crate) fn has_one_thread() -> bool {
    refuse_other_threads().is_ok()
}

/// Refuses a process with other threads than the calling one, and names them.
///
/// The kernel lists a thread for a moment after it was joined, so threads are listed again before the error.
///
/// # Errors
/// The others still exist, or the threads cannot be listed.
pub(crate) fn require_one_thread() -> io::Result<()> {
    const LOOKS: u32 = 50;
    for _ in 1..LOOKS {
        if refuse_other_threads().is_ok() {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    refuse_other_threads()
}

/// Refuses a process with other threads, where /proc exists. Elsewhere the caller is trusted.
fn refuse_other_threads() -> io::Result<()> {
    let Some(tasks) = listed(TASKS)? else { return Ok(()) };
    let mut names = Vec::new();
    for task in tasks {
        let comm = super::kernel_text::read(task?.path().join("comm")).unwrap_or_default();
        names.push(comm.trim_end().to_owned());
    }
    if names.len() <= 1 {
        return Ok(());
    }
    let message = format!("this process has {} threads ({}); fork needs one", names.len(), names.join(", "));
    Err(io::Error::other(message))
}

/// The kernel thread IDs and names of this process's other threads than its first one. Empty where there is
/// no /proc.
///
/// # Errors
/// The threads cannot be listed.
pub(crate) fn other_threads() -> io::Result<Vec<(i32, String)>> {
    let first = i32::try_from(std::process::id()).unwrap_or_default();
    let mut others = Vec::new();
    for task in listed(TASKS)?.into_iter().flatten() {
        let task = task?;
        let number: Option<i32> = task.file_name().to_str().and_then(|number| number.parse().ok());
        // A thread that has ended meanwhile has no name.
        let name = super::kernel_text::read(task.path().join("comm")).ok();
        let other = number.filter(|number| *number != first).zip(name);
        others.extend(other.map(|(number, name)| (number, name.trim_end().to_owned())));
    }
    Ok(others)
}

/// The kernel's list of this process's threads.
const TASKS: &str = "/proc/self/task";

/// Lists a directory; `None`: it does not exist.
///
/// # Errors
/// It cannot be read, for lack of descriptors for example. It need not be empty then.
fn listed(directory: &str) -> io::Result<Option<std::fs::ReadDir>> {
    match std::fs::read_dir(directory) {
        Ok(entries) => Ok(Some(entries)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Runs a test in a process of one thread: it reaps all children, and its mask is that of the process.
#[cfg(test)]
pub(crate) fn in_a_process(test: fn()) {
    match fork_beside(OtherThreads::LeaveBehind).unwrap() {
        Side::Child => exit_now(std::panic::catch_unwind(test).map_or(1, |()| 0)),
        Side::Parent(child) => {
            let ended = rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty());
            assert_eq!(ended.unwrap().unwrap().1.exit_status(), Some(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_directory_that_is_not_there_lists_nothing() {
        assert!(listed("/nowhere/at/all").unwrap().is_none());
        assert!(listed("/").unwrap().is_some());
        assert!(listed("/dev/null").is_err());
    }
}
