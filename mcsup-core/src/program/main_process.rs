//! The process that counts as the program: its end, and signals to it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, kill_process};

use crate::clock;
use crate::host::relatives::Relative;

/// The process that counts as the program.
#[derive(Debug)]
pub(super) struct MainProcess {
    pid: Pid,
    /// Shows its end, where the kernel has that.
    watch: Option<OwnedFd>,
    /// Identifies it where no descriptor does, as far as the system shows processes.
    seen: Option<Relative>,
}

impl MainProcess {
    /// A process that is not reaped.
    pub(super) fn of(pid: Pid) -> Self {
        Self::with(pid, watch(pid))
    }

    fn with(pid: Pid, watch: Option<OwnedFd>) -> Self {
        let seen = if watch.is_none() { Relative::find(pid.as_raw_nonzero().get()) } else { None };
        Self { pid, watch, seen }
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Becomes readable at its end; `None`: no descriptor does.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(AsFd::as_fd)
    }

    /// Whether it is known to have ended. A child is known by its exit status too.
    pub(super) fn has_ended(&self) -> bool {
        if let Some(watch) = &self.watch {
            let mut sources = [PollFd::new(watch, PollFlags::IN)];
            return matches!(poll(&mut sources, Some(&clock::wait_of(std::time::Duration::ZERO))), Ok(1..));
        }
        let Some(seen) = &self.seen else { return false };
        Relative::find(seen.pid).is_none_or(|now| !now.is_same(seen) || now.is_zombie)
    }

    /// Sends a signal. One that has ended needs none.
    pub(super) fn signal(&self, signal: Signal) {
        #[cfg(target_os = "linux")]
        if let Some(watch) = &self.watch {
            let _ = rustix::process::pidfd_send_signal(watch, signal);
            return;
        }
        if !self.has_ended() {
            let _ = kill_process(self.pid, signal);
        }
    }
}

#[cfg(target_os = "linux")]
fn watch(pid: Pid) -> Option<OwnedFd> {
    use rustix::process::{PidfdFlags, pidfd_open};
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

#[cfg(not(target_os = "linux"))]
fn watch(_: Pid) -> Option<OwnedFd> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    #[test]
    fn the_end_of_a_process_that_is_no_child_is_noticed_without_a_descriptor_too() {
        let mut shell = Command::new("sh")
            .args(["-c", "sleep 600 & echo $!; wait"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
        let (watched, seen) = (MainProcess::of(pid), MainProcess::with(pid, None));
        assert!(!watched.has_ended() && !seen.has_ended());
        seen.signal(Signal::TERM);
        while !seen.has_ended() || !watched.has_ended() {
            std::thread::yield_now();
        }
        shell.wait().unwrap();
    }
}
