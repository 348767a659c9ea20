//! The poller's kqueue form: macOS and the BSDs.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::sys::event::{EvFlags, EventFilter, FilterFlag, KEvent, Kqueue};

use super::{Interest, Ready, is_interrupted};

/// A kqueue. Threads may wait on it at the same time: each event reaches one of them.
#[derive(Debug)]
pub(crate) struct Poller {
    queue: Kqueue,
}

/// The events of one wait; a thread keeps and reuses it.
#[derive(Debug)]
pub(crate) struct Batch {
    events: Vec<KEvent>,
    /// How many of them are of the last wait.
    count: usize,
}

const BATCH: usize = 64;

impl Poller {
    /// A poller that watches nothing.
    pub(crate) fn new() -> io::Result<Self> {
        let queue = Kqueue::new()?;
        rustix::io::fcntl_setfd(&queue, rustix::io::FdFlags::CLOEXEC)?;
        Ok(Self { queue })
    }

    /// Watches `fd`; its readiness is reported with `token`.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        let mut flags = EvFlags::EV_ADD;
        if interest == Interest::Edge {
            flags |= EvFlags::EV_CLEAR;
            self.change(fd, EventFilter::EVFILT_WRITE, flags, token)?;
        }
        self.change(fd, EventFilter::EVFILT_READ, flags, token)
    }

    /// Watches `fd` no more.
    pub(crate) fn delete(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        // Only edge-triggered descriptors have a write filter; that there is none is no error here.
        let _ = self.change(fd, EventFilter::EVFILT_WRITE, EvFlags::EV_DELETE, 0);
        self.change(fd, EventFilter::EVFILT_READ, EvFlags::EV_DELETE, 0)
    }

    /// Waits for events for at most `timeout`; whether a signal has ended the wait.
    pub(crate) fn wait(&self, batch: &mut Batch, timeout: Duration) -> io::Result<bool> {
        let found = self.queue.kevent(&[], &mut batch.events, Some(timespec(timeout)));
        batch.count = found.unwrap_or_default();
        is_interrupted(found.map(drop).map_err(errno))
    }

    fn change(&self, fd: BorrowedFd<'_>, filter: EventFilter, flags: EvFlags, token: u64) -> io::Result<()> {
        let change = event(fd.as_raw_fd() as usize, filter, flags, token as isize);
        self.queue.kevent(&[change], &mut [], Some(timespec(Duration::ZERO)))?;
        Ok(())
    }
}

fn event(ident: usize, filter: EventFilter, flags: EvFlags, token: isize) -> KEvent {
    KEvent::new(ident, filter, flags, FilterFlag::empty(), 0, token)
}

fn errno(error: nix::errno::Errno) -> rustix::io::Errno {
    rustix::io::Errno::from_raw_os_error(error as i32)
}

fn timespec(timeout: Duration) -> libc::timespec {
    let timeout = timeout.min(Duration::from_secs(24 * 3600));
    libc::timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    }
}

impl AsFd for Poller {
    /// Readable while there is an event.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}

impl Default for Batch {
    fn default() -> Self {
        let empty = event(0, EventFilter::EVFILT_READ, EvFlags::empty(), 0);
        Self { events: vec![empty; BATCH], count: 0 }
    }
}

impl Batch {
    /// The ready sources.
    pub(crate) fn events(&self) -> impl Iterator<Item = Ready> {
        self.events[..self.count].iter().map(|event| Ready {
            token: event.udata() as u64,
            readable: event.filter() == Ok(EventFilter::EVFILT_READ),
            writable: event.filter() == Ok(EventFilter::EVFILT_WRITE),
            ended: event.flags().contains(EvFlags::EV_EOF),
        })
    }
}
