//! The descriptors that are left to the application, and connections that are closed to make room for new ones.
//!
//! The kernel gives each new descriptor the lowest free number (POSIX, open). So the number of an accepted connection is at
//! most the number of open descriptors, also of those that the application has opened, and no call is needed to count
//! them. Connections take numbers below the reserve. Files for request bodies may take half of it, since each upload has two
//! descriptors; the rest is for the application alone.
//!
//! At the limit a worker does not wait until a connection ends: it closes the one that has been idle for the longest time,
//! and accepts the next. Without that, clients that connect and are silent would keep all others out.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use mcsup_core::listener::AcceptFailure;
use rustix::process::{Resource, getrlimit};

use super::connection::{Connection, State};
use super::table::Table;
use crate::http::reject;

/// How many descriptors are left to the application.
const RESERVE: u64 = 64;
/// So many connections there may always be, also where the application has opened more than the reserve.
const CONNECTIONS: u64 = 16;
/// A connection that has been idle for a shorter time is not closed: its request may be on its way.
const IDLE_AT_LEAST: Duration = Duration::from_millis(100);
/// A head that has not ended after this time counts as idle.
const HEAD_AT_LEAST: Duration = Duration::from_secs(1);
/// How long accepting rests where no connection can be closed.
const REST: Duration = Duration::from_millis(100);
/// A shortage is over when nothing was lacking for this time. It bounds the number of lines in the log.
const CALM: Duration = Duration::from_secs(5);
/// The connections that one search selects for closing: at least this number, or a share of all connections.
const SELECTED: usize = 1024;
const SELECTED_SHARE: usize = 16;

/// The room for connections.
#[derive(Debug)]
pub(super) struct Reserve {
    /// The first descriptor of the application's; `RawFd::MAX`: there is no limit.
    first: RawFd,
    /// All descriptors.
    limit: u64,
    /// How many connections there may be in spite of a shortage.
    least: usize,
    /// A connection has got a number of the reserve, and since then there may be too few.
    is_touched: bool,
    /// When room was last lacking, while the log says that it is; `None`: it does not say so.
    lacked: Option<Instant>,
    /// Connections to close, the next one last, with the moment since which each was idle when it was selected.
    selected: Vec<(Instant, u64)>,
}

/// What there is not enough of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lack {
    Connections,
    Descriptors,
}

impl Reserve {
    /// For a process with this limit of descriptors, whose next descriptor will have the number `next`.
    fn new(limit: Option<u64>, next: RawFd) -> Self {
        // Of few descriptors the application gets half.
        let half = limit.unwrap_or(u64::MAX).saturating_sub(u64::try_from(next).unwrap_or(0)) / 2;
        let first = limit.and_then(|limit| RawFd::try_from(limit - RESERVE.min(half)).ok());
        Self {
            least: usize::try_from(CONNECTIONS.min(half)).unwrap_or(0),
            first: first.unwrap_or(RawFd::MAX),
            limit: limit.unwrap_or(u64::MAX),
            is_touched: false,
            lacked: None,
            selected: Vec::new(),
        }
    }

    /// For this process; `any`: a descriptor of it.
    pub(super) fn of_this_process(any: BorrowedFd<'_>) -> Self {
        let limit = getrlimit(Resource::Nofile).current;
        match next_number(any) {
            Some(next) => Self::new(limit, next),
            None => Self::new(None, 0),
        }
    }

    /// A connection was accepted.
    pub(super) fn accepted(&mut self, connection: BorrowedFd<'_>) {
        if connection.as_raw_fd() >= self.first {
            self.is_touched = true;
        }
    }

    /// Whether a file for a body may have a number of the reserve.
    fn admits(&self, number: RawFd) -> bool {
        let most = RawFd::try_from(self.limit).unwrap_or(RawFd::MAX);
        number < self.first + most.saturating_sub(self.first) / 2
    }
}

/// The number that the next descriptor will have; `None`: none is left.
fn next_number(any: BorrowedFd<'_>) -> Option<RawFd> {
    Some(rustix::io::fcntl_dupfd_cloexec(any, 0).ok()?.as_raw_fd())
}

