//! Molds: processes that have loaded the code of a generation's workers, and fork them.
//!
//! A generation has at most one ready mold. Forked workers do not need it. After its death another one boots, and slots
//! that become empty meanwhile wait for it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::event::{Generation, Moment, Slot, WorkerId};
use super::exit::KillReason;
use super::pool::{Pool, UNKILLABLE_AFTER};
use super::restart::{Loss, Restarts, Served};
use super::rules::Policy;
use super::state::State;

/// The slot number under which `Restarts` keeps the losses of molds.
const PLACE: Slot = 0;

/// One mold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Mold {
    /// Its version.
    pub(crate) generation: Generation,
    /// Its process; `None`: it has not been forked yet.
    pub(crate) pid: Option<i32>,
    /// Its state.
    pub(crate) state: State,
    /// How long its boot took; zero until it is ready.
    pub(crate) boot: Duration,
}

/// All molds, and which generations have one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Molds {
    molds: BTreeMap<WorkerId, Mold>,
    /// The generations whose workers are forked by a mold.
    wanted_by: BTreeSet<Generation>,
    /// The end of the back-off after a lost mold.
    again: Option<Moment>,
    restarts: Restarts,
}

/// The state of a mold whose deadline has passed.
#[derive(Debug)]
pub(super) enum Overdue {
    /// Its boot exceeded the timeout.
    Boots,
    /// SIGKILL did not end it.
    Unkillable { since: Duration },
    /// It has failed, and did not end by itself.
    Fails,
}

/// A mold that has become ready.
#[derive(Debug)]
pub(super) struct LoadedMold {
    pub(super) pid: i32,
    pub(super) generation: Generation,
    pub(super) after: Duration,
}

impl Molds {
    /// No mold yet; with `preload` the first generation wants one.
    pub(super) fn new(policy: &Policy) -> Self {
        Self {
            molds: BTreeMap::new(),
            wanted_by: policy.preload.then_some(1).into_iter().collect(),
            again: None,
            restarts: Restarts::new(policy.restart, policy.seed.wrapping_add(1)),
        }
    }

