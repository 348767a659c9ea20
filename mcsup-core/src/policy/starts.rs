//! The times at which empty slots get a worker.
//!
//! Each slot that lost its worker has its own back-off ([`restart`](super::restart)). Two rules override it:
//!
//! - While no worker is ready and none boots, the earliest start happens as soon as the pool has rested from its last
//!   boot.
//! - Slots whose last boot failed boot one at a time, and the pool rests after each failure. A boot that takes much
//!   longer than usual delays no other.

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

/// The reason why a slot has no worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Vacancy {
    /// Its workers have died recently, this number of times.
    Deaths(u32),
    /// Its boots have failed in a row, this number of times.
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

/// The losses of each slot, the time of its next start, and the requests that wait for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Starts {
    restarts: Restarts,
    /// The slots in a back-off, with its end.
    respawns: BTreeMap<Slot, Moment>,
    /// Slots that an operator has requested a worker for: they do not wait for their back-off.
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

    // Starts.

    /// An empty slot whose start is due; the earliest if there are several.
    pub(super) fn next_due(&self, pool: &Pool, now: Moment) -> Option<Slot> {
        let due = (0..pool.target).filter_map(|slot| Some((self.start_of(pool, slot)?, slot)));
        due.filter(|(at, _)| *at <= now).min().map(|(_, slot)| slot)
    }

    /// The time of the next start.
    pub(super) fn next(&self, pool: &Pool) -> Option<Moment> {
        (0..pool.target).filter_map(|slot| self.start_of(pool, slot)).min()
    }

    /// Takes the requested slots that can start now.
    pub(super) fn take_hurried(&mut self, pool: &Pool) -> Vec<Slot> {
        let is_over = |slot: &Slot| *slot >= pool.target || pool.table.is_covered(*slot, pool.current);
        let hurried = std::mem::take(&mut self.hurried).into_iter().filter(|slot| !is_over(slot));
        let (now, later) = hurried.partition(|slot| self.is_waiting(pool, *slot));
        // The exit of the last worker of the other slots is awaited.
        self.hurried = later;
        let now: BTreeSet<Slot> = now;
        now.into_iter().collect()
    }

    /// Whether a slot has no worker, also none whose exit is awaited.
    pub(super) fn is_waiting(&self, pool: &Pool, slot: Slot) -> bool {
        let waits = self.respawns.contains_key(&slot) || self.is_vacant(pool, slot);
        waits && !pool.table.is_covered(slot, pool.current)
    }

    /// The reason of a slot to wait, by its own losses.
    pub(super) fn vacancy(&self, slot: Slot) -> Vacancy {
        match self.restarts.failures(slot) {
            0 => Vacancy::Deaths(self.restarts.deaths(slot)),
            failures => Vacancy::FailedBoots(failures),
        }
    }

    /// The start of an empty slot, perhaps in the past. `None`: it has a worker, or waits for an event.
    pub(super) fn start_of(&self, pool: &Pool, slot: Slot) -> Option<Moment> {
        let is_vacant = || self.is_vacant(pool, slot).then_some(Duration::ZERO);
        let at = self.respawns.get(&slot).copied().or_else(is_vacant)?;
        let at = match self.restarts.failures(slot) {
            0 => at,
            _ => at.max(self.restarts.rest_after_failure_ends()).max(self.retry_ends(pool)),
        };
        // The earliest start of a pool without a ready or booting worker.
        let soonest = self.unserved_since(pool).map(|from| from.max(self.restarts.rest_ends()));
        Some(soonest.map_or(at, |soonest| at.min(soonest)))
    }

    /// The time from which on no worker is ready and no boot delays others. `None`: a worker is ready.
    ///
    /// A worker that has requested its replacement does not count as ready.
    pub(super) fn unserved_since(&self, pool: &Pool) -> Option<Moment> {
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

    /// The time until which a boot after a failure delays others of this kind.
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

    /// Notes a lost worker. Returns the delay of its successor; `None`: it gets none here.
    pub(super) fn lost(&mut self, pool: &Pool, gone: &Entry, loss: Loss, now: Moment) -> Option<Duration> {
        let Entry { slot, generation, .. } = *gone;
        let is_covered = pool.table.is_covered(slot, pool.current);
        if pool.phase.is_ending() || slot >= pool.target || is_covered || pool.is_new(generation) {
            return None;
        }
        if generation != pool.current {
            // Its successor runs other code.
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

    /// Notes a request for replacement. Returns the delay of the successor; `None`: there is one already.
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

    /// Notes a successful boot of the serving generation: slots with failed boots are tried at once.
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

    /// Notes a failed boot of the serving generation.
    pub(super) fn boot_failed(&mut self, slot: Slot, took: Duration, now: Moment) {
        self.restarts.note_boot(slot, took, false, now);
    }

    /// Notes a boot of the serving generation that exceeded its timeout.
    pub(super) fn boot_timed_out(&mut self, slot: Slot, took: Duration, now: Moment) {
        self.restarts.note_timeout(slot, took, now);
    }

    /// Notes the time in which a leaving worker has served its slot.
    pub(super) fn served(&mut self, slot: Slot, time: Duration) {
        self.restarts.note_served(slot, time);
    }

    // Ends of back-offs.

    /// Ends the back-off of a slot that starts now.
    pub(super) fn begun(&mut self, slot: Slot) {
        self.respawns.remove(&slot);
    }

    /// Ends the back-offs that are due.
    pub(super) fn cancel_due(&mut self, now: Moment) {
        self.respawns.retain(|_, at| *at > now);
    }

    /// Ends the due back-offs of slots that have a worker.
    pub(super) fn cancel_covered(&mut self, pool: &Pool, now: Moment) {
        self.respawns.retain(|slot, at| *at > now || !pool.table.is_covered(*slot, pool.current));
    }

    /// Ends all back-offs.
    pub(super) fn cancel_all(&mut self) {
        self.respawns.clear();
    }

    /// The number of slots goes from `from` to `to`.
    pub(super) fn resize(&mut self, from: usize, to: usize) {
        self.respawns.retain(|slot, _| *slot < to);
        self.restarts.forget_from(to.min(from));
    }

    /// Forgets losses and back-offs, for a new generation.
    pub(super) fn forget(&mut self) {
        self.restarts.forget();
        self.respawns.clear();
    }

    /// Moves the end of every back-off by `by`.
    pub(super) fn postpone_deadlines(&mut self, by: Duration) {
        for at in self.respawns.values_mut() {
            *at = at.saturating_add(by);
        }
    }

    // Requests that wait for a worker.

    /// Notes an operator's request for a worker in an empty slot.
    pub(super) fn ask(&mut self, slot: Slot, ticket: Option<Ticket>) {
        self.waiting.extend(ticket.map(|ticket| SlotTicket { ticket, slot }));
        self.hurried.insert(slot);
    }

    /// Answers requests for slots that have a worker, or that no longer exist.
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

    /// Takes the requests that wait for a worker in `slot`.
    pub(super) fn take_waiting(&mut self, slot: Slot) -> Vec<Ticket> {
        let (failed, waiting) =
            std::mem::take(&mut self.waiting).into_iter().partition(|waiting| waiting.slot == slot);
        self.waiting = waiting;
        let failed: Vec<SlotTicket> = failed;
        failed.into_iter().map(|failed| failed.ticket).collect()
    }

    /// Takes all requests, because the pool ends.
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
