//! When empty slots are filled.
//!
//! Each slot that lost its worker waits for a time of its own ([`restart`](super::restart)). Two rules bound that:
//!
//! - A pool is never dark while a boot can work: while no worker is ready and none boots, the earliest start happens as
//!   soon as the pool has rested from its last boot.
//! - Boots of slots whose last boot failed go one at a time, and the pool rests after each that fails. One that takes much
//!   longer than usual holds up no other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::effect::Answer;
use super::event::{Moment, Slot, Ticket};
use super::pool::Pool;
use super::restart::{Loss, Restarts, Served};
use super::rules::Policy;
use super::state::State;
use super::step::Reply;
use super::table::Entry;

/// Why a slot has no worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Vacancy {
    /// This many of its workers have died lately.
    Deaths(u32),
    /// This many of its boots have failed in a row.
    FailedBoots(u32),
    /// The system refuses to fork, for this reason.
    Refused(String),
    /// There is no mold to fork its worker.
    NoMold,
}

/// An empty slot that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wait {
    pub(crate) why: Vacancy,
    /// `None`: for an event.
    pub(crate) until: Option<Moment>,
}

impl fmt::Display for Vacancy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Vacancy::Deaths(0) => f.write_str("its worker has gone"),
            Vacancy::Deaths(1) => f.write_str("its worker died"),
            Vacancy::Deaths(deaths) => write!(f, "{deaths} of its workers died lately"),
            Vacancy::FailedBoots(1) => f.write_str("its last boot failed"),
            Vacancy::FailedBoots(failures) => write!(f, "its last {failures} boots failed"),
            Vacancy::Refused(reason) => write!(f, "the system refuses to fork: {reason}"),
            Vacancy::NoMold => f.write_str("there is no mold to fork its worker"),
        }
    }
}

/// The losses of each slot, its time to be filled, and the requests for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Starts {
    restarts: Restarts,
    /// The slots that wait for a time.
    respawns: BTreeMap<Slot, Moment>,
    /// Slots that are filled before their time, as an operator asks.
    hurried: BTreeSet<Slot>,
    waiting: Vec<SlotTicket>,
}

/// A client that waits for a worker in an empty slot.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct SlotTicket {
    ticket: Ticket,
    slot: Slot,
}

impl Starts {
    /// No slot has lost a worker.
    pub(super) fn new(policy: &Policy) -> Self {
        Self {
            restarts: Restarts::new(policy.restart, policy.seed),
            respawns: BTreeMap::new(),
            hurried: BTreeSet::new(),
            waiting: Vec::new(),
        }
    }

    // When a slot is filled.

    /// An empty slot whose time has come; of several the one that has waited longest.
    pub(super) fn next_due(&self, pool: &Pool, now: Moment) -> Option<Slot> {
        let due = (0..pool.target).filter_map(|slot| Some((self.start_of(pool, slot)?, slot)));
        due.filter(|(at, _)| *at <= now).min().map(|(_, slot)| slot)
    }

    /// When the next slot is filled.
    pub(super) fn next(&self, pool: &Pool) -> Option<Moment> {
        (0..pool.target).filter_map(|slot| self.start_of(pool, slot)).min()
    }

    /// The slots that need not wait for their time, to be filled now.
    pub(super) fn take_hurried(&mut self, pool: &Pool) -> Vec<Slot> {
        let is_over = |slot: &Slot| *slot >= pool.target || pool.table.is_covered(*slot, pool.current);
        let hurried = std::mem::take(&mut self.hurried).into_iter().filter(|slot| !is_over(slot));
        let (now, later) = hurried.partition(|slot| self.is_waiting(pool, *slot));
        // The last worker of the others is about to be reaped.
        self.hurried = later;
        let now: BTreeSet<Slot> = now;
        now.into_iter().collect()
    }

    /// Whether a slot has no worker, and none that is about to be reaped.
    pub(super) fn is_waiting(&self, pool: &Pool, slot: Slot) -> bool {
        let waits = self.respawns.contains_key(&slot) || self.is_vacant(pool, slot);
        waits && !pool.table.is_covered(slot, pool.current)
    }

