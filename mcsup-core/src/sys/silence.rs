//! Descriptors on which nothing arrives, in the place of a worker's listeners.
//!
//! A worker that closed the number of a listener would risk that another thread still uses it for whatever
//! file has it next. /dev/null in its place would be readable for ever, and each accept(2) an error. So a
//! number gets a socket, for datagrams or with a queue as before, that no client reaches: it is never readable, and
//! an accept or a receive returns EAGAIN.

use std::io;
#[cfg(target_os = "linux")]
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;
use socket2::{Domain, Socket, Type};

use super::descriptor;
#[cfg(target_os = "linux")]
use super::listening;

/// The replacements of one release, opened when the first listener of their kind needs them.
#[derive(Debug, Default)]
pub(super) struct Silence {
    listening: Option<OwnedFd>,
    datagrams: Option<OwnedFd>,
    /// Whether a number had to get /dev/null.
    pub(super) is_broken: bool,
}

impl Silence {
    /// Makes `fd` silent; refers it to /dev/null if no descriptor is left for a socket.
    pub(super) fn fall_on(&mut self, fd: BorrowedFd<'_>) {
        let replaced = match self.replacement(fd) {
            Ok(silent) => descriptor::replace(fd, silent),
            Err(error) => Err(error),
        };
        if replaced.is_err() {
            self.is_broken = true;
            let _ = descriptor::redirect_to_null(fd);
        }
    }

    fn replacement(&mut self, fd: BorrowedFd<'_>) -> io::Result<BorrowedFd<'_>> {
        let (place, open): (_, fn() -> io::Result<OwnedFd>) = match socket_type(fd) {
            Ok(SocketType::DGRAM) => (&mut self.datagrams, datagrams),
            _ => (&mut self.listening, listener),
        };
        if place.is_none() {
            *place = Some(open()?);
        }
        place.as_ref().map(AsFd::as_fd).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// An unbound socket for datagrams: none can be sent to it.
fn datagrams() -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// A listener on loopback that drops the first packet of each handshake. A Unix socket would have a name at which any
/// local user could connect, and be accepted as a client of the listener in whose place it is.
#[cfg(target_os = "linux")]
fn listener() -> io::Result<OwnedFd> {
    let open = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        listening::refuse_new(socket.as_fd())?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        socket.listen(0)?;
        Ok(socket.into())
    };
    // A service may be restricted to Unix sockets.
    open().or_else(|_: io::Error| with_chosen_name())
}

/// A listener with an abstract name that the kernel has chosen (unix(7), Autobind feature).
///
/// Its queue has room for one client: one that searches for it waits there, unless code of the worker accepts from a
/// duplicate.
#[cfg(target_os = "linux")]
fn with_chosen_name() -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&socket2::SockAddr::unix("")?)?;
    socket.listen(0)?;
    Ok(socket.into())
}

/// Here a listener has a path or a port, where clients would reach it. An accept from this one returns
/// EOPNOTSUPP.
#[cfg(not(target_os = "linux"))]
fn listener() -> io::Result<OwnedFd> {
    datagrams()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::time::Duration;

    #[test]
    fn no_client_that_finds_a_silent_socket_is_accepted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut silence = Silence::default();
        silence.fall_on(listener.as_fd());
        assert!(!silence.is_broken);
        let address = socket2::SockRef::from(&listener).local_addr().unwrap();
        let client = Socket::new(address.domain(), Type::STREAM, None).unwrap();
        assert!(client.connect_timeout(&address, Duration::from_millis(300)).is_err());
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
