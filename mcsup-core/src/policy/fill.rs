//! When empty slots are filled.
//!
//! Each slot that lost its worker waits for a time of its own ([`restart`](super::restart)). Three rules bound that:
//!
//! - A pool is never dark while a boot can work: while no worker is ready and none boots, the earliest start happens as
//!   soon as the pool has rested from its last boot.
//! - Boots of slots whose last boot failed go one at a time, and the pool rests after each that fails. One that takes much
//!   longer than usual holds up no other.
//! - A fork that the system refuses is charged to no slot: the whole pool waits a moment, and one fork is tried.

use std::fmt;
use std::time::Duration;

use super::effect::{Answer, Drain, Effect};
use super::event::{Moment, Slot, Ticket, WorkerId};
use super::exit::KillReason;
use super::machine::Machine;
use super::restart::Loss;
use super::status::State;
use super::step::Step;
use super::table::Entry;
use super::under_way::Refusal;

/// How long the pool waits after the first fork that was refused; twice as long after each further one.
const REFUSED: Duration = Duration::from_millis(500);
/// The longest such wait.
const REFUSED_LONGEST: Duration = Duration::from_secs(2);

/// After how many refused forks in a row a mold is replaced.
const BARREN: u32 = 4;

/// How many workers of a slot that have asked to be replaced finish what they have at once.
const FINISHING: usize = 2;

/// Why a slot has no worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vacancy {
    /// This many of its workers have died lately.
    Deaths(u32),
    /// This many of its boots have failed in a row.
    FailedBoots(u32),
    /// The system refuses to fork, for this reason.
    Refused(String),
    /// There is no mold to fork its worker.
    NoMold,
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

impl Machine {
    /// Starts workers in the slots that are empty and whose time has come.
    pub(super) fn fill(&mut self, step: &mut Step) {
        self.table.cancel_covered_respawns(self.current, step.now);
        if !self.molds.can_fork(self.current) {
            // These are filled as soon as there is a mold.
            return self.table.cancel_due_respawns(step.now);
        }
        for slot in std::mem::take(&mut self.hurried) {
            match self.vacancy(slot) {
                _ if slot >= self.target || self.table.is_covered(slot, self.current) => {}
                Some(_) => self.start_in(slot, step),
                // Its last worker is about to be reaped.
                None => {
                    self.hurried.insert(slot);
                }
            }
        }
        while self.may_fork(step.now) {
            let Some(slot) = self.next_due(step.now) else {
                // The next fork is as good as any.
                self.refusal = None;
                return;
            };
            self.start_in(slot, step);
        }
    }

    /// Starts a worker in an empty slot, whatever it waits for.
    pub(super) fn start_in(&mut self, slot: Slot, step: &mut Step) {
        self.table.cancel_respawn(slot);
        self.note_fork_tried(step.now);
        self.spawn(slot, self.current, step);
    }

    /// When the next slot is filled.
    pub(super) fn next_fill(&self) -> Option<Moment> {
        if self.phase.is_ending() || !self.molds.can_fork(self.current) {
            return None;
        }
        let next = (0..self.target).filter_map(|slot| self.start_of(slot)).min();
        self.refusal.as_ref().map(|refusal| refusal.again).or(next)
    }

    /// Lets the slot of a lost worker be filled again, where no other worker fills it; says when.
    pub(super) fn respawn(&mut self, gone: &Entry, loss: Loss, now: Moment) -> Option<Duration> {
        let Entry { slot, generation, .. } = *gone;
        let is_covered = self.table.is_covered(slot, self.current);
        if self.phase.is_ending() || slot >= self.target || is_covered || self.is_new(generation) {
            return None;
        }
        if generation != self.current {
            // It died of code that its successor does not run.
            return Some(Duration::ZERO);
        }
        let at = match loss {
            Loss::Ready(since) => self.restarts.after_death(slot, (since, gone.boot), now),
            Loss::Boot => self.restarts.after_failed_boot(slot, now),
        };
        self.table.respawn_later(slot, at);
        Some(self.start_of(slot).unwrap_or(at).saturating_sub(now))
    }

    /// A boot of the generation that serves has worked: it may work in the slots where it failed.
    pub(super) fn on_boot_worked(&mut self, slot: Slot, took: Duration, now: Moment) {
        self.restarts.note_boot(slot, took, true, now);
        for slot in 0..self.target {
            if self.restarts.failures(slot) > 0 {
                self.table.hasten_respawn(slot, now);
            }
        }
    }

