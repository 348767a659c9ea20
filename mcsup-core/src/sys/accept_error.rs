//! Classification of accept(2)'s errors.

use std::io;

/// The reason why accept(2) returned no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptFailure {
    /// The queue is empty.
    Empty,
    /// One connection failed before it was accepted, or a signal arrived. Others may be queued.
    Lost,
    /// No descriptor or memory is left. The connection stays in the queue.
    Short,
    /// The listener itself is at fault: further calls will fail as well.
    Broken,
}

impl AcceptFailure {
    /// The most [lost](Self::Lost) connections in a row before accepting pauses.
    ///
    /// If a system call filter or the network refuses each accept(2), the error persists and the queue never
    /// ends.
    pub const MOST_LOST: u32 = 64;

    /// Classifies an error of accept(2), or of [`Listener::accept`](crate::Listener::accept).
    ///
    /// Linux reports network errors of a connection as errors of accept(2): "treat them like EAGAIN by
    /// retrying" (accept(2), Error handling). A signal (EINTR) says nothing about the queue either. A listener of a
    /// program may also read from a connection: `BrokenPipe`, `ConnectionAborted`, `ConnectionReset`, `InvalidData`,
    /// `NotConnected`, `TimedOut` and `UnexpectedEof` concern that connection.
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        #[cfg(target_os = "linux")]
        const LOST_ON_LINUX: &[i32] = &[libc::ENONET];
        #[cfg(not(target_os = "linux"))]
        const LOST_ON_LINUX: &[i32] = &[];
        const LOST: &[i32] = &[
            libc::EPROTO,
            libc::ENETDOWN,
            libc::ENOPROTOOPT,
            libc::EHOSTDOWN,
            libc::EHOSTUNREACH,
            libc::EOPNOTSUPP,
            libc::ENETUNREACH,
            libc::EPERM,
        ];
        // Errors of a program's own listener, which may also read a first line or ask for the client's address. The
        // kernel reports none of them for the listener itself.
        const OF_A_LISTENER: &[io::ErrorKind] = &[
            io::ErrorKind::BrokenPipe,
            io::ErrorKind::ConnectionAborted,
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::Interrupted,
            io::ErrorKind::InvalidData,
            io::ErrorKind::NotConnected,
            io::ErrorKind::TimedOut,
            io::ErrorKind::UnexpectedEof,
        ];
        const SHORT: &[i32] = &[libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
        if error.kind() == io::ErrorKind::WouldBlock {
            return Self::Empty;
        }
        if OF_A_LISTENER.contains(&error.kind()) {
            return Self::Lost;
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
    fn network_errors_concern_one_connection_and_not_the_listener() {
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
