//! The handles of workers and molds, for the next image of the supervisor.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::kills::Kills;
use super::{Crew, Gone, Links, Process, ProcessEntry};
use crate::link::channel::{ChannelRecord, SupervisorEnd};
use crate::link::fork_order::OrderingEnd;
use crate::link::scoreboard::{Scoreboard, ScoreboardRecord, ScoreboardRow};
use crate::policy::{LastError, Moment, WorkerId};
use crate::spawn::reap::Reaper;
use crate::sys::ancestry;

/// A [`Crew`], for the next image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CrewRecord {
    board: ScoreboardRecord,
    entries: Vec<EntryRecord>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct EntryRecord {
    worker: WorkerId,
    process: ProcessRecord,
    link: ChannelRecord,
    row: Option<usize>,
    forks: Option<RawFd>,
    born: Moment,
    #[serde(default)]
    last_error: Option<LastError>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum ProcessRecord {
    Awaited { mold: WorkerId, since: Moment, is_doomed: bool, failure: Option<String> },
    Child(i32),
    Grandchild { pid: i32, mold: WorkerId },
}

impl CrewRecord {
    /// All descriptors in it.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> + '_ {
        let entries = self.entries.iter().flat_map(|entry| [entry.link.fd].into_iter().chain(entry.forks));
        entries.chain([self.board.fd])
    }
}

impl Process {
    fn describe(&self) -> ProcessRecord {
        let number = |pid: &Pid| pid.as_raw_nonzero().get();
        match self {
            Process::Awaited { mold, since, is_doomed, failure } => ProcessRecord::Awaited {
                mold: *mold,
                since: *since,
                is_doomed: *is_doomed,
                failure: failure.clone(),
            },
            Process::Child(pid) => ProcessRecord::Child(number(pid)),
            Process::Grandchild { pid, mold, .. } => {
                ProcessRecord::Grandchild { pid: number(pid), mold: *mold }
            }
        }
    }
}

impl ProcessRecord {
    /// `None`: the pid is invalid.
    fn adopt(self) -> Option<Process> {
        Some(match self {
            ProcessRecord::Awaited { mold, since, is_doomed, failure } => {
                Process::Awaited { mold, since, is_doomed, failure }
            }
            ProcessRecord::Child(pid) => Process::Child(Pid::from_raw(pid)?),
            ProcessRecord::Grandchild { pid, mold } => {
                Process::Grandchild { pid: Pid::from_raw(pid)?, mold, own_report: None }
            }
        })
    }
}

impl Crew {
    /// The record for the next image. It has no queued fork orders: the ends of those workers' links close, and their
    /// forks fail.
    pub(crate) fn describe(&self) -> io::Result<CrewRecord> {
        let entries = self.entries.iter().map(|(worker, entry)| EntryRecord {
            worker: *worker,
            process: entry.process.describe(),
            link: entry.links.link.describe(),
            row: entry.links.row.as_ref().map(ScoreboardRow::index),
            forks: entry.links.forks.as_ref().map(|forks| forks.as_fd().as_raw_fd()),
            born: entry.born,
            last_error: entry.last_error.clone(),
        });
        let board = self.scoreboard.describe().ok_or(io::ErrorKind::Unsupported)?;
        Ok(CrewRecord { board, entries: entries.collect() })
    }

    /// The recorded crew, in the process that has inherited its descriptors and children.
    pub(crate) fn adopt(record: CrewRecord) -> io::Result<Self> {
        let scoreboard = Scoreboard::adopt(&record.board)?;
        let mut crew = Self {
            entries: BTreeMap::new(),
            scoreboard,
            adopts: ancestry::adopts(),
            counts_descendants: false,
            kills: Kills::new(),
            gone: Gone::default(),
            reaped_others: Vec::new(),
            reaper: Reaper::new(),
        };
        for entry in record.entries {
            let worker = entry.worker;
            match crew.adopt_entry(entry) {
                Ok(entry) => {
                    if let Process::Child(pid) = entry.process {
                        crew.reaper.add(pid);
                    }
                    crew.entries.insert(worker, entry);
                }
                Err(error) => {
                    // The handles stay open for the return to the old image.
                    std::mem::forget(crew);
                    return Err(error);
                }
            }
        }
        Ok(crew)
    }

    fn adopt_entry(&mut self, record: EntryRecord) -> io::Result<ProcessEntry> {
        let wrong = || io::Error::other("the record contradicts itself");
        let process = record.process.adopt().ok_or_else(wrong)?;
        let row = match record.row {
            Some(index) => Some(self.scoreboard.take_existing(index).ok_or_else(wrong)?),
            None => None,
        };
        let counter = self.kills.own();
        let forks = record.forks.map(OrderingEnd::adopt).transpose()?;
        Ok(ProcessEntry {
            process,
            links: Links { link: SupervisorEnd::adopt(record.link)?, row, forks },
            queued: VecDeque::new(),
            born: record.born,
            last_progress: crate::clock::now(),
            counter,
            is_killed: false,
            last_error: record.last_error,
        })
    }
}
