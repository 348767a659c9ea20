//! A program's own listeners: it has opened their sockets, and may accept in its own way.

use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::Arc;

use socket2::Socket;

use super::record::ListenerRecord;
use super::socket::{is_reachable, of_any_kind};
use super::{Connection, Listener, Local};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::descriptor;

/// The listener for an open socket of any kind, for [`Prefork::listener`](crate::Prefork::listener) or within
/// an own implementation. It is made non-blocking.
///
/// # Errors
/// The socket does not listen, or it is not bound and for datagrams.
pub fn from_socket(socket: OwnedFd) -> Result<Arc<dyn Listener>> {
    let socket = Socket::from(socket);
    if !is_reachable(&socket, false) {
        let why = "take a socket over: it is neither a listening socket nor a bound one for datagrams";
        return Err(Error::new(ErrorKind::Bind, why));
    }
    of_any_kind(socket)
}

impl<L: Listener + ?Sized> Listener for Arc<L> {
    fn local(&self) -> &Local {
        (**self).local()
    }

    fn accept(&self) -> io::Result<Connection> {
        (**self).accept()
    }

    fn has_connections(&self) -> bool {
        (**self).has_connections()
    }

    fn with_socket(&self, socket: OwnedFd) -> io::Result<Arc<dyn Listener>> {
        (**self).with_socket(socket)
    }

    fn withdraw(&self) {
        (**self).withdraw();
    }
}

/// The name of an own listener: the text of its address.
pub(super) fn name(listener: &dyn Listener) -> String {
    listener.local().to_string()
}

/// Makes own listeners ready for a pool: several workers wait at each, so no accept may block.
///
/// # Errors
/// Two of them have one name, or a system call fails.
pub(crate) fn prepare(listeners: &[Arc<dyn Listener>]) -> Result<()> {
    for (index, listener) in listeners.iter().enumerate() {
        let name = name(&**listener);
        if listeners[..index].iter().any(|other| self::name(&**other) == name) {
            return Err(Error::new(ErrorKind::Setting, format!("two listeners have the name {name}")));
        }
        rustix::io::ioctl_fionbio(listener.as_fd(), true)
            .map_err(|error| Error::system(format!("make {name} non-blocking"), error))?;
    }
    Ok(())
}

/// Checks that this program has all own listeners that a record names.
///
/// # Errors
/// One is missing.
pub(crate) fn require_own(records: &[ListenerRecord], own: &[Arc<dyn Listener>]) -> Result<()> {
    let mut names = records.iter().filter(|record| record.is_own).map(|record| &record.address);
    match names.find(|name| find(name, own).is_none()) {
        Some(missing) => Err(lacks(missing)),
        None => Ok(()),
    }
}

/// The own listener `name` with the socket of a record. On an error the descriptor stays open.
pub(super) fn adopt(name: &str, fd: RawFd, own: &[Arc<dyn Listener>]) -> Result<Arc<dyn Listener>> {
    let listener = find(name, own).ok_or_else(|| lacks(name))?;
    let failed = |error| Error::system(format!("take over {name}"), error);
    let socket = descriptor::take_recorded(fd).map_err(failed)?;
    // The listener may close the descriptor in an error, and the other image needs it.
    let kept = socket.try_clone().map_err(failed)?;
    listener.with_socket(socket).map_err(|error| {
        descriptor::restore_number(&kept, fd);
        failed(error)
    })
}

fn find<'a>(name: &str, own: &'a [Arc<dyn Listener>]) -> Option<&'a Arc<dyn Listener>> {
    own.iter().find(|listener| self::name(&***listener) == name)
}

fn lacks(name: &str) -> Error {
    Error::new(ErrorKind::Bind, format!("this program has no listener {name}, which the pool has"))
}
