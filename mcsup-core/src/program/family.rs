//! The processes of a program: itself and all of its descendants.
//!
//! On Linux the worker adopts their orphans, so that all of them stay below it. Elsewhere the program leads a
//! process group, and a process that leaves it is lost.

use std::io;
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, kill_process_group, test_kill_process_group, waitpid,
};

use crate::host::processes::own_pid;
use crate::host::relatives::{self, Relative};
use crate::sys::ancestry::{self, ADOPTS};
use crate::sys::ended_child;

/// The most generations of a process.
const MOST_GENERATIONS: usize = 1000;

/// The interval between checks for the end of processes.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The longest time of the kernel to end a process after SIGKILL.
const AFTER_KILL: Duration = Duration::from_millis(500);

/// The most searches for a process whose ancestors end meanwhile.
const SEARCHES: usize = 3;

/// Whether a process belongs to a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Belongs {
    Yes,
    No,
    /// It has ended, and its ancestors are unknown.
    HasEnded,
}

/// The processes of one program.
#[derive(Debug)]
pub(super) struct Family {
    /// The process that was started.
    first: Pid,
    has_ended: bool,
}

impl Family {
    /// Makes this process the adopter of orphans, before the program starts. `true`: the program leads a
    /// group of its own.
    ///
    /// The worker leads a group too: its supervisor recognises the worker's orphans by it.
    ///
    /// # Errors
    /// The system refuses it.
    pub(super) fn prepare() -> io::Result<bool> {
        ancestry::adopt_orphans()?;
        if ADOPTS && rustix::process::getpgrp() != rustix::process::getpid() {
            rustix::process::setpgid(None, None)?;
        }
        Ok(!ADOPTS)
    }

    pub(super) fn of(first: Pid) -> Self {
        Self { first, has_ended: false }
    }

    /// Whether a process belongs to the program. The pid of a process that has been reaped does not.
    pub(super) fn has(&self, pid: i32) -> Belongs {
        if pid == self.first.as_raw_nonzero().get() {
            return if self.has_ended { Belongs::HasEnded } else { Belongs::Yes };
        }
        // An ancestor that ends meanwhile interrupts a search: then its children have another parent.
        let found = (0..SEARCHES).find_map(|_| search(pid));
        found.unwrap_or(Belongs::No)
    }

    /// The living processes, as far as the system shows them.
    pub(super) fn living(&self) -> Vec<Relative> {
        let mut living = relatives::below(own_pid(), &[]);
        living.retain(|process| !process.is_zombie);
        living
    }

    /// Sends SIGTERM or SIGKILL to all of them.
    fn signal(&self, signal: Signal) {
        if !ADOPTS {
            // While a process is in the group, its number names no other one.
            let _ = kill_process_group(self.first, signal);
            return;
        }
        for handle in self.living().iter().filter_map(Relative::hold) {
            let _ = if signal == Signal::KILL { handle.kill() } else { handle.terminate() };
        }
    }

    /// A process that has ended and is not reaped. Until then it belongs to the program.
    pub(super) fn ended() -> Option<Pid> {
        ended_child::find()
    }

    /// Reaps a process that has ended.
    pub(super) fn reap(&mut self, ended: Pid) -> Option<WaitStatus> {
        if !ADOPTS && ended == self.first {
            // The number of the group is certain until then.
            self.signal(Signal::TERM);
        }
        loop {
            match waitpid(Some(ended), WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    self.has_ended |= pid == self.first;
                    return Some(status);
                }
                Err(rustix::io::Errno::INTR) => {}
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// Ends all that are left: by SIGTERM, and by SIGKILL after `patience`. `each_turn` runs between checks,
    /// with the processes that were reaped.
    pub(super) fn end(&mut self, patience: Duration, mut each_turn: impl FnMut(&[(Pid, WaitStatus)])) {
        let begin = Instant::now();
        let mut is_killed = patience.is_zero();
        if !self.is_empty() {
            self.signal(if is_killed { Signal::KILL } else { Signal::TERM });
        }
        loop {
            let reap = || Self::ended().and_then(|pid| Some((pid, self.reap(pid)?)));
            let reaped: Vec<_> = std::iter::from_fn(reap).collect();
            each_turn(&reaped);
            if self.is_empty() || begin.elapsed() > patience + AFTER_KILL {
                return;
            }
            if !is_killed && begin.elapsed() >= patience {
                is_killed = true;
            }
            if is_killed {
                // Also those that have been forked since.
                self.signal(Signal::KILL);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn is_empty(&self) -> bool {
        if ADOPTS {
            return self.living().is_empty();
        }
        self.has_ended && test_kill_process_group(self.first) == Err(rustix::io::Errno::SRCH)
    }
}

/// Looks for this process among the ancestors of another one; `None`: an ancestor has ended meanwhile.
fn search(pid: i32) -> Option<Belongs> {
    let mut next = pid;
    for _ in 0..MOST_GENERATIONS {
        match Relative::find(next) {
            Some(process) if process.parent == own_pid() => return Some(Belongs::Yes),
            Some(process) if process.parent > 1 => next = process.parent,
            None if next == pid => return Some(Belongs::HasEnded),
            None => return None,
            Some(_) => return Some(Belongs::No),
        }
    }
    Some(Belongs::No)
}

#[cfg(all(test, target_os = "linux", not(mcsup_force_fallback)))]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_some_other_program_has_started_does_not_belong_to_it() {
        let family = Family::of(Pid::from_raw(i32::MAX).unwrap());
        let child = std::process::Command::new("sleep").arg("60").spawn();
        let mut child = child.unwrap();
        assert_eq!(family.has(i32::try_from(child.id()).unwrap()), Belongs::Yes);
        let parent = rustix::process::getppid().unwrap().as_raw_nonzero().get();
        assert!([parent, 1, own_pid()].into_iter().all(|pid| family.has(pid) == Belongs::No));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(family.has(i32::try_from(child.id()).unwrap()), Belongs::HasEnded);
    }
}
