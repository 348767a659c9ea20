//! A process beside a pool, which runs a function of the embedder.
//!
//! It is forked from a process with one thread. Of the descriptors of that process it has the standard streams and those
//! that it is given: the others refer to /dev/null, so that no listener and no link of a worker outlives the supervisor
//! in it. It has no scoreboard. A pool takes neither it nor the processes that it starts for leftovers of its application.

use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, getpid};

use super::daemon;
use super::handle::Handle;
use super::{relatives, trial};
use crate::error::{Error, Result};
use crate::policy::ExitStatus;
use crate::sys::caught::{self, Act};
use crate::sys::fork::{self, Side};
use crate::sys::signal::AllBlocked;
use crate::sys::{forked, shared_memory, signal, unshared};

/// What a helper does at the signals that a terminal, `pkill` or a service manager sends to all processes of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtSignals {
    /// It ends, and it does with its supervisor, where the kernel can tell it.
    End,
    /// It goes on: it ends by itself, or by [`Helper::kill`].
    GoOn,
}

/// The signals of [`AtSignals`].
const OF_ALL: [i32; 9] = [
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGWINCH,
];

/// The interval between checks in [`Helper::wait`].
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A process beside a pool. The drop neither ends nor awaits it.
#[derive(Debug)]
pub struct Helper {
    child: Child,
    /// A process that this one forks has a copy, which is none of its children.
    owner: Pid,
    end: Option<ExitStatus>,
}

/// A child that is not reaped yet.
#[derive(Debug)]
struct Child {
    pid: Pid,
    /// `None`: no descriptor was free.
    handle: Option<Handle>,
}

/// The children of this module.
struct Known {
    owner: Option<Pid>,
    /// Pids of helpers that may live.
    living: Vec<i32>,
    /// Children whose [`Helper`] is dropped, and which are not reaped.
    dropped: Vec<Child>,
    /// Children that a pool has reaped.
    reaped: Vec<(i32, ExitStatus)>,
}

impl Known {
    const fn new(owner: Option<Pid>) -> Self {
        Self { owner, living: Vec::new(), dropped: Vec::new(), reaped: Vec::new() }
    }
}

static KNOWN: Mutex<Known> = Mutex::new(Known::new(None));

/// The children of this process: the copy of its parent's list is emptied.
fn known() -> MutexGuard<'static, Known> {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if known.owner != Some(getpid()) {
        *known = Known::new(Some(getpid()));
    }
    known
}

/// The pids of the helpers of this process.
pub(crate) fn pids() -> Vec<i32> {
    let mut known = known();
    known.reap_dropped();
    known.living.clone()
}

/// Reaps the dropped ones that have ended.
pub(crate) fn reap_dropped() {
    known().reap_dropped();
}

/// Notes the exit status of a child that a pool has reaped with all others.
pub(crate) fn note_reaped(pid: Pid, status: ExitStatus) {
    let (mut known, number) = (known(), pid.as_raw_nonzero().get());
    if known.living.contains(&number) {
        known.reaped.push((number, status));
    }
}

impl Known {
    fn reap_dropped(&mut self) {
        let dropped = std::mem::take(&mut self.dropped);
        for child in dropped {
            match self.status_of(child.pid).or_else(|| child.reap()) {
                Some(_) => self.forget(child.pid),
                None => self.dropped.push(child),
            }
        }
    }

    fn forget(&mut self, pid: Pid) {
        let number = pid.as_raw_nonzero().get();
        self.living.retain(|other| *other != number);
        self.reaped.retain(|(other, _)| *other != number);
    }

    /// The status of a child that a pool has reaped.
    fn status_of(&self, pid: Pid) -> Option<ExitStatus> {
        let number = pid.as_raw_nonzero().get();
        self.reaped.iter().find(|(other, _)| *other == number).map(|(_, status)| *status)
    }
}

