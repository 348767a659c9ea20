//! The supervisor's end of the [`Handle`]s of the program: it receives a connected socket for each request.

use std::io::ErrorKind as IoKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use crate::link::datagram;

/// The most clients that one call adopts.
const TURN: usize = 64;

/// The end that receives the clients of all clones of a handle.
#[derive(Debug)]
pub(crate) struct HandleEnd {
    socket: OwnedFd,
    has_ended: bool,
    /// Whether the program has spawned this process, which ends with the program's last handle.
    is_of_parent: bool,
}

impl From<OwnedFd> for HandleEnd {
    fn from(socket: OwnedFd) -> Self {
        Self { socket, has_ended: false, is_of_parent: false }
    }
}

impl HandleEnd {
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

    /// The clients that have arrived. Each is non-blocking.
    pub(super) fn receive(&mut self) -> Vec<UnixStream> {
        let mut clients = Vec::new();
        while clients.len() < TURN && !self.has_ended {
            // One byte comes with each client: without it the kernel would join messages.
            match datagram::receive(&self.socket, &mut [0]) {
                Ok((0, _)) => self.has_ended = true,
                // A process without a free descriptor gets the byte alone, and the client's connection ends.
                Ok((_, descriptors)) => clients.extend(descriptors.into_iter().map(UnixStream::from)),
                Err(error) if error.kind() == IoKind::Interrupted => {}
                Err(error) if error.kind() == IoKind::WouldBlock => break,
                Err(_) => self.has_ended = true,
            }
        }
        clients.retain(|client| client.set_nonblocking(true).is_ok());
        clients
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
