//! A kick: what one thread gives another that waits for news.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// Ends a wait.
#[derive(Debug)]
pub(super) struct Kick(UnixStream, UnixStream);

impl Kick {
    pub(super) fn new() -> io::Result<Self> {
        let (waited_on, given) = UnixStream::pair()?;
        waited_on.set_nonblocking(true)?;
        given.set_nonblocking(true)?;
        Ok(Self(waited_on, given))
    }

    pub(super) fn give(&self) {
        // Full means that one is on its way already.
        let _ = (&self.1).write(&[0]);
    }

    pub(super) fn acknowledge(&self) {
        let mut bytes = [0; 64];
        while matches!((&self.0).read(&mut bytes), Ok(1..)) {}
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
