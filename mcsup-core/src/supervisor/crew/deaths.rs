//! Reports of workers and molds, and their ends: the last reports of a process come before its end.

use rustix::process::Pid;

use super::{Crew, Member, Process, ProcessEntry};
use crate::link::channel::ReadLimit;
use crate::link::message::Report;
use crate::policy::{Event, Exit, ExitStatus, OutOfMemory, WorkerId};
use crate::spawn::reap;

/// Ended by SIGKILL.
const KILLED: ExitStatus = ExitStatus::Signal(libc::SIGKILL);

impl Crew {
    /// What the workers and molds have said since the last call.
    pub(crate) fn reports(&mut self) -> Vec<Event> {
        self.reports_of(&[])
    }

    /// The same, when these have just been reaped: all reports of a worker that may be one of them are read.
    fn reports_of(&mut self, reaped: &[Pid]) -> Vec<Event> {
        let mut heard: Vec<(WorkerId, Vec<Report>)> = Vec::new();
        for (&worker, entry) in &mut self.entries {
            let how_much = if entry.may_be_in(reaped) { ReadLimit::All } else { ReadLimit::Turn };
            heard.push((worker, entry.links.link.receive(how_much)));
        }
        self.read_last_of_grandchildren(&mut heard);
        let mut events = Vec::new();
        for (worker, reports) in heard {
            for report in reports {
                events.extend(self.on_report(worker, report, reaped));
            }
        }
        events.extend(self.those_without_end());
        let molds: Vec<WorkerId> = self
            .entries
            .iter()
            .filter(|(_, entry)| !entry.wanted.is_empty())
            .map(|(mold, _)| *mold)
            .collect();
        molds.into_iter().for_each(|mold| self.send_orders(mold));
        events
    }

    /// Reads all reports of workers whose end a mold has reported.
    fn read_last_of_grandchildren(&mut self, heard: &mut [(WorkerId, Vec<Report>)]) {
        let exited = |report: &Report| match report {
            Report::ChildExited { pid, .. } => Pid::from_raw(*pid),
            _ => None,
        };
        let ended: Vec<Pid> =
            heard.iter().flat_map(|(_, reports)| reports.iter().filter_map(exited)).collect();
        for (worker, reports) in heard {
            let Some(ProcessEntry { process: Process::Grandchild { pid, .. }, links, .. }) =
                self.entries.get_mut(worker)
            else {
                continue;
            };
            if ended.contains(pid) {
                reports.append(&mut links.link.receive(ReadLimit::All));
            }
        }
    }

    fn on_report(&mut self, worker: WorkerId, report: Report, reaped: &[Pid]) -> Option<Event> {
        Some(match report {
            Report::Ready => Event::Ready { worker },
            Report::Failed(failure) => Event::BootFailed { worker, failure },
            Report::Leaving(reason) => Event::Leaving { worker, reason },
            Report::ReloadWanted(reason) => Event::Changed { reason },
            Report::Enough { requests } => Event::Enough { worker, requests },
            Report::Born { pid } => return self.on_born(worker, Pid::from_raw(pid)?, reaped),
            Report::ForkFailed { worker, reason } => {
                self.entries.get_mut(&WorkerId(worker))?.failed(reason);
                return None;
            }
            Report::ChildExited { pid, status } => {
                return self.on_child_exited(worker, Pid::from_raw(pid)?, status);
            }
        })
    }

    /// A mold says how its child has ended, or that one how it is about to.
    fn on_child_exited(&mut self, teller: WorkerId, ended: Pid, status: ExitStatus) -> Option<Event> {
        for (&worker, entry) in &mut self.entries {
            match &mut entry.process {
                Process::Grandchild { pid, mold, .. } if *pid == ended && *mold == teller => {
                    self.kills.deaths(u64::from(status == KILLED));
                    return self.end(worker, status);
                }
                Process::Grandchild { pid, last_word, .. } if *pid == ended && worker == teller => {
                    *last_word = Some(status);
                }
                _ => {}
            }
        }
        None
    }

    /// Takes a process out of the crew.
    pub(super) fn end(&mut self, worker: WorkerId, status: ExitStatus) -> Option<Event> {
        let entry = self.entries.remove(&worker)?;
        if let Process::Awaited { mold, .. } = entry.process {
            self.has_moved(mold);
        }
        let is_mold = entry.links.row.is_none();
        let member = |pid: Pid| Member { pid: pid.as_raw_nonzero().get(), is_mold };
        self.gone.members.extend(entry.process.pid().map(member));
        let out_of_memory = match status == KILLED && !entry.is_killed {
            true => self.kills.explain(entry.counter.as_ref(), entry.born),
            false => OutOfMemory::default(),
        };
        let evidence = entry.evidence(out_of_memory);
        if let Some(row) = &entry.links.row {
            self.scoreboard.give_back(row);
        }
        Some(Event::Exited { worker, exit: Exit { status, evidence } })
    }

    /// How many of these another process has killed.
    fn killed_by_others(&self, ended: &[(Pid, ExitStatus)]) -> u64 {
        let by_us =
            |pid: Pid| self.entries.values().any(|entry| entry.is_killed && entry.process.pid() == Some(pid));
        let killed = ended.iter().filter(|(pid, status)| *status == KILLED && !by_us(*pid));
        u64::try_from(killed.count()).unwrap_or(u64::MAX)
    }

    /// Reaps processes that have ended, after their last reports: an unknown one may have reported that it was born.
    pub(crate) fn reap(&mut self) -> Vec<Event> {
        let ended: Vec<(Pid, ExitStatus)> = match self.adopts {
            true => std::iter::from_fn(reap::reap_any).collect(),
            false => {
                let children = self.entries.values().filter_map(|entry| match entry.process {
                    Process::Child(pid) => Some(pid),
                    _ => None,
                });
                children.filter_map(|pid| Some((pid, reap::try_reap(pid)?))).collect()
            }
        };
        let reaped: Vec<Pid> = ended.iter().map(|(pid, _)| *pid).collect();
        let mut events = self.reports_of(&reaped);
        self.kills.deaths(self.killed_by_others(&ended));
        for (pid, status) in ended {
            let is_it = |process: &Process| matches!(process, Process::Child(other) if *other == pid);
            // Any other process is an orphan of some worker.
            let worker =
                self.entries.iter().find(|(_, entry)| is_it(&entry.process)).map(|(worker, _)| *worker);
            self.gone.has_others |= worker.is_none();
            if worker.is_none() {
                self.reaped_others.push((pid, status));
            }
            events.extend(worker.and_then(|worker| self.end(worker, status)));
        }
        events.extend(self.those_without_end());
        events
    }
}
