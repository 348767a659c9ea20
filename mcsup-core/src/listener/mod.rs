//! Listening sockets: named by an [`Address`], opened once by the supervisor, shared by all workers.
//!
//! - `address`: an operator's notation (`127.0.0.1:8000`, `[::]:80`, `unix:/run/app.sock`, `fd://3`).
//! - `activation`: addresses of sockets that the service manager has passed.
//! - `tcp`, `unix`, `inherited`: opening each kind.
//! - `per_slot`: the sockets of a TCP address with one socket for each slot.
//! - `open`: a supervisor's set of open listeners.
//! - `record`: the open listeners as one image of a supervisor passes them to the next.
//! - `stored`: listeners that the service manager stores for the next supervisor.
//! - `connection`: accepted connections.
//!
//! Nothing here blocks: listening sockets are non-blocking, and the caller waits for readiness.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;

pub(crate) mod activation;
mod address;
mod connection;
pub(crate) mod inherited;
pub(crate) mod open;
pub(crate) mod options;
pub(crate) mod per_slot;
pub(crate) mod record;
pub(crate) mod stored;
pub(crate) mod tcp;
pub(crate) mod unix;

#[cfg(test)]
mod tests;

pub use crate::sys::accept_error::AcceptFailure;
pub use address::Address;
pub use connection::Connection;
pub use options::Options;

/// A listening socket.
pub trait Listener: AsFd + fmt::Debug + Send + Sync {
    /// The address of the socket.
    fn local(&self) -> &Local;

    /// Accepts one connection: non-blocking accept, close-on-exec.
    ///
    /// # Errors
    /// `WouldBlock` for an empty queue; otherwise the error of accept(2).
    fn accept(&self) -> io::Result<Connection>;

    /// Removes the socket's path. Only the supervisor calls this, when it stops listening.
    fn withdraw(&self) {}
}

/// A listener's address, with the port that the kernel chose for port 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Local {
    /// A TCP address.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Local::Tcp(address) => write!(f, "{address}"),
            Local::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
