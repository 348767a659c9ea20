//! One descriptor that is readable while any of many is.
//!
//! The sources change with each step. A poller forgets a closed descriptor only when all copies are closed, and forked
//! processes have copies for a moment. So each step fills a new inner poller, and the outer one stays.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::PollFlags;

use crate::policy::Moment;
use crate::sys::descriptor;
use crate::sys::poller::Poller;
use crate::sys::unshared::Withheld;

/// The interval between steps while the sources cannot be watched.
const WITHOUT_WATCH: Duration = Duration::from_millis(100);

/// The readiness of a pool. No worker gets its descriptors.
#[derive(Debug)]
pub(super) struct Readiness {
    outer: Poller,
    inner: Option<Poller>,
    /// Readable for ever; the reading end of a closed pipe.
    ready: Withheld,
    is_watching: bool,
}

impl Readiness {
    /// A readiness that is ready: the first step comes at once.
    pub(super) fn new() -> io::Result<Self> {
        let outer = Poller::new()?;
        let ready = Withheld::from(descriptor::pipe(true)?.0);
        outer.add(ready.as_fd(), PollFlags::IN)?;
        Ok(Self { outer, inner: None, ready, is_watching: true })
    }

    /// Is ready from now on while one of `sources` is.
    pub(super) fn watch(&mut self, sources: &[(BorrowedFd<'_>, PollFlags)]) {
        let _ = self.outer.delete(self.ready.as_fd());
        self.is_watching = match self.renew(sources) {
            Ok(()) => true,
            Err(error) => {
                log::debug!("cannot watch {} descriptors: {error}", sources.len());
                false
            }
        };
    }

    fn renew(&mut self, sources: &[(BorrowedFd<'_>, PollFlags)]) -> io::Result<()> {
        let inner = Poller::new()?;
        for (fd, events) in sources {
            inner.add(*fd, *events)?;
        }
        self.outer.add(inner.as_fd(), PollFlags::IN)?;
        if let Some(last) = self.inner.replace(inner) {
            let _ = self.outer.delete(last.as_fd());
        }
        Ok(())
    }

    /// Is ready for ever.
    pub(super) fn stay_ready(&mut self) {
        let _ = self.outer.add(self.ready.as_fd(), PollFlags::IN);
        self.inner = None;
    }

    /// The time of the next step, if the sources cannot be watched.
    pub(super) fn deadline(&self, now: Moment) -> Option<Moment> {
        (!self.is_watching).then(|| now + WITHOUT_WATCH)
    }
}

impl AsFd for Readiness {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.outer.as_fd()
    }
}
