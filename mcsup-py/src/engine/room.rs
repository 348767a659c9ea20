//! Connections that are closed to make room for new ones, and for files of bodies.
//!
//! At the limit (`reserve`, `--worker-connections`) a worker does not wait until a connection ends: it closes the one that has
//! been idle for the longest time, and accepts the next. Without that, clients that connect and are silent would keep all
//! others out, and so would those that begin a request and do not go on (408, RFC 9110 15.5.9).

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use mcsup_core::listener::AcceptFailure;

use super::connection::{Connection, Granted, State};
use super::pace;
use super::reserve::Lack;
use super::table::Table;
use crate::http::reject;

/// A connection that has been idle for a shorter time is not closed: its request may be on its way.
const IDLE_AT_LEAST: Duration = Duration::from_millis(100);
/// A head that has not ended after this time counts as idle.
const HEAD_AT_LEAST: Duration = Duration::from_secs(1);
/// How long accepting rests where no connection can be closed.
const REST: Duration = Duration::from_millis(100);
/// The connections that one search selects for closing: at least this number, or a share of all connections.
const SELECTED: usize = 1024;
const SELECTED_SHARE: usize = 16;

impl Table<'_> {
    /// Whether there is room for a connection; where there is none, the longest idle one is closed for it. `false`: none
    /// can be closed, and accepting rests.
    pub(super) fn has_room(&mut self, now: Instant) -> bool {
        let Some(lack) = self.reserve.lack(self.connections.len(), self.host.wake_fd()) else { return true };
        self.reserve.note(&lack, now);
        self.make_room(now)
    }

    /// accept(2) has said that a descriptor or memory is short; whether another attempt may succeed.
    pub(super) fn has_room_after(&mut self, error: &io::Error, now: Instant) -> bool {
        self.reserve.note(&Lack::Either(error), now);
        self.make_room(now)
    }

    /// Logs an error; if it is a shortage, once and not for each request.
    pub(super) fn say_what_fails(&mut self, what: &str, error: &io::Error, now: Instant) {
        if AcceptFailure::of(error) == AcceptFailure::Short {
            self.reserve.note(&Lack::Either(error), now);
        } else {
            log::error!("cannot {what}: {error}");
        }
    }

    /// Whether a body may keep the file that it has opened.
    pub(super) fn may_spool(&mut self, token: u64, now: Instant) -> bool {
        let open = self.connections.len();
        let Some(connection) = self.connections.find(token) else { return true };
        let Granted { spooled: Some(file), has_made_room, .. } = &mut connection.granted else { return true };
        let number = file.as_raw_fd();
        // Room is made once for a file.
        if !self.reserve.has(number, open) || std::mem::replace(has_made_room, true) {
            return true;
        }
        self.make_room_for_file(number, now)
    }

    /// Whether the file of an answer may stay open until its client has taken it.
    pub(super) fn may_keep(&mut self, number: RawFd, now: Instant) -> bool {
        !self.reserve.has(number, self.connections.len()) || self.make_room_for_file(number, now)
    }

    /// Whether a file may have a number of the reserve, for which an idle connection is closed.
    ///
    /// The close makes room for a descriptor with a low number, so it does not admit this file: the next file would take
    /// that number, and no connection would be closed for it.
    fn make_room_for_file(&mut self, number: RawFd, now: Instant) -> bool {
        self.reserve.is_touched = true;
        self.reserve.note(&Lack::Descriptors, now);
        let _ = self.close_idle(now);
        self.reserve.admits(number)
    }

    /// Closes a connection that is idle; otherwise accepting rests until one can be closed.
    fn make_room(&mut self, now: Instant) -> bool {
        match self.close_idle(now) {
            Ok(()) => true,
            Err(until) => {
                self.acceptor.rest(until);
                false
            }
        }
    }

    /// Closes the connection that has been idle for the longest time. `Err`: there is none; when to look again.
    fn close_idle(&mut self, now: Instant) -> Result<(), Instant> {
        let mut may_select = true;
        loop {
            let Some((since, token)) = self.reserve.selected.pop() else {
                let later = self.reserve.searches_at.filter(|at| now < *at);
                if later.is_some() || !std::mem::take(&mut may_select) {
                    return Err(*self.reserve.searches_at.insert(later.unwrap_or(now + REST)));
                }
                self.select_idle(now);
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
            if matches!(connection.state, State::Head | State::Body { .. }) {
                self.refuse(token, reject::TIMEOUT, now);
            }
            self.close(token);
            return Ok(());
        }
    }

    /// Selects the connections to close first.
    ///
    /// The order: lingering, silent, with an unfinished head, with a body without progress. A search visits all
    /// connections and keeps those that may be closed before the next search. That follows after [`REST`], or earlier if
    /// there were too many to keep.
    fn select_idle(&mut self, now: Instant) {
        let mut idle: Vec<_> = self
            .connections
            .iter()
            .filter_map(|connection| {
                let (rank, since) = idle_since(connection)?;
                let closes_at = since + patience(connection);
                // A connection that may not be closed yet comes last in any case.
                (closes_at <= now + REST).then_some((now < closes_at, rank, since, connection.token))
            })
            .collect();
        let most = SELECTED.max(idle.len() / SELECTED_SHARE);
        self.reserve.searches_at = (idle.len() <= most).then_some(now + REST);
        if idle.len() > most {
            idle.select_nth_unstable(most);
            idle.truncate(most);
        }
        idle.sort_unstable_by(|one, other| other.cmp(one));
        self.reserve.selected = idle.into_iter().map(|(_, _, since, token)| (since, token)).collect();
    }
}

/// The rank of a connection (the lowest is closed first) and the begin of its idle time; `None`: it is not idle.
///
/// A body that waits for its turn is not idle: the engine has to continue.
fn idle_since(connection: &Connection) -> Option<(u8, Instant)> {
    match &connection.state {
        State::Lingering(_) => Some((0, connection.since)),
        State::Handshake { .. } | State::Idle { .. } => Some((1, connection.since)),
        State::Head => Some((2, connection.since)),
        State::Body { pace, .. } if !connection.queued => Some((3, pace.since())),
        State::Body { .. } | State::Ready { .. } | State::Flushing { .. } => None,
    }
}

/// For how long it must have been idle.
fn patience(connection: &Connection) -> Duration {
    match connection.state {
        State::Handshake { begun: true } | State::Head => HEAD_AT_LEAST,
        State::Body { .. } => pace::STALLED,
        _ => IDLE_AT_LEAST,
    }
}

/// Whether nothing has arrived that the poller has not reported. Bytes for a lingering one are not used anyway.
fn is_silent(connection: &Connection) -> bool {
    matches!(connection.state, State::Lingering(_)) || !connection.stream.has_unread()
}
