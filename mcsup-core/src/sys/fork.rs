//! Fork, from a process that has one thread, and the end of a process without its exit handlers.

use std::io;

/// Which side of a fork this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The process that forked; the child's pid.
    Parent(rustix::process::Pid),
    /// The new process.
    Child,
}

/// Forks. Refused with the names of the threads where this process has more than one: a lock that another thread
/// holds would stay held in the child for ever.
pub(crate) fn fork() -> io::Result<Side> {
    refuse_other_threads()?;
    // SAFETY: the process has one thread (checked above, and nothing between starts one), so the child is a whole
    // copy of the parent: no lock is held by a thread that the child lacks, and any code may run in it.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Side::Child),
        pid => match rustix::process::Pid::from_raw(pid) {
            Some(pid) => Ok(Side::Parent(pid)),
            None => Err(io::Error::other("fork returned no process id")),
        },
    }
}

/// Ends the process at once: no exit handlers, no destructors.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no preconditions and does not return.
    unsafe { libc::_exit(code) }
}

/// Where /proc is: an error that names the threads beside the calling one. Elsewhere the caller's word counts.
fn refuse_other_threads() -> io::Result<()> {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return Ok(()) };
    let mut names = Vec::new();
    for task in tasks.flatten() {
        let comm = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        names.push(comm.trim_end().to_owned());
    }
    if names.len() <= 1 {
        return Ok(());
    }
    let message = format!("this process has {} threads ({}); fork needs one", names.len(), names.join(", "));
    Err(io::Error::other(message))
}
