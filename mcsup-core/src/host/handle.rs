//! A handle on a process that is not a child. A signal through it never reaches another process with the same
//! pid.

use std::io;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::policy::ExitStatus;

/// A handle on a process.
#[derive(Debug)]
pub struct Handle {
    pid: Pid,
    #[cfg(all(target_os = "linux", not(mcsup_force_fallback)))]
    fd: std::os::fd::OwnedFd,
}

/// The interval between checks where the kernel has no pidfd.
#[cfg(any(not(target_os = "linux"), mcsup_force_fallback))]
const LOOK_EVERY: Duration = Duration::from_millis(20);

impl Handle {
    /// Opens a handle on a process.
    ///
    /// # Errors
    /// `NotFound`: there is no such process.
    pub fn open(pid: i32) -> io::Result<Self> {
        let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::NotFound)?;
        #[cfg(all(target_os = "linux", not(mcsup_force_fallback)))]
        {
            use rustix::process::{PidfdFlags, pidfd_open};
            match pidfd_open(pid, PidfdFlags::empty()) {
                Ok(fd) => Ok(Self { pid, fd }),
                Err(rustix::io::Errno::SRCH) => Err(io::ErrorKind::NotFound.into()),
                Err(error) => Err(error.into()),
            }
        }
        #[cfg(any(not(target_os = "linux"), mcsup_force_fallback))]
        match rustix::process::test_kill_process(pid) {
            Err(rustix::io::Errno::SRCH) => Err(io::ErrorKind::NotFound.into()),
            _ => Ok(Self { pid }),
        }
    }

    /// The process's id.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Asks it to end gracefully (SIGTERM).
    pub fn terminate(&self) -> io::Result<()> {
        self.signal(Signal::TERM)
    }

    /// Asks it to end at once (SIGINT).
    pub fn interrupt(&self) -> io::Result<()> {
        self.signal(Signal::INT)
    }

    /// Ends it, whatever it does (SIGKILL).
    pub(crate) fn kill(&self) -> io::Result<()> {
        self.signal(Signal::KILL)
    }

    /// Sends it a signal.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        #[cfg(all(target_os = "linux", not(mcsup_force_fallback)))]
        return Ok(rustix::process::pidfd_send_signal(&self.fd, signal)?);
        #[cfg(any(not(target_os = "linux"), mcsup_force_fallback))]
        Ok(rustix::process::kill_process(self.pid, signal)?)
    }

    /// The exit status of this process, a child that has ended, once; `None`: it runs.
    pub(super) fn reap(&self) -> Option<ExitStatus> {
        #[cfg(all(target_os = "linux", not(mcsup_force_fallback)))]
        {
            use rustix::io::Errno;
            use rustix::process::{WaitId, WaitIdOptions, waitid};
            let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            match waitid(WaitId::PidFd(std::os::fd::AsFd::as_fd(&self.fd)), look) {
                Ok(Some(status)) => Some(match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => ExitStatus::Code(code),
                    (None, signal) => ExitStatus::Signal(signal.unwrap_or_default()),
                }),
                Ok(None) | Err(Errno::INTR) => None,
                // Other code in this process has reaped it, and its status is lost.
                Err(_) => Some(ExitStatus::Code(-1)),
            }
        }
        #[cfg(any(not(target_os = "linux"), mcsup_force_fallback))]
        super::helper::reap_by_pid(self.pid)
    }

    /// Waits until it has ended; `false`: it had not by `deadline` (`None`: no limit).
    pub fn wait(&self, deadline: Option<Instant>) -> bool {
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if self.ends_within(left) {
                return true;
            }
            if left.is_some_and(|left| left.is_zero()) {
                return false;
            }
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.ends_within(Some(Duration::ZERO))
    }

    /// Waits for its end, for at most `patience`.
    #[cfg(all(target_os = "linux", not(mcsup_force_fallback)))]
    fn ends_within(&self, patience: Option<Duration>) -> bool {
        use rustix::event::{PollFd, PollFlags, poll};
        let timeout = patience.map(crate::clock::wait_of);
        let mut sources = [PollFd::new(&self.fd, PollFlags::IN)];
        matches!(poll(&mut sources, timeout.as_ref()), Ok(1..))
    }

    #[cfg(any(not(target_os = "linux"), mcsup_force_fallback))]
    fn ends_within(&self, patience: Option<Duration>) -> bool {
        let ended = || rustix::process::test_kill_process(self.pid) == Err(rustix::io::Errno::SRCH);
        if !ended() {
            std::thread::sleep(patience.map_or(LOOK_EVERY, |left| left.min(LOOK_EVERY)));
        }
        ended()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ended_and_waited_for_through_its_handle() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let handle = Handle::open(child.id().try_into().unwrap()).unwrap();
        assert!(!handle.has_ended());
        handle.terminate().unwrap();
        // Elsewhere an ended process exists until it is reaped.
        if cfg!(all(target_os = "linux", not(mcsup_force_fallback))) {
            assert!(handle.wait(Some(Instant::now() + Duration::from_secs(5))));
        }
        child.wait().unwrap();
        assert_eq!(Handle::open(child.id().try_into().unwrap()).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
