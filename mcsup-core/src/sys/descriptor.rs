//! Inherited descriptors, and redirecting open ones.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;

/// Creates a close-on-exec pipe, reading end first. Both ends are non-blocking if requested.
pub(crate) fn pipe(nonblocking: bool) -> io::Result<(OwnedFd, OwnedFd)> {
    #[cfg(not(target_vendor = "apple"))]
    {
        use rustix::pipe::{PipeFlags, pipe_with};
        let flags = if nonblocking { PipeFlags::NONBLOCK } else { PipeFlags::empty() };
        Ok(pipe_with(PipeFlags::CLOEXEC | flags)?)
    }
    #[cfg(target_vendor = "apple")]
    {
        let ends = rustix::pipe::pipe()?;
        for end in [&ends.0, &ends.1] {
            rustix::io::fcntl_setfd(end, rustix::io::FdFlags::CLOEXEC)?;
            if nonblocking {
                rustix::io::ioctl_fionbio(end, true)?;
            }
        }
        Ok(ends)
    }
}

/// Takes the ownership of an inherited descriptor, once.
///
/// An inherited descriptor has come through an exec, so it is not close-on-exec. Descriptors that this
/// program opened or took are close-on-exec and have an owner.
///
/// # Errors
/// It is not open, or has an owner.
pub(crate) fn take_inherited(fd: RawFd) -> io::Result<OwnedFd> {
    if flags(fd)? & libc::FD_CLOEXEC != 0 {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "it is close-on-exec: this process has opened or taken it itself",
        ));
    }
    take_recorded(fd)
}

/// Whether [`take_inherited`] would take a descriptor.
pub(crate) fn is_inherited(fd: RawFd) -> bool {
    flags(fd).is_ok_and(|flags| flags & libc::FD_CLOEXEC == 0)
}

/// Gives up a descriptor from [`take_inherited`], unchanged.
pub(crate) fn put_back_inherited(fd: OwnedFd) {
    survive_exec(&[fd.into_raw_fd()], true);
}

/// Takes the ownership of a descriptor named by a record of this library: the previous image's state, or a
/// fork order.
///
/// It is close-on-exec afterwards.
///
/// # Errors
/// It is not open.
pub(crate) fn take_recorded(fd: RawFd) -> io::Result<OwnedFd> {
    flags(fd)?;
    // SAFETY: it is open, and nothing else in this process owns it: the writer of the record has left it to
    // its reader, and an inherited one is not close-on-exec until it is taken (sd_listen_fds(3)).
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    rustix::io::fcntl_setfd(&owned, rustix::io::FdFlags::CLOEXEC)?;
    Ok(owned)
}

/// Duplicates a descriptor that is named by a record, close-on-exec. The original keeps its owner.
///
/// # Errors
/// It is not open, or no descriptor is left.
pub(crate) fn duplicate_recorded(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC only adds a number; one that is not open is refused with EBADF.
    match unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: the number is new, and nothing else owns it.
        duplicate => Ok(unsafe { OwnedFd::from_raw_fd(duplicate) }),
    }
}

/// Gives a descriptor the number `fd` back, without an owner and close-on-exec, if that number is free.
pub(crate) fn restore_number(kept: &OwnedFd, fd: RawFd) {
    // SAFETY: F_DUPFD_CLOEXEC takes the lowest free number from `fd` on; it replaces none.
    let restored = unsafe { libc::fcntl(kept.as_raw_fd(), libc::F_DUPFD_CLOEXEC, fd) };
    if restored > fd {
        // SAFETY: the number is new, and nothing else owns it.
        drop(unsafe { OwnedFd::from_raw_fd(restored) });
    }
}

fn flags(fd: RawFd) -> io::Result<i32> {
    // SAFETY: F_GETFD reads a flag; a number that is not open is refused with EBADF.
    match unsafe { libc::fcntl(fd, libc::F_GETFD) } {
        -1 => Err(io::Error::last_os_error()),
        flags => Ok(flags),
    }
}

/// Whether the number is open.
pub(super) fn is_open(fd: RawFd) -> bool {
    flags(fd).is_ok()
}

/// Sets whether descriptors stay open across an exec. Skips numbers that are not open.
pub(crate) fn survive_exec(fds: &[RawFd], survive: bool) {
    for fd in fds {
        // SAFETY: F_SETFD changes a flag of the number in this process; one that is not open is refused with
        // EBADF.
        unsafe { libc::fcntl(*fd, libc::F_SETFD, if survive { 0 } else { libc::FD_CLOEXEC }) };
    }
}

/// The identity of a descriptor's target: equal for all copies, also in other processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Identity {
    kind: u32,
    device: u64,
    inode: u64,
}

