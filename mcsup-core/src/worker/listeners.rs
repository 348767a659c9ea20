//! The listeners of a worker: as sockets of the standard library, as duplicates, and their release.

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::sync::Arc;

use super::context::WorkerContext;
use crate::listener::{Listener, Local};
use crate::sys::{duplicates, listening};

impl WorkerContext {
    /// The non-blocking listeners. All workers share them, except those with one socket for each slot
    /// ([`Options::reuse_port`](crate::listener::Options::reuse_port)).
    ///
    /// They may be registered with a poller. When they are released ([`close_listeners`](Self::close_listeners))
    /// no poller of this process reports them any more; [`wake_fd`](Self::wake_fd) reports that the worker is
    /// to end.
    pub fn listeners(&self) -> &[Arc<dyn Listener>] {
        self.open_listeners()
    }

    /// A further descriptor of one of the [`listeners`](Self::listeners), for code that owns its sockets.
    /// Close-on-exec, and non-blocking as the original.
    ///
    /// It is released with the original: the address is free at once when the supervisor is gone. A duplicate
    /// by other means (`try_clone`) would hold the address until the worker ends.
    ///
    /// Its number is 2048 or more, or half of the descriptor limit (`RLIMIT_NOFILE`) if that is less: apart from
    /// those of other files. Code that uses select(2) cannot watch a number from `FD_SETSIZE` (1024) on; it
    /// needs poll(2), or a limit of less than 2048.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn duplicate(&self, listener: &dyn Listener) -> io::Result<OwnedFd> {
        duplicates::make(listener.as_fd())
    }

    /// The TCP listeners, in the order of [`listeners`](Self::listeners), as [duplicates](Self::duplicate).
    ///
    /// They suit `tokio::net::TcpListener::from_std` and the like: after a release they are never ready.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn tcp_listeners(&self) -> io::Result<Vec<TcpListener>> {
        self.duplicates(|local| matches!(local, Local::Tcp(_)))
    }

    /// The listeners for Unix streams, likewise.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn unix_listeners(&self) -> io::Result<Vec<UnixListener>> {
        self.duplicates(|local| matches!(local, Local::Unix(_)))
    }

    /// The UDP sockets, likewise. [`readable`](Self::readable) waits for their datagrams.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn udp_sockets(&self) -> io::Result<Vec<UdpSocket>> {
        self.duplicates(|local| matches!(local, Local::Udp(_)))
    }

    /// The Unix datagram sockets, likewise.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn unix_datagrams(&self) -> io::Result<Vec<UnixDatagram>> {
        self.duplicates(|local| matches!(local, Local::UnixDatagram(_)))
    }

    /// The number of connections that wait in the queues of the TCP listeners; `None`: the system does not report it.
    ///
    /// Linux reports it (TCP_INFO, tcp(7)). Costs a system call for each listener.
    pub fn backlog(&self) -> Option<usize> {
        let queued = || self.listeners().iter().map(|listener| listening::queued(listener.as_fd()));
        listening::COUNTS.then(|| queued().sum())
    }

    fn duplicates<T: From<OwnedFd>>(&self, which: impl Fn(&Local) -> bool) -> io::Result<Vec<T>> {
        let chosen = self.listeners().iter().filter(|listener| which(listener.local()));
        chosen.map(|listener| Ok(self.duplicate(&**listener)?.into())).collect()
    }

    /// Stops accepting in this process. Queued connections stay for other holders of the listeners.
    ///
    /// It also releases the [duplicates](Self::duplicate). All of them refer to sockets on which nothing
    /// arrives from now on.
    pub fn close_listeners(&self) {
        self.accepting(0);
        self.release_listeners();
    }
}

#[cfg(test)]
mod tests {
    use super::super::context::tests::with_max_requests;
    use super::*;
    use crate::link::lifeline::Phase;
    use crate::listener::from_socket;
    use std::os::fd::AsFd;

    #[test]
    fn a_worker_that_has_released_its_listeners_finds_nothing_at_them_or_their_duplicates() {
        let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
        let listener = from_socket(elsewhere.try_clone().unwrap().into()).unwrap();
        let (worker, _supervisor) = with_max_requests(None);
        let worker = worker.with_listener(listener);
        let duplicate = worker.tcp_listeners().unwrap().remove(0);
        assert!(worker.unix_listeners().unwrap().is_empty() && worker.udp_sockets().unwrap().is_empty());
        let _client = std::net::TcpStream::connect(elsewhere.local_addr().unwrap()).unwrap();
        worker.close_listeners();
        assert_eq!(duplicate.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        worker.raise(Phase::Draining);
        assert!(worker.accept().unwrap().is_none());
        assert_eq!(worker.readable(&[duplicate.as_fd()]).unwrap(), None);
        // The client is still there for the other workers.
        elsewhere.accept().unwrap();
    }

    #[test]
    fn a_datagram_socket_is_no_place_to_accept() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let (worker, _supervisor) = with_max_requests(None);
        let worker = worker.with_listener(from_socket(socket.into()).unwrap());
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"one", address).unwrap();
        worker.raise(Phase::Draining);
        assert!(worker.accept().unwrap().is_none());
        let sockets = worker.udp_sockets().unwrap();
        assert_eq!(worker.readable(&[sockets[0].as_fd()]).unwrap(), Some(vec![0]));
        assert_eq!(sockets[0].recv_from(&mut [0; 8]).unwrap().0, 3);
    }
}
