//! Listening sockets that were opened by whoever started us: `fd://N`, and systemd's socket activation.

use std::os::fd::{IntoRawFd, RawFd};
use std::sync::Arc;

use socket2::{Domain, Socket, Type};

use super::Listener;
use super::tcp::TcpListening;
use super::unix::UnixListening;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::descriptor;

/// Takes over descriptor `fd`, which must be a listening stream socket.
pub(crate) fn open(fd: RawFd) -> Result<Arc<dyn Listener>> {
    let socket = socket(fd)?;
    let is_unix = socket.local_addr().is_ok_and(|address| address.domain() == Domain::UNIX);
    Ok(if is_unix { Arc::new(UnixListening::adopt(socket)?) } else { Arc::new(TcpListening::adopt(socket)?) })
}

/// The listening stream socket that descriptor `fd` is. What is none stays open: it is somebody else's.
pub(crate) fn socket(fd: RawFd) -> Result<Socket> {
    let refuse = |why: &str| Error::new(ErrorKind::Bind, format!("cannot listen on fd://{fd}: {why}"));
    let owned = descriptor::take_inherited(fd)
        .map_err(|error| refuse("this process did not inherit such a descriptor").caused_by(error))?;
    let socket = Socket::from(owned);
    if listens(&socket) && socket.r#type().ok() == Some(Type::STREAM) && socket.local_addr().is_ok() {
        return Ok(socket);
    }
    let _ = socket.into_raw_fd();
    Err(refuse("it is not a listening stream socket"))
}

#[cfg(not(target_vendor = "apple"))]
fn listens(socket: &Socket) -> bool {
    socket.is_listener().unwrap_or(false)
}

/// macOS has the option's name, but no answer: a socket that does not listen shows at the first accept.
#[cfg(target_vendor = "apple")]
fn listens(_: &Socket) -> bool {
    true
}