impl Helper {
    /// Forks a process that runs `function` and exits with the code that it returns, or with 101 after a panic. `kept` are
    /// the numbers of the descriptors that it has.
    ///
    /// `hooks` runs around the fork, for a host language: `hooks(None)` before, `hooks(Some(true))` after it in the child,
    /// `hooks(Some(false))` after it in the parent. The child leads its own process group, unless the process has a
    /// terminal.
    ///
    /// # Errors
    /// The process has other threads, or the system refuses the fork.
    pub fn start(
        at_signals: AtSignals,
        kept: &[RawFd],
        hooks: impl Fn(Option<bool>),
        function: impl FnOnce() -> u8,
    ) -> Result<Self> {
        known().reap_dropped();
        let parent = getpid();
        // No handler of this process may run in the child.
        let blocked = AllBlocked::new();
        hooks(None);
        let side = fork::fork();
        hooks(Some(matches!(side, Ok(Side::Child))));
        match side.map_err(|error| Error::system("fork a helper", error))? {
            Side::Child => {
                std::mem::forget(blocked);
                let code = catch_unwind(AssertUnwindSafe(|| in_child((at_signals, parent), kept, function)))
                    .unwrap_or(101);
                // A process that the function has forked, and that has returned from it, has no result of its own.
                fork::exit_now(if forked::is_forked_off() { 0 } else { i32::from(code) })
            }
            Side::Parent(pid) => {
                drop(blocked);
                let number = pid.as_raw_nonzero().get();
                known().living.push(number);
                let child = Child { pid, handle: Handle::open(number).ok() };
                Ok(Self { child, owner: getpid(), end: None })
            }
        }
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.pid.as_raw_nonzero().get()
    }

    /// How it ended, in words; `None`: it runs.
    pub fn end(&mut self) -> Option<String> {
        self.status().map(|status| match status {
            ExitStatus::Code(code) if code >= 0 => format!("exit code {code}"),
            // Other code in this process has reaped it.
            ExitStatus::Code(_) => "its status is not known".to_owned(),
            ExitStatus::Signal(number) => format!("signal {number}"),
        })
    }

    /// Whether it has ended; reaps it then.
    pub fn has_ended(&mut self) -> bool {
        self.status().is_some()
    }

    fn status(&mut self) -> Option<ExitStatus> {
        if self.end.is_none() && self.owner == getpid() {
            let mut known = known();
            self.end = known.status_of(self.child.pid).or_else(|| self.child.reap());
            if self.end.is_some() {
                known.forget(self.child.pid);
            }
        }
        self.end
    }

    /// Waits until it has ended; `false`: it had not within `patience`.
    pub fn wait(&mut self, patience: Duration) -> bool {
        let begin = Instant::now();
        while !self.has_ended() {
            let left = patience.saturating_sub(begin.elapsed());
            if left.is_zero() {
                return false;
            }
            match &self.child.handle {
                Some(handle) => drop(handle.wait(Instant::now().checked_add(left.min(LOOK_EVERY)))),
                None => std::thread::sleep(left.min(LOOK_EVERY)),
            }
        }
        true
    }

    /// Ends it and its descendants at once (SIGKILL), without a wait for their end.
    pub fn kill(&mut self) {
        // A process without a handle may have been reaped, and another one may have its pid.
        let Some(handle) = self.child.handle.as_ref().filter(|_| self.owner == getpid()) else { return };
        // They lose their parent with its end, and are not found below it then.
        let descendants = relatives::below(handle.pid(), &[]);
        let _ = handle.kill();
        for descendant in descendants.iter().filter_map(relatives::Relative::hold) {
            let _ = descendant.kill();
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if self.owner == getpid() && !self.has_ended() {
            let handle = self.child.handle.take();
            known().dropped.push(Child { pid: self.child.pid, handle });
        }
    }
}

impl Child {
    /// Its exit status, once; `None`: it runs.
    fn reap(&self) -> Option<ExitStatus> {
        match &self.handle {
            Some(handle) => handle.reap(),
            None => reap_by_pid(self.pid),
        }
    }
}

/// Reaps a child by its pid, which the kernel does not reuse before.
pub(super) fn reap_by_pid(pid: Pid) -> Option<ExitStatus> {
    use rustix::io::Errno;
    use rustix::process::{WaitOptions, waitpid};
    match waitpid(Some(pid), WaitOptions::NOHANG) {
        Ok(Some((_, status))) => Some(match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => ExitStatus::Code(code),
            (None, signal) => ExitStatus::Signal(signal.unwrap_or_default()),
        }),
        Ok(None) | Err(Errno::INTR) => None,
        // It is no child any more.
        Err(_) => Some(ExitStatus::Code(-1)),
    }
}

