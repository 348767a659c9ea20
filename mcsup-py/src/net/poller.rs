//! Readiness of many descriptors: epoll on Linux, kqueue on macOS and the BSDs, behind one name.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

pub use backend::Poller;

/// How readiness of a descriptor is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// While it is readable.
    Level,
    /// While it is readable, to one of the processes that wait on it.
    Shared,
    /// Whenever it becomes readable or writable: registered once, never changed.
    Edge,
}

/// What is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// The token that it was registered with.
    pub token: u64,
    /// A read will not block (there are bytes, an end, or an error).
    pub readable: bool,
    /// A write will not block.
    pub writable: bool,
    /// The other side has ended: a read that comes up short is not the last one.
    pub ended: bool,
}

fn timespec(timeout: Duration) -> rustix::event::Timespec {
    rustix::event::Timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    }
}

/// An interrupted wait is an empty one.
fn unless_interrupted<T: Default>(result: Result<T, rustix::io::Errno>) -> io::Result<T> {
    match result {
        Err(rustix::io::Errno::INTR) => Ok(T::default()),
        other => Ok(other?),
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod backend {
    use super::*;
    use rustix::event::epoll;
    use std::os::fd::OwnedFd;

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
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[path = "kqueue.rs"]
mod backend;
