//! The request to end a thread that waits for descriptors.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use crate::clock;
use crate::sys::descriptor;
use crate::sys::unshared::Unshared;

/// The request to end the thread, and a pipe that interrupts its waits.
pub(super) struct StopRequest {
    is_asked: AtomicBool,
    read: Unshared,
    write: Unshared,
}

impl StopRequest {
    pub(super) fn new() -> io::Result<Self> {
        let (read, write) = descriptor::pipe(true)?;
        Ok(Self { is_asked: AtomicBool::new(false), read: read.into(), write: write.into() })
    }

    pub(super) fn ask(&self, stop_request: bool) {
        self.is_asked.store(stop_request, Ordering::Release);
        if stop_request {
            // A full pipe is readable as well.
            let _ = rustix::io::write(&self.write, &[0]);
        } else {
            let mut bytes = [0; 64];
            while let Ok(1..) = rustix::io::read(&self.read, &mut bytes) {}
        }
    }

    pub(super) fn is_asked(&self) -> bool {
        self.is_asked.load(Ordering::Acquire)
    }

    /// Waits until `source` is readable (returns `true`), a stop request, or `limit`.
    pub(super) fn wait(&self, source: Option<BorrowedFd<'_>>, limit: Option<Duration>) -> bool {
        let sources = [Some(self.read.as_fd()), source].into_iter().flatten();
        let mut sources: Vec<_> = sources.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        let limit = limit.map(clock::wait_of);
        // A persistent error would recur at once. Only an interruption by a signal is temporary.
        let _ = poll(&mut sources, limit.as_ref());
        sources.get(1).is_some_and(|source| !source.revents().is_empty())
    }
}
