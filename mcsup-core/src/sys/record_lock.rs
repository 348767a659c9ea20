//! Record locks of fcntl(2) over a whole file.
//!
//! They belong to a process: an exec keeps them, a fork does not share them, and the kernel reports the
//! holder. A write lock needs a writable descriptor.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

// The type differs by system.
const READ: libc::c_short = libc::F_RDLCK as libc::c_short;
const WRITE: libc::c_short = libc::F_WRLCK as libc::c_short;
const NONE: libc::c_short = libc::F_UNLCK as libc::c_short;

/// A conflicting lock of another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// A write lock; otherwise a read lock, for which read access suffices.
    pub(crate) is_exclusive: bool,
    /// Its holder; `None`: it is not visible here, as in another PID namespace.
    pub(crate) pid: Option<i32>,
}

/// Takes the write lock; `false`: another process has a lock.
pub(crate) fn take(file: impl AsFd) -> io::Result<bool> {
    set(file, WRITE)
}

/// Takes a read lock, beside other read locks; `false`: another process has the write lock.
pub(crate) fn take_shared(file: impl AsFd) -> io::Result<bool> {
    set(file, READ)
}

fn set(file: impl AsFd, wanted: libc::c_short) -> io::Result<bool> {
    match call(&file, libc::F_SETLK, wanted) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A lock that conflicts with a write lock. May report a read lock although another part has a write lock.
pub(crate) fn in_the_way(file: impl AsFd) -> io::Result<Option<Conflict>> {
    conflict(file, WRITE)
}

/// The write lock of another process.
pub(crate) fn writer(file: impl AsFd) -> io::Result<Option<Conflict>> {
    conflict(file, READ)
}

fn conflict(file: impl AsFd, wanted: libc::c_short) -> io::Result<Option<Conflict>> {
    let lock = call(&file, libc::F_GETLK, wanted)?;
    let found = Conflict { is_exclusive: lock.l_type == WRITE, pid: (lock.l_pid > 0).then_some(lock.l_pid) };
    Ok((lock.l_type != NONE).then_some(found))
}

fn call(file: &impl AsFd, command: libc::c_int, kind: libc::c_short) -> io::Result<libc::flock> {
    // SAFETY: a `flock` is integers, for which zero is a value: from the file's begin to its end, wherever
    // that is.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind;
    lock.l_whence = libc::SEEK_SET as _;
    // SAFETY: the descriptor is open, and `lock` is what both commands read and write.
    let answer = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), command, &raw mut lock) };
    if answer == -1 { Err(io::Error::last_os_error()) } else { Ok(lock) }
}
