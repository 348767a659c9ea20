//! The handles of the living workers and molds: process, link, scoreboard row.
//!
//! Facts about them are in `policy/table` and `policy/molds`.
//!
//! A worker that a mold forks is awaited first: it has a link, and no process until it reports `Born` there. Each error
//! before that (the mold has died, or cannot fork) closes the worker's end of the link, which the supervisor notices.
//!
//! - `births`: workers that a mold forks.
//! - `deaths`: reports and ends.
//! - `kills`: which deaths the kernel's out-of-memory kills explain.
//! - `record`: the handles, for the next image.

mod births;
mod deaths;
mod kills;
mod record;
#[cfg(test)]
mod tests;

pub(crate) use births::QueuedFork;
pub(crate) use record::CrewRecord;

use kills::Kills;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::process::{Pid, Signal, kill_process};

use crate::clock;
use crate::host::out_of_memory::Counter;
use crate::host::usage::{self, Usage};
use crate::link::channel::SupervisorEnd;
use crate::link::fork_order::OrderingEnd;
use crate::link::message::Order;
use crate::link::scoreboard::{Gauges, Scoreboard, ScoreboardRow, ScoreboardRows};
use crate::policy::{Event, Evidence, ExitStatus, LastError, Moment, OutOfMemory, WorkerId};
use crate::spawn::reap::Reaper;
use crate::sys::ancestry;

/// The connections of the supervisor to a worker or a mold.
#[derive(Debug)]
pub(crate) struct Links {
    pub(crate) link: SupervisorEnd,
    /// `None` for a mold.
    pub(crate) row: Option<ScoreboardRow>,
    /// For a mold: the supervisor's end of its queue of fork orders.
    pub(crate) forks: Option<OrderingEnd>,
}

/// The process of an entry, as far as known.
#[derive(Debug)]
enum Process {
    /// A mold has not forked it yet.
    Awaited {
        mold: WorkerId,
        since: Moment,
        /// It is killed as soon as it has a process.
        is_doomed: bool,
        /// The reason why it was not forked, if known.
        failure: Option<String>,
    },
    /// A child of the supervisor: waitpid(2) reports its end.
    Child(Pid),
    /// A child of a mold, which reports its end.
    Grandchild {
        pid: Pid,
        mold: WorkerId,
        /// The status that it reported itself, for the case that its mold has ended.
        own_report: Option<ExitStatus>,
    },
}

impl Process {
    fn pid(&self) -> Option<Pid> {
        match self {
            Process::Awaited { .. } => None,
            Process::Child(pid) | Process::Grandchild { pid, .. } => Some(*pid),
        }
    }
}

/// The handles of one process.
#[derive(Debug)]
struct ProcessEntry {
    process: Process,
    links: Links,
    /// For a mold: the workers whose fork orders are not sent yet.
    queued: VecDeque<(WorkerId, QueuedFork)>,
    born: Moment,
    /// For a mold: when it last forked a worker, or received an order while it had none.
    last_progress: Moment,
    /// The kernel's counter of out-of-memory kills in its cgroup.
    counter: Option<Counter>,
    /// The supervisor has sent it SIGKILL.
    is_killed: bool,
    /// The error or panic that it reported; its exit follows.
    last_error: Option<LastError>,
}

/// The current state of a worker.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// The time since its fork.
    pub(crate) age: Duration,
    pub(crate) gauges: Gauges,
    pub(crate) usage: Usage,
}

/// All workers and molds from the request for their fork until they are reaped, and the scoreboard.
#[derive(Debug)]
pub(crate) struct Crew {
    entries: BTreeMap<WorkerId, ProcessEntry>,
    scoreboard: Scoreboard,
    /// Whether the supervisor adopts orphans, and so reaps all its children.
    adopts: bool,
    /// Whether the descendants of a worker count as a part of it.
    counts_descendants: bool,
    kills: Kills,
    gone: Gone,
    /// Reaped children that are neither worker nor mold.
    reaped_others: Vec<(Pid, ExitStatus)>,
    reaper: Reaper,
}

/// A worker or a mold that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) pid: i32,
    pub(super) is_mold: bool,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", if self.is_mold { "mold" } else { "worker" }, self.pid)
    }
}

/// Processes that have been reaped.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Gone {
    pub(crate) members: Vec<Member>,
    /// Whether there were others: orphans of workers.
    pub(crate) has_others: bool,
}

