//! Listening sockets opened by the parent process: `fd://N`, and systemd's socket activation.

use std::io;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use socket2::{Domain, Socket, Type};

use super::Listener;
use super::tcp::TcpListening;
use super::unix::UnixListening;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::descriptor;

/// Takes the inherited descriptor `fd`, a listening stream socket.
pub(crate) fn open(fd: RawFd) -> Result<Arc<dyn Listener>> {
    let refuse = |why: &str| Error::new(ErrorKind::Bind, format!("cannot listen on fd://{fd}: {why}"));
    let owned = descriptor::take_inherited(fd).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => refuse(
            "this process has opened or taken that descriptor itself (it is close-on-exec); name a socket that it has \
             inherited, and each only once",
        ),
        _ => refuse("this process did not inherit such a descriptor").caused_by(error),
    })?;
    match listening(owned) {
        Ok(socket) => of_either_kind(socket),
        // The descriptor is not a listener, so it stays open for its owner.
        Err(other) => {
            descriptor::put_back_inherited(other);
            Err(refuse("it is not a listening TCP or Unix stream socket"))
        }
    }
}

/// Gives up a listener from [`open`] without closing it: its number can be taken again.
pub(super) fn put_back(listener: Arc<dyn Listener>) {
    descriptor::survive_exec(&[listener.as_fd().as_raw_fd()], true);
    // The descriptor has no owner from here on, as before it was taken.
    std::mem::forget(listener);
}

/// The listener with a descriptor number from a record.
pub(crate) fn adopt(fd: RawFd) -> Result<Arc<dyn Listener>> {
    of_either_kind(socket(fd)?)
}

/// The listening stream socket with a descriptor number from a record. Any other descriptor stays open.
pub(crate) fn socket(fd: RawFd) -> Result<Socket> {
    let refuse = || Error::new(ErrorKind::Bind, format!("descriptor {fd} is not a listening stream socket"));
    let owned = descriptor::take_recorded(fd).map_err(|error| refuse().caused_by(error))?;
    listening(owned).map_err(|other| {
        let _ = other.into_raw_fd();
        refuse()
    })
}

fn of_either_kind(socket: Socket) -> Result<Arc<dyn Listener>> {
    let is_unix = socket.local_addr().is_ok_and(|address| address.domain() == Domain::UNIX);
    Ok(if is_unix { Arc::new(UnixListening::adopt(socket)?) } else { Arc::new(TcpListening::adopt(socket)?) })
}

/// Checks that `fd` is a listening TCP or Unix stream socket.
fn listening(fd: OwnedFd) -> std::result::Result<Socket, OwnedFd> {
    let socket = Socket::from(fd);
    let domain = socket.local_addr().map(|address| address.domain());
    let is_one = listens(&socket)
        && socket.r#type().ok() == Some(Type::STREAM)
        && domain.is_ok_and(|domain| [Domain::IPV4, Domain::IPV6, Domain::UNIX].contains(&domain));
    if is_one { Ok(socket) } else { Err(socket.into()) }
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
