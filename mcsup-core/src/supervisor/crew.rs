//! The handles of the living workers and molds: process, link, scoreboard line. Facts about them are in `policy/table`
//! and `policy/molds`.
//!
//! A worker that a mold forks is awaited first: it has a link, and no process until it reports `Born` there. Each error
//! before that (the mold has died, or cannot fork) closes the worker's end of the link, which the supervisor notices.
//!
//! - `births`: those that a mold is to fork.
//! - `deaths`: what they have said, and how they end.
//! - `kills`: which deaths the kernel's out-of-memory kills explain.
//! - `record`: their handles, for the next image.

mod births;
mod deaths;
mod kills;
mod record;
#[cfg(test)]
mod tests;

pub(crate) use births::Wanted;
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
use crate::policy::{Event, Evidence, ExitStatus, Moment, OutOfMemory, WorkerId};
use crate::sys::ancestry;

/// What joins us to a worker or a mold.
#[derive(Debug)]
pub(crate) struct Links {
    pub(crate) link: SupervisorEnd,
    /// `None`: a mold has none.
    pub(crate) row: Option<ScoreboardRow>,
    /// Our end for orders to fork, where it is a mold.
    pub(crate) forks: Option<OrderingEnd>,
}

/// Which process it is.
#[derive(Debug)]
enum Process {
    /// None yet: a mold is to fork it.
    Awaited {
        mold: WorkerId,
        since: Moment,
        /// It is to be killed as soon as that is possible.
        is_doomed: bool,
        /// Why it was not forked, where that is known.
        failure: Option<String>,
    },
    /// Our child: waitpid(2) says how it ends.
    Child(Pid),
    /// The child of a mold, which says how it ends.
    Grandchild {
        pid: Pid,
        mold: WorkerId,
        /// What it has said itself, should the mold be gone by then.
        last_word: Option<ExitStatus>,
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

/// One process's handles.
#[derive(Debug)]
struct ProcessEntry {
    process: Process,
    links: Links,
    /// As a mold: the workers that it has not been ordered to fork yet.
    wanted: VecDeque<(WorkerId, Wanted)>,
    born: Moment,
    /// As a mold: when it last forked a worker, or was first ordered to.
    moved: Moment,
    /// Where the kernel counts its out-of-memory kills in this process's cgroup.
    counter: Option<Counter>,
    /// We have sent it SIGKILL.
    is_killed: bool,
}

/// A worker as it is now.
#[derive(Debug)]
pub(crate) struct Look {
    /// Since it was forked.
    pub(crate) age: Duration,
    pub(crate) gauges: Gauges,
    pub(crate) usage: Usage,
}

/// All workers and molds that were forked, or asked for, and not yet reaped, and the memory that they share with us.
#[derive(Debug)]
pub(crate) struct Crew {
    entries: BTreeMap<WorkerId, ProcessEntry>,
    scoreboard: Scoreboard,
    /// Whether processes become our children that we have not forked.
    adopts: bool,
    kills: Kills,
    gone: Gone,
    /// Children that were reaped, and are no worker and no mold.
    reaped_others: Vec<(Pid, ExitStatus)>,
}

/// A worker or a mold that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) pid: i32,
    is_mold: bool,
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
            kills: Kills::new(),
            gone: Gone::default(),
            reaped_others: Vec::new(),
        })
    }

    /// From now on all children are reaped, also those that others have forked.
    pub(crate) fn adopts(&mut self) {
        self.adopts = ancestry::adopts();
    }

    /// The lines of all workers, for a mold.
    pub(crate) fn board(&self) -> ScoreboardRows {
        self.scoreboard.board()
    }

    /// A scoreboard line for a worker that is about to be forked.
    pub(crate) fn take_row(&mut self) -> Option<ScoreboardRow> {
        self.scoreboard.take()
    }

    /// The fork failed: the line comes back.
    pub(crate) fn give_back(&mut self, row: &ScoreboardRow) {
        self.scoreboard.give_back(row);
    }

    /// A forked worker or mold.
    pub(crate) fn join(&mut self, worker: WorkerId, pid: Pid, links: Links) {
        let mut entry = ProcessEntry::new(Process::Child(pid), links);
        entry.counter = self.kills.own();
        self.entries.insert(worker, entry);
    }

    /// What to wait on: the link of each worker that can still say something. One that has ended would never let us wait.
    pub(crate) fn links(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let links = self.entries.values().map(|entry| &entry.links.link);
        links.filter(|link| !link.has_ended()).map(AsFd::as_fd)
    }

    /// Says something to a worker.
    pub(crate) fn send(&mut self, worker: WorkerId, order: Order) {
        if let Some(entry) = self.entries.get_mut(&worker) {
            if let Err(error) = entry.links.link.send(order) {
                log::debug!("worker {} does not listen: {error}", worker.0);
            }
        }
    }

    /// Says something to all molds.
    pub(crate) fn say_to_molds(&mut self, order: &Order) {
        let molds = self.entries.iter().filter(|(_, entry)| entry.links.row.is_none());
        for mold in molds.map(|(mold, _)| *mold).collect::<Vec<_>>() {
            self.send(mold, order.clone());
        }
    }

    /// Sends a signal. A worker that is in the crew was not reaped, so its pid is still its own. One that has no process
    /// yet will be killed when it has, where that was asked for; if its mold does nothing, that is returned.
    pub(crate) fn signal(&mut self, worker: WorkerId, signal: Signal) -> Option<Event> {
        let entry = self.entries.get_mut(&worker)?;
        entry.is_killed |= signal == Signal::KILL;
        match &mut entry.process {
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
                let before = mold.wanted.len();
                mold.wanted.retain(|(other, _)| *other != worker);
                let has_order = mold.wanted.len() == before;
                let is_stuck = clock::now().saturating_sub(mold.moved) >= births::FORK_PATIENCE;
                return (has_order && is_stuck).then_some(Event::MoldStuck { mold: id });
            }
            Process::Awaited { .. } => {}
        }
        None
    }

    /// What to wait on for notice of a lack of memory, and for what.
    pub(crate) fn memory_news(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        self.kills.source()
    }

    /// When to look at the kernel's kills though nothing has happened.
    pub(crate) fn deadline(&self) -> Option<Moment> {
        self.kills.deadline()
    }

    /// The supervisor is awake: whatever is to be known before a death is looked at, where that is due.
    pub(crate) fn wakes(&mut self, now: Moment) {
        // One at a time: the kernel keeps readers of a process's cgroup waiting while it changes any.
        if let Some(turn) = self.kills.wakes(now) {
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

    /// Other children that have been reaped since the last call, and how they ended.
    pub(crate) fn take_reaped_others(&mut self) -> Vec<(Pid, ExitStatus)> {
        std::mem::take(&mut self.reaped_others)
    }

    /// What has been reaped since the last call.
    pub(crate) fn take_gone(&mut self) -> Gone {
        std::mem::take(&mut self.gone)
    }

    /// All processes of the crew.
    pub(crate) fn pids(&self) -> impl Iterator<Item = i32> + '_ {
        self.entries.values().filter_map(|entry| Some(entry.process.pid()?.as_raw_nonzero().get()))
    }

    /// Whether some worker may have a process that is not known yet.
    pub(crate) fn is_awaiting(&self) -> bool {
        self.entries.values().any(|entry| matches!(entry.process, Process::Awaited { .. }))
    }

    /// When each worker last moved.
    pub(crate) fn beats(&self) -> Event {
        let beats = self
            .entries
            .iter()
            .filter_map(|(&worker, entry)| Some((worker, entry.links.row.as_ref()?.last_beat())));
        Event::Beats(beats.collect())
    }

    /// How much memory each worker uses, in bytes.
    pub(crate) fn memory(&self) -> Vec<(WorkerId, u64)> {
        let used = |entry: &ProcessEntry| usage::resident(entry.process.pid()?.as_raw_nonzero().get());
        self.entries.iter().filter_map(|(&worker, entry)| Some((worker, used(entry)?))).collect()
    }

    /// How one of them is.
    pub(crate) fn look(&self, worker: WorkerId, now: Moment) -> Option<Look> {
        let entry = self.entries.get(&worker)?;
        Some(Look {
            age: now.saturating_sub(entry.born),
            gauges: entry.links.row.as_ref().map(ScoreboardRow::gauges).unwrap_or_default(),
            usage: entry
                .process
                .pid()
                .map(|pid| usage::usage(pid.as_raw_nonzero().get()))
                .unwrap_or_default(),
        })
    }

    /// In a forked child: these handles are the supervisor's. Closing a copy of a link's end keeps every lifeline
    /// the supervisor's alone.
    pub(crate) fn close_in_child(&mut self) {
        self.entries.clear();
        self.scoreboard.close_in_child();
        self.kills.close_in_child();
    }
}

impl ProcessEntry {
    fn new(process: Process, links: Links) -> Self {
        Self {
            process,
            links,
            wanted: VecDeque::new(),
            born: clock::now(),
            moved: clock::now(),
            counter: None,
            is_killed: false,
        }
    }

    /// Whether its process is one of these, or not known yet.
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
        }
    }
}
