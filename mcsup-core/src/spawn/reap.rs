//! Exit statuses of child processes.
//!
//! Several pools may be in one process, and a wait for any child also returns those of other pools. So each pool has a
//! [`Reaper`], which leaves such statuses to their owner.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions, WaitStatus, wait, waitid, waitpid};

use crate::host::helper;
use crate::policy::{ExitStatus, Moment};

/// The exit status of `pid`; `None`: it runs.
pub(crate) fn try_reap(pid: Pid) -> Option<ExitStatus> {
    match waitpid(Some(pid), WaitOptions::NOHANG) {
        Ok(Some((_, status))) => Some(read(status)),
        Ok(None) | Err(rustix::io::Errno::INTR) => None,
        // Other code in this process has reaped it, and its status is lost.
        Err(_) => Some(ExitStatus::Code(-1)),
    }
}

/// Reaps any ended child; `None`: there is none.
///
/// For a process that the kernel gives children to (the first one of a container, or a subreaper): no other
/// process will reap them. In any other process an unknown child belongs to the host program.
fn reap_any() -> Option<(Pid, ExitStatus)> {
    loop {
        // `waitpid(None)` would wait for the own process group only.
        match wait(WaitOptions::NOHANG) {
            Ok(ended) => return ended.map(|(pid, status)| (pid, read(status))),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// Whether `pid` is a child of this process, or a zombie of one.
pub(crate) fn is_child(pid: Pid) -> bool {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(waitid(WaitId::Pid(pid), look), Err(rustix::io::Errno::CHILD))
}

/// The children of all pools in this process.
#[derive(Debug)]
struct Children {
    /// The pools that exist.
    pools: usize,
    /// The number for the next pool.
    next: u64,
    /// The pool of each child.
    owners: BTreeMap<i32, u64>,
    /// Children that another pool than their own has reaped, by their own pool: the kernel may reuse a pid meanwhile.
    reaped: BTreeMap<(u64, i32), ExitStatus>,
    /// Reaped children that no pool had: one of them may be a worker that a mold of another pool has just forked.
    unknown: BTreeMap<i32, ExitStatus>,
}

/// The most unknown children that are remembered.
const MOST_UNKNOWN: usize = 256;

static CHILDREN: Mutex<Children> = Mutex::new(Children {
    pools: 0,
    next: 0,
    owners: BTreeMap::new(),
    reaped: BTreeMap::new(),
    unknown: BTreeMap::new(),
});

fn children() -> MutexGuard<'static, Children> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The pids of the children of all pools in this process.
pub(crate) fn of_all_pools() -> Vec<i32> {
    children().owners.keys().copied().collect()
}

/// The number of pools in this process.
pub(crate) fn pools() -> usize {
    children().pools
}

/// Forgets all pools and children, in a new process: they are none of its own.
pub(crate) fn leave_in_child() {
    let mut children = children();
    let Children { pools, owners, reaped, unknown, .. } = &mut *children;
    *pools = 0;
    owners.clear();
    reaped.clear();
    unknown.clear();
}

/// One pool's part of the children of this process.
#[derive(Debug)]
pub(crate) struct Reaper {
    pool: u64,
    /// A pidfd for each child, where the system has any; `None`: SIGCHLD reports the ends of children.
    pidfds: Option<BTreeMap<i32, Option<OwnedFd>>>,
}

/// The interval between attempts to reap a child without a pidfd.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The interval between attempts to reap adopted orphans, whose end nothing reports without SIGCHLD.
const LOOK_FOR_ORPHANS_EVERY: Duration = Duration::from_secs(1);

#[cfg(all(target_os = "linux", not(mcsup_force_fallback)))]
fn pidfd(pid: Pid) -> Option<OwnedFd> {
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
}

#[cfg(not(all(target_os = "linux", not(mcsup_force_fallback))))]
fn pidfd(_: Pid) -> Option<OwnedFd> {
    None
}

impl Reaper {
    /// A pool without children.
    pub(crate) fn new() -> Self {
        let mut children = children();
        children.pools += 1;
        children.next += 1;
        Self { pool: children.next, pidfds: None }
    }

    /// Watches the children from now on: no SIGCHLD reports their ends.
    pub(crate) fn watch(&mut self) {
        let children = children();
        let ours = children.owners.iter().filter(|(_, owner)| **owner == self.pool);
        let pidfd_of = |pid: i32| Pid::from_raw(pid).and_then(pidfd);
        self.pidfds = Some(ours.map(|(pid, _)| (*pid, pidfd_of(*pid))).collect());
    }

    /// The descriptors that are readable at the end of a child.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.pidfds.iter().flat_map(BTreeMap::values).flatten().map(AsFd::as_fd)
    }

    /// The time of the next attempt to reap without an event. `adopts`: whether there may be orphans.
    pub(crate) fn deadline(&self, adopts: bool, now: Moment) -> Option<Moment> {
        if self.has_reaped() {
            return Some(now);
        }
        let pidfds = self.pidfds.as_ref()?;
        if pidfds.values().any(Option::is_none) {
            return Some(now + LOOK_EVERY);
        }
        adopts.then(|| now + LOOK_FOR_ORPHANS_EVERY)
    }

    /// Closes the descriptors in a forked child.
    pub(crate) fn close_in_child(&mut self) {
        self.pidfds = None;
    }

    /// Adds a child of this pool.
    pub(crate) fn add(&mut self, pid: Pid) {
        let number = pid.as_raw_nonzero().get();
        if let Some(pidfds) = &mut self.pidfds {
            pidfds.insert(number, pidfd(pid));
        }
        children().owners.insert(number, self.pool);
    }

    /// Adds a worker that a mold of this pool has forked; `false`: it is no child of this process.
    pub(crate) fn add_born(&mut self, pid: Pid) -> bool {
        let is_child = is_child(pid);
        let number = pid.as_raw_nonzero().get();
        let status = children().unknown.remove(&number).filter(|_| !is_child);
        if is_child || status.is_some() {
            self.add(pid);
            children().reaped.extend(status.map(|status| ((self.pool, number), status)));
        }
        is_child || status.is_some()
    }

    /// Removes an ended child of this pool.
    pub(crate) fn remove(&mut self, pid: Pid) {
        let pid = pid.as_raw_nonzero().get();
        if let Some(pidfds) = &mut self.pidfds {
            pidfds.remove(&pid);
        }
        let mut children = children();
        if children.owners.get(&pid) == Some(&self.pool) {
            children.owners.remove(&pid);
        }
        children.reaped.remove(&(self.pool, pid));
    }

    /// Whether another pool has reaped a child of this one.
    pub(crate) fn has_reaped(&self) -> bool {
        children().reaped.keys().any(|(pool, _)| *pool == self.pool)
    }

    /// Whether another pool has reaped this child: its pid may belong to another process.
    pub(crate) fn is_reaped(&self, pid: Pid) -> bool {
        children().reaped.contains_key(&(self.pool, pid.as_raw_nonzero().get()))
    }

    /// The exit status of a child of this pool; `None`: it runs.
    pub(crate) fn try_reap(&self, pid: Pid) -> Option<ExitStatus> {
        let reaped = children().reaped.remove(&(self.pool, pid.as_raw_nonzero().get()));
        reaped.or_else(|| try_reap(pid))
    }

    /// Reaps any ended child that is not of another pool; `None`: there is none.
    pub(crate) fn reap_any(&self) -> Option<(Pid, ExitStatus)> {
        if let Some(reaped) = self.take_reaped() {
            return Some(reaped);
        }
        loop {
            let (pid, status) = reap_any()?;
            helper::note_reaped(pid, status);
            let mut children = children();
            let number = pid.as_raw_nonzero().get();
            match children.owners.get(&number) {
                Some(&owner) if owner != self.pool => {
                    children.reaped.insert((owner, number), status);
                    continue;
                }
                None if children.pools > 1 => {
                    if children.unknown.len() >= MOST_UNKNOWN {
                        children.unknown.clear();
                    }
                    children.unknown.insert(number, status);
                }
                _ => {}
            }
            return Some((pid, status));
        }
    }

    fn take_reaped(&self) -> Option<(Pid, ExitStatus)> {
        let mut children = children();
        let reaped = *children.reaped.keys().find(|(pool, _)| *pool == self.pool)?;
        Some((Pid::from_raw(reaped.1)?, children.reaped.remove(&reaped)?))
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        let mut children = children();
        children.pools = children.pools.saturating_sub(1);
        let Children { owners, reaped, .. } = &mut *children;
        reaped.retain(|(pool, _), _| *pool != self.pool);
        owners.retain(|_, owner| *owner != self.pool);
        if children.pools <= 1 {
            children.unknown.clear();
        }
    }
}

/// Converts a wait status.
pub(crate) fn read(status: WaitStatus) -> ExitStatus {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => ExitStatus::Code(code),
        (None, Some(signal)) => ExitStatus::Signal(signal),
        (None, None) => ExitStatus::Code(-1),
    }
}

#[cfg(test)]
#[allow(clippy::zombie_processes, reason = "the reaper waits for them")]
mod tests {
    use super::*;
    use crate::sys::fork::in_a_process;
    use std::process::Command;

    /// A child that has ended and is not reaped.
    fn zombie() -> Pid {
        let child = Command::new("true").spawn().unwrap();
        let pid = Pid::from_child(&child);
        waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
        pid
    }

    const ENDED: Option<ExitStatus> = Some(ExitStatus::Code(0));

    #[test]
    fn a_pool_that_reaps_any_child_leaves_those_of_another_pool_to_it() {
        in_a_process(|| {
            let (mut first, mut second) = (Reaper::new(), Reaper::new());
            let (ours, theirs) = (zombie(), zombie());
            first.add(ours);
            second.add(theirs);
            assert!(!second.has_reaped());
            let reaped: Vec<_> = std::iter::from_fn(|| first.reap_any()).collect();
            assert_eq!(reaped, [(ours, ExitStatus::Code(0))]);
            assert!(second.has_reaped() && second.deadline(false, Duration::MAX) == Some(Duration::MAX));
            assert!(second.is_reaped(theirs) && !first.is_reaped(theirs));
            assert_eq!(second.try_reap(theirs), ENDED);
            assert!(!second.has_reaped());
            assert_eq!(of_all_pools().len(), 2);
            first.remove(ours);
            drop(second);
            assert_eq!((of_all_pools().len(), pools()), (0, 1));
        });
    }

    #[test]
    fn a_process_with_the_pid_of_another_pools_reaped_one_does_not_take_its_status() {
        in_a_process(|| {
            let (mut first, mut second) = (Reaper::new(), Reaper::new());
            let ended = zombie();
            second.add(ended);
            assert!(first.reap_any().is_none());
            // The kernel has given the pid to a new process of the first pool.
            first.add(ended);
            assert_eq!(second.try_reap(ended), ENDED);
            second.remove(ended);
            assert_eq!(of_all_pools(), [ended.as_raw_nonzero().get()]);
            assert!(!first.has_reaped());
        });
    }

    #[test]
    fn a_worker_that_was_reaped_before_its_birth_was_reported_has_its_status() {
        in_a_process(|| {
            let (first, mut second) = (Reaper::new(), Reaper::new());
            let (born, stranger) = (zombie(), zombie());
            assert_eq!(std::iter::from_fn(|| first.reap_any()).count(), 2);
            assert!(second.add_born(born) && second.has_reaped());
            assert_eq!(second.try_reap(born), ENDED);
            assert!(!second.add_born(Pid::from_raw(1).unwrap()));
            drop(first);
            // There is no other pool any more that could have had it.
            assert!(!second.add_born(stranger));
        });
    }

    #[test]
    fn a_watched_child_makes_a_descriptor_readable_or_is_looked_at_in_time() {
        in_a_process(|| {
            let mut reaper = Reaper::new();
            let mut child = Command::new("sleep").arg("60").spawn().unwrap();
            reaper.add(Pid::from_child(&child));
            assert_eq!((reaper.descriptors().count(), reaper.deadline(true, Duration::ZERO)), (0, None));
            reaper.watch();
            if reaper.descriptors().count() == 0 {
                assert_eq!(reaper.deadline(false, Duration::ZERO), Some(LOOK_EVERY));
                child.kill().unwrap();
                return;
            }
            assert_eq!(reaper.deadline(false, Duration::ZERO), None);
            assert_eq!(reaper.deadline(true, Duration::ZERO), Some(LOOK_FOR_ORPHANS_EVERY));
            child.kill().unwrap();
            let mut sources: Vec<_> = reaper
                .descriptors()
                .map(|fd| rustix::event::PollFd::from_borrowed_fd(fd, rustix::event::PollFlags::IN))
                .collect();
            assert_eq!(rustix::event::poll(&mut sources, None), Ok(1));
            reaper.remove(Pid::from_child(&child));
            assert_eq!(reaper.descriptors().count(), 0);
        });
    }
}
