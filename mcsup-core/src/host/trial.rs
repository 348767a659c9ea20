//! A function that runs once in a child process, within a time limit.
//!
//! The child is for code that may end its process, hang, or leave threads behind: this process stays as it is.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};
use serde::{Deserialize, Serialize};

use super::handle::Handle;
use super::privileges::RunAs;
use super::relatives::{self, Relative};
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::fork::{self, Side};
use crate::sys::{credentials, descriptor, forked, signal};

/// The interval between checks whether the child has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The time between SIGABRT and SIGKILL, in which a handler may write the stacks.
const ABORT_TIME: Duration = Duration::from_secs(1);

/// The result of the function, as the child sends it.
#[derive(Debug, Serialize, Deserialize)]
struct Report {
    failure: Option<Failure>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Failure {
    /// Whether the application could not be loaded.
    is_application: bool,
    message: String,
    detail: Option<String>,
}

/// How the child ended.
#[derive(Debug)]
enum End {
    Status(WaitStatus),
    /// Its status was lost: the kernel reaps each child where SIGCHLD is ignored, which an exec keeps (sigaction(2)).
    Unknown,
    /// It was killed at the limit.
    Killed,
}

/// Runs `function` once in a child process, as `run_as` if given, for at most `limit`.
///
/// At the limit the child gets SIGABRT, and a second later it and its descendants get SIGKILL. `hooks` runs around
/// the fork, for a host language: `hooks(None)` before, `hooks(Some(true))` after it in the child,
/// `hooks(Some(false))` after it in the parent. The process needs to have one thread.
///
/// # Errors
/// The error of `function`, of the kind [`ErrorKind::Application`] or else [`ErrorKind::Boot`]; of the latter kind
/// also where the child ended before `function` returned, or did not end within the limit.
pub fn run(
    limit: Duration,
    run_as: Option<&RunAs>,
    hooks: impl Fn(Option<bool>),
    function: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let failed = |step: &str, error: std::io::Error| Error::system(step, error);
    let (ours, theirs) = descriptor::pipe(true).map_err(|error| failed("make a pipe", error))?;
    let parent = rustix::process::getpid();
    hooks(None);
    let side = fork::fork();
    hooks(Some(matches!(side, Ok(Side::Child))));
    match side.map_err(|error| failed("fork", error))? {
        Side::Child => {
            drop(ours);
            be_the_child(parent, theirs, run_as, function)
        }
        Side::Parent(child) => {
            drop(theirs);
            let (end, report) = wait(child, ours, limit);
            outcome(&end, &report, limit)
        }
    }
}

/// The child: runs the function, reports, and ends.
fn be_the_child(
    parent: Pid,
    pipe: OwnedFd,
    run_as: Option<&RunAs>,
    function: impl FnOnce() -> Result<()>,
) -> ! {
    let result = catch_unwind(AssertUnwindSafe(|| {
        // A worker can wait for its children, whatever the parent of its supervisor ignores.
        signal::stop_ignoring(Signal::CHILD.as_raw());
        forked::watch().map_err(|error| Error::system("watch for forks", error))?;
        if let Some(RunAs(wanted)) = run_as {
            credentials::drop_to(wanted)
                .map_err(|error| Error::system("drop privileges", error).of_kind(ErrorKind::Privileges))?;
        }
        // The kernel clears it at a change of user.
        die_with(parent);
        function()
    }));
    // A process that the function has forked, and that has returned from it, has no result of its own.
    if forked::is_forked_off() {
        fork::exit_now(0);
    }
    // The log has the text of the panic.
    let result = result.unwrap_or_else(|_| Err(Error::new(ErrorKind::Boot, "it panicked")));
    let failure = result.err().map(|error| Failure {
        is_application: error.kind() == ErrorKind::Application,
        message: error.to_string(),
        detail: error.detail().map(str::to_owned),
    });
    send(pipe, &Report { failure });
    fork::exit_now(0);
}

/// Sends the length and the text of a report. A parent that is gone needs none.
fn send(pipe: OwnedFd, report: &Report) {
    let text = serde_json::to_vec(report).unwrap_or_default();
    let _ = rustix::io::ioctl_fionbio(&pipe, false);
    let mut pipe = File::from(pipe);
    let _ = pipe.write_all(&(text.len() as u64).to_le_bytes());
    let _ = pipe.write_all(&text);
}

/// Ends this process with its parent, where the kernel can do so.
#[cfg(target_os = "linux")]
pub(super) fn die_with(parent: Pid) {
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::TERM));
    if rustix::process::getppid() != Some(parent) {
        fork::exit_now(1);
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn die_with(_: Pid) {}

/// Reads the report until the child has ended, or kills it at the limit.
fn wait(child: Pid, pipe: OwnedFd, limit: Duration) -> (End, Vec<u8>) {
    let begin = Instant::now();
    let handle = Handle::open(child.as_raw_nonzero().get()).ok();
    let (mut pipe, mut report) = (File::from(pipe), Vec::new());
    loop {
        let ended = ended(child);
        // Copies of the other end may be open in processes that the child has left: the pipe need not end.
        let is_open = read_available(&mut pipe, &mut report);
        if let Some(end) = ended {
            return (end, report);
        }
        let left = limit.saturating_sub(begin.elapsed());
        if left.is_zero() {
            kill(child, handle.as_ref());
            return (End::Killed, report);
        }
        let timeout = clock::wait_of(left.min(LOOK_EVERY));
        if is_open {
            let _ = poll(&mut [PollFd::new(&pipe.as_fd(), PollFlags::IN)], Some(&timeout));
        } else {
            std::thread::sleep(left.min(LOOK_EVERY));
        }
    }
}

/// Reads without waiting; `false`: the pipe has ended.
fn read_available(pipe: &mut File, report: &mut Vec<u8>) -> bool {
    match pipe.read_to_end(report) {
        Ok(_) => false,
        Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
    }
}

/// The end of a child, which it reaps; `None`: it runs.
fn ended(child: Pid) -> Option<End> {
    match waitpid(Some(child), WaitOptions::NOHANG) {
        Ok(Some((_, status))) => Some(End::Status(status)),
        Ok(None) | Err(Errno::INTR) => None,
        // It is no child any more.
        Err(_) => Some(End::Unknown),
    }
}

/// Ends the child and its descendants, and reaps the child.
fn kill(child: Pid, handle: Option<&Handle>) {
    // Where the kernel reaps it, another process may have its pid since then.
    let send = |signal| match handle {
        Some(handle) => handle.signal(signal),
        None => kill_process(child, signal).map_err(Into::into),
    };
    let _ = send(Signal::ABORT);
    let begin = Instant::now();
    let mut descendants: Vec<Relative> = Vec::new();
    while begin.elapsed() < ABORT_TIME {
        let now = relatives::below(child.as_raw_nonzero().get(), &[]);
        // They lose their parent with its end, and are not found below it then.
        if !now.is_empty() {
            descendants = now;
        }
        if ended(child).is_some() {
            return kill_all(&descendants);
        }
        std::thread::sleep(LOOK_EVERY);
    }
    let _ = send(Signal::KILL);
    kill_all(&descendants);
    let _ = waitpid(Some(child), WaitOptions::empty());
}

fn kill_all(descendants: &[Relative]) {
    for handle in descendants.iter().filter_map(Relative::hold) {
        // It may have ended meanwhile.
        let _ = handle.kill();
    }
}

fn outcome(end: &End, bytes: &[u8], limit: Duration) -> Result<()> {
    let boot = |message: String| Err(Error::new(ErrorKind::Boot, message));
    match (end, report_in(bytes)) {
        (End::Killed, _) => boot(format!("not done within {limit:?}")),
        (_, Some(Report { failure: None })) => Ok(()),
        (_, Some(Report { failure: Some(failure) })) => {
            let kind = if failure.is_application { ErrorKind::Application } else { ErrorKind::Boot };
            let error = Error::new(kind, failure.message);
            Err(match failure.detail {
                Some(detail) => error.with_detail(detail),
                None => error,
            })
        }
        (End::Unknown, None) => {
            boot("the process ended before it was done: its status is not known".to_owned())
        }
        (End::Status(status), None) => {
            let how = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => format!("exit code {code}"),
                (None, signal) => format!("signal {}", signal.unwrap_or_default()),
            };
            boot(format!("the process ended before it was done: {how}"))
        }
    }
}

