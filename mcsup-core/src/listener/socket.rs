//! Sockets without a file or a row: UDP, vsock, and those that another process has opened.

use std::io;
use std::net::ToSocketAddrs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};

use super::options::Options;
use super::tcp::TcpListening;
use super::unix::UnixListening;
use super::{Address, Connection, Listener, Local};
use crate::error::{Error, ErrorKind, Result};

/// A bound socket, which listens if its kind has connections.
#[derive(Debug)]
pub(super) struct SocketListening {
    socket: Socket,
    local: Local,
}

impl SocketListening {
    /// Binds a UDP socket. The first address of the name that can be bound is taken.
    pub(super) fn udp(host: &str, port: u16) -> Result<Self> {
        let name = Address::Udp { host: host.to_owned(), port };
        let failed = || Error::new(ErrorKind::Bind, format!("cannot listen on {name}"));
        let addresses = (host, port).to_socket_addrs().map_err(|error| {
            let text = format!("cannot listen on {name}: the name does not resolve");
            Error::new(ErrorKind::Bind, text).caused_by(error)
        })?;
        let mut last = failed();
        for address in addresses {
            // Without SO_REUSEADDR: it would let a second socket take the datagrams of the first (socket(7)).
            let opened = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))
                .and_then(|socket| socket.bind(&address.into()).map(|()| socket));
            match opened {
                Ok(socket) => return Self::adopt(socket),
                Err(error) => last = failed().caused_by(error),
            }
        }
        Err(last)
    }

    /// Binds a vsock stream socket and listens.
    #[cfg(target_os = "linux")]
    pub(super) fn vsock(cid: u32, port: u32, options: &Options) -> Result<Self> {
        let failed = |error: io::Error| {
            let name = Address::Vsock { cid, port };
            Error::new(ErrorKind::Bind, format!("cannot listen on {name}")).caused_by(error)
        };
        let socket = Socket::new(Domain::VSOCK, Type::STREAM, None).map_err(failed)?;
        socket.bind(&socket2::SockAddr::vsock(cid, port)).map_err(failed)?;
        socket.listen(options.backlog).map_err(failed)?;
        Self::adopt(socket)
    }

    /// Unsupported here.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn vsock(cid: u32, port: u32, _: &Options) -> Result<Self> {
        let name = Address::Vsock { cid, port };
        Err(Error::new(ErrorKind::Bind, format!("cannot listen on {name}: only Linux has such sockets")))
    }

    /// Wraps a bound socket.
    fn adopt(socket: Socket) -> Result<Self> {
        let step = |error| Error::system("adopt a socket", error);
        socket.set_nonblocking(true).map_err(step)?;
        let local = Local::of(&socket).ok_or_else(|| step(io::Error::other("its kind is unknown")))?;
        Ok(Self { socket, local })
    }
}

impl Listener for SocketListening {
    fn local(&self) -> &Local {
        &self.local
    }

    fn accept(&self) -> io::Result<Connection> {
        if !self.local.has_connections() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let (socket, _) = self.socket.accept()?;
        Ok(Connection::Other(socket.into()))
    }

    fn with_socket(&self, socket: OwnedFd) -> io::Result<Arc<dyn Listener>> {
        of_any_kind(socket.into()).map_err(io::Error::other)
    }
}

impl AsFd for SocketListening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The listener for a socket that is open: one of ours after an exec, or one of another process.
pub(super) fn of_any_kind(socket: Socket) -> Result<Arc<dyn Listener>> {
    Ok(match Local::of(&socket) {
        Some(Local::Tcp(_)) => Arc::new(TcpListening::adopt(socket)?),
        Some(Local::Unix(_) | Local::UnixDatagram(_) | Local::UnixSeqpacket(_)) => {
            Arc::new(UnixListening::adopt(socket)?)
        }
        _ => Arc::new(SocketListening::adopt(socket)?),
    })
}

/// Whether clients reach a socket: it listens, or it is bound and takes datagrams.
///
/// `streams_only`: whether it is a listening TCP or Unix stream socket.
pub(super) fn is_reachable(socket: &Socket, streams_only: bool) -> bool {
    match Local::of(socket) {
        Some(Local::Tcp(_) | Local::Unix(_)) => listens(socket),
        _ if streams_only => false,
        Some(Local::Udp(address)) => address.port() != 0,
        Some(Local::UnixDatagram(path)) => !path.as_os_str().is_empty(),
        Some(_) => listens(socket),
        None => false,
    }
}

#[cfg(not(target_vendor = "apple"))]
fn listens(socket: &Socket) -> bool {
    socket.is_listener().unwrap_or(false)
}

/// macOS defines the option and does not answer it. The first accept shows a socket that does not listen.
#[cfg(target_vendor = "apple")]
fn listens(_: &Socket) -> bool {
    true
}