    /// A fork was refused; says in how long the next is tried.
    pub(super) fn on_fork_refused(&mut self, mold: Option<WorkerId>, reason: &str, now: Moment) -> Duration {
        let delay = match &self.refusal {
            Some(refusal) if refusal.is_tried => (refusal.delay * 2).min(REFUSED_LONGEST),
            // It was asked for together with one that was refused before.
            Some(refusal) => return refusal.again.saturating_sub(now),
            None => REFUSED,
        };
        let times = self.refusal.as_ref().map_or(1, |refusal| refusal.times + 1);
        let (again, reason) = (now.saturating_add(delay), reason.to_owned());
        self.refusal = Some(Refusal { again, delay, times, is_tried: false, mold, reason });
        delay
    }

    /// Replaces a mold that could not fork again and again: another one may have what it lacks.
    pub(super) fn replace_barren_mold(&mut self, step: &mut Step) {
        let barren = self.refusal.as_ref().filter(|refusal| refusal.times >= BARREN);
        if let Some(mold) = barren.and_then(|refusal| refusal.mold) {
            self.kill_mold(mold, KillReason::Barren, step);
        }
    }

    /// Whether a fork may be tried.
    pub(super) fn may_fork(&self, now: Moment) -> bool {
        self.refusal.as_ref().is_none_or(|refusal| refusal.again <= now)
    }

    /// A fork is tried: while the system refuses them, the next has to wait for its outcome.
    pub(super) fn note_fork_tried(&mut self, now: Moment) {
        if let Some(refusal) = &mut self.refusal {
            refusal.again = now.saturating_add(refusal.delay);
            refusal.is_tried = true;
        }
    }

    /// Why an empty slot waits, and until when; `None`: it has a worker, or one is about to be reaped.
    pub fn vacancy(&self, slot: Slot) -> Option<(Vacancy, Option<Moment>)> {
        let waits = self.table.respawn_of(slot).is_some() || self.table.is_vacant(slot, self.current);
        if !waits || self.table.is_covered(slot, self.current) {
            return None;
        }
        if let Some(refusal) = &self.refusal {
            return Some((Vacancy::Refused(refusal.reason.clone()), Some(refusal.again)));
        }
        if !self.molds.can_fork(self.current) {
            return Some((Vacancy::NoMold, self.next_mold()));
        }
        let why = match self.restarts.failures(slot) {
            0 => Vacancy::Deaths(self.restarts.deaths(slot)),
            failures => Vacancy::FailedBoots(failures),
        };
        Some((why, self.start_of(slot)))
    }

    /// An operator wants a worker in an empty slot, and does not wait until its time has come.
    pub(super) fn ask_start(&mut self, slot: Slot, ticket: Option<Ticket>, step: &mut Step) {
        self.slot_tickets.extend(ticket.map(|ticket| (ticket, slot)));
        self.refusal = None;
        self.molds.again = None;
        self.hurried.insert(slot);
        self.fill(step);
    }

    /// Answers each client that waits for a worker in a slot that has one by step.now, or that is no more.
    pub(super) fn settle_starts(&mut self, step: &mut Step) {
        let (table, target) = (&self.table, self.target);
        let is_over = |slot: Slot| slot >= target || table.are_served(slot..slot + 1);
        let (over, waiting) =
            std::mem::take(&mut self.slot_tickets).into_iter().partition(|(_, slot)| is_over(*slot));
        self.slot_tickets = waiting;
        let over: Vec<(Ticket, Slot)> = over;
        for (ticket, slot) in over {
            let answer = match slot < self.target {
                true => Answer::Done(format!("slot {slot} has a worker")),
                false => Answer::Superseded,
            };
            step.answer([ticket], &answer);
        }
    }

    /// A worker could not become ready in `slot`.
    pub(super) fn note_failed_start(
        &mut self,
        slot: Slot,
        reason: &str,
        detail: Option<&String>,
        step: &mut Step,
    ) {
        let answer = Answer::Failed { reason: reason.to_owned(), detail: detail.cloned() };
        let waits = |(_, other): &(Ticket, Slot)| *other == slot;
        let tickets: Vec<Ticket> =
            self.slot_tickets.iter().filter(|waiting| waits(waiting)).map(|(ticket, _)| *ticket).collect();
        self.slot_tickets.retain(|waiting| !waits(waiting));
        step.answer(tickets, &answer);
    }

    /// There is no mold to fork workers for the slots that lack one: requests that wait for them fail.
    pub(super) fn note_missing_mold(&mut self, reason: &str, detail: Option<&String>, step: &mut Step) {
        for slot in 0..self.target {
            if !self.table.are_served(slot..slot + 1) {
                self.note_failed_start(slot, reason, detail, step);
                self.note_failed_addition(slot, (reason, detail.cloned()), step);
            }
        }
    }

