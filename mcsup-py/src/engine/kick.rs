//! A kick: what one thread gives another that waits for news.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use mcsup_core::{Unshared, between_forks};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The end of a wait for a kick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waited {
    Given,
    /// None came in time.
    Late,
    /// A signal came.
    Interrupted,
}

/// Ends a wait.
#[derive(Debug)]
pub(super) struct Kick(Unshared, Unshared);

impl Kick {
    pub(super) fn new() -> io::Result<Self> {
        between_forks(|| {
            let (waited_on, given) = UnixStream::pair()?;
            waited_on.set_nonblocking(true)?;
            given.set_nonblocking(true)?;
            Ok(Self(OwnedFd::from(waited_on).into(), OwnedFd::from(given).into()))
        })
    }

    pub(super) fn give(&self) {
        // Full means that one is on its way already.
        let _ = rustix::io::write(&self.1, &[0]);
    }

    pub(super) fn acknowledge(&self) {
        let mut bytes = [0; 64];
        while matches!(rustix::io::read(&self.0, &mut bytes), Ok(1..)) {}
    }

    /// Waits for one, for `limit` at most.
    pub(super) fn wait(&self, limit: Option<Duration>) -> Waited {
        let limit = limit.map(|limit| Timespec { tv_sec: 0, tv_nsec: limit.subsec_nanos().into() });
        match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], limit.as_ref()) {
            Ok(0) => Waited::Late,
            Err(rustix::io::Errno::INTR) => Waited::Interrupted,
            _ => Waited::Given,
        }
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
