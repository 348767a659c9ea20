//! Listening sockets: named by an [`Address`], opened once by the supervisor, shared by all workers.
//!
//! - [`address`]: what an operator writes (`127.0.0.1:8000`, `[::]:80`, `unix:/run/app.sock`, `fd://3`).
//! - `tcp`, `unix`, `inherited`: how each kind is opened.
//! - `per_slot`: the sockets of a TCP address that has one for each slot.
//! - `open`: the set of open listeners of a supervisor, and how it changes.
//! - `record`: what the next image of a supervisor is told of them.
//! - [`connection`]: what is accepted from them.
//!
//! Nothing here waits: listening sockets are non-blocking, and readiness is the caller's business.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;

pub mod address;
pub mod connection;
pub(crate) mod inherited;
pub(crate) mod open;
pub(crate) mod options;
pub(crate) mod per_slot;
pub(crate) mod record;
pub(crate) mod tcp;
pub(crate) mod unix;

#[cfg(test)]
mod tests;

pub use crate::sys::accept_error::AcceptFailure;
pub use address::Address;
pub use connection::Connection;
pub use options::Options;

/// A socket on which connections arrive.
pub trait Listener: AsFd + fmt::Debug + Send + Sync {
    /// Where it listens.
    fn local(&self) -> &Local;

    /// Takes one connection: non-blocking accept, close-on-exec.
    ///
    /// # Errors
    /// `WouldBlock` where none waits; otherwise whatever accept(2) says.
    fn accept(&self) -> io::Result<Connection>;

    /// Removes what it left in the file system. Called by the supervisor alone, when it stops listening.
    fn withdraw(&self) {}
}

/// Where a listener listens, with the port that the kernel chose for port 0.
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
