//! The waker: ends the wait of a thread at the poller or in poll(2).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use mcsup_core::{Unshared, between_forks};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The end of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waited {
    Woken,
    /// At the limit.
    Late,
    /// By a signal.
    Interrupted,
}

/// A socketpair; its first end is waited on.
#[derive(Debug)]
pub(super) struct Waker(Unshared, Unshared);

impl Waker {
    pub(super) fn new() -> io::Result<Self> {
        between_forks(|| {
            let (waited_on, waking) = UnixStream::pair()?;
            waited_on.set_nonblocking(true)?;
            waking.set_nonblocking(true)?;
            Ok(Self(OwnedFd::from(waited_on).into(), OwnedFd::from(waking).into()))
        })
    }

    pub(super) fn wake(&self) {
        // A full socket has a wake-up in it already.
        let _ = rustix::io::write(&self.1, &[0]);
    }

    pub(super) fn acknowledge(&self) {
        let mut bytes = [0; 64];
        while matches!(rustix::io::read(&self.0, &mut bytes), Ok(1..)) {}
    }

    /// Waits to be woken, for `limit` at most.
    pub(super) fn wait(&self, limit: Option<Duration>) -> Waited {
        let limit = limit.map(|limit| Timespec { tv_sec: 0, tv_nsec: limit.subsec_nanos().into() });
        match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], limit.as_ref()) {
            Ok(0) => Waited::Late,
            Err(rustix::io::Errno::INTR) => Waited::Interrupted,
            _ => Waited::Woken,
        }
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
