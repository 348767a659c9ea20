//! Record locks of fcntl(2) over a whole file. They belong to a process: an exec keeps them, a fork does not share them,
//! and the kernel tells who has one. A write lock needs a descriptor that may write.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

// Their type differs by system.
const READ: libc::c_short = libc::F_RDLCK as libc::c_short;
const WRITE: libc::c_short = libc::F_WRLCK as libc::c_short;
const NONE: libc::c_short = libc::F_UNLCK as libc::c_short;

/// A lock of another process that is in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// A write lock; otherwise it takes no more than the right to read.
    pub(crate) is_exclusive: bool,
    /// Who has it; `None`: no process that can be seen from here, as one of another PID namespace.
    pub(crate) pid: Option<i32>,
}

/// Takes the write lock; `false`: a lock of another process is in the way.
pub(crate) fn take(file: impl AsFd) -> io::Result<bool> {
    set(file, WRITE)
}

/// Takes a read lock, beside those of others; `false`: the write lock of another process is in the way.
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

/// What a write lock of ours would meet. A read lock may be told although there is a write lock elsewhere in the file.
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
    // SAFETY: a `flock` is integers, for which zero is a value: from the file's begin to its end, wherever that is.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind;
    lock.l_whence = libc::SEEK_SET as _;
    // SAFETY: the descriptor is open, and `lock` is what both commands read and write.
    let answer = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), command, &raw mut lock) };
    if answer == -1 { Err(io::Error::last_os_error()) } else { Ok(lock) }
}
