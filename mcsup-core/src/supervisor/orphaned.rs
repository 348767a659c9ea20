//! Connections of ended slots, until workers of other slots take them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

use crate::link::handover::Handover;
use crate::listener::Connection;

/// The pause after an attempt that handed over some of the connections.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// The longest pause after attempts that handed over none.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Connections of ended slots that wait for a worker.
#[derive(Debug)]
pub(crate) struct OrphanedConnections {
    connections: VecDeque<Connection>,
    /// The pause before the next attempt: each failed one doubles it.
    pause: Duration,
}

impl Default for OrphanedConnections {
    fn default() -> Self {
        Self { connections: VecDeque::new(), pause: FIRST_PAUSE }
    }
}

impl OrphanedConnections {
    pub(super) fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    pub(super) fn add(&mut self, connections: impl IntoIterator<Item = Connection>) {
        self.connections.extend(connections);
    }

    /// The pause before the next attempt.
    pub(super) fn pause(&self) -> Duration {
        self.pause
    }

    /// The descriptors of the connections.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = RawFd> + '_ {
        self.connections.iter().map(|connection| connection.as_fd().as_raw_fd())
    }

    /// Closes the connections in a forked child.
    pub(super) fn clear(&mut self) {
        self.connections.clear();
    }

    /// Hands over as many connections as the queue takes.
    pub(super) fn give(&mut self, handover: &Handover) {
        let before = self.connections.len();
        while let Some(connection) = self.connections.pop_front() {
            // The worker that takes it reads the local address from the socket.
            let given = connection.set_nonblocking(true);
            match given.and_then(|()| handover.give(connection.as_fd(), &[])) {
                Ok(()) => {}
                Err(error) if is_temporary(&error) => {
                    self.connections.push_front(connection);
                    break;
                }
                Err(error) => log::error!("a connection of a slot that is no more is lost: {error}"),
            }
        }
        let has_failed = before > 0 && self.connections.len() == before;
        self.pause = if has_failed { (self.pause * 2).min(LONGEST_PAUSE) } else { FIRST_PAUSE };
    }
}

/// Whether sendmsg(2) may succeed later: the queue has little room, and unix(7) limits the descriptors of a user in
/// transit.
fn is_temporary(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let temporary = [Errno::AGAIN, Errno::INTR, Errno::NOBUFS, Errno::NOMEM, Errno::TOOMANYREFS];
    Errno::from_io_error(error).is_some_and(|errno| temporary.contains(&errno))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::listener::open::OpenSet;
    use crate::listener::{Address, Options};

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_connection_waits_while_the_kernel_takes_no_more_descriptors() {
        for errno in [libc::EAGAIN, libc::ENOBUFS, libc::ENOMEM, libc::ETOOMANYREFS] {
            assert!(is_temporary(&io::Error::from_raw_os_error(errno)), "{errno}");
        }
        assert!(!is_temporary(&io::Error::from_raw_os_error(libc::ENOTSOCK)));
        assert!(!is_temporary(&io::ErrorKind::InvalidInput.into()));
    }

    #[test]
    fn connections_that_no_worker_takes_are_offered_less_and_less_often() {
        let free: Vec<Address> = vec!["127.0.0.1:0".parse().unwrap()];
        let listeners = OpenSet::open(&free, &Options::default(), 1).unwrap();
        let address = listeners.locals().next().unwrap().to_string();
        let (mut orphaned, mut clients) = (OrphanedConnections::default(), Vec::new());
        let handover = Handover::new().unwrap();
        // More than there is room for.
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        while handover.give(other.as_fd(), &[0; 1024]).is_ok() {}
        for _ in 0..3 {
            clients.push(TcpStream::connect(&address).unwrap());
            orphaned.connections.push_back(listeners[0].accept().unwrap());
        }
        let mut pauses = Vec::new();
        for _ in 0..8 {
            orphaned.give(&handover);
            pauses.push(orphaned.pause);
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 50, 50, 50].map(ms));
        while handover.take().unwrap().is_some() {}
        orphaned.give(&handover);
        assert_eq!(orphaned.pause, ms(1));
    }
}
