//! The two ends of a session: its socket, and the files whose bytes it encrypts.

use std::io::{self, IoSlice, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;

use rustix::net::{RecvFlags, SendAncillaryBuffer};

use crate::net::buffer::FilePart;
use crate::net::stream::flags;

/// A part of a file, as far as it fits.
pub(super) fn read_part(part: &FilePart, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(part.length).unwrap_or(most).min(most)];
    match part.file.read_at(&mut bytes, part.offset)? {
        // The file is shorter than it was: what was announced cannot be kept.
        0 => Err(io::ErrorKind::BrokenPipe.into()),
        count => {
            bytes.truncate(count);
            Ok(bytes)
        }
    }
}

/// Receives what is there, up to the spare capacity of `into`; 0: the client has ended its side.
pub(super) fn receive(socket: BorrowedFd<'_>, into: &mut Vec<u8>) -> rustix::io::Result<usize> {
    loop {
        let room = rustix::buffer::spare_capacity(into);
        match rustix::net::recv(socket, room, RecvFlags::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            received => return received.map(|(_, count)| count),
        }
    }
}

/// Takes records.
pub(super) struct Socket<'a>(pub(super) BorrowedFd<'a>);

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self.0, bytes, flags())?)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(rustix::net::sendmsg(self.0, parts, &mut SendAncillaryBuffer::default(), flags())?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
