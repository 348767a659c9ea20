//! A supervisor in a process of its own, beside a program with threads.
//!
//! The program's handle is also the way back: the supervisor reports its start and its end there, one JSON object a
//! line. When the last copy of the handle closes, the program has ended, and the pool stops.

use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, WaitOptions, waitpid};
use serde::{Deserialize, Serialize};

use super::Supervisor;
use super::ending::Ending;
use super::prefork::Prefork;
use crate::control::handle::{self, Handle};
use crate::error::{Error, ErrorKind, Result};
use crate::policy::{ExitStatus, Outcome};
use crate::spawn::reap;
use crate::sys::caught;
use crate::sys::fork::{self, Side};

/// A line of the supervisor to the program.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ParentReport {
    /// The listeners are open.
    Started,
    /// The pool has ended.
    Ended { outcome: Option<Outcome>, error: Option<ReportedError> },
}

/// An [`Error`] in a report.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ReportedError {
    kind: ErrorKind,
    message: String,
    detail: Option<String>,
}

impl ParentReport {
    /// The report of an end.
    pub(super) fn ended(ending: &Ending) -> Self {
        let error = ending.error().map(|error| ReportedError {
            kind: error.kind(),
            message: error.to_string(),
            detail: error.detail().map(str::to_owned),
        });
        Self::Ended { outcome: ending.outcome(), error }
    }

    /// Encodes it as a line.
    pub(super) fn to_line(&self) -> Vec<u8> {
        // It has text keys only, so this cannot fail.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

/// A pool in a process of its own, from [`Prefork::spawn`].
///
/// The pool stops gracefully when this value and all clones of its [`handle`](Self::handle) are dropped, or the program
/// has ended: also by SIGKILL.
#[derive(Debug)]
#[must_use = "dropping it stops the pool"]
pub struct Spawned {
    handle: Handle,
    pid: Pid,
    received: Vec<u8>,
    /// The outcome, once it has ended and was reaped.
    ended: Option<Option<Outcome>>,
}

impl Spawned {
    /// A handle on the pool, for any thread.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The process id of the supervisor.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Waits until the pool has ended.
    pub fn wait(mut self) -> Ending {
        loop {
            if let Some(ending) = self.look(None) {
                return ending;
            }
        }
    }

    /// The ending of the pool, if it has ended. Never waits.
    ///
    /// A later call returns the outcome again, without the error.
    pub fn try_wait(&mut self) -> Option<Ending> {
        self.look(Some(Duration::ZERO))
    }

    /// The ending, if it comes within `patience`.
    fn look(&mut self, patience: Option<Duration>) -> Option<Ending> {
        if let Some(outcome) = self.ended {
            return Some(Ending::of_process(outcome, None));
        }
        let report = self.report(patience)?;
        let status = wait_for(self.pid);
        let ending = match report {
            Some(ParentReport::Ended { outcome, error }) => {
                Ending::of_process(outcome, error.map(Error::from))
            }
            Some(ParentReport::Started) | None => Ending::of_process(None, Some(ended_without(status))),
        };
        self.ended = Some(ending.outcome());
        Some(ending)
    }

    /// The next report, if one comes within `patience`; `Some(None)`: there will be none.
    fn report(&mut self, patience: Option<Duration>) -> Option<Option<ParentReport>> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).ok());
            }
            let mut piece = [0; 4096];
            match rustix::io::read(&self.handle, &mut piece) {
                Ok(0) => return Some(None),
                Ok(count) => self.received.extend_from_slice(&piece[..count]),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    let timeout = patience.map(crate::clock::wait_of);
                    let mut source = [PollFd::new(&self.handle, PollFlags::IN)];
                    if matches!(poll(&mut source, timeout.as_ref()), Ok(0)) {
                        return None;
                    }
                }
                Err(_) => return Some(None),
            }
        }
    }
}

impl AsFd for Spawned {
    /// Readable once the pool has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

impl From<ReportedError> for Error {
    fn from(reported: ReportedError) -> Self {
        let error = Error::new(reported.kind, reported.message);
        match reported.detail {
            Some(detail) => error.with_detail(detail),
            None => error,
        }
    }
}

/// Forks a process that runs `pool`, or runs it in this one, which another image has forked.
pub(super) fn spawn<S: Supervisor>(mut pool: Prefork<S>, is_resumed: bool) -> Result<Spawned> {
    if is_resumed {
        run_to_the_end(pool)
    }
    let (handle, end) = handle::pair()?;
    let failed = |error: std::io::Error| Error::system("spawn a supervisor", error);
    match fork::fork().map_err(failed)? {
        Side::Child => {
            caught::leave_in_child();
            reap::leave_in_child();
            pool.serve(end.of_parent());
            run_to_the_end(pool)
        }
        Side::Parent(pid) => {
            drop((pool, end));
            let mut spawned = Spawned { handle, pid, received: Vec::new(), ended: None };
            match spawned.report(None) {
                Some(Some(ParentReport::Started)) => Ok(spawned),
                Some(Some(ParentReport::Ended { error: Some(error), .. })) => {
                    wait_for(pid);
                    Err(error.into())
                }
                _ => Err(ended_without(wait_for(pid))),
            }
        }
    }
}

/// Runs the pool, reports to the program, and ends this process with the exit code of the pool.
fn run_to_the_end<S: Supervisor>(pool: Prefork<S>) -> ! {
    let code = catch_unwind(AssertUnwindSafe(|| pool.run_and_report().code()));
    log::logger().flush();
    fork::exit_now(code.map_or(1, i32::from))
}

/// Waits for the end of a child; `None`: other code has reaped it.
fn wait_for(pid: Pid) -> Option<ExitStatus> {
    loop {
        match waitpid(Some(pid), WaitOptions::empty()) {
            Ok(Some((_, status))) => return Some(reap::read(status)),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// The error of a supervisor that has not reported its end.
fn ended_without(status: Option<ExitStatus>) -> Error {
    let how = status.map_or_else(|| "an unknown status".to_owned(), |status| status.to_string());
    Error::new(ErrorKind::System, format!("the supervisor process ended without a report, with {how}"))
}
