//! The registrations with the pollers (epoll(7)) of this process, whatever code has made them.

use std::os::fd::BorrowedFd;

/// Ends every registration of `descriptors` with the pollers of this process.
///
/// Replacing a number does not end it: a poller knows the open file, reports it while any process has it
/// open, and its owner could not remove it any more. Uses no descriptor.
#[cfg(target_os = "linux")]
pub(super) fn forget(descriptors: &[BorrowedFd<'_>]) {
    let Some((first, others)) = descriptors.split_first() else { return };
    for number in 0..highest() {
        if delete(number, *first) {
            for other in others {
                delete(number, *other);
            }
        }
    }
}

/// The kernel forgets a number that is replaced (kqueue(2)).
#[cfg(not(target_os = "linux"))]
pub(super) fn forget(_: &[BorrowedFd<'_>]) {}

/// Removes `fd` from the poller `number`; `false`: the number is no poller.
#[cfg(target_os = "linux")]
fn delete(number: i32, fd: BorrowedFd<'_>) -> bool {
    use std::os::fd::AsRawFd;
    // SAFETY: EPOLL_CTL_DEL reads no event, and refuses a number that is not open or no poller.
    let deleted =
        unsafe { libc::epoll_ctl(number, libc::EPOLL_CTL_DEL, fd.as_raw_fd(), std::ptr::null_mut()) };
    deleted == 0 || std::io::Error::last_os_error().raw_os_error() == Some(libc::ENOENT)
}

/// A bound of the open numbers: the size of the process's table (proc_pid_status(5)), or without /proc the
/// limit.
#[cfg(target_os = "linux")]
fn highest() -> i32 {
    use rustix::process::{Resource, getrlimit};
    const MOST: i32 = 1 << 16;
    let status = super::kernel_text::read("/proc/self/status").unwrap_or_default();
    let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")?.trim().parse().ok());
    size.unwrap_or_else(|| {
        let limit = getrlimit(Resource::Nofile).current;
        limit.and_then(|limit| i32::try_from(limit).ok()).unwrap_or(MOST).min(MOST)
    })
}
