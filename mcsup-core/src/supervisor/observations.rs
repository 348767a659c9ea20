//! Makes the [`PoolEvent`]s from the notices of the policy.

use std::collections::BTreeMap;
use std::time::Duration;

use super::journal;
use super::pool_event::{PoolEvent, PoolProcess};
use crate::policy::{
    BootFailure, Exit, KillReason, LastError, Machine, MoldNotice, Notice, PoolNotice, RecycleNotice,
    ReloadNotice, ScaleNotice, StopMode, UpgradeNotice, WorkerNotice,
};

/// The facts that the events have beyond the notices.
#[derive(Debug, Default)]
pub(crate) struct Observations {
    /// The living processes, by pid.
    processes: BTreeMap<i32, PoolProcess>,
    /// The error that each reported at its boot.
    errors: BTreeMap<i32, LastError>,
    phase: Option<&'static str>,
    /// Those of the earlier image, until their events are made.
    adopted: Vec<PoolProcess>,
}

impl Observations {
    /// The event of a new phase; the first one is none.
    pub(crate) fn phase_event(&mut self, machine: &Machine) -> Option<PoolEvent> {
        let to = machine.phase().name();
        let Some(from) = self.phase.replace(to) else {
            self.adopt(machine);
            return None;
        };
        (from != to).then_some(PoolEvent::PhaseChanged { from, to })
    }

    /// The event of a notice. `machine` is the state after it.
    pub(crate) fn event(&mut self, notice: &Notice, machine: &Machine) -> PoolEvent {
        match notice {
            Notice::Worker(notice) => self.of_worker(notice, machine),
            Notice::Mold(notice) => self.of_mold(notice, machine),
            Notice::Recycle(notice) => self.of_recycling(notice, machine),
            Notice::Reload(notice) => of_reload(notice),
            Notice::Scale(notice) => of_scaling(notice),
            Notice::Upgrade(notice) => of_upgrade(notice),
            Notice::Pool(notice) => of_pool(notice),
        }
    }

    /// Notes the processes that an earlier image has forked.
    fn adopt(&mut self, machine: &Machine) {
        let workers = machine.table().iter();
        let workers = workers.map(|entry| (entry.id, entry.pid, Some(entry.slot), entry.generation));
        let molds = machine.molds().iter().map(|(id, mold)| (id, mold.pid, None, mold.generation));
        for (id, pid, slot, generation) in workers.chain(molds) {
            let process = PoolProcess { pid, slot, generation, number: Some(id.0) };
            self.processes.extend(pid.map(|pid| (pid, process)));
        }
        self.adopted = self.processes.values().copied().collect();
    }

    /// The events of the processes that an earlier image has forked, once.
    pub(super) fn adoptions(&mut self) -> impl Iterator<Item = PoolEvent> {
        std::mem::take(&mut self.adopted).into_iter().map(|process| PoolEvent::Adopted { process })
    }

    fn born(&mut self, pid: i32, slot: Option<usize>, generation: u64, machine: &Machine) -> PoolEvent {
        let workers = machine.table().iter().map(|entry| (entry.id, entry.pid));
        let mut all = workers.chain(machine.molds().iter().map(|(id, mold)| (id, mold.pid)));
        let number = all.find(|(_, other)| *other == Some(pid)).map(|(id, _)| id.0);
        let process = PoolProcess { pid: Some(pid), slot, generation, number };
        self.processes.insert(pid, process);
        PoolEvent::Born { process }
    }

    /// The process, as far as it is known.
    fn process(&self, pid: i32, slot: Option<usize>, machine: &Machine) -> PoolProcess {
        self.processes.get(&pid).copied().unwrap_or_else(|| {
            let pid = Some(pid).filter(|pid| *pid > 0);
            PoolProcess { pid, slot, generation: machine.current(), number: None }
        })
    }

