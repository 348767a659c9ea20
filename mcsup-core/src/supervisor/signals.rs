//! What arrives from kill(2): one pending mark for each signal, with its sender, and a pipe that wakes the loop.
//!
//! Marks and not a queue, as in the kernel: a storm of signals takes no room, and none of another kind is lost in it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use crate::policy::{Ask, StopMode};
use crate::sys::caught::Caught;
use crate::sys::signal::Unblocked;

/// What a signal means to a supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// A child may have ended.
    Child,
    /// The operator wants something.
    Ask(Ask),
    /// Nothing here, but it must not end us either.
    Nothing,
}

/// The signal table, in the order in which simultaneous signals are taken: a stop comes last, so that it wins.
const TABLE: [(i32, &str, Meaning); 10] = [
    (libc::SIGCHLD, "CHLD", Meaning::Child),
    (libc::SIGUSR1, "USR1", Meaning::Ask(Ask::ReopenLogs)),
    (libc::SIGTTIN, "TTIN", Meaning::Ask(Ask::ScaleUp)),
    (libc::SIGTTOU, "TTOU", Meaning::Ask(Ask::ScaleDown)),
    (libc::SIGHUP, "HUP", Meaning::Ask(Ask::Reload)),
    (libc::SIGUSR2, "USR2", Meaning::Ask(Ask::Upgrade)),
    (libc::SIGWINCH, "WINCH", Meaning::Nothing),
    (libc::SIGTERM, "TERM", Meaning::Ask(Ask::Stop(StopMode::Graceful))),
    (libc::SIGINT, "INT", Meaning::Ask(Ask::Stop(StopMode::Quick))),
    (libc::SIGQUIT, "QUIT", Meaning::Ask(Ask::Stop(StopMode::Quick))),
];

/// A signal that was pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrived {
    number: i32,
    pub(crate) name: &'static str,
    pub(crate) meaning: Meaning,
    /// The sender's pid, where a process sent it.
    pub(crate) sender: Option<i32>,
}

/// The supervisor's signals, from installation until it is dropped: then the process does at each what it did before.
#[derive(Debug)]
pub(crate) struct Signals(Caught);

impl Signals {
    /// Takes the signals of [`TABLE`] over.
    pub(crate) fn install() -> io::Result<Self> {
        let mut caught = Caught::new(numbers())?;
        // A client or a worker that is gone is an error of one write.
        caught.ignore(libc::SIGPIPE)?;
        Ok(Self(caught))
    }

    /// Unblocks them, for a process whose parent has left some of them blocked.
    pub(crate) fn unblock() -> Unblocked {
        Unblocked::new(numbers())
    }

    /// Whatever is pending, each signal once.
    pub(crate) fn take(&self) -> Vec<Arrived> {
        self.0.acknowledge();
        let pending = TABLE.iter().filter_map(|(number, name, meaning)| {
            let sender = self.0.take(*number)?.map(|origin| origin.pid);
            // Sent again by `give_back`, of the same process: the real sender is not known any more.
            let sender = sender.filter(|pid| u32::try_from(*pid) != Ok(std::process::id()));
            Some(Arrived { number: *number, name, meaning: *meaning, sender })
        });
        pending.collect()
    }

    /// Whether the operator wants an end. Takes whatever is pending, for a supervisor that does nothing else any more.
    pub(crate) fn take_stop(&self) -> bool {
        let is_stop = |meaning| matches!(meaning, Meaning::Ask(Ask::Stop(_)));
        self.take().iter().any(|signal| is_stop(signal.meaning))
    }

    /// Gives what is pending back to the kernel. To be called with these signals blocked: then they stay pending there,
    /// also for the program that this process becomes.
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
