//! The supervisor's end of the [`Handle`]s of the program: it receives a connected socket for each request.

use std::io::{self, ErrorKind as IoKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use crate::link::datagram;
use crate::sys::unshared::Marks;

/// The most clients that one call adopts.
const TURN: usize = 64;

/// The end that receives the clients of all clones of a handle.
#[derive(Debug)]
pub(crate) struct HandleEnd {
    /// Keeps it from workers of other pools until its own pool starts. Dropped before the socket is.
    marks: Marks,
    socket: OwnedFd,
    has_ended: bool,
    /// Whether the program has spawned this process, which ends with the program's last handle.
    is_of_parent: bool,
}

impl From<OwnedFd> for HandleEnd {
    fn from(socket: OwnedFd) -> Self {
        Self { marks: Marks::default(), socket, has_ended: false, is_of_parent: false }
    }
}

impl HandleEnd {
    /// The same, kept from processes that are forked from now on.
    pub(crate) fn withheld(self) -> Self {
        Self { marks: Marks::withholding([self.socket.as_raw_fd()]), ..self }
    }

    /// No longer keeps it from processes that are forked: its pool does.
    pub(crate) fn share(&mut self) {
        self.marks = Marks::default();
    }

    /// The same end with another descriptor, for [`report`](Self::report).
    pub(crate) fn reporter(&self) -> io::Result<Self> {
        Ok(Self::from(self.socket.try_clone()?).withheld())
    }

    /// The same as the end of the program that has spawned this process.
    pub(crate) fn of_parent(self) -> Self {
        Self { is_of_parent: true, ..self }
    }

    /// Whether the program has spawned this process.
    pub(crate) fn is_of_parent(&self) -> bool {
        self.is_of_parent
    }

    /// Sends a line to the program that has spawned this process, as far as the socket has room.
    pub(crate) fn report(&self, line: &[u8]) {
        if let Err(error) = datagram::send(&self.socket, line, &[]) {
            log::debug!("the program does not read: {error}");
        }
    }

    /// Adds the clients that have arrived to `clients`. Each is non-blocking.
    ///
    /// # Errors
    /// No descriptor is free for the next one, which waits.
    pub(super) fn receive(&mut self, clients: &mut Vec<UnixStream>) -> io::Result<()> {
        for _ in 0..TURN {
            if self.has_ended {
                break;
            }
            self.require_descriptor()?;
            // One byte comes with each client: without it the kernel would join messages.
            match datagram::receive(&self.socket, &mut [0]) {
                Ok((0, _)) => self.has_ended = true,
                Ok((_, descriptors)) => {
                    let arrived = descriptors.into_iter().map(UnixStream::from);
                    clients.extend(arrived.filter(|client| client.set_nonblocking(true).is_ok()));
                }
                Err(error) if error.kind() == IoKind::Interrupted => {}
                Err(error) if error.kind() == IoKind::WouldBlock => break,
                Err(_) => self.has_ended = true,
            }
        }
        Ok(())
    }

    /// Checks that the next message can be received whole: without a free descriptor the kernel delivers the byte
    /// alone, and closes the client's socket (unix(7)).
    fn require_descriptor(&self) -> io::Result<()> {
        if rustix::io::ioctl_fionread(&self.socket).is_ok_and(|length| length > 0) {
            drop(rustix::io::fcntl_dupfd_cloexec(&self.socket, 0)?);
        }
        Ok(())
    }

    /// Whether the program has dropped every clone of the handle.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }
}

impl AsFd for HandleEnd {
    /// Readable while a client waits, and after the end.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