    fn of_worker(&mut self, notice: &WorkerNotice, machine: &Machine) -> PoolEvent {
        match notice {
            WorkerNotice::Booting { slot, generation, pid } => {
                self.born(*pid, Some(*slot), *generation, machine)
            }
            WorkerNotice::Ready { pid, slot, after } => {
                PoolEvent::Ready { process: self.process(*pid, Some(*slot), machine), after: *after }
            }
            WorkerNotice::BootFailed { pid, failure } => self.boot_failed(*pid, failure, machine),
            WorkerNotice::BootTimeout { pid, after } => {
                let after = journal::seconds(*after);
                self.ending(*pid, format!("not ready within the boot timeout of {after}"), machine)
            }
            WorkerNotice::Silent { pid, since } => {
                let since = journal::seconds(*since);
                self.ending(*pid, format!("no sign of life for {since}"), machine)
            }
            WorkerNotice::Overdue { pid, reason } => self.ending(*pid, journal::why(*reason), machine),
            WorkerNotice::SpawnFailed { slot, reason, retry_in } => {
                PoolEvent::ForkFailed { slot: *slot, error: reason.clone(), again_in: *retry_in }
            }
            WorkerNotice::Died { pid, slot, exit, killed, respawn_in } => {
                let process = self.ended(*pid, Some(*slot), machine);
                self.died(process, (exit, *killed), *respawn_in)
            }
            WorkerNotice::Gone { pid, slot, exit, killed } => {
                let process = self.ended(*pid, Some(*slot), machine);
                self.died(process, (exit, *killed), None)
            }
            WorkerNotice::Retired { pid } => {
                self.errors.remove(pid);
                PoolEvent::Retired { process: self.ended(*pid, None, machine) }
            }
            WorkerNotice::Unkillable { pid, slot, since, .. } => {
                PoolEvent::Unkillable { process: self.process(*pid, Some(*slot), machine), since: *since }
            }
            WorkerNotice::Leaving { pid, slot, reason, respawn_in } => PoolEvent::Leaving {
                process: self.process(*pid, Some(*slot), machine),
                reason: reason.clone(),
                respawn_in: *respawn_in,
            },
        }
    }

    fn boot_failed(&mut self, pid: i32, failure: &BootFailure, machine: &Machine) -> PoolEvent {
        let (error, detail) = (failure.summary.clone(), failure.detail.clone());
        self.errors.insert(pid, LastError { summary: error.clone(), detail: detail.clone() });
        PoolEvent::BootFailed { process: self.process(pid, None, machine), error, detail }
    }

    fn died(
        &mut self,
        process: PoolProcess,
        (exit, killed): (&Exit, Option<KillReason>),
        respawn_in: Option<Duration>,
    ) -> PoolEvent {
        let reported = process.pid.and_then(|pid| self.errors.remove(&pid));
        let error = exit.evidence.error.clone().or(reported);
        let (error, detail) = error.map(|error| (error.summary, error.detail)).unzip();
        let cause = journal::observed_cause(exit, killed);
        PoolEvent::Died { process, cause, error, detail: detail.flatten(), respawn_in }
    }

    fn ending(&self, pid: i32, reason: String, machine: &Machine) -> PoolEvent {
        PoolEvent::Ending { process: self.process(pid, None, machine), reason }
    }

    fn ended(&mut self, pid: i32, slot: Option<usize>, machine: &Machine) -> PoolProcess {
        let process = self.process(pid, slot, machine);
        self.processes.remove(&pid);
        process
    }

    fn of_mold(&mut self, notice: &MoldNotice, machine: &Machine) -> PoolEvent {
        let mold = |pid: i32, generation: u64| {
            let known = self.processes.get(&pid).copied();
            known.unwrap_or(PoolProcess { pid: Some(pid), slot: None, generation, number: None })
        };
        match notice {
            MoldNotice::Booting { generation, pid } => self.born(*pid, None, *generation, machine),
            MoldNotice::Ready { pid, generation, after } => {
                PoolEvent::Ready { process: mold(*pid, *generation), after: *after }
            }
            MoldNotice::BootFailed { pid, failure } => self.boot_failed(*pid, failure, machine),
            MoldNotice::BootTimeout { pid, after } => {
                let after = journal::seconds(*after);
                self.ending(*pid, format!("not ready within the boot timeout of {after}"), machine)
            }
            MoldNotice::Died { pid, generation, exit, killed }
            | MoldNotice::Gone { pid, generation, exit, killed } => {
                let process = mold(*pid, *generation);
                self.processes.remove(pid);
                self.died(process, (exit, *killed), None)
            }
            MoldNotice::Failed { generation, reason, again_in } => {
                PoolEvent::MoldFailed { generation: *generation, error: reason.clone(), again_in: *again_in }
            }
            MoldNotice::Unkillable { pid, since } => {
                PoolEvent::Unkillable { process: self.process(*pid, None, machine), since: *since }
            }
        }
    }

