//! The poller's epoll form: Linux.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll;

use super::{Interest, Ready, timespec, unless_interrupted};

/// An epoll instance.
#[allow(missing_debug_implementations, reason = "rustix's event has none")]
pub struct Poller {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

const BATCH: usize = 64;

impl Poller {
    /// A poller that watches nothing.
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?, events: Vec::with_capacity(BATCH) })
    }

    /// Watches `fd`; its readiness is reported with `token`.
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        use epoll::EventFlags as Flags;
        let flags = match interest {
            Interest::Level => Flags::IN,
            Interest::Shared => Flags::IN | Flags::EXCLUSIVE,
            Interest::Edge => Flags::IN | Flags::OUT | Flags::RDHUP | Flags::ET,
        };
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token), flags)?)
    }

    /// Watches `fd` no more.
    pub fn delete(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, fd)?)
    }

    /// Waits for at most `timeout` and appends to `ready` what has become ready.
    pub fn wait(&mut self, ready: &mut Vec<Ready>, timeout: Duration) -> io::Result<()> {
        self.events.clear();
        let events = rustix::buffer::spare_capacity(&mut self.events);
        unless_interrupted(epoll::wait(&self.epoll, events, Some(&timespec(timeout))))?;
        ready.extend(self.events.iter().map(|event| {
            use epoll::EventFlags as Flags;
            let flags = event.flags;
            Ready {
                token: event.data.u64(),
                readable: flags.intersects(Flags::IN | Flags::RDHUP | Flags::HUP | Flags::ERR),
                writable: flags.intersects(Flags::OUT | Flags::HUP | Flags::ERR),
                ended: flags.intersects(Flags::RDHUP | Flags::HUP | Flags::ERR),
            }
        }));
        Ok(())
    }
}