/// The report; `None`: the child has sent none, or a part.
fn report_in(bytes: &[u8]) -> Option<Report> {
    let (length, text) = bytes.split_first_chunk()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    serde_json::from_slice(text.get(..length)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The status that waitpid(2) reports for an exit with `code`.
    fn exited(code: i32) -> End {
        let mut child =
            std::process::Command::new("sh").args(["-c", &format!("exit {code}")]).spawn().unwrap();
        let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
        let (_, status) = waitpid(Some(pid), WaitOptions::empty()).unwrap().unwrap();
        let _ = child.wait();
        End::Status(status)
    }

    fn sent(report: &Report) -> Vec<u8> {
        let (ours, theirs) = descriptor::pipe(false).unwrap();
        send(theirs, report);
        let mut bytes = Vec::new();
        File::from(ours).read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_report_decides_and_an_end_without_one_is_a_failure() {
        let limit = Duration::from_secs(3);
        assert!(outcome(&exited(0), &sent(&Report { failure: None }), limit).is_ok());
        let failure = Failure {
            is_application: true,
            message: "no module".to_owned(),
            detail: Some("Traceback".to_owned()),
        };
        let bytes = sent(&Report { failure: Some(failure) });
        let error = outcome(&exited(0), &bytes, limit).unwrap_err();
        assert_eq!((error.kind(), error.detail()), (ErrorKind::Application, Some("Traceback")));
        for bytes in [&[][..], &bytes[..bytes.len() - 1], &[0xff; 8]] {
            let error = outcome(&exited(7), bytes, limit).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Boot);
            assert_eq!(error.to_string(), "the process ended before it was done: exit code 7");
        }
        let error = outcome(&End::Killed, &[], limit).unwrap_err();
        assert_eq!(error.to_string(), "not done within 3s");
    }

    #[test]
    fn the_result_arrives_where_the_kernel_reaps_the_child() {
        fork::in_a_process(|| {
            signal::dispose(Signal::CHILD.as_raw(), &signal::Disposition::ignored()).unwrap();
            let (begin, limit) = (Instant::now(), Duration::from_secs(60));
            run(limit, None, |_| (), || Ok(())).unwrap();
            let refused = run(limit, None, |_| (), || Err(Error::new(ErrorKind::Application, "no module")));
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::Application);
            let ended = run(limit, None, |_| (), || fork::exit_now(0)).unwrap_err();
            let expected = "the process ended before it was done: its status is not known";
            assert_eq!(ended.to_string(), expected);
            // It can wait for children of its own, as a worker can.
            run(
                limit,
                None,
                |_| (),
                || {
                    let status = std::process::Command::new("true").status();
                    status.map(drop).map_err(|error| Error::system("wait", error))
                },
            )
            .unwrap();
            assert!(begin.elapsed() < limit);
            let endless = || -> Result<()> {
                loop {
                    std::thread::park();
                }
            };
            let late = run(Duration::from_millis(100), None, |_| (), endless).unwrap_err();
            assert!(late.to_string().starts_with("not done within"));
        });
    }
}
