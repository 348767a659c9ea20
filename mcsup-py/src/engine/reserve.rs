//! The descriptors that are left to the application, and a shortage of room for connections.
//!
//! The kernel gives each new descriptor the lowest free number (POSIX, open). So the number of an accepted connection is at
//! most the number of open descriptors, with those of the application, and no system call has to count them. Connections
//! have numbers below the reserve. Files of request bodies and static files may use half of the reserve, since each such
//! request has two descriptors. The rest is for the application alone.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};

/// How many descriptors are left to the application.
const RESERVE: u64 = 64;
/// The number of connections that there may always be, also where the application has opened more than the reserve.
const CONNECTIONS: u64 = 16;

/// A shortage is over when nothing was lacking for this time. It bounds the number of lines in the log.
const CALM: Duration = Duration::from_secs(5);

/// The resource that is short.
pub(super) enum Lack<'e> {
    /// As many connections are open as there may be.
    Connections(usize),
    Descriptors,
    /// Descriptors or memory, as a system call has said.
    Either(&'e io::Error),
}

/// The room for connections.
#[derive(Debug)]
pub(super) struct Reserve {
    /// How many connections there may be; 0: any number.
    most: usize,
    /// The first descriptor of the application's; `RawFd::MAX`: there is no limit.
    pub(super) first: RawFd,
    /// All descriptors.
    limit: u64,
    /// How many connections there may be in spite of a shortage.
    pub(super) least: usize,
    /// A connection has got a number of the reserve, and since then there may be too few.
    pub(super) is_touched: bool,
    /// When room was last lacking, while the log says that it is; `None`: it does not say so.
    pub(super) lacked: Option<Instant>,
    /// Connections to close, the next one last, with the moment since which each was idle when it was selected.
    pub(super) selected: Vec<(Instant, u64)>,
    /// The next search for such connections is not before this moment.
    pub(super) searches_at: Option<Instant>,
}

impl Reserve {
    /// For a process with this limit of descriptors, whose next descriptor will have the number `next`.
    fn new(limit: Option<u64>, next: RawFd) -> Self {
        // Of few descriptors the application gets half.
        let half = limit.unwrap_or(u64::MAX).saturating_sub(u64::try_from(next).unwrap_or(0)) / 2;
        let first = limit.and_then(|limit| RawFd::try_from(limit - RESERVE.min(half)).ok());
        Self {
            most: 0,
            least: usize::try_from(CONNECTIONS.min(half)).unwrap_or(0),
            first: first.unwrap_or(RawFd::MAX),
            limit: limit.unwrap_or(u64::MAX),
            is_touched: false,
            lacked: None,
            selected: Vec::new(),
            searches_at: None,
        }
    }

    /// For this process, and at most `most` connections. `any`: a descriptor of it.
    pub(super) fn of_this_process(most: usize, any: BorrowedFd<'_>) -> Self {
        let limit = getrlimit(Resource::Nofile).current;
        let reserve = next_number(any).map_or_else(|| Self::new(None, 0), |next| Self::new(limit, next));
        Self { most, ..reserve }
    }

    /// A connection was accepted.
    pub(super) fn accepted(&mut self, connection: BorrowedFd<'_>) {
        if connection.as_raw_fd() >= self.first {
            self.is_touched = true;
        }
    }

    /// The resource that is short while `open` connections are open. `any`: a descriptor of this process.
    pub(super) fn lack(&mut self, open: usize, any: BorrowedFd<'_>) -> Option<Lack<'static>> {
        if self.most > 0 && open >= self.most {
            return Some(Lack::Connections(open));
        }
        if !self.is_touched || open < self.least {
            return None;
        }
        let next = next_number(any);
        self.is_touched = next.is_none_or(|next| next >= self.first);
        self.is_touched.then_some(Lack::Descriptors)
    }

    /// Logs a shortage, once until it is over.
    pub(super) fn note(&mut self, lack: &Lack<'_>, now: Instant) {
        if self.lacked.replace(now).is_some() {
            return;
        }
        let Self { first, limit, .. } = self;
        match lack {
            Lack::Connections(open) => log::warn!(
                "{open} connections are open, as many as there may be: idle ones are closed for new ones"
            ),
            Lack::Descriptors => log::warn!(
                "{first} of {limit} descriptors are open, and the others are left to the application: idle connections \
                 are closed for new ones"
            ),
            Lack::Either(error) => log::warn!(
                "no room for connections and bodies ({error}): idle connections are closed for new ones"
            ),
        }
    }

    /// Ends a shortage that is over, and logs that.
    pub(super) fn end_shortage(&mut self, open: usize, any: BorrowedFd<'_>, now: Instant) {
        let Some(lacked) = self.lacked else { return };
        if now.saturating_duration_since(lacked) < CALM {
            return;
        }
        if self.lack(open, any).is_some() {
            self.lacked = Some(now);
            return;
        }
        self.lacked = None;
        self.selected = Vec::new();
        log::info!("there is room for connections again");
    }

    /// Whether a file is in the reserve. `open`: as many connections are.
    pub(super) fn has(&self, number: RawFd, open: usize) -> bool {
        open > self.least && number >= self.first
    }

    /// Whether a file of a body or an answer may have this number of the reserve.
    pub(super) fn admits(&self, number: RawFd) -> bool {
        let most = RawFd::try_from(self.limit).unwrap_or(RawFd::MAX);
        number < self.first + most.saturating_sub(self.first) / 2
    }
}

/// The number that the next descriptor will have; `None`: none is left.
fn next_number(any: BorrowedFd<'_>) -> Option<RawFd> {
    Some(rustix::io::fcntl_dupfd_cloexec(any, 0).ok()?.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn the_reserve_is_64_descriptors_or_half_of_the_few_that_there_are() {
        for (limit, next, first) in [
            (Some(1024), 20, 960),
            (Some(256), 20, 192),
            (Some(64), 20, 42),
            (Some(20), 20, 20),
            (Some(10), 20, 10),
            (None, 20, RawFd::MAX),
            (Some(u64::MAX), 20, RawFd::MAX),
        ] {
            assert_eq!(Reserve::new(limit, next).first, first, "{limit:?}");
        }
        assert_eq!((Reserve::new(Some(20), 20).least, Reserve::new(Some(40), 20).least), (0, 10));
        let reserve = Reserve::new(Some(256), 20);
        assert!(reserve.admits(100) && reserve.admits(223) && !reserve.admits(224));
        assert!(Reserve::new(None, 20).admits(1 << 20));
    }

    #[test]
    fn a_connection_with_a_number_of_the_reserve_says_that_there_are_too_few() {
        let file = std::fs::File::open("/dev/null").unwrap();
        for (next, is_touched) in [(file.as_raw_fd() + 1, false), (file.as_raw_fd(), true)] {
            let mut reserve = Reserve { first: next, ..Reserve::new(None, 0) };
            reserve.accepted(file.as_fd());
            assert_eq!(reserve.is_touched, is_touched);
        }
    }
}
