//! The poller's epoll form: Linux.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use mcsup_core::{Unshared, between_forks};
use rustix::event::epoll;

use super::{Interest, Ready, is_interrupted, timespec};

/// An epoll instance. Threads may wait on it at the same time: each event reaches one of them.
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: Unshared,
}

/// The events of one wait; a thread keeps and reuses it.
pub(crate) struct Batch(Vec<epoll::Event>);

const BATCH: usize = 64;

impl Poller {
    /// A poller that watches nothing.
    pub(crate) fn new() -> io::Result<Self> {
        let create = || epoll::create(epoll::CreateFlags::CLOEXEC).map(Unshared::from);
        Ok(Self { epoll: between_forks(create)? })
    }

    /// Watches `fd`; its readiness is reported with `token`.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        use epoll::EventFlags as Flags;
        let flags = match interest {
            Interest::Level => Flags::IN,
            Interest::Shared => Flags::IN | Flags::EXCLUSIVE,
            Interest::Edge => Flags::IN | Flags::OUT | Flags::RDHUP | Flags::ET,
        };
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token), flags)?)
    }

    /// Watches `fd` no more.
    pub(crate) fn delete(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, fd)?)
    }

    /// Waits for events for at most `timeout`; whether a signal has ended the wait.
    pub(crate) fn wait(&self, batch: &mut Batch, timeout: Duration) -> io::Result<bool> {
        batch.0.clear();
        let room = rustix::buffer::spare_capacity(&mut batch.0);
        is_interrupted(epoll::wait(&self.epoll, room, Some(&timespec(timeout))).map(drop))
    }
}

impl AsFd for Poller {
    /// Readable while there is an event.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self(Vec::with_capacity(BATCH))
    }
}

impl Batch {
    /// The ready sources.
    pub(crate) fn events(&self) -> impl Iterator<Item = Ready> {
        use epoll::EventFlags as Flags;
        self.0.iter().map(|event| {
            let flags = event.flags;
            Ready {
                token: event.data.u64(),
                readable: flags.intersects(Flags::IN | Flags::RDHUP | Flags::HUP | Flags::ERR),
                writable: flags.intersects(Flags::OUT | Flags::HUP | Flags::ERR),
                ended: flags.intersects(Flags::RDHUP | Flags::HUP | Flags::ERR),
            }
        })
    }
}