/// The steps of the child, with all signals blocked at the beginning.
fn in_child((at_signals, parent): (AtSignals, Pid), kept: &[RawFd], function: impl FnOnce() -> u8) -> u8 {
    caught::leave_in_child();
    if at_signals == AtSignals::GoOn && caught::install(&OF_ALL.map(|number| (number, Act::Nothing))).is_err()
    {
        return 1;
    }
    // It can wait for its children, whatever the parent of its supervisor ignores.
    signal::stop_ignoring(libc::SIGCHLD);
    unshared::keep_only(kept);
    // By its scoreboard a process is a part of the pool for others.
    shared_memory::replace_all();
    if !daemon::has_terminal() {
        let _ = rustix::process::setpgid(None, None);
    }
    if forked::watch().is_err() {
        return 1;
    }
    if at_signals == AtSignals::End {
        trial::die_with(parent);
    }
    signal::unblock_all();
    function()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::sys::descriptor;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    #[cfg(target_os = "linux")]
    fn it_does_not_count_as_a_worker_by_the_scoreboard_of_its_pool() {
        fork::in_a_process(|| {
            let (lines, _file) = shared_memory::SharedLines::new(2).unwrap();
            let us = || relatives::Relative::find(getpid().as_raw_nonzero().get()).unwrap();
            assert!(us().has_scoreboard());
            let has_one = || u8::from(us().has_scoreboard());
            let mut helper = Helper::start(AtSignals::End, &[], |_| (), has_one).unwrap();
            assert!(helper.wait(LONG));
            assert_eq!(helper.end().as_deref(), Some("exit code 0"));
            assert!(us().has_scoreboard() && lines.len() == 2);
        });
    }

    #[test]
    fn it_has_the_descriptors_that_it_is_given_and_no_others() {
        fork::in_a_process(|| {
            let (result, to_result) = descriptor::pipe(false).unwrap();
            let (held, other) = descriptor::pipe(false).unwrap();
            let number = other.as_raw_fd();
            let mut helper = Helper::start(
                AtSignals::End,
                &[to_result.as_raw_fd()],
                |_| (),
                || {
                    let null = std::fs::metadata("/dev/null").unwrap();
                    let target = std::fs::metadata(format!("/dev/fd/{number}")).unwrap();
                    use std::os::unix::fs::MetadataExt;
                    let is_null = (target.rdev(), target.ino()) == (null.rdev(), null.ino());
                    let _ =
                        File::from(to_result.try_clone().unwrap()).write_all(format!("{is_null}").as_bytes());
                    7
                },
            )
            .unwrap();
            drop((to_result, other));
            // Both pipes end: the helper holds no writing end.
            let mut said = String::new();
            File::from(result).read_to_string(&mut said).unwrap();
            assert_eq!(said, "true");
            assert_eq!(File::from(held).read(&mut [0]).unwrap(), 0);
            assert!(pids().contains(&helper.pid()));
            assert!(helper.wait(LONG));
            assert_eq!((helper.end().as_deref(), pids()), (Some("exit code 7"), Vec::new()));
        });
    }

    #[test]
    fn one_that_goes_on_at_signals_ends_by_sigkill_alone() {
        fork::in_a_process(|| {
            let (ready, to_ready) = descriptor::pipe(false).unwrap();
            let mut helper = Helper::start(
                AtSignals::GoOn,
                &[to_ready.as_raw_fd()],
                |_| (),
                || {
                    let _ = File::from(to_ready.try_clone().unwrap()).write_all(b"x");
                    loop {
                        std::thread::park();
                    }
                },
            )
            .unwrap();
            File::from(ready).read_exact(&mut [0]).unwrap();
            let pid = Pid::from_raw(helper.pid()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            assert!(!helper.wait(Duration::from_millis(50)));
            helper.kill();
            assert!(helper.wait(LONG));
            assert_eq!(helper.end().as_deref(), Some("signal 9"));
        });
    }

    #[test]
    fn a_dropped_one_is_reaped_later() {
        fork::in_a_process(|| {
            let helper = Helper::start(AtSignals::End, &[], |_| (), || 0).unwrap();
            let pid = Pid::from_raw(helper.pid()).unwrap();
            drop(helper);
            let begin = Instant::now();
            while !pids().is_empty() {
                assert!(begin.elapsed() < LONG);
                std::thread::sleep(LOOK_EVERY);
            }
            assert_eq!(reap_by_pid(pid), Some(ExitStatus::Code(-1)));
        });
    }
}
