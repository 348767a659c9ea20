//! A supervisor in a process of its own, beside a program with threads.
//!
//! The program's handle is also the way back: the supervisor reports its start and its end there, one JSON object a
//! line. When the last copy of the handle closes, the program has ended, and the pool stops.

pub(super) mod processes;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, getpid};
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

/// The longest report, in bytes. The buffer of the socket has room for it: the program may not read before the end.
const MAX_REPORT: usize = 64 * 1024;

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

    /// Encodes it as a line. The texts of a long one are cut.
    pub(super) fn into_line(mut self) -> Vec<u8> {
        loop {
            // It has text keys only, so this cannot fail.
            let mut line = serde_json::to_vec(&self).unwrap_or_default();
            line.push(b'\n');
            match &mut self {
                Self::Ended { error: Some(error), .. } if line.len() > MAX_REPORT => error.halve(),
                _ => return line,
            }
        }
    }
}

impl ReportedError {
    /// Cuts the longer text at its middle.
    fn halve(&mut self) {
        let text = match &mut self.detail {
            Some(detail) if detail.len() > self.message.len() => detail,
            _ => &mut self.message,
        };
        let middle = (0..=text.len() / 2).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(middle.unwrap_or(0));
        text.push('…');
    }
}

/// A pool in a process of its own, from [`Prefork::spawn`].
///
/// The pool stops gracefully when this value and all clones of its [`handle`](Self::handle) are dropped, or the program
/// has ended: also by SIGKILL. A stop that has begun before goes on as it is. After a drop a later
/// [`spawn`](Prefork::spawn) reaps the process.
#[derive(Debug)]
#[must_use = "dropping it stops the pool"]
pub struct Spawned {
    handle: Handle,
    pid: Pid,
    received: Vec<u8>,
    /// The last report, once it is there; `None` in it: there was none.
    last_report: Option<Option<ParentReport>>,
    /// The outcome, once it has ended and was reaped.
    ended: Option<Option<Outcome>>,
}

impl Spawned {
    fn new(handle: Handle, pid: Pid) -> Self {
        Self { handle, pid, received: Vec::new(), last_report: None, ended: None }
    }

    /// The value for a call that another call's pool is taken over instead of.
    pub(super) fn passed_over() -> Result<Self> {
        let (handle, _) = handle::pair()?;
        let mut spawned = Self::new(handle, getpid());
        spawned.ended = Some(Some(Outcome::Stopped));
        Ok(spawned)
    }

    /// A handle on the pool, for any thread.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The process id of the supervisor; in a new image that another call takes over, that of this process.
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
        if self.last_report.is_none() {
            self.last_report = Some(self.report(patience)?);
        }
        let status = match patience {
            None => processes::wait(self.pid),
            // After its report the process may take a time to end.
            Some(_) => processes::try_wait(self.pid)?,
        };
        let ending = match self.last_report.take().flatten() {
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

impl Drop for Spawned {
    fn drop(&mut self) {
        if self.ended.is_none() {
            processes::abandon(self.pid);
        }
    }
}

impl AsFd for Spawned {
    /// Readable once the pool has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

impl AsRawFd for Spawned {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
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

/// Forks a process that runs `pool`.
pub(super) fn spawn<S: Supervisor>(mut pool: Prefork<S>) -> Result<Spawned> {
    let (handle, mut end) = handle::pair()?;
    end.share();
    pool.share_descriptors();
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
            processes::add(pid);
            let mut spawned = Spawned::new(handle, pid);
            let report = spawned.report(None).flatten();
            if matches!(report, Some(ParentReport::Started)) {
                return Ok(spawned);
            }
            let status = processes::wait(pid);
            spawned.ended = Some(None);
            Err(match report {
                Some(ParentReport::Ended { error: Some(error), .. }) => error.into(),
                _ => ended_without(status),
            })
        }
    }
}

/// Runs the pool, reports to the program, and ends this process with the exit code of the pool.
pub(super) fn run_to_the_end<S: Supervisor>(pool: Prefork<S>) -> ! {
    let code = catch_unwind(AssertUnwindSafe(|| pool.run_and_report().code()));
    log::logger().flush();
    fork::exit_now(code.map_or(1, i32::from))
}

/// The error of a supervisor that has not reported its end.
fn ended_without(status: Option<ExitStatus>) -> Error {
    let how = status.map_or_else(|| "an unknown status".to_owned(), |status| status.to_string());
    Error::new(ErrorKind::System, format!("the supervisor process ended without a report, with {how}"))
}

#[cfg(test)]
#[allow(clippy::zombie_processes, reason = "`processes` waits for them")]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    /// A child in the place of a supervisor, and the end of the handle that it would have.
    fn spawned() -> (Spawned, Child, crate::control::handle_end::HandleEnd) {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let (handle, end) = handle::pair().unwrap();
        let pid = Pid::from_child(&child);
        processes::add(pid);
        (Spawned::new(handle, pid), child, end)
    }

    fn stopped() -> ParentReport {
        ParentReport::ended(&Ending::of(Outcome::Stopped, None))
    }

    #[test]
    fn a_look_at_a_supervisor_that_has_reported_and_not_ended_does_not_wait() {
        let (mut spawned, mut child, end) = spawned();
        assert!(spawned.try_wait().is_none());
        end.report(&stopped().into_line());
        drop(end);
        let begin = std::time::Instant::now();
        assert!(spawned.try_wait().is_none() && begin.elapsed() < Duration::from_secs(30));
        child.kill().unwrap();
        let ending = loop {
            if let Some(ending) = spawned.try_wait() {
                break ending;
            }
        };
        assert_eq!(ending.outcome(), Some(Outcome::Stopped));
        assert_eq!(spawned.wait().outcome(), Some(Outcome::Stopped));
    }

    #[test]
    fn a_dropped_supervisor_that_has_ended_is_reaped_at_the_next_spawn() {
        let (first, mut child, _end) = spawned();
        let pid = first.pid;
        drop(first);
        assert!(processes::any_runs() && reap::is_child(pid));
        child.kill().unwrap();
        let (second, mut other, _end) = loop {
            let next = spawned();
            if !reap::is_child(pid) {
                break next;
            }
            let (_, mut child, _) = next;
            child.kill().unwrap();
        };
        other.kill().unwrap();
        while processes::any_runs() {
            std::thread::yield_now();
        }
        let pid = second.pid;
        drop(second);
        assert!(!reap::is_child(pid));
    }

    #[test]
    fn a_long_report_is_cut_and_has_its_outcome() {
        let error =
            Error::new(ErrorKind::Application, "no application").with_detail("\u{1}é".repeat(300_000));
        let outcome = Some(Outcome::BootFailed(ErrorKind::Application));
        let line = ParentReport::ended(&Ending::of_process(outcome, Some(error))).into_line();
        assert!(line.len() <= MAX_REPORT && line.len() > MAX_REPORT / 4, "{}", line.len());
        let Ok(ParentReport::Ended { outcome: found, error: Some(error) }) = serde_json::from_slice(&line)
        else {
            panic!()
        };
        let error = Error::from(error);
        assert_eq!((found, error.to_string().as_str()), (outcome, "no application"));
        assert!(error.detail().unwrap().ends_with("é…"));
    }
}