    /// The pool ends: no slot is filled any more.
    pub(super) fn stop_filling(&mut self, step: &mut Step) {
        self.hurried.clear();
        let tickets: Vec<Ticket> = self.slot_tickets.drain(..).map(|(ticket, _)| ticket).collect();
        step.answer(tickets, &Answer::Superseded);
    }

    /// From when on no worker is ready and none boots, as far as the pool counts on it; `None`: a worker is ready. One that
    /// has asked to leave counts as gone.
    pub(super) fn dark_from(&self) -> Option<Moment> {
        let mut from = Duration::ZERO;
        for entry in self.table.iter() {
            match entry.state {
                State::Ready { .. } if !entry.leaves => return None,
                State::Booting { since } => from = from.max(since.saturating_add(self.restarts.patience())),
                _ => {}
            }
        }
        Some(from)
    }

    /// A slot that is empty and whose time has come; of several the one that has waited longest.
    fn next_due(&self, now: Moment) -> Option<Slot> {
        let due = (0..self.target).filter_map(|slot| Some((self.start_of(slot)?, slot)));
        due.filter(|(at, _)| *at <= now).min().map(|(_, slot)| slot)
    }

    /// When an empty slot is filled; in the past: at once. `None`: it has a worker, or waits for an event.
    fn start_of(&self, slot: Slot) -> Option<Moment> {
        let is_vacant = || self.table.is_vacant(slot, self.current).then_some(Duration::ZERO);
        let at = self.table.respawn_of(slot).or_else(is_vacant)?;
        let at = match self.restarts.failures(slot) {
            0 => at,
            _ => at.max(self.restarts.rest_after_failure_ends()).max(self.retry_ends()),
        };
        // The earliest start of a dark pool.
        let soonest = self.dark_from().map(|from| from.max(self.restarts.rest_ends()));
        Some(soonest.map_or(at, |soonest| at.min(soonest)))
    }

    /// Until when the boot of a slot where the last one failed holds up the others of that kind.
    fn retry_ends(&self) -> Moment {
        let retries = self
            .table
            .iter()
            .filter(|entry| entry.generation == self.current && self.restarts.failures(entry.slot) > 0);
        let ends = retries.filter_map(|entry| match entry.state {
            State::Booting { since } => Some(since.saturating_add(self.restarts.patience())),
            _ => None,
        });
        ends.max().unwrap_or_default()
    }

    /// A worker of `entry`'s slot has asked to be replaced: says in how long its successor starts.
    pub(super) fn succeed(&mut self, entry: &Entry, since: Moment, now: Moment) -> Option<Duration> {
        if entry.slot >= self.target || self.table.is_covered(entry.slot, self.current) {
            return None;
        }
        let at = match entry.generation == self.current {
            true => self.restarts.after_ready((since, entry.boot), now),
            false => now,
        };
        self.table.respawn_later(entry.slot, at);
        Some(at.saturating_sub(now))
    }

    /// Retires each worker that has asked to be replaced and whose slot another one serves.
    pub(super) fn retire_replaced(&mut self, step: &mut Step) {
        let is_replaced = |entry: &Entry| {
            let mut others = self.table.in_slot(entry.slot);
            entry.leaves
                && entry.state.is_ready()
                && others.any(|other| other.state.is_ready() && !other.leaves)
        };
        for worker in self.table.select(is_replaced) {
            self.retire(worker, Drain::Retire, step);
        }
        self.hurry_crowds(step);
    }

    /// Of a slot's workers that have asked to be replaced only [`FINISHING`] finish at once: requests that every worker is
    /// too slow for would pile them up. What an older one is still at is older than all that the later ones gave up.
    fn hurry_crowds(&mut self, step: &mut Step) {
        let soon = step.after(self.policy.quick_timeout);
        let is_late = |entry: &Entry| {
            let waits = matches!(entry.state, State::Draining { kill_at, .. } if kill_at > soon);
            waits && self.is_crowded(entry)
        };
        for worker in self.table.select(is_late) {
            if let Some(Entry { state: State::Draining { kill_at, .. }, .. }) = self.table.get_mut(worker) {
                *kill_at = soon;
                step.push(Effect::Quit { worker });
            }
        }
    }

    /// Whether a worker has asked to be replaced, and enough later ones of its slot finish as well.
    pub(super) fn is_crowded(&self, entry: &Entry) -> bool {
        let finishes = |other: &&Entry| other.leaves && matches!(other.state, State::Draining { .. });
        let later = |other: &&Entry| other.slot == entry.slot && other.id > entry.id;
        entry.leaves && self.table.iter().filter(later).filter(finishes).count() >= FINISHING
    }
}
