//! The address of an open socket.

use std::fmt;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use socket2::{Domain, Socket, Type};

/// A listener's address, with the port that the kernel chose for port 0.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Local {
    /// A TCP address.
    Tcp(SocketAddr),
    /// The path of a Unix stream socket. An abstract name begins with a NUL byte, as in unix(7).
    Unix(PathBuf),
    /// A UDP address.
    Udp(SocketAddr),
    /// The path or abstract name of a Unix datagram socket.
    UnixDatagram(PathBuf),
    /// The path or abstract name of a Unix seqpacket socket.
    UnixSeqpacket(PathBuf),
    /// The address of a vsock stream socket (vsock(7)).
    Vsock {
        /// The context of this machine; [`CID_ANY`](crate::listener::CID_ANY): any.
        cid: u32,
        /// The port.
        port: u32,
    },
    /// An address of another kind, as a program's own [`Listener`](crate::Listener) displays it.
    Other(String),
}

impl Local {
    /// Whether clients connect to it. Sockets for datagrams have no connections.
    pub fn has_connections(&self) -> bool {
        !matches!(self, Local::Udp(_) | Local::UnixDatagram(_))
    }

    /// The path of the socket file, if the socket has one.
    pub(super) fn file(&self) -> Option<&Path> {
        match self {
            Local::Unix(path) | Local::UnixDatagram(path) | Local::UnixSeqpacket(path) => {
                Some(&**path).filter(|path| abstract_name(path).is_none())
            }
            _ => None,
        }
    }

    /// The local address of a socket; `None`: it has none, or its kind is not known here.
    pub(super) fn of(socket: &Socket) -> Option<Self> {
        let (address, kind) = (socket.local_addr().ok()?, socket.r#type().ok()?);
        if let Some(address) = address.as_socket() {
            return match kind {
                Type::STREAM => Some(Local::Tcp(address)),
                Type::DGRAM => Some(Local::Udp(address)),
                _ => None,
            };
        }
        #[cfg(target_os = "linux")]
        if let (Some((cid, port)), Type::STREAM) = (address.as_vsock_address(), kind) {
            return Some(Local::Vsock { cid, port });
        }
        if address.domain() != Domain::UNIX {
            return None;
        }
        let path = address.as_pathname().map(Path::to_owned);
        let path = path.or_else(|| Some(abstract_path(address.as_abstract_namespace()?)));
        let path = path.unwrap_or_default();
        match kind {
            Type::STREAM => Some(Local::Unix(path)),
            Type::DGRAM => Some(Local::UnixDatagram(path)),
            Type::SEQPACKET => Some(Local::UnixSeqpacket(path)),
            _ => None,
        }
    }
}

/// A name in the abstract namespace, as a path.
pub(super) fn abstract_path(name: &[u8]) -> PathBuf {
    let bytes = [b"\0", name].concat();
    PathBuf::from(std::ffi::OsStr::from_bytes(&bytes))
}

/// The name in the abstract namespace that a path stands for; `None`: it is an ordinary path.
pub(super) fn abstract_name(path: &Path) -> Option<&[u8]> {
    path.as_os_str().as_bytes().strip_prefix(b"\0")
}

/// Displays a path, or an abstract name behind an `@`, as ss(8) does.
pub(super) struct Shown<'a>(pub(super) &'a Path);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match abstract_name(self.0) {
            Some(name) => write!(f, "@{}", String::from_utf8_lossy(name)),
            None => write!(f, "{}", self.0.display()),
        }
    }
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Local::Tcp(address) => write!(f, "{address}"),
            Local::Unix(path) => write!(f, "unix:{}", Shown(path)),
            Local::Udp(address) => write!(f, "udp://{address}"),
            Local::UnixDatagram(path) => write!(f, "unix-datagram:{}", Shown(path)),
            Local::UnixSeqpacket(path) => write!(f, "unix-seqpacket:{}", Shown(path)),
            Local::Vsock { cid: super::CID_ANY, port } => write!(f, "vsock::{port}"),
            Local::Vsock { cid, port } => write!(f, "vsock:{cid}:{port}"),
            Local::Other(name) => write!(f, "{name}"),
        }
    }
}
