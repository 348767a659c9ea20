//! Sockets opened by the parent process: `fd://N`, and systemd's socket activation.

use std::io;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use socket2::Socket;

use super::Listener;
use super::socket::{is_reachable, of_any_kind};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::descriptor;

/// The reasons for a refusal.
pub(super) const NO_STREAM: &str = "it is not a listening TCP or Unix stream socket";
const NO_LISTENER: &str = "it is neither a listening socket nor a bound one for datagrams";

/// Takes the inherited descriptor `fd`, a socket that clients reach.
pub(crate) fn open(fd: RawFd, streams_only: bool) -> Result<Arc<dyn Listener>> {
    let refuse = |why: &str| Error::new(ErrorKind::Bind, format!("cannot listen on fd://{fd}: {why}"));
    let owned = descriptor::take_inherited(fd).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => refuse(
            "this process has opened or taken that descriptor itself (it is close-on-exec); name a socket that it has \
             inherited, and each only once",
        ),
        _ => refuse("this process did not inherit such a descriptor").caused_by(error),
    })?;
    match reachable(owned, streams_only) {
        Ok(socket) => of_any_kind(socket),
        // The descriptor is not a listener, so it stays open for its owner.
        Err(other) => {
            descriptor::put_back_inherited(other);
            Err(refuse(if streams_only { NO_STREAM } else { NO_LISTENER }))
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
    of_any_kind(socket(fd)?)
}

/// The socket with a descriptor number from a record. A descriptor that no client reaches stays open.
pub(crate) fn socket(fd: RawFd) -> Result<Socket> {
    let refuse = || Error::new(ErrorKind::Bind, format!("descriptor {fd} is not a listening socket"));
    let owned = descriptor::take_recorded(fd).map_err(|error| refuse().caused_by(error))?;
    reachable(owned, false).map_err(|other| {
        let _ = other.into_raw_fd();
        refuse()
    })
}

/// Checks that clients reach `fd`.
fn reachable(fd: OwnedFd, streams_only: bool) -> std::result::Result<Socket, OwnedFd> {
    let socket = Socket::from(fd);
    if is_reachable(&socket, streams_only) { Ok(socket) } else { Err(socket.into()) }
}
