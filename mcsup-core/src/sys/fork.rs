//! Fork, and the end of a process without its exit handlers.

use std::io;

use rustix::process::Pid;

use super::ancestry::ADOPTS;
pub(crate) use super::exit::exit_now;
use super::{companion, forked};

/// Which side of a fork this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The process that forked; the child's pid.
    Parent(Pid),
    /// The new process.
    Child,
}

/// What becomes of a fork while the process has other threads than the calling one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Others {
    /// It is refused, with their names: a lock that another thread holds would stay held in the child for ever.
    Refuse,
    /// It happens, and the child lacks them. For whoever was told, and wants it so.
    Leave,
}

/// Forks. Refused with the names of the threads where this process has more than one.
pub(crate) fn fork() -> io::Result<Side> {
    fork_beside(Others::Refuse)
}

/// Forks a process that becomes the child of whoever adopts our orphans. Where nobody does it stays ours: then its pid is
/// returned, and it is ours to reap.
pub(crate) fn fork_away(others: Others) -> io::Result<Away> {
    let between = match fork_beside(others)? {
        Side::Parent(child) if !ADOPTS => return Ok(Away::Parent { child: Some(child) }),
        Side::Parent(between) => between,
        Side::Child if !ADOPTS => return Ok(Away::Child),
        // It has one thread, whatever its parent has.
        Side::Child => match fork_beside(Others::Leave) {
            Ok(Side::Child) => return Ok(Away::Child),
            Ok(Side::Parent(_)) => exit_now(0),
            Err(error) => exit_now(error.raw_os_error().unwrap_or(libc::EAGAIN)),
        },
    };
    match ended(between) {
        Some(0) | None => Ok(Away::Parent { child: None }),
        Some(errno) => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Which side of a [`fork_away`] this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Away {
    /// The process that forked.
    Parent {
        /// The new process, where it stays our child.
        child: Option<Pid>,
    },
    /// The new process.
    Child,
}

/// The exit code of a child, once it has ended; `None`: it has another end, or somebody else has seen it.
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
pub(crate) fn fork_beside(others: Others) -> io::Result<Side> {
    if others == Others::Refuse {
        refuse_other_threads()?;
    }
    let held = companion::hold();
    // SAFETY: `fork` itself has no preconditions; what matters is what the child may do. Where other threads are refused
    // the process has one thread (checked above, and nothing between starts one), so the child is a whole copy of the
    // parent: no lock is held by a thread that the child lacks, and any code may run in it. Where they are left behind
    // the child lacks them: the C library's own locks (memory, streams) are made good by its fork, a host language's are
    // held across it by its hooks, and this crate has none that such a thread could hold. Of others a child may wait for
    // ever for a lock that nobody will release, which is safe, and what the operator was warned of.
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

/// Whether this is the process's only thread, as far as the system tells.
pub(crate) fn has_one_thread() -> bool {
    refuse_other_threads().is_ok()
}

/// Refuses a process that has other threads than the calling one, with their names.
///
/// The kernel lists a thread for a moment after it was joined, so a second look follows where others are seen.
///
/// # Errors
/// The others are still there, or the threads cannot be listed.
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

/// Where /proc is: an error that names the threads beside the calling one. Elsewhere the caller's word counts.
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

/// The threads of this process beside its first one: their numbers, and what the kernel calls them. None where it does
/// not say.
///
/// # Errors
/// It could not be asked: nobody knows.
pub(crate) fn other_threads() -> io::Result<Vec<(i32, String)>> {
    let first = i32::try_from(std::process::id()).unwrap_or_default();
    let mut others = Vec::new();
    for task in listed(TASKS)?.into_iter().flatten() {
        let task = task?;
        let number: Option<i32> = task.file_name().to_str().and_then(|number| number.parse().ok());
        // One that has ended meanwhile has no name any more.
        let name = super::kernel_text::read(task.path().join("comm")).ok();
        let other = number.filter(|number| *number != first).zip(name);
        others.extend(other.map(|(number, name)| (number, name.trim_end().to_owned())));
    }
    Ok(others)
}

/// Where the kernel lists the threads of this process.
const TASKS: &str = "/proc/self/task";

/// What is in a directory; `None`: there is no such directory. Where it cannot be read, for lack of descriptors say, that
/// does not mean that it is empty.
fn listed(directory: &str) -> io::Result<Option<std::fs::ReadDir>> {
    match std::fs::read_dir(directory) {
        Ok(entries) => Ok(Some(entries)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
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
