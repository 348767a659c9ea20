//! The meaning of accept(2)'s errors: an empty queue, one connection that failed, a shortage, or a broken listener.

use std::io;

/// Whether an error says that no connection waits.
pub(crate) fn is_empty_queue(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// Whether an error is about one connection, and others may wait behind it.
///
/// The connection has failed before it was accepted: Linux reports the network's errors as accept(2)'s own. A signal
/// (EINTR) says nothing about the queue either.
pub(crate) fn is_lost_connection(error: &io::Error) -> bool {
    #[cfg(target_os = "linux")]
    const OF_LINUX: &[i32] = &[libc::ENONET];
    #[cfg(not(target_os = "linux"))]
    const OF_LINUX: &[i32] = &[];
    const LOST: &[i32] = &[
        libc::EINTR,
        libc::ECONNABORTED,
        libc::EPROTO,
        libc::ENETDOWN,
        libc::ENOPROTOOPT,
        libc::EHOSTDOWN,
        libc::EHOSTUNREACH,
        libc::EOPNOTSUPP,
        libc::ENETUNREACH,
        libc::ETIMEDOUT,
        libc::EPERM,
    ];
    error.raw_os_error().is_some_and(|number| LOST.contains(&number) || OF_LINUX.contains(&number))
}

/// Whether an error says that no descriptor or memory is left for a connection, which stays in the queue.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    const SHORT: [i32; 4] = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
    error.raw_os_error().is_some_and(|number| SHORT.contains(&number))
}