impl Table<'_> {
    /// Whether there is room for a connection; where there is none, the longest idle one is closed for it. `false`: none
    /// can be closed, and accepting rests.
    pub(super) fn has_room(&mut self, now: Instant) -> bool {
        let Some(lack) = self.lack() else { return true };
        self.say_lack(lack, now);
        self.make_room(now)
    }

    /// accept(2) has said that a descriptor or memory is short; whether another attempt may succeed.
    pub(super) fn has_room_after(&mut self, error: &io::Error, now: Instant) -> bool {
        self.say_shortage(error, now);
        self.make_room(now)
    }

    /// Whether an error is a shortage, which the log tells of once and not for each request.
    pub(super) fn is_told_shortage(&mut self, error: &io::Error, now: Instant) -> bool {
        let is_shortage = AcceptFailure::of(error) == AcceptFailure::Short;
        if is_shortage {
            self.say_shortage(error, now);
        }
        is_shortage
    }

    fn say_shortage(&mut self, error: &io::Error, now: Instant) {
        if self.reserve.lacked.replace(now).is_none() {
            log::warn!(
                "no room for connections and bodies ({error}): idle connections are closed for new ones"
            );
        }
    }

    fn lack(&mut self) -> Option<Lack> {
        let (most, open) = (self.config.connections, self.connections.len());
        if most > 0 && open >= most {
            return Some(Lack::Connections);
        }
        if !self.reserve.is_touched || open < self.reserve.least {
            return None;
        }
        let next = next_number(self.host.wake_fd());
        self.reserve.is_touched = next.is_none_or(|next| next >= self.reserve.first);
        self.reserve.is_touched.then_some(Lack::Descriptors)
    }

    fn say_lack(&mut self, lack: Lack, now: Instant) {
        if self.reserve.lacked.replace(now).is_some() {
            return;
        }
        let Reserve { first, limit, .. } = self.reserve;
        match lack {
            Lack::Connections => {
                let open = self.connections.len();
                log::warn!(
                    "{open} connections are open, as many as there may be: idle ones are closed for new ones"
                );
            }
            Lack::Descriptors => log::warn!(
                "{first} of {limit} descriptors are open, and the others are left to the application: idle connections \
                 are closed for new ones"
            ),
        }
    }

    /// Says that a shortage is over.
    pub(super) fn end_shortage(&mut self, now: Instant) {
        let Some(lacked) = self.reserve.lacked else { return };
        if now.saturating_duration_since(lacked) < CALM {
            return;
        }
        if self.lack().is_some() {
            self.reserve.lacked = Some(now);
            return;
        }
        self.reserve.lacked = None;
        self.reserve.selected = Vec::new();
        log::info!("there is room for connections again");
    }

    /// Whether the file may stay that the body of a connection has got. For one in the reserve an idle connection is closed.
    pub(super) fn may_spool(&mut self, token: u64, now: Instant) -> bool {
        let Some(connection) = self.connections.find(token) else { return true };
        let Some(number) = connection.spooled.as_ref().map(|file| file.as_raw_fd()) else { return true };
        if self.connections.len() <= self.reserve.least {
            return true;
        }
        let Some(connection) = self.connections.find(token) else { return true };
        // Room is made once for a file.
        if number < self.reserve.first || std::mem::replace(&mut connection.has_made_room, true) {
            return true;
        }
        self.reserve.is_touched = true;
        self.say_lack(Lack::Descriptors, now);
        self.close_idle(now).is_ok() || self.reserve.admits(number)
    }

    /// Closes a connection that is idle; otherwise accepting rests until one can be closed.
    fn make_room(&mut self, now: Instant) -> bool {
        match self.close_idle(now) {
            Ok(()) => true,
            Err(until) => {
                self.rest(until);
                false
            }
        }
    }

    /// Closes the connection that has been idle for the longest time. `Err`: there is none; when to look again.
    fn close_idle(&mut self, now: Instant) -> Result<(), Instant> {
        let mut may_select = true;
        loop {
            let Some((since, token)) = self.reserve.selected.pop() else {
                if !std::mem::take(&mut may_select) {
                    return Err(now + REST);
                }
                self.reserve.selected = self.select_idle(now);
                continue;
            };
            let Some(connection) = self.connections.find(token) else { continue };
            match idle_since(connection) {
                Some((_, at)) if at == since && is_silent(connection) => {}
                _ => continue,
            }
            let at_least = patience(connection);
            if now < since + at_least {
                self.reserve.selected.push((since, token));
                return Err((since + at_least).min(now + REST));
            }
            if matches!(connection.state, State::Head) {
                self.refuse(token, reject::TIMEOUT, now);
            }
            self.close(token);
            return Ok(());
        }
    }

    /// The connections to close first: those that linger, then those that are silent, then those with an unfinished head.
    fn select_idle(&self, now: Instant) -> Vec<(Instant, u64)> {
        let mut idle: Vec<_> = self
            .connections
            .iter()
            .filter_map(|connection| {
                let (rank, since) = idle_since(connection)?;
                // One that may not be closed yet comes last, whatever it is.
                let is_early = now < since + patience(connection);
                Some((is_early, rank, since, connection.token))
            })
            .collect();
        let most = SELECTED.max(idle.len() / SELECTED_SHARE);
        if idle.len() > most {
            idle.select_nth_unstable(most);
            idle.truncate(most);
        }
        idle.sort_unstable_by(|one, other| other.cmp(one));
        idle.into_iter().map(|(_, _, since, token)| (since, token)).collect()
    }
}

/// How early a connection is closed to make room, lower is earlier, and since when it has been idle; `None`: it is not idle.
fn idle_since(connection: &Connection) -> Option<(u8, Instant)> {
    let rank = match connection.state {
        State::Lingering(_) => 0,
        State::Idle { .. } => 1,
        State::Head => 2,
        State::Body { .. } | State::Ready { .. } | State::Flushing { .. } => return None,
    };
    Some((rank, connection.since))
}

/// For how long it must have been idle.
fn patience(connection: &Connection) -> Duration {
    if matches!(connection.state, State::Head) { HEAD_AT_LEAST } else { IDLE_AT_LEAST }
}

/// Whether nothing has arrived that the poller has not told of. What a lingering one sends is not used anyway.
fn is_silent(connection: &Connection) -> bool {
    matches!(connection.state, State::Lingering(_)) || !connection.stream.has_unread()
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