    /// All molds.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (WorkerId, &Mold)> {
        self.molds.iter().map(|(id, mold)| (*id, mold))
    }

    /// Whether workers of `generation` can be forked now.
    pub(crate) fn can_fork(&self, generation: Generation) -> bool {
        !self.wants(generation) || self.ready(generation).is_some()
    }

    /// The mold that forks workers of `generation`.
    pub(crate) fn ready(&self, generation: Generation) -> Option<WorkerId> {
        let ready = |(_, mold): &(WorkerId, &Mold)| mold.generation == generation && mold.state.is_ready();
        self.iter().find(ready).map(|(id, _)| id)
    }

    /// Whether workers of `generation` are forked by a mold.
    pub(super) fn wants(&self, generation: Generation) -> bool {
        self.wanted_by.contains(&generation)
    }

    pub(super) fn get(&self, id: WorkerId) -> Option<&Mold> {
        self.molds.get(&id)
    }

    /// Whether `generation` has a ready or booting mold.
    pub(super) fn has(&self, generation: Generation) -> bool {
        self.molds.values().any(|mold| mold.generation == generation && !mold.state.is_leaving())
    }

    /// The molds that receive orders.
    pub(super) fn living(&self) -> impl Iterator<Item = WorkerId> {
        self.iter()
            .filter(|(_, mold)| mold.pid.is_some())
            .filter(|(_, mold)| !matches!(mold.state, State::Killed { .. } | State::Unkillable { .. }))
            .map(|(id, _)| id)
    }

    /// Whether some fork has neither succeeded nor failed yet.
    pub(super) fn awaits_forks(&self) -> bool {
        self.molds.values().any(|mold| mold.pid.is_none())
    }

    // Boots.

    /// A generation whose mold is missing and may boot now.
    pub(super) fn missing(&self, pool: &Pool, rests: bool) -> Option<Generation> {
        // The mold of a new generation has no back-off.
        let may = |generation: Generation| match generation == pool.current {
            true => !rests,
            false => pool.is_new(generation),
        };
        self.wanted_by.iter().copied().find(|generation| may(*generation) && !self.has(*generation))
    }

    /// The boot of a missing mold that waits: by its back-off, and without any ready worker by the rest of the pool.
    ///
    /// `refused_until`: the next attempt while the system refuses forks.
    pub(super) fn next(
        &self,
        pool: &Pool,
        unserved_since: Option<Moment>,
        refused_until: Option<Moment>,
    ) -> Option<Moment> {
        let lacks = |generation: &Generation| {
            (*generation == pool.current || pool.is_new(*generation)) && !self.has(*generation)
        };
        let refused_until = refused_until.filter(|_| self.wanted_by.iter().any(lacks));
        let boots = self.molds.values().any(|mold| matches!(mold.state, State::Booting { .. }));
        let own = self.again.map(|at| {
            let at = at.max(self.restarts.rest_after_failure_ends());
            match unserved_since {
                Some(from) if !boots => at.min(from.max(self.restarts.rest_ends())),
                _ => at,
            }
        });
        own.max(refused_until)
    }

    /// Ends the back-off of the missing mold.
    pub(super) fn end_rest(&mut self) {
        self.again = None;
    }

    /// Notes that a mold forks the workers of `generation`.
    pub(super) fn want(&mut self, generation: Generation) {
        self.wanted_by.insert(generation);
    }

    /// Adds a mold that is about to be forked.
    pub(super) fn add(&mut self, id: WorkerId, generation: Generation, now: Moment) {
        let state = State::Booting { since: now };
        self.molds.insert(id, Mold { generation, pid: None, state, boot: Duration::ZERO });
    }

    // Events.

    /// Notes the fork of a mold. Returns its generation.
    pub(super) fn spawned(&mut self, id: WorkerId, pid: i32) -> Option<Generation> {
        let mold = self.molds.get_mut(&id)?;
        mold.pid = Some(pid);
        Some(mold.generation)
    }

    /// Notes that a mold has loaded the application.
    pub(super) fn loaded(&mut self, id: WorkerId, current: Generation, now: Moment) -> Option<LoadedMold> {
        let mold = self.molds.get_mut(&id)?;
        let State::Booting { since } = mold.state else { return None };
        let after = now.saturating_sub(since);
        mold.state = State::Ready { since: now, beat: now };
        mold.boot = after;
        let (pid, generation) = (mold.shown_pid(), mold.generation);
        if generation == current {
            self.restarts.note_boot(PLACE, after, true, now);
        }
        Some(LoadedMold { pid, generation, after })
    }

    /// Notes a failed boot: the mold ends by itself, or is killed at `kill_at`. Returns its earlier state.
    pub(super) fn failed(&mut self, id: WorkerId, kill_at: Moment) -> Option<Mold> {
        let mold = self.molds.get_mut(&id)?;
        let State::Booting { .. } = mold.state else { return None };
        let before = mold.clone();
        mold.state = State::Failed { kill_at };
        Some(before)
    }

    /// Notes that a mold is killed. Returns its earlier state; `None`: it was ending already.
    pub(super) fn killed(&mut self, id: WorkerId, reason: KillReason, now: Moment) -> Option<Mold> {
        let mold = self.molds.get_mut(&id).filter(|mold| !mold.state.is_leaving())?;
        let before = mold.clone();
        mold.kill(reason, now);
        Some(before)
    }

    /// Removes a mold that has ended, or was never forked.
    pub(super) fn remove(&mut self, id: WorkerId) -> Option<Mold> {
        self.molds.remove(&id)
    }

    /// Notes the loss of `mold`, given in its last state, and returns its kind.
    pub(super) fn lost(&mut self, pool: &Pool, mold: &Mold, now: Moment) -> Loss {
        let State::Booting { since } = mold.state else {
            return mold.state.ready_since().map_or(Loss::Boot, Loss::Ready);
        };
        let took = now.saturating_sub(since);
        if mold.generation == pool.current {
            match took < pool.policy.boot_timeout {
                true => self.restarts.note_boot(PLACE, took, false, now),
                false => self.restarts.note_timeout(PLACE, took, now),
            }
        }
        Loss::Boot
    }

    /// Begins the back-off after a loss. Returns its end.
    pub(super) fn rest(&mut self, loss: Loss, boot: Duration, now: Moment) -> Moment {
        let at = match loss {
            Loss::Ready(since) => self.restarts.after_death(PLACE, Served { ready: since, boot }, now),
            Loss::Boot => self.restarts.after_failed_boot(PLACE, now),
        };
        self.again = Some(at);
        at
    }

    /// Forgets the losses, for a new generation.
    pub(super) fn forget(&mut self) {
        self.restarts.forget();
    }

    // Deadlines.

    /// The next deadline of a mold.
    pub(super) fn next_deadline(&self, policy: &Policy) -> Option<Moment> {
        self.molds.values().filter_map(|mold| mold.deadline(policy)).min()
    }

    /// The molds whose deadline has passed.
    pub(super) fn overdue(&self, policy: &Policy, now: Moment) -> Vec<WorkerId> {
        let is_due = |(_, mold): &(WorkerId, &Mold)| mold.deadline(policy).is_some_and(|at| at <= now);
        self.iter().filter(is_due).map(|(id, _)| id).collect()
    }

    /// Handles a passed deadline; `None`: an earlier one has changed the mold.
    pub(super) fn expire(&mut self, id: WorkerId, now: Moment) -> Option<(Overdue, i32)> {
        let mold = self.molds.get_mut(&id)?;
        let overdue = match mold.state {
            State::Booting { .. } => Overdue::Boots,
            State::Killed { since, .. } if since.saturating_add(UNKILLABLE_AFTER) > now => return None,
            State::Killed { reason, since, .. } => {
                mold.state = State::Unkillable { reason };
                Overdue::Unkillable { since: now.saturating_sub(since) }
            }
            State::Failed { .. } => {
                mold.kill(KillReason::QuickStop, now);
                Overdue::Fails
            }
            State::Ready { .. }
            | State::Aborting { .. }
            | State::Draining { .. }
            | State::Unkillable { .. } => return None,
        };
        Some((overdue, mold.shown_pid()))
    }

    /// Moves every deadline by `by`.
    pub(super) fn postpone_deadlines(&mut self, by: Duration) {
        for mold in self.molds.values_mut() {
            match &mut mold.state {
                State::Booting { since } | State::Killed { since, .. } => *since = since.saturating_add(by),
                State::Failed { kill_at } => *kill_at = kill_at.saturating_add(by),
                State::Ready { .. }
                | State::Aborting { .. }
                | State::Draining { .. }
                | State::Unkillable { .. } => {}
            }
        }
    }

    // Ends. Molds have nothing to finish, so each function returns the molds to kill.

    /// Ends the molds of `generation`.
    pub(super) fn drop_for(&mut self, generation: Generation, now: Moment) -> Vec<WorkerId> {
        self.wanted_by.remove(&generation);
        self.end(|mold| mold.generation == generation, now)
    }

    /// Ends the molds of all other generations.
    pub(super) fn keep_only(&mut self, generation: Generation, now: Moment) -> Vec<WorkerId> {
        self.wanted_by.retain(|other| *other == generation);
        self.again = None;
        self.end(|mold| mold.generation != generation, now)
    }

    /// Ends all molds.
    pub(super) fn end_all(&mut self, now: Moment) -> Vec<WorkerId> {
        self.wanted_by.clear();
        self.again = None;
        self.end(|_| true, now)
    }

    fn end(&mut self, which: impl Fn(&Mold) -> bool, now: Moment) -> Vec<WorkerId> {
        let mut ended = Vec::new();
        for (id, mold) in self.molds.iter_mut().filter(|(_, mold)| which(mold)) {
            if !matches!(mold.state, State::Killed { .. } | State::Unkillable { .. }) {
                mold.kill(KillReason::GivenUp, now);
                ended.push(*id);
            }
        }
        ended
    }
}

impl Mold {
    /// Its process id as messages name it; 0 for one that has not been forked.
    pub(super) fn shown_pid(&self) -> i32 {
        self.pid.unwrap_or(0)
    }

    fn kill(&mut self, reason: KillReason, now: Moment) {
        self.state = State::Killed { reason, since: now, ready_since: self.state.ready_since() };
    }

    fn deadline(&self, policy: &Policy) -> Option<Moment> {
        match self.state {
            State::Booting { since } => Some(since.saturating_add(policy.boot_timeout)),
            State::Failed { kill_at } => Some(kill_at),
            State::Killed { since, .. } => Some(since.saturating_add(UNKILLABLE_AFTER)),
            State::Ready { .. }
            | State::Aborting { .. }
            | State::Draining { .. }
            | State::Unkillable { .. } => None,
        }
    }
}
