//! TCP listeners, IPv4 and IPv6.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};

use super::options::Options;
use super::{Connection, Listener, Local};
use crate::error::{Error, ErrorKind, Result};
use crate::host::processes;
use crate::sys::listening;

/// A listening TCP socket.
#[derive(Debug)]
pub(crate) struct TcpListening {
    socket: Socket,
    local: Local,
}

impl TcpListening {
    /// Binds and listens. For a port in use the error names the process that holds it.
    pub(crate) fn open(host: &str, port: u16, options: &Options) -> Result<Self> {
        let name = || super::Address::Tcp { host: host.to_owned(), port };
        let addresses = (host, port).to_socket_addrs().map_err(|error| {
            Error::new(ErrorKind::Bind, format!("cannot listen on {}: the name does not resolve", name()))
                .caused_by(error)
        })?;
        let mut last = None;
        for address in addresses {
            match listen(address, options.backlog, false) {
                Ok(socket) => return Self::adopt(socket),
                Err(error) => last = Some((address, error)),
            }
        }
        Err(match last {
            Some((address, error)) => explain(address, error),
            None => Error::new(ErrorKind::Bind, format!("cannot listen on {}: no address", name())),
        })
    }

    /// Opens a further socket on `address`, beside our sockets that [share](Self::share_port) its port.
    pub(crate) fn beside(address: SocketAddr, backlog: i32) -> Result<Self> {
        Self::adopt(listen(address, backlog, true).map_err(|error| explain(address, error))?)
    }

    /// Lets further sockets of this user listen on the same port.
    ///
    /// Called only once the socket listens: it was bound without sharing. So a port that another server has,
    /// shared or not, was refused, and of two servers that start at the same moment one gets the port.
    pub(crate) fn share_port(&self) -> io::Result<()> {
        if listening::SPREADS {
            self.socket.set_reuse_port(true)
        } else {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    /// Wraps a socket that already listens.
    pub(crate) fn adopt(socket: Socket) -> Result<Self> {
        let step = |error| Error::system("adopt a listening TCP socket", error);
        socket.set_nonblocking(true).map_err(step)?;
        let local = socket.local_addr().map_err(step)?;
        let local = local.as_socket().ok_or_else(|| step(io::Error::other("it has no TCP address")))?;
        Ok(Self { socket, local: Local::Tcp(local) })
    }
}

impl Listener for TcpListening {
    fn local(&self) -> &Local {
        &self.local
    }

    fn accept(&self) -> io::Result<Connection> {
        let (socket, _) = self.socket.accept()?;
        Ok(Connection::Tcp(TcpStream::from(socket)))
    }

    fn with_socket(&self, socket: OwnedFd) -> io::Result<Arc<dyn Listener>> {
        Ok(Arc::new(Self::adopt(socket.into()).map_err(io::Error::other)?))
    }
}

impl AsFd for TcpListening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn listen(address: SocketAddr, backlog: i32, shares_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of an earlier server in TIME_WAIT would otherwise hold the port (socket(7)).
    socket.set_reuse_address(true)?;
    if shares_port {
        socket.set_reuse_port(true)?;
    }
    // Accepted connections inherit it on Linux: no system call for each of them.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(socket)
}

/// Names the process that holds the port, or the missing privilege.
fn explain(address: SocketAddr, error: io::Error) -> Error {
    let what = match error.kind() {
        io::ErrorKind::AddrInUse => match processes::holder_of_port(address) {
            Some(holder) => format!("cannot listen on {address}: the port is held by {holder}"),
            None => format!("cannot listen on {address}"),
        },
        io::ErrorKind::PermissionDenied if address.port() < 1024 => {
            format!("cannot listen on {address}: a port below 1024 needs root or CAP_NET_BIND_SERVICE")
        }
        _ => format!("cannot listen on {address}"),
    };
    Error::new(ErrorKind::Bind, what).caused_by(error)
}
