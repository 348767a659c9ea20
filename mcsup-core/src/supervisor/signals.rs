//! What arrives from kill(2): one pending mark for each signal, with its sender, and a pipe that wakes the loop.
//!
//! Marks and not a queue, as in the kernel: a storm of signals takes no room, and none of another kind is lost in it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use crate::policy::Ask;
use crate::sys::{descriptor, signal};

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
    (libc::SIGTERM, "TERM", Meaning::Ask(Ask::StopGraceful)),
    (libc::SIGINT, "INT", Meaning::Ask(Ask::StopQuick)),
    (libc::SIGQUIT, "QUIT", Meaning::Ask(Ask::StopQuick)),
];

/// A signal that was pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) name: &'static str,
    pub(crate) meaning: Meaning,
    /// The sender's pid, where a process sent it.
    pub(crate) sender: Option<i32>,
}

#[derive(Debug, Default)]
struct Mark {
    pending: AtomicBool,
    sender: AtomicI32,
}

/// The supervisor's signals, from installation until it is dropped.
#[derive(Debug)]
pub(crate) struct Signals {
    marks: Arc<[Mark; TABLE.len()]>,
    wake: OwnedFd,
    installed: Vec<signal_hook_registry::SigId>,
}

impl Signals {
    /// Takes the signals of [`TABLE`] over.
    pub(crate) fn install() -> io::Result<Self> {
        let (wake, write) = descriptor::pipe(true)?;
        let write = Arc::new(write);
        let marks: Arc<[Mark; TABLE.len()]> = Arc::default();
        let owner = std::process::id();
        let mut installed = Vec::new();
        for (index, (number, _, _)) in TABLE.iter().enumerate() {
            // Whatever handled it before (a host language's own handler) would otherwise be called as well.
            signal::reset(*number);
            let (marks, write) = (Arc::clone(&marks), Arc::clone(&write));
            installed.push(signal::on_signal(*number, move |_, sender| {
                // In a forked child the pipe is still the supervisor's.
                if std::process::id() == owner {
                    let mark = &marks[index];
                    mark.sender.store(sender.map_or(0, |(pid, _)| pid), Ordering::Relaxed);
                    mark.pending.store(true, Ordering::Release);
                    let _ = rustix::io::write(&*write, &[0]);
                }
            })?);
        }
        Ok(Self { marks, wake, installed })
    }

    /// Whatever is pending, each signal once.
    pub(crate) fn take(&self) -> Vec<Arrived> {
        let mut bytes = [0; 256];
        while let Ok(1..) = rustix::io::read(&self.wake, &mut bytes) {}
        let pending = TABLE.iter().zip(self.marks.iter());
        pending
            .filter(|(_, mark)| mark.pending.swap(false, Ordering::AcqRel))
            .map(|((_, name, meaning), mark)| {
                let sender = mark.sender.load(Ordering::Relaxed);
                Arrived { name, meaning: *meaning, sender: (sender != 0).then_some(sender) }
            })
            .collect()
    }
}

impl AsFd for Signals {
    /// Readable while a signal is pending.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.installed.drain(..) {
            signal_hook_registry::unregister(id);
        }
    }
}
