//! The simulated world of a pool: its processes, and the events that they will cause.

use std::collections::BTreeMap;
use std::fmt;

use super::behaviour::{Behaviour, BootResult};
use crate::error::ErrorKind;
use crate::policy::{BootFailure, Event, Evidence, Exit, ExitStatus, LastError, Moment, WorkerId};
use crate::supervisor::PoolProcess;

/// A simulated process.
#[derive(Debug)]
struct SimulatedProcess {
    process: PoolProcess,
    behaviour: Behaviour,
    is_ready: bool,
    /// The time of its last beat; `None`: it beats.
    last_beat: Option<Moment>,
}

/// The later act of a simulated process.
#[derive(Debug, Clone)]
enum Act {
    EndBoot,
    StopBeating,
    End(ExitStatus, Option<String>),
}

/// The function that chooses the behaviour of each new process.
type Choose = Box<dyn FnMut(&PoolProcess) -> Behaviour>;

/// All simulated processes, and their acts in the order of time.
pub(super) struct World {
    processes: BTreeMap<WorkerId, SimulatedProcess>,
    agenda: BTreeMap<(Moment, u64), (WorkerId, Act)>,
    choose: Choose,
    last_pid: i32,
    last_act: u64,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("processes", &self.processes).field("agenda", &self.agenda).finish()
    }
}

/// The first pid of a simulated process.
const FIRST_PID: i32 = 1001;

impl World {
    /// A world whose processes behave as `choose` says.
    pub(super) fn new(choose: impl FnMut(&PoolProcess) -> Behaviour + 'static) -> Self {
        Self {
            processes: BTreeMap::new(),
            agenda: BTreeMap::new(),
            choose: Box::new(choose),
            last_pid: FIRST_PID - 1,
            last_act: 0,
        }
    }

    pub(super) fn behave(&mut self, choose: impl FnMut(&PoolProcess) -> Behaviour + 'static) {
        self.choose = Box::new(choose);
    }

    /// Forks a process; returns its pid.
    pub(super) fn fork(&mut self, id: WorkerId, slot: Option<usize>, generation: u64, now: Moment) -> i32 {
        self.last_pid += 1;
        let process = PoolProcess { pid: Some(self.last_pid), slot, generation, number: Some(id.0) };
        let behaviour = (self.choose)(&process);
        if !matches!(behaviour.boot.1, BootResult::Never) {
            self.plan(id, now.saturating_add(behaviour.boot.0), Act::EndBoot);
        }
        self.processes.insert(id, SimulatedProcess { process, behaviour, is_ready: false, last_beat: None });
        self.last_pid
    }

    fn plan(&mut self, id: WorkerId, at: Moment, act: Act) {
        self.last_act += 1;
        self.agenda.insert((at, self.last_act), (id, act));
    }

    /// The time of the next act.
    pub(super) fn next(&self) -> Option<Moment> {
        self.agenda.keys().next().map(|(at, _)| *at)
    }

    /// The events of the next act, if it is due.
    pub(super) fn act(&mut self, now: Moment) -> Option<Vec<Event>> {
        let entry = self.agenda.first_entry().filter(|entry| entry.key().0 <= now)?;
        let (worker, act) = entry.remove();
        Some(match act {
            Act::EndBoot => self.end_boot(worker, now),
            Act::StopBeating => {
                if let Some(process) = self.processes.get_mut(&worker) {
                    process.last_beat = Some(now);
                }
                Vec::new()
            }
            Act::End(status, error) => self.end(worker, status, error).into_iter().collect(),
        })
    }

    fn end_boot(&mut self, worker: WorkerId, now: Moment) -> Vec<Event> {
        let Some(process) = self.processes.get_mut(&worker) else { return Vec::new() };
        if let BootResult::Fails(reason) = &process.behaviour.boot.1 {
            let failure = BootFailure { kind: ErrorKind::Boot, summary: reason.clone(), detail: None };
            let failed = Event::BootFailed { worker, failure };
            return [failed].into_iter().chain(self.end(worker, ExitStatus::Code(3), None)).collect();
        }
        process.is_ready = true;
        let Behaviour { end, last_beat, .. } = process.behaviour.clone();
        if let Some((after, status, error)) = end {
            self.plan(worker, now.saturating_add(after), Act::End(status, error));
        }
        if let Some(after) = last_beat {
            self.plan(worker, now.saturating_add(after), Act::StopBeating);
        }
        vec![Event::Ready { worker }]
    }

    /// Ends a process; `None`: it has ended before.
    pub(super) fn end(
        &mut self,
        worker: WorkerId,
        status: ExitStatus,
        error: Option<String>,
    ) -> Option<Event> {
        self.processes.remove(&worker)?;
        self.agenda.retain(|_, (id, _)| *id != worker);
        let error = error.map(|summary| LastError { summary, detail: None });
        Some(Event::Exited {
            worker,
            exit: Exit { status, evidence: Evidence { error, ..Evidence::default() } },
        })
    }

    /// Orders a process to finish.
    pub(super) fn drain(&mut self, worker: WorkerId, now: Moment) {
        let Some(process) = self.processes.get(&worker) else { return };
        if let Some(time) = process.behaviour.drain {
            self.plan(worker, now.saturating_add(time), Act::End(ExitStatus::Code(0), None));
        }
    }

    /// The latest beats: those of processes that hang are older.
    pub(super) fn beats(&self, now: Moment) -> Event {
        let ready = self.processes.iter().filter(|(_, process)| process.is_ready);
        Event::Beats(ready.map(|(worker, process)| (*worker, process.last_beat.unwrap_or(now))).collect())
    }

    pub(super) fn memory(&self) -> Event {
        let used = |process: &SimulatedProcess| process.behaviour.memory;
        let known = self.processes.iter().filter_map(|(worker, process)| Some((*worker, used(process)?)));
        Event::Memory(known.collect())
    }

    /// The process with this pid.
    pub(super) fn find(&self, pid: i32) -> Option<WorkerId> {
        let found = self.processes.iter().find(|(_, process)| process.process.pid == Some(pid));
        found.map(|(worker, _)| *worker)
    }
}
