//! Reports of workers and molds, and their ends: the last reports of a process come before its end.

use rustix::process::Pid;

use super::{Crew, Member, Process, ProcessEntry};
use crate::host::helper;
use crate::link::channel::ReadLimit;
use crate::link::message::Report;
use crate::policy::{Event, Exit, ExitStatus, OutOfMemory, WorkerId};
use crate::sys::ancestry;

/// Ended by SIGKILL.
const KILLED: ExitStatus = ExitStatus::Signal(libc::SIGKILL);

impl Crew {
    /// The events of all reports since the last call.
    pub(crate) fn reports(&mut self) -> Vec<Event> {
        self.reports_of(&[])
    }

    /// The same after `reaped` was reaped: reads all reports of each worker that may be in it.
    fn reports_of(&mut self, reaped: &[Pid]) -> Vec<Event> {
        let mut received: Vec<(WorkerId, Vec<Report>)> = Vec::new();
        for (&worker, entry) in &mut self.entries {
            let how_much = if entry.may_be_in(reaped) { ReadLimit::All } else { ReadLimit::Turn };
            received.push((worker, entry.links.link.receive(how_much)));
        }
        self.read_last_reports_of_grandchildren(&mut received);
        let mut events = Vec::new();
        for (worker, reports) in received {
            for report in reports {
                events.extend(self.on_report(worker, report, reaped));
            }
        }
        events.extend(self.unreported_ends());
        let molds: Vec<WorkerId> = self
            .entries
            .iter()
            .filter(|(_, entry)| !entry.queued.is_empty())
            .map(|(mold, _)| *mold)
            .collect();
        molds.into_iter().for_each(|mold| self.send_orders(mold));
        events
    }

    /// Reads all reports of workers whose end a mold has reported.
    fn read_last_reports_of_grandchildren(&mut self, received: &mut [(WorkerId, Vec<Report>)]) {
        let exited = |report: &Report| match report {
            Report::ChildExited { pid, .. } => Pid::from_raw(*pid),
            _ => None,
        };
        let ended: Vec<Pid> =
            received.iter().flat_map(|(_, reports)| reports.iter().filter_map(exited)).collect();
        for (worker, reports) in received {
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
            Report::Error(error) => {
                self.entries.get_mut(&worker)?.last_error = Some(error);
                return None;
            }
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

    /// Handles the end of a mold's child, as the mold or the child itself reports it.
    fn on_child_exited(&mut self, reporter: WorkerId, ended: Pid, status: ExitStatus) -> Option<Event> {
        for (&worker, entry) in &mut self.entries {
            match &mut entry.process {
                Process::Grandchild { pid, mold, .. } if *pid == ended && *mold == reporter => {
                    self.kills.deaths(u64::from(status == KILLED));
                    return self.end(worker, status);
                }
                Process::Grandchild { pid, own_report, .. } if *pid == ended && worker == reporter => {
                    *own_report = Some(status);
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
            self.note_progress(mold);
        }
        let is_mold = entry.links.row.is_none();
        let member = |pid: Pid| Member { pid: pid.as_raw_nonzero().get(), is_mold };
        self.gone.members.extend(entry.process.pid().map(member));
        entry.process.pid().into_iter().for_each(|pid| self.reaper.remove(pid));
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

    /// The number of these that another process has killed.
    fn killed_by_others(&self, ended: &[(Pid, ExitStatus)]) -> u64 {
        let by_us =
            |pid: Pid| self.entries.values().any(|entry| entry.is_killed && entry.process.pid() == Some(pid));
        let killed = ended.iter().filter(|(pid, status)| *status == KILLED && !by_us(*pid));
        u64::try_from(killed.count()).unwrap_or(u64::MAX)
    }

    /// Reaps ended processes. Their last reports are read first: an unknown process may have reported `Born`.
    pub(crate) fn reap(&mut self) -> Vec<Event> {
        helper::reap_dropped();
        // Another pool of this process may have begun to adopt orphans, and may end before they do.
        self.adopts |= ancestry::adopts();
        let mut ended: Vec<(Pid, ExitStatus)> = match self.adopts {
            true => std::iter::from_fn(|| self.reaper.reap_any()).collect(),
            false => Vec::new(),
        };
        let children = self.entries.values().filter_map(|entry| match entry.process {
            Process::Child(pid) => Some(pid),
            _ => None,
        });
        // Also after the above: other code in this process may have reaped one.
        let left = children.filter(|pid| !ended.iter().any(|(reaped, _)| reaped == pid));
        let left: Vec<_> = left.filter_map(|pid| Some((pid, self.reaper.try_reap(pid)?))).collect();
        ended.extend(left);
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
        events.extend(self.unreported_ends());
        events
    }
}