impl Crew {
    /// Room for `most` workers at once.
    pub(crate) fn new(most: usize) -> io::Result<Self> {
        Ok(Self {
            entries: BTreeMap::new(),
            scoreboard: Scoreboard::new(most)?,
            adopts: ancestry::adopts(),
            counts_descendants: false,
            kills: Kills::new(),
            gone: Gone::default(),
            reaped_others: Vec::new(),
            reaper: Reaper::new(),
        })
    }

    /// Counts the descendants of a worker as a part of it.
    pub(crate) fn count_descendants(&mut self, counts_descendants: bool) {
        self.counts_descendants = counts_descendants;
    }

    /// Watches its processes from now on: no SIGCHLD reports their ends.
    pub(crate) fn watch_children(&mut self) {
        self.reaper.watch();
    }

    /// Whether another pool of this process has reaped one of its processes.
    pub(crate) fn has_reaped(&self) -> bool {
        self.reaper.has_reaped()
    }

    /// Reaps all children from now on, also adopted ones.
    pub(crate) fn adopts(&mut self) {
        self.adopts = ancestry::adopts();
    }

    /// The rows of all workers, for a mold.
    pub(crate) fn board(&self) -> ScoreboardRows {
        self.scoreboard.board()
    }

    /// Takes a scoreboard row for a worker that is about to be forked.
    pub(crate) fn take_row(&mut self) -> Option<ScoreboardRow> {
        self.scoreboard.take()
    }

    /// Gives back the row of a failed fork.
    pub(crate) fn give_back(&mut self, row: &ScoreboardRow) {
        self.scoreboard.give_back(row);
    }

    /// Adds a forked worker or mold.
    pub(crate) fn join(&mut self, worker: WorkerId, pid: Pid, links: Links) {
        let mut entry = ProcessEntry::new(Process::Child(pid), links);
        entry.counter = self.kills.own();
        self.reaper.add(pid);
        self.entries.insert(worker, entry);
    }

    /// The descriptors to poll: links, and pidfds. A link that has ended is always readable, so it is left out.
    pub(crate) fn links(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let links = self.entries.values().map(|entry| &entry.links.link);
        links.filter(|link| !link.has_ended()).map(AsFd::as_fd).chain(self.reaper.descriptors())
    }

    /// Sends an order to a worker.
    pub(crate) fn send(&mut self, worker: WorkerId, order: Order) {
        if let Some(entry) = self.entries.get_mut(&worker) {
            if let Err(error) = entry.links.link.send(order) {
                log::debug!("worker {} does not listen: {error}", worker.0);
            }
        }
    }

    /// Sends an order to all molds.
    pub(crate) fn send_to_molds(&mut self, order: &Order) {
        let molds = self.entries.iter().filter(|(_, entry)| entry.links.row.is_none());
        for mold in molds.map(|(mold, _)| *mold).collect::<Vec<_>>() {
            self.send(mold, order.clone());
        }
    }

    /// Sends a signal. A worker of the crew is not reaped yet, so no other process has its pid, or another pool of this
    /// process has reaped it.
    ///
    /// SIGKILL for a worker without a process takes effect once its mold has forked it. Returns an event if the mold
    /// makes no progress.
    pub(crate) fn signal(&mut self, worker: WorkerId, signal: Signal) -> Option<Event> {
        let entry = self.entries.get_mut(&worker)?;
        entry.is_killed |= signal == Signal::KILL;
        match &mut entry.process {
            Process::Child(pid) if self.reaper.is_reaped(*pid) => {}
            Process::Child(pid) | Process::Grandchild { pid, .. } => {
                let _ = kill_process(*pid, signal);
            }
            Process::Awaited { mold, is_doomed, .. } if signal == Signal::KILL => {
                *is_doomed = true;
                let id = *mold;
                let Some(mold) = self.entries.get_mut(&id) else {
                    self.entries.get(&worker)?.links.link.end();
                    return None;
                };
                let before = mold.queued.len();
                mold.queued.retain(|(other, _)| *other != worker);
                let has_order = mold.queued.len() == before;
                let is_stuck = clock::now().saturating_sub(mold.last_progress) >= births::FORK_PATIENCE;
                return (has_order && is_stuck).then_some(Event::MoldStuck { mold: id });
            }
            Process::Awaited { .. } => {}
        }
        None
    }

    /// The descriptor to poll for notices of memory shortage, and the event.
    pub(crate) fn memory_source(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        self.kills.source()
    }

    /// The time to read the kill counters or to reap at without an event.
    pub(crate) fn deadline(&self, now: Moment) -> Option<Moment> {
        self.kills.deadline().into_iter().chain(self.reaper.deadline(self.adopts, now)).min()
    }

