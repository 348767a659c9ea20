//! The meaning of accept(2)'s errors: an empty queue, one connection that failed, a shortage, or a broken listener.

use std::io;

/// Why accept(2) gave no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptFailure {
    /// No connection waits.
    Empty,
    /// One connection has failed before it was accepted, or a signal came; others may wait behind it.
    Lost,
    /// No descriptor or memory is left for a connection, which stays in the queue.
    Short,
    /// The listener itself is at fault: the next call will fail as well.
    Broken,
}

impl AcceptFailure {
    /// How many connections in a row may be [lost](Self::Lost) before accepting rests. Where a filter of system calls or the
    /// network refuses each accept(2), the error stays, and the queue never ends.
    pub const MOST_LOST: u32 = 64;

    /// What `error`, which accept(2) returned, means.
    ///
    /// Linux reports the errors of a connection's network as accept(2)'s own: "treat them like EAGAIN by retrying"
    /// (accept(2), Error handling). A signal (EINTR) says nothing about the queue either.
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        #[cfg(target_os = "linux")]
        const LOST_ON_LINUX: &[i32] = &[libc::ENONET];
        #[cfg(not(target_os = "linux"))]
        const LOST_ON_LINUX: &[i32] = &[];
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
        const SHORT: &[i32] = &[libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
        if error.kind() == io::ErrorKind::WouldBlock {
            return Self::Empty;
        }
        match error.raw_os_error() {
            Some(number) if LOST.contains(&number) || LOST_ON_LINUX.contains(&number) => Self::Lost,
            Some(number) if SHORT.contains(&number) => Self::Short,
            _ => Self::Broken,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_networks_errors_are_about_one_connection_and_not_about_the_listener() {
        // accept(2), "Error handling".
        for number in [
            libc::ENETDOWN,
            libc::EPROTO,
            libc::ENOPROTOOPT,
            libc::EHOSTDOWN,
            #[cfg(target_os = "linux")]
            libc::ENONET,
            libc::EHOSTUNREACH,
            libc::EOPNOTSUPP,
            libc::ENETUNREACH,
        ] {
            let error = io::Error::from_raw_os_error(number);
            assert_eq!(AcceptFailure::of(&error), AcceptFailure::Lost, "{error}");
        }
        for (number, expected) in [
            (libc::EAGAIN, AcceptFailure::Empty),
            (libc::EMFILE, AcceptFailure::Short),
            (libc::EBADF, AcceptFailure::Broken),
            (libc::EINVAL, AcceptFailure::Broken),
        ] {
            assert_eq!(AcceptFailure::of(&io::Error::from_raw_os_error(number)), expected);
        }
    }
}
