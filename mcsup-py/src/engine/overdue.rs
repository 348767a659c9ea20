//! Requests over their deadline: their log record, their answer, and the replacement of the worker.
//!
//! At the deadline the log gets the request and the stacks of all threads. The client gets 504, unless it has a part of
//! an answer already. The worker requests its replacement, and finishes its other requests. A thread cannot be taken out
//! of an application, so the request itself continues until it or the process ends.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Host;
use super::answer_race::AnswerRace;
use super::jobs::Job;
use super::table::Table;
use crate::http::target::shown;
use crate::net::timers::after;

/// The request of a permit.
#[derive(Debug)]
pub(super) struct Running {
    /// The connection whose request it is; `None`: nothing.
    token: Option<u64>,
    since: Instant,
    /// Method and target.
    line: Vec<u8>,
    remote: Option<SocketAddr>,
    /// Its deadline has come.
    overdue: bool,
    /// It has no deadline any more: the application has its connection.
    is_taken: bool,
}

/// Bytes of a target in a log record.
const LONGEST_TARGET: usize = 200;

impl Running {
    pub(super) fn nothing(now: Instant) -> Self {
        Self { token: None, since: now, line: Vec::new(), remote: None, overdue: false, is_taken: false }
    }

    /// `watched`: the request has a deadline, so its name may be needed.
    pub(super) fn begin(&mut self, job: &Job, watched: bool, now: Instant) {
        self.line.clear();
        if watched {
            let head = job.head();
            self.line.extend_from_slice(head.method().as_bytes());
            self.line.push(b' ');
            self.line.extend(head.target().iter().take(LONGEST_TARGET));
        }
        (self.token, self.since, self.remote) = (Some(job.connection.token), now, job.connection.peer.remote);
        (self.overdue, self.is_taken) = (false, false);
    }

    /// Whether its deadline is still to come.
    fn has_deadline(&self) -> bool {
        !self.overdue && !self.is_taken
    }

    /// The connection whose request it is.
    pub(super) fn token(&self) -> Option<u64> {
        self.token
    }

    fn is_head(&self) -> bool {
        self.line.starts_with(b"HEAD ")
    }

    pub(super) fn end(&mut self) {
        self.token = None;
    }
}

impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.line))?;
        match self.remote {
            Some(remote) => write!(f, " from {remote}"),
            None => Ok(()),
        }
    }
}

/// When the oldest of the requests began.
pub(super) fn oldest(running: &[Running]) -> Option<Instant> {
    running.iter().filter(|running| running.token.is_some()).map(|running| running.since).min()
}

/// When the next request will have taken `limit`.
pub(super) fn next_deadline(running: &[Running], limit: Duration) -> Option<Instant> {
    let waiting = running.iter().filter(|running| running.token.is_some() && running.has_deadline());
    waiting.map(|running| after(running.since, limit)).min()
}

/// Handles the requests that have taken `limit` or more.
pub(super) fn handle<'r>(
    running: &mut [Running],
    races: impl Iterator<Item = &'r AnswerRace>,
    limit: Duration,
    table: &mut Table<'_>,
    host: &dyn Host,
    now: Instant,
) {
    for (running, race) in running.iter_mut().zip(races) {
        let is_due = running.has_deadline() && now >= after(running.since, limit);
        let Some(token) = running.token.filter(|_| is_due) else { continue };
        if race.is_taken() {
            running.is_taken = true;
            continue;
        }
        running.overdue = true;
        let told = if race.expire() && table.answer_overdue(token, running.is_head(), now) {
            "its client was told (504)"
        } else {
            "its client has a part of the answer"
        };
        let seconds = (now - running.since).as_secs_f64();
        let reason = format!("{running} has taken {seconds:.1} s, over the request timeout; {told}");
        log::error!("{reason}; the stacks of all threads follow");
        host.dump_stacks();
        host.leave(&reason);
    }
    let is_stuck = |running: &Running| running.token.is_some() && running.overdue;
    if running.iter().all(is_stuck) {
        table.give_up_waiting(now);
    }
}
