//! What is spent on boots, as the world sees it, and what that allows a pool: it is never dark while a boot may work, and
//! boots that fail get a fifth of a processor.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Life;
use crate::policy::event::Slot;
use crate::policy::*;

/// The boots of the generation that serves.
#[derive(Debug, Default)]
pub(super) struct Boots {
    under_way: BTreeMap<WorkerId, Start>,
    last: Option<End>,
    /// The same of molds.
    molds: BTreeMap<WorkerId, Moment>,
    last_mold: Option<End>,
    /// Slots whose last boot failed.
    failed: BTreeSet<Slot>,
    /// When the first boot began that followed a failed one, and what those have cost that failed as well.
    account: Option<(Moment, Duration)>,
    /// A fork was refused, and none has succeeded since.
    is_refused: bool,
    /// How long the last boots took that worked: of workers, and of molds.
    usual: Option<Duration>,
    usual_mold: Option<Duration>,
}

/// How a boot ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HowItEnds {
    Worked,
    Failed,
    /// Given up at its timeout.
    Hung,
}

#[derive(Debug, Clone, Copy)]
struct Start {
    slot: Slot,
    at: Moment,
    follows_failure: bool,
}

#[derive(Debug, Clone, Copy)]
struct End {
    at: Moment,
    took: Duration,
    worked: bool,
}

fn rest(took: Duration) -> Duration {
    (took * 4).clamp(Duration::from_millis(500), Duration::from_secs(30))
}

/// What a pool rests from after a boot.
fn charged(took: Duration, end: HowItEnds, usual: Option<Duration>) -> Duration {
    // One that takes longer may only wait for something.
    let took = took.min(Duration::from_millis(7500));
    if end == HowItEnds::Hung { took.min(usual.map_or(took, rest)) } else { took }
}

/// How long a pool counts on a boot.
fn patience(usual: Option<Duration>) -> Duration {
    usual.map_or(Duration::from_secs(30), rest).max(Duration::from_millis(7500))
}

impl Life {
    /// A worker is to be forked; `asked_for`: an operator did not want to wait.
    pub(super) fn note_start(&mut self, worker: WorkerId, slot: Slot, generation: u64, asked_for: bool) {
        if generation != self.machine.current() {
            return;
        }
        let others = self.machine.table().in_slot(slot).any(|entry| entry.state.is_ready());
        let follows_failure = self.boots.failed.contains(&slot) && !others && !asked_for;
        if follows_failure {
            if let Some(End { at, took, worked: false }) = self.boots.last {
                assert!(self.now >= at + rest(took), "a boot that took {took:?} failed only at {at:?}");
            }
            self.boots.account.get_or_insert((self.now, Duration::ZERO));
        }
        self.boots.under_way.insert(worker, Start { slot, at: self.now, follows_failure });
    }

    /// A mold is to be forked.
    pub(super) fn note_mold(&mut self, mold: WorkerId, generation: u64) {
        if generation == self.machine.current() {
            self.boots.molds.insert(mold, self.now);
        }
    }

    /// A boot has ended, if one was under way.
    pub(super) fn note_end(&mut self, worker: WorkerId, end: HowItEnds) {
        let worked = end == HowItEnds::Worked;
        if let Some(at) = self.boots.molds.remove(&worker) {
            let took = charged(self.now.saturating_sub(at), end, self.boots.usual_mold);
            self.boots.last_mold = Some(End { at: self.now, took, worked });
            if worked {
                self.boots.usual_mold = Some(took);
            }
        }
        let Some(Start { slot, at, follows_failure }) = self.boots.under_way.remove(&worker) else { return };
        let is_overdue = self.now.saturating_sub(at) > patience(self.boots.usual);
        let took = charged(self.now.saturating_sub(at), end, self.boots.usual);
        self.boots.last = Some(End { at: self.now, took, worked });
        if worked {
            self.boots.usual = Some(took);
            self.boots.failed.remove(&slot);
            // The next boot that fails has nothing to wait for.
            self.boots.account = None;
            return;
        }
        self.boots.failed.insert(slot);
        if !follows_failure || is_overdue {
            // The pool rests from this one, whatever those before it took; one that is overdue has held up no other.
            self.boots.account = None;
        }
        if let Some((since, spent)) = &mut self.boots.account {
            *spent += took;
            let elapsed = self.now - *since;
            assert!(*spent <= elapsed / 5 + took, "{spent:?} of {elapsed:?} on boots that fail");
        }
    }