    /// Why a slot waits, as far as its own past is the reason.
    pub(super) fn vacancy(&self, slot: Slot) -> Vacancy {
        match self.restarts.failures(slot) {
            0 => Vacancy::Deaths(self.restarts.deaths(slot)),
            failures => Vacancy::FailedBoots(failures),
        }
    }

    /// When an empty slot is filled; in the past: at once. `None`: it has a worker, or waits for an event.
    pub(super) fn start_of(&self, pool: &Pool, slot: Slot) -> Option<Moment> {
        let is_vacant = || self.is_vacant(pool, slot).then_some(Duration::ZERO);
        let at = self.respawns.get(&slot).copied().or_else(is_vacant)?;
        let at = match self.restarts.failures(slot) {
            0 => at,
            _ => at.max(self.restarts.rest_after_failure_ends()).max(self.retry_ends(pool)),
        };
        // The earliest start of a dark pool.
        let soonest = self.dark_from(pool).map(|from| from.max(self.restarts.rest_ends()));
        Some(soonest.map_or(at, |soonest| at.min(soonest)))
    }

    /// From when on no worker is ready and no boot is counted on. `None`: a worker is ready. One that has asked to leave
    /// counts as gone.
    pub(super) fn dark_from(&self, pool: &Pool) -> Option<Moment> {
        let mut from = Duration::ZERO;
        for entry in pool.table.iter() {
            match entry.state {
                State::Ready { .. } if !entry.leaves => return None,
                State::Booting { since } => from = from.max(since.saturating_add(self.restarts.patience())),
                _ => {}
            }
        }
        Some(from)
    }

    /// Until when the boot of a slot that has failed holds up others like it.
    fn retry_ends(&self, pool: &Pool) -> Moment {
        let is_retry =
            |entry: &&Entry| entry.generation == pool.current && self.restarts.failures(entry.slot) > 0;
        let ends = pool.table.iter().filter(is_retry).filter_map(|entry| match entry.state {
            State::Booting { since } => Some(since.saturating_add(self.restarts.patience())),
            _ => None,
        });
        ends.max().unwrap_or_default()
    }

    fn is_vacant(&self, pool: &Pool, slot: Slot) -> bool {
        !self.respawns.contains_key(&slot) && pool.table.is_vacant(slot, pool.current)
    }

    // Losses.

    /// A worker was lost. Says when its slot is filled again, where no other worker fills it.
    pub(super) fn lost(&mut self, pool: &Pool, gone: &Entry, loss: Loss, now: Moment) -> Option<Duration> {
        let Entry { slot, generation, .. } = *gone;
        let is_covered = pool.table.is_covered(slot, pool.current);
        if pool.phase.is_ending() || slot >= pool.target || is_covered || pool.is_new(generation) {
            return None;
        }
        if generation != pool.current {
            // It died of code that its successor does not run.
            return Some(Duration::ZERO);
        }
        let at = match loss {
            Loss::Ready(since) => {
                self.restarts.after_death(slot, Served { ready: since, boot: gone.boot }, now)
            }
            Loss::Boot => self.restarts.after_failed_boot(slot, now),
        };
        self.respawns.insert(slot, at);
        Some(self.start_of(pool, slot).unwrap_or(at).saturating_sub(now))
    }

    /// A worker that is ready since `since` asks to be replaced: says in how long its successor starts.
    pub(super) fn leaves(
        &mut self,
        pool: &Pool,
        entry: &Entry,
        since: Moment,
        now: Moment,
    ) -> Option<Duration> {
        if entry.slot >= pool.target || pool.table.is_covered(entry.slot, pool.current) {
            return None;
        }
        let at = match entry.generation == pool.current {
            true => self.restarts.after_ready(Served { ready: since, boot: entry.boot }, now),
            false => now,
        };
        self.respawns.insert(entry.slot, at);
        Some(at.saturating_sub(now))
    }

    /// A boot of the generation that serves has worked: it may work in the slots where it failed.
    pub(super) fn boot_worked(&mut self, pool: &Pool, slot: Slot, took: Duration, now: Moment) {
        self.restarts.note_boot(slot, took, true, now);
        for slot in 0..pool.target {
            if self.restarts.failures(slot) > 0 {
                if let Some(planned) = self.respawns.get_mut(&slot) {
                    *planned = now.min(*planned);
                }
            }
        }
    }

