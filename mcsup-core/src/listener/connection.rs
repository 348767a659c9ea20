//! An accepted connection over any kind of socket.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use socket2::{Domain, Type};

/// An accepted, blocking connection.
#[derive(Debug)]
#[non_exhaustive]
pub enum Connection {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix stream socket.
    Unix(UnixStream),
    /// Over a socket of another kind: vsock, seqpacket, or that of a program's own listener. A read from a
    /// seqpacket socket takes one message, and drops the part of it that the buffer has no room for.
    Other(OwnedFd),
}

impl Connection {
    /// Wraps a connected socket of any kind and makes it blocking.
    pub(crate) fn adopt(socket: OwnedFd) -> io::Result<Self> {
        let socket = socket2::Socket::from(socket);
        socket.set_nonblocking(false)?;
        let (domain, kind) = (socket.local_addr()?.domain(), socket.r#type()?);
        let socket = OwnedFd::from(socket);
        Ok(match (domain, kind) {
            (Domain::UNIX, Type::STREAM) => Connection::Unix(socket.into()),
            (Domain::IPV4 | Domain::IPV6, Type::STREAM) => Connection::Tcp(socket.into()),
            _ => Connection::Other(socket),
        })
    }

    /// A second handle on the same connection, for reading and writing at the same time.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Connection::Tcp(stream) => Connection::Tcp(stream.try_clone()?),
            Connection::Unix(stream) => Connection::Unix(stream.try_clone()?),
            Connection::Other(socket) => Connection::Other(socket.try_clone()?),
        })
    }

    /// Sets whether reads and writes return at once.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        match self {
            Connection::Tcp(stream) => stream.set_nonblocking(nonblocking),
            Connection::Unix(stream) => stream.set_nonblocking(nonblocking),
            Connection::Other(socket) => Ok(rustix::io::ioctl_fionbio(socket, nonblocking)?),
        }
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Connection::Tcp(stream) => stream.read(buffer),
            Connection::Unix(stream) => stream.read(buffer),
            Connection::Other(socket) => Ok(rustix::io::read(socket, buffer)?),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Connection::Tcp(stream) => stream.write(bytes),
            Connection::Unix(stream) => stream.write(bytes),
            Connection::Other(socket) => Ok(rustix::io::write(socket, bytes)?),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Connection::Tcp(stream) => stream.as_fd(),
            Connection::Unix(stream) => stream.as_fd(),
            Connection::Other(socket) => socket.as_fd(),
        }
    }
}

impl AsRawFd for Connection {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl From<Connection> for OwnedFd {
    fn from(connection: Connection) -> Self {
        match connection {
            Connection::Tcp(stream) => stream.into(),
            Connection::Unix(stream) => stream.into(),
            Connection::Other(socket) => socket,
        }
    }
}
