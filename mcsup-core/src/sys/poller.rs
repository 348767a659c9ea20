//! A poller: one descriptor that is readable while any of those that it watches is ready. epoll(7), elsewhere
//! kqueue(2).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::PollFlags;

use super::unshared::Withheld;

/// The poller. No worker or mold gets it.
#[derive(Debug)]
pub(crate) struct Poller(Withheld);

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Poller {
    /// A poller that watches nothing.
    pub(crate) fn new() -> io::Result<Self> {
        use rustix::event::epoll;
        Ok(Self(epoll::create(epoll::CreateFlags::CLOEXEC)?.into()))
    }

    /// Watches `fd` for `events`: IN, OUT or PRI.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, events: PollFlags) -> io::Result<()> {
        use rustix::event::epoll;
        // The flags of both calls have the same values (epoll_ctl(2)).
        let flags = epoll::EventFlags::from_bits_truncate(u32::from(events.bits()));
        Ok(epoll::add(&self.0, fd, epoll::EventData::new_u64(0), flags)?)
    }

    /// Watches `fd` no more.
    pub(crate) fn delete(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(rustix::event::epoll::delete(&self.0, fd)?)
    }
}

#[cfg(target_vendor = "apple")]
impl Poller {
    /// A poller that watches nothing.
    pub(crate) fn new() -> io::Result<Self> {
        let queue = rustix::event::kqueue::kqueue()?;
        rustix::io::fcntl_setfd(&queue, rustix::io::FdFlags::CLOEXEC)?;
        Ok(Self(queue.into()))
    }

    /// Watches `fd` for `events`: IN or OUT.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, events: PollFlags) -> io::Result<()> {
        self.change(fd, events, rustix::event::kqueue::EventFlags::ADD)
    }

    /// Watches `fd` no more.
    pub(crate) fn delete(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.change(fd, PollFlags::IN, rustix::event::kqueue::EventFlags::DELETE)
    }

    fn change(
        &self,
        fd: BorrowedFd<'_>,
        events: PollFlags,
        flags: rustix::event::kqueue::EventFlags,
    ) -> io::Result<()> {
        use rustix::event::kqueue::{Event, EventFilter, kevent};
        use std::os::fd::AsRawFd;
        let filter = match events.contains(PollFlags::OUT) {
            true => EventFilter::Write(fd.as_raw_fd()),
            false => EventFilter::Read(fd.as_raw_fd()),
        };
        let change = Event::new(filter, flags, std::ptr::null_mut());
        // SAFETY: the one file in the list is borrowed, so it is open.
        unsafe { kevent(&self.0, &[change], &mut [] as &mut [Event], Some(std::time::Duration::ZERO))? };
        Ok(())
    }
}

#[cfg(feature = "tokio")]
impl Poller {
    /// Registers the poller with the current runtime.
    ///
    /// A runtime that has registered a descriptor loses it if another thread redirects its number: the kernel
    /// reports the old file for ever, and the runtime cannot remove it. So it registers a poller, which is closed
    /// with all that it watches.
    ///
    /// # Errors
    /// The runtime ends, or has no memory.
    ///
    /// # Panics
    /// There is no runtime with I/O.
    pub(crate) fn register(self) -> io::Result<tokio::io::unix::AsyncFd<Self>> {
        use tokio::io::{Interest, unix::AsyncFd};
        // SAFETY: the poller owns its descriptor, and nothing in this process redirects or closes it before the
        // registration ends, which is when `AsyncFd` is dropped.
        Ok(unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) }?)
    }
}

#[cfg(feature = "tokio")]
impl std::os::fd::AsRawFd for Poller {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        std::os::fd::AsRawFd::as_raw_fd(&self.as_fd())
    }
}

impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, Timespec, poll};
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    fn is_ready(poller: &Poller) -> bool {
        poll(&mut [PollFd::new(poller, PollFlags::IN)], Some(&Timespec::default())).unwrap() > 0
    }

    #[test]
    fn a_poller_in_a_poller_is_ready_while_a_watched_descriptor_is() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (outer, inner) = (Poller::new().unwrap(), Poller::new().unwrap());
        outer.add(inner.as_fd(), PollFlags::IN).unwrap();
        inner.add(ours.as_fd(), PollFlags::IN).unwrap();
        assert!(!is_ready(&outer));
        theirs.write_all(b"x").unwrap();
        assert!(is_ready(&outer));
        inner.delete(ours.as_fd()).unwrap();
        assert!(!is_ready(&outer));
        inner.add(ours.as_fd(), PollFlags::OUT).unwrap();
        assert!(is_ready(&outer));
        drop(inner);
        assert!(!is_ready(&outer));
    }
}
