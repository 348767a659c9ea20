//! Received signals: one pending mark for each, with its sender, and a pipe that wakes the loop.
//!
//! Marks and not a queue, as in the kernel: many signals of one kind need no memory, and displace none of another kind.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use crate::policy::{Ask, StopMode};
use crate::sys::caught::Caught;
use crate::sys::signal::Unblocked;

/// The reaction of a supervisor to a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignalAction {
    /// A child may have ended.
    Child,
    /// An operator requests a change.
    Ask(Ask),
    /// No reaction. The signal is caught so that it does not end the supervisor.
    Nothing,
}

/// The signal table, in the order of handling: a stop comes last, so that it has precedence.
const TABLE: [(i32, &str, SignalAction); 10] = [
    (libc::SIGCHLD, "CHLD", SignalAction::Child),
    (libc::SIGUSR1, "USR1", SignalAction::Ask(Ask::ReopenLogs)),
    (libc::SIGTTIN, "TTIN", SignalAction::Ask(Ask::ScaleUp)),
    (libc::SIGTTOU, "TTOU", SignalAction::Ask(Ask::ScaleDown)),
    (libc::SIGHUP, "HUP", SignalAction::Ask(Ask::Reload)),
    (libc::SIGUSR2, "USR2", SignalAction::Ask(Ask::Upgrade)),
    (libc::SIGWINCH, "WINCH", SignalAction::Nothing),
    (libc::SIGTERM, "TERM", SignalAction::Ask(Ask::Stop(StopMode::Graceful))),
    (libc::SIGINT, "INT", SignalAction::Ask(Ask::Stop(StopMode::Quick))),
    (libc::SIGQUIT, "QUIT", SignalAction::Ask(Ask::Stop(StopMode::Quick))),
];

/// A signal that was pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrived {
    number: i32,
    pub(crate) name: &'static str,
    pub(crate) action: SignalAction,
    /// The sender's pid, if a process sent it.
    pub(crate) sender: Option<i32>,
}

/// The supervisor's signal handlers. Its drop restores the earlier ones.
#[derive(Debug)]
pub(crate) struct Signals(Caught);

impl Signals {
    /// Installs handlers for the signals of [`TABLE`].
    pub(crate) fn install() -> io::Result<Self> {
        let mut caught = Caught::new(numbers())?;
        // A client or worker that has ended is then an error of one write.
        caught.ignore(libc::SIGPIPE)?;
        Ok(Self(caught))
    }

    /// Unblocks the signals, since the parent may have left some of them blocked.
    pub(crate) fn unblock() -> Unblocked {
        Unblocked::new(numbers())
    }

    /// Takes the pending signals, each once.
    pub(crate) fn take(&self) -> Vec<Arrived> {
        self.0.acknowledge();
        let pending = TABLE.iter().filter_map(|(number, name, action)| {
            let sender = self.0.take(*number)?.map(|origin| origin.pid);
            // Sent again by `give_back` in this process: the original sender is unknown.
            let sender = sender.filter(|pid| u32::try_from(*pid) != Ok(std::process::id()));
            Some(Arrived { number: *number, name, action: *action, sender })
        });
        pending.collect()
    }

    /// Whether a stop is pending. Takes all pending signals, so only an ending supervisor may call it.
    pub(crate) fn take_stop(&self) -> bool {
        let is_stop = |action| matches!(action, SignalAction::Ask(Ask::Stop(_)));
        self.take().iter().any(|signal| is_stop(signal.action))
    }

    /// Gives the pending signals back to the kernel.
    ///
    /// The caller must have blocked them: then they stay pending, also for the next program of this process.
    pub(crate) fn give_back(&self) -> Vec<Arrived> {
        let arrived = self.take();
        arrived.iter().for_each(|signal| self.0.give_back(signal.number));
        arrived
    }
}

fn numbers() -> impl Iterator<Item = i32> {
    TABLE.iter().map(|(number, _, _)| *number)
}

impl AsFd for Signals {
    /// Readable while a signal is pending.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fork::{self, OtherThreads, Side};
    use crate::sys::signal::AllBlocked;
    use rustix::process::{Signal, WaitOptions, getpid, kill_process, waitpid};

    /// Runs it in a process of one thread, whose mask is that of the whole process.
    fn in_a_process(test: fn()) {
        match fork::fork_beside(OtherThreads::LeaveBehind).unwrap() {
            Side::Child => fork::exit_now(std::panic::catch_unwind(test).map_or(1, |()| 0)),
            Side::Parent(child) => {
                let (_, status) = waitpid(Some(child), WaitOptions::empty()).unwrap().unwrap();
                assert_eq!(status.exit_status(), Some(0));
            }
        }
    }

    fn names(arrived: &[Arrived]) -> Vec<&'static str> {
        arrived.iter().map(|signal| signal.name).collect()
    }

    #[test]
    fn what_is_given_back_to_the_kernel_arrives_again_and_only_once() {
        in_a_process(|| {
            let signals = Signals::install().unwrap();
            kill_process(getpid(), Signal::TERM).unwrap();
            kill_process(getpid(), Signal::HUP).unwrap();
            let blocked = AllBlocked::new();
            kill_process(getpid(), Signal::USR1).unwrap();
            assert_eq!(names(&signals.give_back()), ["HUP", "TERM"]);
            assert_eq!(names(&signals.take()), Vec::<&str>::new());
            drop(blocked);
            assert_eq!(names(&signals.take()), ["USR1", "HUP", "TERM"]);
            assert_eq!(names(&signals.take()), Vec::<&str>::new());
        });
    }

    #[test]
    fn one_pool_at_a_time_has_a_processs_signals() {
        in_a_process(|| {
            let first = Signals::install().unwrap();
            assert_eq!(Signals::install().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            drop(first);
            Signals::install().unwrap();
        });
    }
}