/// Identifies the target of `fd`.
///
/// # Errors
/// It is not open.
pub(crate) fn identity(fd: RawFd) -> io::Result<Identity> {
    let mut status = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `status` has room for a `stat`; a number that is not open is refused with EBADF.
    if unsafe { libc::fstat(fd, status.as_mut_ptr()) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has filled it in.
    let status = unsafe { status.assume_init() };
    #[allow(clippy::unnecessary_cast, reason = "the types differ by system")]
    Ok(Identity {
        kind: (status.st_mode & libc::S_IFMT) as u32,
        device: status.st_dev as u64,
        inode: status.st_ino as u64,
    })
}

/// Inspects a socket by the number of its descriptor, which keeps its owner.
///
/// # Errors
/// The number is not open, or the inspection fails.
pub(crate) fn inspect<T>(
    fd: RawFd,
    inspect: impl FnOnce(socket2::SockRef<'_>) -> io::Result<T>,
) -> io::Result<T> {
    flags(fd)?;
    // SAFETY: it is open, as just checked, and the borrow ends with this call; nothing closes it meanwhile, since the
    // owners of inherited descriptors are on this thread.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    inspect(socket2::SockRef::from(&borrowed))
}

/// The inode number of the target of `fd`.
pub(crate) fn inode(fd: BorrowedFd<'_>) -> Option<u64> {
    identity(fd.as_raw_fd()).ok().map(|identity| identity.inode)
}

/// /dev/null, opened in advance: a process without a free descriptor can use it as well.
static BLANK: OnceLock<File> = OnceLock::new();

/// Opens the target of [`redirect_to_null`]. Due once in each process that may call it.
///
/// # Errors
/// No descriptor is left.
pub(crate) fn prepare_null() -> io::Result<()> {
    blank().map(drop)
}

fn blank() -> io::Result<&'static File> {
    if let Some(blank) = BLANK.get() {
        return Ok(blank);
    }
    let opened = open_blank("/dev/null")?;
    Ok(BLANK.get_or_init(|| opened))
}

/// The number of a /dev/null; negative: none. Uses only atomics and system calls, for a forked process.
pub(super) fn null() -> RawFd {
    match BLANK.get() {
        Some(blank) => blank.as_raw_fd(),
        // SAFETY: the path is a C string.
        None => unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) },
    }
}

/// Opens /dev/null. Without a /dev it opens the reading end of a closed pipe, as it also yields no data.
fn open_blank(null: &str) -> io::Result<File> {
    File::open(null).or_else(|_| Ok(pipe(true)?.0.into()))
}

/// Makes `fd` refer to /dev/null, so that this process no longer holds its previous target.
///
/// Needs no free descriptor after [`prepare_null`]. The number stays open and owned: a concurrent user sees
/// /dev/null, never another file.
pub(crate) fn redirect_to_null(fd: BorrowedFd<'_>) -> io::Result<()> {
    replace(fd, blank()?.as_fd())
}

/// Makes `fd` refer to the file of `by`, close-on-exec. Needs no free descriptor, and its number stays open.
pub(super) fn replace(fd: BorrowedFd<'_>, by: BorrowedFd<'_>) -> io::Result<()> {
    let replaced = match duplicate_to(fd, by) {
        // The number is above the current limit, and dup2 refuses such numbers.
        Err(error) if error.raw_os_error() == Some(libc::EBADF) => {
            use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
            let limit = getrlimit(Resource::Nofile);
            setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
            let replaced = duplicate_to(fd, by);
            setrlimit(Resource::Nofile, limit)?;
            replaced
        }
        replaced => replaced,
    };
    replaced?;
    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)?;
    Ok(())
}

fn duplicate_to(fd: BorrowedFd<'_>, by: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both numbers are open; dup2 replaces the first in one step, and its owner still owns an open
    // file.
    let replaced = unsafe { libc::dup2(by.as_raw_fd(), fd.as_raw_fd()) };
    if replaced == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    #[test]
    fn an_inherited_descriptor_is_taken_once_and_one_of_our_own_never() {
        let file = File::open("/dev/null").unwrap();
        let number = file.as_raw_fd();
        assert_eq!(take_inherited(number).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        // As after an exec.
        put_back_inherited(file.into());
        let taken = take_inherited(number).unwrap();
        assert_eq!(take_inherited(number).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        put_back_inherited(taken);
        drop(take_inherited(number).unwrap());
        assert!(take_inherited(-1).is_err());
    }

    #[test]
    fn where_there_is_no_dev_null_something_else_is_empty() {
        use std::io::Read;
        let mut blank = open_blank("/nowhere/null").unwrap();
        assert_eq!(blank.read(&mut [0; 8]).unwrap(), 0);
    }

    #[test]
    fn a_descriptor_above_the_limit_is_redirected_too() {
        let before = getrlimit(Resource::Nofile);
        let high = rustix::io::fcntl_dupfd_cloexec(File::open("/dev/zero").unwrap(), 200).unwrap();
        setrlimit(Resource::Nofile, Rlimit { current: Some(100), ..before }).unwrap();
        redirect_to_null(high.as_fd()).unwrap();
        assert_eq!(getrlimit(Resource::Nofile).current, Some(100));
        setrlimit(Resource::Nofile, before).unwrap();
        let null = File::open("/dev/null").unwrap();
        assert_eq!(identity(high.as_raw_fd()).unwrap(), identity(null.as_raw_fd()).unwrap());
    }

    #[test]
    fn a_descriptor_is_redirected_although_no_other_is_free() {
        prepare_null().unwrap();
        let held = File::open("/dev/zero").unwrap();
        let before = getrlimit(Resource::Nofile);
        // At this limit every number below it is open.
        let lowest_free = File::open("/dev/zero").unwrap();
        let limit = u64::try_from(lowest_free.as_raw_fd()).unwrap();
        drop(lowest_free);
        setrlimit(Resource::Nofile, Rlimit { current: Some(limit), ..before }).unwrap();
        assert!(File::open("/dev/null").is_err());
        let redirect_to_null = redirect_to_null(held.as_fd());
        setrlimit(Resource::Nofile, before).unwrap();
        redirect_to_null.unwrap();
        let null = File::open("/dev/null").unwrap();
        assert_eq!(identity(held.as_raw_fd()).unwrap(), identity(null.as_raw_fd()).unwrap());
    }
}