    /// Boots that did not come to their own end: killed, given up, or of a generation that serves no more.
    pub(super) fn note_boots(&mut self) {
        self.note_mold_boots();
        let table = self.machine.table();
        let boots =
            |id: &WorkerId| table.get(*id).is_some_and(|entry| matches!(entry.state, State::Booting { .. }));
        let gone: Vec<WorkerId> = self.boots.under_way.keys().filter(|id| !boots(id)).copied().collect();
        for worker in gone {
            // One that was never forked cost nothing.
            let forked = self.machine.table().get(worker).filter(|entry| entry.pid.is_some());
            let state = forked.map(|entry| entry.state);
            match state {
                Some(State::Killed { reason: KillReason::BootTimeout(_), .. }) => {
                    self.note_end(worker, HowItEnds::Hung);
                }
                _ => drop(self.boots.under_way.remove(&worker)),
            }
        }
    }

    /// The same of molds.
    fn note_mold_boots(&mut self) {
        let states: BTreeMap<WorkerId, State> =
            self.machine.molds().iter().map(|(id, mold)| (id, mold.state)).collect();
        for mold in self.boots.molds.keys().copied().collect::<Vec<_>>() {
            match states.get(&mold) {
                Some(State::Booting { .. }) => {}
                Some(State::Killed { reason: KillReason::BootTimeout(_), .. }) => {
                    self.note_end(mold, HowItEnds::Hung);
                }
                _ => drop(self.boots.molds.remove(&mold)),
            }
        }
    }

    /// A new version begins with a clean record.
    pub(super) fn forget_boots(&mut self) {
        let Boots { is_refused, usual, usual_mold, .. } = self.boots;
        self.boots = Boots { is_refused, usual, usual_mold, ..Boots::default() };
    }

    /// A slot that is no more, or is new, has no record.
    pub(super) fn forget_slots(&mut self, first: Slot) {
        self.boots.failed.retain(|slot| *slot < first);
    }

    /// The supervisor did not run for a while, which no boot is charged with.
    pub(super) fn forgive_boots(&mut self, by: Duration) {
        self.boots.under_way.values_mut().for_each(|start| start.at += by);
        self.boots.molds.values_mut().for_each(|at| *at += by);
    }

    /// It was never forked.
    pub(super) fn forget_boot(&mut self, worker: WorkerId) {
        self.boots.under_way.remove(&worker);
        self.boots.molds.remove(&worker);
    }

    pub(super) fn note_fork(&mut self, succeeded: bool) {
        self.boots.is_refused = !succeeded;
    }

    /// What holds whenever all effects of a step are done.
    pub(super) fn check_darkness(&self) {
        let (machine, table) = (&self.machine, self.machine.table());
        if machine.phase().is_ending() || *machine.phase() == PoolPhase::Starting {
            return;
        }
        for slot in 0..machine.target() {
            if let Some(Wait { why: Vacancy::Deaths(_), until: Some(at) }) = machine.wait_of(slot) {
                assert!(
                    at <= self.now + Duration::from_secs(5),
                    "a slot whose worker was ready waits until {at:?}"
                );
            }
        }
        let counts_until = |since: Moment| since + patience(self.boots.usual);
        let is_lit = |entry: &table::Entry| {
            let boots = matches!(entry.state, State::Booting { since } if counts_until(since) > self.now);
            boots || entry.state.is_ready() && !entry.leaves || entry.state.is_missed()
        };
        let waits = (0..machine.target()).any(|slot| machine.wait_of(slot).is_some());
        if !waits || table.iter().any(is_lit) {
            return;
        }
        let last = match machine.molds().can_fork(machine.current()) {
            true => self.boots.last,
            false => self.boots.last_mold,
        };
        // A mold that boots has a deadline of its own.
        let mold_boots = |(_, mold): (_, &molds::Mold)| matches!(mold.state, State::Booting { .. });
        if machine.molds().iter().any(mold_boots) {
            return;
        }
        let rested = last.map_or(self.now, |End { at, took, .. }| at + rest(took));
        let latest = match self.boots.is_refused {
            true => rested.max(self.now + Duration::from_secs(2)),
            false => rested.max(self.now),
        };
        let next = machine.next_deadline();
        assert!(next.is_some_and(|at| at <= latest), "dark until {next:?}, and not only until {latest:?}");
    }
}
