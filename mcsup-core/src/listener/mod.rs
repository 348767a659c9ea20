//! Sockets on which workers serve: named by an [`Address`], opened once by the supervisor, shared by all workers.
//!
//! - `address`: an operator's notation (`127.0.0.1:8000`, `[::]:80`, `unix:/run/app.sock`, `fd://3`).
//! - `local`: the address of an open socket.
//! - `activation`: addresses of sockets that the service manager has passed.
//! - `tcp`, `unix`, `socket`, `inherited`: opening each kind.
//! - `per_slot`: the sockets of a TCP address with one socket for each slot.
//! - `own`: listeners that a program has implemented or opened itself.
//! - `open`: a supervisor's set of open listeners.
//! - `record`: the open listeners as one image of a supervisor passes them to the next.
//! - `stored`: listeners that the service manager stores for the next supervisor.
//! - `connection`: accepted connections.
//!
//! Nothing here blocks: the sockets are non-blocking, and the caller waits for readiness.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

pub(crate) mod activation;
mod address;
mod connection;
pub(crate) mod inherited;
mod local;
pub(crate) mod open;
pub(crate) mod options;
pub(crate) mod own;
pub(crate) mod per_slot;
pub(crate) mod record;
mod socket;
pub(crate) mod stored;
pub(crate) mod tcp;
pub(crate) mod unix;

#[cfg(test)]
mod tests;

pub use crate::sys::accept_error::AcceptFailure;
pub use address::{Address, CID_ANY};
pub use connection::Connection;
pub use local::Local;
pub use options::Options;
pub use own::from_socket;

/// A socket on which workers serve.
///
/// The sockets of this crate implement it, and so can a program's own, for
/// [`Prefork::listener`](crate::Prefork::listener): with an own accept, or on a socket of a kind that no
/// [`Address`] names. The sockets of this crate take over any socket that is open:
/// [`from_socket`].
///
/// ```
/// use std::io::{self, Read};
/// use std::net::TcpListener;
/// use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
/// use std::sync::Arc;
///
/// use mcsup_core::{Connection, Listener, Local};
///
/// /// Takes connections of one client only.
/// #[derive(Debug)]
/// struct Private {
///     socket: TcpListener,
///     local: Local,
/// }
///
/// impl AsFd for Private {
///     fn as_fd(&self) -> BorrowedFd<'_> {
///         self.socket.as_fd()
///     }
/// }
///
/// impl Listener for Private {
///     fn local(&self) -> &Local {
///         &self.local
///     }
///
///     fn accept(&self) -> io::Result<Connection> {
///         let (stream, client) = self.socket.accept()?;
///         if client.ip().is_loopback() {
///             return Ok(Connection::Tcp(stream));
///         }
///         // One lost connection: the worker accepts the next one.
///         Err(io::ErrorKind::ConnectionAborted.into())
///     }
///
///     fn with_socket(&self, socket: OwnedFd) -> io::Result<Arc<dyn Listener>> {
///         Ok(Arc::new(Self { socket: socket.into(), local: self.local.clone() }))
///     }
/// }
/// ```
pub trait Listener: AsFd + fmt::Debug + Send + Sync {
    /// The address of the socket. The text of an own listener's address is its name, which is its alone.
    fn local(&self) -> &Local;

    /// Accepts one connection: non-blocking accept, close-on-exec.
    ///
    /// [`WorkerContext::accept`](crate::WorkerContext::accept) calls it when the descriptor is readable, and
    /// makes the connection blocking.
    ///
    /// # Errors
    /// `WouldBlock` for an empty queue; otherwise the error of accept(2), which [`AcceptFailure`] classifies:
    /// `ConnectionAborted`, `ConnectionReset` and the like concern one connection. `Unsupported` for a socket without connections.
    fn accept(&self) -> io::Result<Connection>;

    /// Whether clients connect to the socket. If not (UDP), [`WorkerContext::accept`](crate::WorkerContext::accept)
    /// ignores it, and a worker reads from it itself.
    fn has_connections(&self) -> bool {
        self.local().has_connections()
    }

    /// The same listener with another descriptor of the same socket: in a worker that a mold forks, and in the
    /// next image. The descriptor of `self` may have been closed.
    ///
    /// # Errors
    /// The listener cannot be used with it. The worker does not boot, or the upgrade fails.
    fn with_socket(&self, socket: OwnedFd) -> io::Result<Arc<dyn Listener>>;

    /// Removes the socket's path. Only the supervisor calls this, when it stops listening.
    fn withdraw(&self) {}
}
