//! Readiness of many descriptors: epoll on Linux, kqueue on macOS and the BSDs, behind one name.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

pub(crate) use backend::{Batch, Poller};

/// How readiness of a descriptor is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    /// While it is readable.
    Level,
    /// While it is readable, to one of the processes that wait on it.
    Shared,
    /// Whenever it becomes readable or writable: registered once, never changed.
    Edge,
}

/// One event of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ready {
    /// The token that it was registered with.
    pub token: u64,
    /// A read will not block (there are bytes, an end, or an error).
    pub readable: bool,
    /// A write will not block.
    pub writable: bool,
    /// The other side has ended: a read that comes up short is not the last one.
    pub ended: bool,
}

impl Poller {
    /// Like [`Poller::wait`], but standing aside: the kernel does not count this thread as one that waits, so that what
    /// goes to one of several processes goes to those that do. Also ends when `other` becomes readable.
    pub(crate) fn wait_aside(
        &self,
        batch: &mut Batch,
        timeout: Duration,
        other: BorrowedFd<'_>,
    ) -> io::Result<bool> {
        use rustix::event::{PollFd, PollFlags, poll};
        let mut sources = [PollFd::new(self, PollFlags::IN), PollFd::new(&other, PollFlags::IN)];
        let is_cut = is_interrupted(poll(&mut sources, Some(&timespec(timeout))).map(drop))?;
        Ok(self.wait(batch, Duration::ZERO)? || is_cut)
    }
}

pub(super) fn timespec(timeout: Duration) -> rustix::event::Timespec {
    // Some systems refuse what is more than 24 days.
    let timeout = timeout.min(Duration::from_secs(24 * 3600));
    rustix::event::Timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    }
}

/// Whether a wait was ended by a signal: that is no error.
fn is_interrupted(waited: Result<(), rustix::io::Errno>) -> io::Result<bool> {
    match waited {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::INTR) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[path = "epoll.rs"]
mod backend;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[path = "kqueue.rs"]
mod backend;
