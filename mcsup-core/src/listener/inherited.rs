//! Listening sockets that were opened by whoever started us: `fd://N`, and systemd's socket activation.

use std::os::fd::RawFd;

use socket2::{Domain, Socket, Type};

use super::Listener;
use super::tcp::TcpListening;
use super::unix::UnixListening;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::descriptor;

/// Takes over descriptor `fd`, which must be a listening stream socket.
pub(crate) fn open(fd: RawFd) -> Result<Box<dyn Listener>> {
    let refuse = |why: &str| Error::new(ErrorKind::Bind, format!("cannot listen on fd://{fd}: {why}"));
    let owned = descriptor::take_inherited(fd)
        .map_err(|error| refuse("this process did not inherit such a descriptor").caused_by(error))?;
    let socket = Socket::from(owned);
    if !listens(&socket) || socket.r#type().ok() != Some(Type::STREAM) {
        return Err(refuse("it is not a listening stream socket"));
    }
    let address = socket.local_addr().map_err(|error| refuse("it has no address").caused_by(error))?;
    if address.domain() == Domain::UNIX {
        Ok(Box::new(UnixListening::adopt(socket)?))
    } else {
        Ok(Box::new(TcpListening::adopt(socket)?))
    }
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