    /// A boot of the generation that serves has failed.
    pub(super) fn boot_failed(&mut self, slot: Slot, took: Duration, now: Moment) {
        self.restarts.note_boot(slot, took, false, now);
    }

    /// A boot of the generation that serves was given up at its timeout.
    pub(super) fn boot_timed_out(&mut self, slot: Slot, took: Duration, now: Moment) {
        self.restarts.note_timeout(slot, took, now);
    }

    /// A slot was served for this long, by a worker that leaves.
    pub(super) fn served(&mut self, slot: Slot, time: Duration) {
        self.restarts.note_served(slot, time);
    }

    // Ends of waiting.

    /// A slot is filled now.
    pub(super) fn begun(&mut self, slot: Slot) {
        self.respawns.remove(&slot);
    }

    /// The slots whose time has come no longer wait for it.
    pub(super) fn cancel_due(&mut self, now: Moment) {
        self.respawns.retain(|_, at| *at > now);
    }

    /// The same, of those that have a worker by now.
    pub(super) fn cancel_covered(&mut self, pool: &Pool, now: Moment) {
        self.respawns.retain(|slot, at| *at > now || !pool.table.is_covered(*slot, pool.current));
    }

    /// No slot waits for a time any more.
    pub(super) fn cancel_all(&mut self) {
        self.respawns.clear();
    }

    /// The number of slots goes from `from` to `to`.
    pub(super) fn resize(&mut self, from: usize, to: usize) {
        self.respawns.retain(|slot, _| *slot < to);
        self.restarts.forget_from(to.min(from));
    }

    /// A new version of the code serves: it starts with a clean record.
    pub(super) fn forget(&mut self) {
        self.restarts.forget();
        self.respawns.clear();
    }

    /// Moves every time by `by`.
    pub(super) fn forgive(&mut self, by: Duration) {
        for at in self.respawns.values_mut() {
            *at = at.saturating_add(by);
        }
    }

    // Requests that wait for a worker.

    /// An operator wants a worker in an empty slot at once.
    pub(super) fn ask(&mut self, slot: Slot, ticket: Option<Ticket>) {
        self.waiting.extend(ticket.map(|ticket| SlotTicket { ticket, slot }));
        self.hurried.insert(slot);
    }

    /// Answers requests for slots that have a worker by now, or are no more.
    pub(super) fn settle(&mut self, pool: &Pool) -> Vec<Reply> {
        let is_over = |waiting: &SlotTicket| {
            waiting.slot >= pool.target || pool.table.are_served(waiting.slot..waiting.slot + 1)
        };
        let (over, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(is_over);
        self.waiting = waiting;
        let over: Vec<SlotTicket> = over;
        let reply = |SlotTicket { ticket, slot }| {
            let answer = match slot < pool.target {
                true => Answer::Done(format!("slot {slot} has a worker")),
                false => Answer::Superseded,
            };
            Reply { tickets: vec![ticket], answer }
        };
        over.into_iter().map(reply).collect()
    }

    /// A worker could not become ready in `slot`: returns the requests that wait for it.
    pub(super) fn take_waiting(&mut self, slot: Slot) -> Vec<Ticket> {
        let (failed, waiting) =
            std::mem::take(&mut self.waiting).into_iter().partition(|waiting| waiting.slot == slot);
        self.waiting = waiting;
        let failed: Vec<SlotTicket> = failed;
        failed.into_iter().map(|failed| failed.ticket).collect()
    }

    /// No slot is filled any more: returns the requests that wait for one.
    pub(super) fn stop(&mut self) -> Vec<Ticket> {
        self.hurried.clear();
        self.waiting.drain(..).map(|waiting| waiting.ticket).collect()
    }
}

#[cfg(test)]
impl Starts {
    /// Slots that are filled without waiting for their time.
    pub(super) fn hurried(&self) -> &BTreeSet<Slot> {
        &self.hurried
    }
}
