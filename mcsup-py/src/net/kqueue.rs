//! The poller's kqueue form: macOS and the BSDs.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::kqueue::{self, Event, EventFilter, EventFlags};

use super::{Interest, Ready, timespec, unless_interrupted};

/// A kqueue. Threads may wait on it at the same time: each piece of news reaches one of them.
#[derive(Debug)]
pub struct Poller {
    queue: OwnedFd,
}

/// What one wait has found; kept by a thread and used again.
#[allow(missing_debug_implementations, reason = "rustix's event has none")]
pub struct Batch(Vec<Event>);

const BATCH: usize = 64;

impl Poller {
    /// A poller that watches nothing.
    pub fn new() -> io::Result<Self> {
        let queue = kqueue::kqueue()?;
        rustix::io::fcntl_setfd(&queue, rustix::io::FdFlags::CLOEXEC)?;
        Ok(Self { queue })
    }

    /// Watches `fd`; its readiness is reported with `token`.
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        let mut flags = EventFlags::ADD;
        if interest == Interest::Edge {
            flags |= EventFlags::CLEAR;
            self.change(EventFilter::Write(fd.as_raw_fd()), flags, token)?;
        }
        self.change(EventFilter::Read(fd.as_raw_fd()), flags, token)
    }

    /// Watches `fd` no more.
    pub fn delete(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        // Only edge-triggered descriptors have a write filter; that there is none is no error here.
        let _ = self.change(EventFilter::Write(fd.as_raw_fd()), EventFlags::DELETE, 0);
        self.change(EventFilter::Read(fd.as_raw_fd()), EventFlags::DELETE, 0)
    }

    /// Waits for news for at most `timeout`.
    pub fn wait(&self, batch: &mut Batch, timeout: Duration) -> io::Result<()> {
        batch.0.clear();
        let room = rustix::buffer::spare_capacity(&mut batch.0);
        unless_interrupted(kevent(&self.queue, &[], room, timeout))?;
        Ok(())
    }

    fn change(&self, filter: EventFilter, flags: EventFlags, token: u64) -> io::Result<()> {
        let change = Event::new(filter, flags, token as usize as *mut std::ffi::c_void);
        let mut none: [Event; 0] = [];
        kevent(&self.queue, &[change], &mut none[..], Duration::ZERO)?;
        Ok(())
    }
}

impl AsFd for Poller {
    /// Readable while there is news.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self(Vec::with_capacity(BATCH))
    }
}

impl Batch {
    /// What has become ready.
    pub fn news(&self) -> impl Iterator<Item = Ready> {
        self.0.iter().map(|event| Ready {
            token: event.udata() as u64,
            readable: matches!(event.filter(), EventFilter::Read(_)),
            writable: matches!(event.filter(), EventFilter::Write(_)),
            ended: event.flags().contains(EventFlags::EOF),
        })
    }
}

/// The registered descriptors are closed only after they were deleted, or with the queue; a stale one could at worst
/// yield a token that nobody knows, which is ignored.
#[allow(unsafe_code, reason = "rustix cannot prove what the line above says")]
fn kevent<B: rustix::buffer::Buffer<Event>>(
    queue: &OwnedFd,
    changes: &[Event],
    room: B,
    timeout: Duration,
) -> rustix::io::Result<B::Output> {
    // SAFETY: the contract is that no event names a descriptor that is invalid; see above.
    unsafe { kqueue::kevent_timespec(queue, changes, room, Some(&timespec(timeout))) }
}
