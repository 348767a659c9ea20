//! Workers that a mold is to fork: its orders, and the fate of workers that it has not forked yet.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{Crew, Links, Process, ProcessEntry};
use crate::clock;
use crate::error::{Error, Result};
use crate::link::channel::WorkerEnd;
use crate::link::fork_order::{Descriptors, ForkOrder};
use crate::listener::open::OpenSet;
use crate::policy::{Event, ExitStatus, WorkerId};
use crate::spawn::reap;
use crate::sys::ancestry::ADOPTS;

/// An order for a mold, and the descriptors that go with it.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) order: ForkOrder,
    pub(crate) end: WorkerEnd,
    pub(crate) listeners: OpenSet,
}

/// How many orders a mold is given before it has answered the first of them: more would only wait in its socket, which
/// has little room.
const UNANSWERED: usize = 4;

/// A fork takes less, also on a machine that is busy: a mold that has done none for so long when a worker is given up that
/// it is to fork never will.
pub(super) const FORK_PATIENCE: Duration = Duration::from_millis(100);

/// A worker whose mold is gone is born by then, or never.
const ORPHANS_PATIENCE: Duration = Duration::from_secs(1);

impl Wanted {
    fn descriptors(&self) -> Descriptors<BorrowedFd<'_>> {
        Descriptors {
            end: self.end.as_fd(),
            listeners: self.listeners.iter().map(|listener| listener.as_fd()).collect(),
        }
    }
}

impl Crew {
    /// Has a mold fork a worker, as soon as it has forked those before it.
    pub(crate) fn order(
        &mut self,
        (worker, mold): (WorkerId, WorkerId),
        links: Links,
        wanted: Wanted,
    ) -> Result<()> {
        let gone = || Error::system("have a mold fork", io::Error::other("there is no such mold"));
        self.entries.get_mut(&mold).ok_or_else(gone)?.wanted.push_back((worker, wanted));
        let process = Process::Awaited { mold, since: clock::now(), is_doomed: false, failure: None };
        self.entries.insert(worker, ProcessEntry::new(process, links));
        self.send_orders(mold);
        Ok(())
    }

    /// Sends orders to a mold, no more than a few at once.
    pub(super) fn send_orders(&mut self, mold: WorkerId) {
        let Some(ProcessEntry { links: Links { forks: Some(_), .. }, wanted, .. }) = self.entries.get(&mold)
        else {
            return;
        };
        let is_ordered = |worker: &WorkerId| !wanted.iter().any(|(other, _)| other == worker);
        let mut told = self.awaited(mold).filter(|worker| is_ordered(worker)).count();
        while told < UNANSWERED {
            let Some(entry) = self.entries.get_mut(&mold) else { return };
            if told == 0 && !entry.wanted.is_empty() {
                entry.moved = clock::now();
            }
            let (Some(forks), Some((worker, wanted))) = (&entry.links.forks, entry.wanted.pop_front()) else {
                return;
            };
            let sent = forks.send(&wanted.order, &wanted.descriptors());
            told += 1;
            // The end of its link, which is closed here, says that there is no such worker; this says why.
            if let (Err(error), Some(entry)) = (sent, self.entries.get_mut(&worker)) {
                entry.failed(format!("the mold cannot be reached: {error}"));
            }
        }
    }

    /// A mold has forked a worker, or has said that it cannot.
    pub(super) fn has_moved(&mut self, mold: WorkerId) {
        if let Some(mold) = self.entries.get_mut(&mold) {
            mold.moved = clock::now();
        }
    }

    /// The workers that a mold has not forked yet.
    pub(super) fn awaited(&self, mold: WorkerId) -> impl Iterator<Item = WorkerId> {
        self.entries.iter().filter_map(move |(worker, entry)| match entry.process {
            Process::Awaited { mold: by, .. } if by == mold => Some(*worker),
            _ => None,
        })
    }

    /// A worker has a process; or had one, that has just been reaped.
    pub(super) fn on_born(&mut self, worker: WorkerId, pid: Pid, reaped: &[Pid]) -> Option<Event> {
        let is_taken = self.entries.values().any(|entry| entry.process.pid() == Some(pid));
        let entry = self.entries.get_mut(&worker)?;
        let Process::Awaited { mold, is_doomed, .. } = entry.process else { return None };
        let is_reaped = reaped.contains(&pid);
        if is_taken || ADOPTS && !is_reaped && !reap::is_child(pid) {
            log::error!("worker {} says that it is process {pid}, which is none of ours", worker.0);
            return None;
        }
        entry.counter = self.kills.own();
        entry.process = match ADOPTS {
            true => Process::Child(pid),
            false => Process::Grandchild { pid, mold, last_word: None },
        };
        // One that was reaped has no pid any more: another process may have it.
        if is_doomed && !is_reaped {
            let _ = kill_process(pid, Signal::KILL);
        }
        self.has_moved(mold);
        Some(Event::Spawned { worker, pid: pid.as_raw_nonzero().get() })
    }

    /// The end of workers that no process reports: those that were never born, and those whose mold is gone. Processes that the
    /// application has forked may keep the link of one open that is not born; it has a moment, for it may be on its way.
    pub(super) fn those_without_end(&mut self) -> Vec<Event> {
        let now = clock::now();
        let is_over = |entry: &ProcessEntry| {
            let (is_silent, has) = (entry.links.link.has_ended(), |mold| self.entries.contains_key(mold));
            match &entry.process {
                Process::Awaited { mold, since, .. } => {
                    is_silent || !has(mold) && now.saturating_sub(*since) >= ORPHANS_PATIENCE
                }
                Process::Grandchild { mold, .. } => is_silent && !has(mold),
                Process::Child(_) => false,
            }
        };
        let over = self.entries.iter().filter(|(_, entry)| is_over(entry)).map(|(worker, _)| *worker);
        let over: Vec<WorkerId> = over.collect();
        over.into_iter().filter_map(|worker| self.end_unseen(worker)).collect()
    }

    pub(super) fn end_unseen(&mut self, worker: WorkerId) -> Option<Event> {
        let reason = match &self.entries.get(&worker)?.process {
            Process::Awaited { is_doomed: true, .. } => {
                return self.end(worker, ExitStatus::Signal(Signal::KILL.as_raw()));
            }
            Process::Awaited { failure, .. } => failure.clone(),
            Process::Grandchild { last_word: Some(status), .. } => return self.end(worker, *status),
            // It is not known how.
            _ => return self.end(worker, ExitStatus::Code(-1)),
        };
        self.end(worker, ExitStatus::Code(-1));
        let reason =
            reason.unwrap_or_else(|| "the mold, or what it had forked, died before it was born".to_owned());
        Some(Event::SpawnFailed { worker, reason })
    }
}
