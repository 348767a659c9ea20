//! Received signals: one pending mark for each, with its sender, and a pipe that wakes the loop.
//!
//! Marks and not a queue, as in the kernel: many signals of one kind need no memory, and displace none of another kind.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use crate::policy::{Ask, StopMode};
use crate::sys::caught::Caught;
use crate::sys::signal::SharedUnblocked;

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

/// The treatment of signals by a supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignalUse {
    /// It handles those of [`TABLE`].
    Handled,
    /// It leaves them to the program.
    Left,
    /// It handles CHLD only, and the others do nothing: it is a process beside the program.
    Unused,
}

/// The supervisor's signal handlers. The drop of the last ones in a process restores the earlier ones.
#[derive(Debug)]
pub(crate) struct Signals {
    caught: Caught,
    signal_use: SignalUse,
}

impl Signals {
    /// Installs the handlers.
    pub(crate) fn install(signal_use: SignalUse) -> io::Result<Self> {
        let mut caught = match signal_use {
            SignalUse::Handled | SignalUse::Unused => Caught::new(numbers())?,
            SignalUse::Left => Caught::new([])?,
        };
        if signal_use == SignalUse::Left {
            caught.keep_children()?;
        }
        // A client or worker that has ended is then an error of one write.
        caught.ignore(libc::SIGPIPE)?;
        Ok(Self { caught, signal_use })
    }

    /// Unblocks the signals, since the parent may have left some of them blocked.
    pub(crate) fn unblock() -> SharedUnblocked {
        SharedUnblocked::new(numbers())
    }

    /// Whether no signal reports the ends of children.
    pub(crate) fn lacks_child(&self) -> bool {
        self.signal_use == SignalUse::Left
    }

    /// The descriptors that processes of other pools must not have.
    pub(crate) fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        self.caught.descriptors()
    }

    /// Takes the pending signals, each once.
    pub(crate) fn take(&self) -> Vec<Arrived> {
        self.caught.acknowledge();
        let is_used =
            |action: &SignalAction| *action == SignalAction::Child || self.signal_use != SignalUse::Unused;
        let pending = TABLE.iter().filter(|(_, _, action)| is_used(action));
        let pending = pending.filter_map(|(number, name, action)| {
            let sender = self.caught.take(*number)?.map(|origin| origin.pid);
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
        arrived.iter().for_each(|signal| self.caught.give_back(signal.number));
        arrived
    }
}

fn numbers() -> impl Iterator<Item = i32> {
    TABLE.iter().map(|(number, _, _)| *number)
}

impl AsFd for Signals {
    /// Readable while a signal is pending.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.caught.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fork::{self, OtherThreads, Side, in_a_process};
    use crate::sys::signal::AllBlocked;
    use rustix::process::{Signal, WaitOptions, getpid, kill_process, waitpid};

    fn install() -> Signals {
        Signals::install(SignalUse::Handled).unwrap()
    }

    fn names(arrived: &[Arrived]) -> Vec<&'static str> {
        arrived.iter().map(|signal| signal.name).collect()
    }

    #[test]
    fn what_is_given_back_to_the_kernel_arrives_again_and_only_once() {
        in_a_process(|| {
            let signals = install();
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
    fn each_pool_of_a_process_gets_a_signal_and_the_last_one_gives_the_handlers_back() {
        in_a_process(|| {
            let (first, second) = (install(), install());
            let third = Signals::install(SignalUse::Left).unwrap();
            kill_process(getpid(), Signal::HUP).unwrap();
            assert_eq!(names(&first.take()), ["HUP"]);
            drop(first);
            kill_process(getpid(), Signal::TERM).unwrap();
            assert_eq!(names(&second.take()), ["HUP", "TERM"]);
            let late = install();
            assert_eq!(names(&late.take()), Vec::<&str>::new());
            assert_eq!(names(&third.take()), Vec::<&str>::new());
            drop((second, late, third));
            kill_process(getpid(), Signal::WINCH).unwrap();
            assert_eq!(names(&install().take()), Vec::<&str>::new());
        });
    }

    #[test]
    fn a_signal_that_arrives_while_the_handlers_are_installed_counts() {
        in_a_process(|| {
            let _unblocked = Signals::unblock();
            let late = std::iter::once_with(|| {
                kill_process(getpid(), Signal::USR1).unwrap();
                libc::SIGHUP
            });
            let first = Caught::new([libc::SIGUSR1].into_iter().chain(late)).unwrap();
            assert!(first.take(libc::SIGUSR1).is_some() && first.take(libc::SIGHUP).is_none());
            // A later one gets no signal from before it.
            let second = Caught::new([libc::SIGUSR1]).unwrap();
            assert!(second.take(libc::SIGUSR1).is_none());
        });
    }

    #[test]
    fn signals_that_are_left_to_the_program_have_their_default_action() {
        match fork::fork_beside(OtherThreads::LeaveBehind).unwrap() {
            Side::Child => {
                let _signals = Signals::install(SignalUse::Left).unwrap();
                kill_process(getpid(), Signal::TERM).unwrap();
                fork::exit_now(0);
            }
            Side::Parent(child) => {
                let (_, status) = waitpid(Some(child), WaitOptions::empty()).unwrap().unwrap();
                assert_eq!(status.terminating_signal(), Some(libc::SIGTERM));
            }
        }
    }
}