    /// Reads the kill counters when due, since a death is explained by an earlier reading.
    pub(crate) fn on_wake(&mut self, now: Moment) {
        // One at a time: the kernel keeps readers of a process's cgroup waiting while it changes any.
        if let Some(turn) = self.kills.on_wake(now) {
            let with_process = self.entries.values_mut().filter(|entry| entry.process.pid().is_some());
            let mut entries: Vec<&mut ProcessEntry> = with_process.collect();
            let count = entries.len().max(1);
            if let Some(entry) = entries.get_mut(turn % count) {
                let pid = entry.process.pid();
                let counter = pid.and_then(|pid| self.kills.counter_of(pid.as_raw_nonzero().get()));
                entry.counter = counter.or_else(|| entry.counter.take());
            }
        }
    }

    /// The other children that were reaped since the last call, with their exit status.
    pub(crate) fn take_reaped_others(&mut self) -> Vec<(Pid, ExitStatus)> {
        std::mem::take(&mut self.reaped_others)
    }

    /// The processes that were reaped since the last call.
    pub(crate) fn take_gone(&mut self) -> Gone {
        std::mem::take(&mut self.gone)
    }

    /// The pids of all processes of the crew.
    pub(crate) fn pids(&self) -> impl Iterator<Item = i32> + '_ {
        self.entries.values().filter_map(|entry| Some(entry.process.pid()?.as_raw_nonzero().get()))
    }

    /// Whether some worker may have a process with an unknown pid.
    pub(crate) fn is_awaiting(&self) -> bool {
        self.entries.values().any(|entry| matches!(entry.process, Process::Awaited { .. }))
    }

    /// The last beat of each worker.
    pub(crate) fn beats(&self) -> Event {
        let beats = self
            .entries
            .iter()
            .filter_map(|(&worker, entry)| Some((worker, entry.links.row.as_ref()?.last_beat())));
        Event::Beats(beats.collect())
    }

    /// The memory of each worker, in bytes.
    pub(crate) fn memory(&self) -> Vec<(WorkerId, u64)> {
        let used = |entry: &ProcessEntry| {
            let pid = entry.process.pid()?.as_raw_nonzero().get();
            if self.counts_descendants { usage::of_family(pid).rss_bytes } else { usage::resident(pid) }
        };
        self.entries.iter().filter_map(|(&worker, entry)| Some((worker, used(entry)?))).collect()
    }

    /// The current state of a worker or mold.
    pub(crate) fn snapshot(&self, worker: WorkerId, now: Moment) -> Option<Snapshot> {
        let entry = self.entries.get(&worker)?;
        Some(Snapshot {
            age: now.saturating_sub(entry.born),
            gauges: entry.links.row.as_ref().map(ScoreboardRow::gauges).unwrap_or_default(),
            usage: entry
                .process
                .pid()
                .map(|pid| pid.as_raw_nonzero().get())
                .map(|pid| if self.counts_descendants { usage::of_family(pid) } else { usage::usage(pid) })
                .unwrap_or_default(),
        })
    }

    /// Closes the handles in a forked child. An open copy of a link's end would hide the supervisor's death from the
    /// lifelines.
    pub(crate) fn close_in_child(&mut self) {
        self.entries.clear();
        self.reaper.close_in_child();
        self.scoreboard.close_in_child();
        self.kills.close_in_child();
    }
}

impl ProcessEntry {
    fn new(process: Process, links: Links) -> Self {
        Self {
            process,
            links,
            queued: VecDeque::new(),
            born: clock::now(),
            last_progress: clock::now(),
            counter: None,
            is_killed: false,
            last_error: None,
        }
    }

    /// Whether its process is in `reaped` or not known yet.
    fn may_be_in(&self, reaped: &[Pid]) -> bool {
        match &self.process {
            Process::Awaited { .. } => !reaped.is_empty(),
            Process::Child(pid) | Process::Grandchild { pid, .. } => reaped.contains(pid),
        }
    }

    fn failed(&mut self, reason: String) {
        if let Process::Awaited { failure, .. } = &mut self.process {
            failure.get_or_insert(reason);
        }
    }

    fn evidence(&self, out_of_memory: OutOfMemory) -> Evidence {
        Evidence {
            out_of_memory,
            sender: self.links.row.as_ref().and_then(ScoreboardRow::last_sender),
            request_age: self.links.row.as_ref().and_then(ScoreboardRow::request_age),
            error: self.last_error.clone(),
        }
    }
}
