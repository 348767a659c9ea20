//! The status of the pool: facts of the policy, the scoreboard, the kernel and the history in one.

use super::crew::{Crew, Snapshot};
use super::history::History;
use crate::control::{Death, MoldStatus, SlotStatus, Status, WorkerStatus};
use crate::policy::{Entry, Machine, Moment, PoolPhase, State};

/// The status of a pool.
pub(crate) fn status(
    machine: &Machine,
    crew: &Crew,
    history: &History,
    listeners: Vec<String>,
    now: Moment,
) -> Status {
    let new_generation = match machine.phase() {
        PoolPhase::Reloading(rollout) => Some(rollout.generation),
        _ => None,
    };
    let mold = machine.molds().iter().last().map(|(id, mold)| MoldStatus {
        pid: mold.pid,
        generation: Some(mold.generation),
        state: Some(state(&mold.state).to_owned()),
        age_seconds: crew.snapshot(id, now).map(|snapshot| snapshot.age.as_secs_f64()),
    });
    Status {
        mcsup: Some(env!("CARGO_PKG_VERSION").to_owned()),
        pid: i32::try_from(std::process::id()).ok(),
        phase: Some(machine.phase().name().to_owned()),
        uptime_seconds: Some(now.saturating_sub(history.started).as_secs_f64()),
        generation: Some(machine.current()),
        new_generation,
        target: Some(machine.target()),
        listeners,
        reloads: Some(history.reloads),
        upgrades: Some(history.upgrades),
        mold,
        workers: machine
            .table()
            .iter()
            .map(|entry| worker(entry, crew.snapshot(entry.id, now).as_ref()))
            .collect(),
        slots: slots(machine, history, now),
    }
}

fn worker(entry: &Entry, snapshot: Option<&Snapshot>) -> WorkerStatus {
    let status = WorkerStatus {
        slot: entry.slot,
        generation: Some(entry.generation),
        pid: entry.pid,
        state: Some(state_of(entry).to_owned()),
        ..WorkerStatus::default()
    };
    let Some(Snapshot { age, gauges, usage }) = snapshot else { return status };
    WorkerStatus {
        age_seconds: Some(age.as_secs_f64()),
        requests: Some(gauges.requests + gauges.running),
        in_flight: Some(gauges.running),
        oldest_request_seconds: gauges.oldest.map(|age| age.as_secs_f64()),
        waiting: Some(gauges.waiting),
        connections: Some(gauges.connections),
        rss_bytes: usage.rss_bytes,
        // The client adds it: reading it would delay the supervisor.
        pss_bytes: None,
        cpu_seconds: usage.cpu.map(|time| time.as_secs_f64()),
        ..status
    }
}

/// The state of a worker, as the status names it.
pub(crate) fn state_of(entry: &Entry) -> &'static str {
    match entry.state {
        State::Ready { .. } if entry.leaves => "leaving",
        State::Ready { .. } if entry.recycle.is_some() => "recycling",
        _ => state(&entry.state),
    }
}

fn slots(machine: &Machine, history: &History, now: Moment) -> Vec<SlotStatus> {
    (0..machine.target())
        .map(|slot| {
            let past = history.slots.get(&slot).cloned().unwrap_or_default();
            let last_death = past
                .last_death
                .map(|(at, cause)| Death { seconds_ago: now.saturating_sub(at).as_secs_f64(), cause });
            let wait = machine.wait_of(slot);
            let next = wait.as_ref().and_then(|wait| wait.until);
            SlotStatus {
                slot,
                restarts: past.restarts,
                last_death,
                next_start_seconds: next.map(|at| at.saturating_sub(now).as_secs_f64()),
                waits_because: wait.map(|wait| wait.why.to_string()),
            }
        })
        .collect()
}

fn state(state: &State) -> &'static str {
    match state {
        State::Booting { .. } => "booting",
        State::Ready { .. } => "ready",
        State::Aborting { .. } => "aborting",
        State::Draining { .. } => "draining",
        State::Failed { .. } => "failed",
        State::Killed { .. } => "killed",
        State::Unkillable { .. } => "unkillable",
    }
}
