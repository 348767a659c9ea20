//! Workers that a mold forks: its orders, and workers that it has not forked yet.

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
use crate::sys::ancestry::ADOPTS;

/// A fork order that is not sent yet, with its descriptors.
#[derive(Debug)]
pub(crate) struct QueuedFork {
    pub(crate) order: ForkOrder,
    pub(crate) end: WorkerEnd,
    pub(crate) listeners: OpenSet,
}

/// The most orders to a mold without an answer: its socket has room for few.
const MAX_UNANSWERED: usize = 4;

/// A mold without a fork for this time is stuck: a fork takes less, also on a busy machine.
pub(super) const FORK_PATIENCE: Duration = Duration::from_millis(100);

/// A worker whose mold has ended reports `Born` within this time, or never.
const ORPHANS_PATIENCE: Duration = Duration::from_secs(1);

impl QueuedFork {
    fn descriptors(&self) -> Descriptors<BorrowedFd<'_>> {
        Descriptors {
            end: self.end.as_fd(),
            listeners: self.listeners.iter().map(|listener| listener.as_fd()).collect(),
        }
    }
}

impl Crew {
    /// Queues a fork order for a mold.
    pub(crate) fn order(
        &mut self,
        (worker, mold): (WorkerId, WorkerId),
        links: Links,
        queued: QueuedFork,
    ) -> Result<()> {
        let gone = || Error::system("have a mold fork", io::Error::other("there is no such mold"));
        self.entries.get_mut(&mold).ok_or_else(gone)?.queued.push_back((worker, queued));
        let process = Process::Awaited { mold, since: clock::now(), is_doomed: false, failure: None };
        self.entries.insert(worker, ProcessEntry::new(process, links));
        self.send_orders(mold);
        Ok(())
    }

    /// Sends queued orders to a mold, up to [`MAX_UNANSWERED`].
    pub(super) fn send_orders(&mut self, mold: WorkerId) {
        let Some(ProcessEntry { links: Links { forks: Some(_), .. }, queued, .. }) = self.entries.get(&mold)
        else {
            return;
        };
        let is_ordered = |worker: &WorkerId| !queued.iter().any(|(other, _)| other == worker);
        let mut unanswered = self.awaited(mold).filter(|worker| is_ordered(worker)).count();
        while unanswered < MAX_UNANSWERED {
            let Some(entry) = self.entries.get_mut(&mold) else { return };
            if unanswered == 0 && !entry.queued.is_empty() {
                entry.last_progress = clock::now();
            }
            let (Some(forks), Some((worker, queued))) = (&entry.links.forks, entry.queued.pop_front()) else {
                return;
            };
            let sent = forks.send(&queued.order, &queued.descriptors());
            unanswered += 1;
            // The end of the link is closed here, which ends the worker. This adds the reason.
            if let (Err(error), Some(entry)) = (sent, self.entries.get_mut(&worker)) {
                entry.failed(format!("the mold cannot be reached: {error}"));
            }
        }
    }

    /// Notes that a mold has forked a worker, or reported that it cannot.
    pub(super) fn note_progress(&mut self, mold: WorkerId) {
        if let Some(mold) = self.entries.get_mut(&mold) {
            mold.last_progress = clock::now();
        }
    }

    /// The workers that a mold has not forked yet.
    pub(super) fn awaited(&self, mold: WorkerId) -> impl Iterator<Item = WorkerId> {
        self.entries.iter().filter_map(move |(worker, entry)| match entry.process {
            Process::Awaited { mold: by, .. } if by == mold => Some(*worker),
            _ => None,
        })
    }

    /// Handles `Born`: the worker has a process, which may have just been reaped.
    pub(super) fn on_born(&mut self, worker: WorkerId, pid: Pid, reaped: &[Pid]) -> Option<Event> {
        let is_taken = self.entries.values().any(|entry| entry.process.pid() == Some(pid));
        let Process::Awaited { mold, is_doomed, .. } = self.entries.get(&worker)?.process else {
            return None;
        };
        let is_reaped = reaped.contains(&pid);
        if is_taken || ADOPTS && !is_reaped && !self.reaper.add_born(pid) {
            log::error!("worker {} says that it is process {pid}, which is none of ours", worker.0);
            return None;
        }
        let entry = self.entries.get_mut(&worker)?;
        entry.counter = self.kills.own();
        entry.process = match ADOPTS {
            true => Process::Child(pid),
            false => Process::Grandchild { pid, mold, own_report: None },
        };
        // The pid of a reaped process may belong to another process.
        if is_doomed && !is_reaped && !self.reaper.is_reaped(pid) {
            let _ = kill_process(pid, Signal::KILL);
        }
        self.note_progress(mold);
        Some(Event::Spawned { worker, pid: pid.as_raw_nonzero().get() })
    }

    /// Ends workers whose end no process reports: a worker that was never born, or one whose mold has ended.
    ///
    /// Processes that the application has forked may keep the link of an unborn worker open. So such a worker ends
    /// [`ORPHANS_PATIENCE`] after its order.
    pub(super) fn unreported_ends(&mut self) -> Vec<Event> {
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
        over.into_iter().filter_map(|worker| self.end_unreported(worker)).collect()
    }

    pub(super) fn end_unreported(&mut self, worker: WorkerId) -> Option<Event> {
        let reason = match &self.entries.get(&worker)?.process {
            Process::Awaited { is_doomed: true, .. } => {
                return self.end(worker, ExitStatus::Signal(Signal::KILL.as_raw()));
            }
            Process::Awaited { failure, .. } => failure.clone(),
            Process::Grandchild { own_report: Some(status), .. } => return self.end(worker, *status),
            // The status is unknown.
            _ => return self.end(worker, ExitStatus::Code(-1)),
        };
        self.end(worker, ExitStatus::Code(-1));
        let reason =
            reason.unwrap_or_else(|| "the mold, or what it had forked, died before it was born".to_owned());
        Some(Event::SpawnFailed { worker, reason })
    }
}