    fn of_recycling(&self, notice: &RecycleNotice, machine: &Machine) -> PoolEvent {
        match notice {
            RecycleNotice::Begun { pid, slot, reason } => PoolEvent::RecycleBegan {
                process: self.process(*pid, Some(*slot), machine),
                reason: reason.clone(),
            },
            RecycleNotice::Postponed { slot, reason } => {
                PoolEvent::RecyclePostponed { slot: *slot, reason: reason.clone() }
            }
            RecycleNotice::Done { slot } => PoolEvent::RecycleDone { slot: *slot },
            RecycleNotice::Failed { slot, reason, again_in } => {
                PoolEvent::RecycleFailed { slot: *slot, error: reason.clone(), again_in: *again_in }
            }
        }
    }
}

fn of_reload(notice: &ReloadNotice) -> PoolEvent {
    match notice {
        ReloadNotice::Wanted { reason } => PoolEvent::ReloadWanted { reason: reason.clone() },
        ReloadNotice::Postponed { reason } => PoolEvent::ReloadPostponed { reason: (*reason).to_owned() },
        ReloadNotice::Begun { generation } => PoolEvent::ReloadBegan { generation: *generation },
        ReloadNotice::NewWorkerFailed { generation, reason, left } => {
            PoolEvent::ReloadImpeded { generation: *generation, error: reason.clone(), left: *left }
        }
        ReloadNotice::Done { generation, took } => {
            PoolEvent::ReloadDone { generation: *generation, took: *took }
        }
        ReloadNotice::Failed { generation, reason } => {
            PoolEvent::ReloadFailed { generation: *generation, error: reason.clone() }
        }
        ReloadNotice::Superseded { generation } => PoolEvent::ReloadSuperseded { generation: *generation },
        ReloadNotice::RollingBack { slots } => PoolEvent::RollbackBegan { slots: *slots },
        ReloadNotice::RolledBack => PoolEvent::RollbackDone,
        ReloadNotice::RollbackFailed { reason } => PoolEvent::RollbackFailed { error: reason.clone() },
    }
}

fn of_scaling(notice: &ScaleNotice) -> PoolEvent {
    match notice {
        ScaleNotice::Begun { from, to } => PoolEvent::ScaleBegan { from: *from, to: *to },
        ScaleNotice::Failed { from, to, reason } => {
            PoolEvent::ScaleFailed { from: *from, to: *to, error: reason.clone() }
        }
    }
}

fn of_upgrade(notice: &UpgradeNotice) -> PoolEvent {
    match notice {
        UpgradeNotice::Postponed => PoolEvent::UpgradePostponed,
        UpgradeNotice::Begun => PoolEvent::UpgradeBegan,
        UpgradeNotice::Failed { reason } => PoolEvent::UpgradeFailed { error: reason.clone() },
        UpgradeNotice::Done { workers } => PoolEvent::UpgradeDone { workers: *workers },
    }
}

fn of_pool(notice: &PoolNotice) -> PoolEvent {
    match notice {
        PoolNotice::LameDuck { lasts } => PoolEvent::LameDuck { lasts: *lasts },
        PoolNotice::Stopping { mode } => PoolEvent::StopBegan { is_quick: *mode == StopMode::Quick },
        PoolNotice::Escalated => PoolEvent::StopEscalated,
        PoolNotice::Woke { by } => PoolEvent::Stalled { by: *by },
        PoolNotice::Ended { outcome } => PoolEvent::Ended { outcome: *outcome },
    }
}
