//! How many workers there should be: as asked, or between two bounds by what hurts.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::event::{Answer, Drain, Effect, Generation, Load, Moment, Notice, Slot, Ticket};
use super::machine::Machine;
use super::status::Phase;
use super::table::Entry;

/// How often the pool's load and its workers' memory are looked at, where somebody wants to know.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// So many looks in a row must agree before there is a worker more: a burst passes by itself.
const LOOKS_UP: u32 = 2;

/// So many before there is one fewer: a worker that is missed costs more than one that is idle.
const LOOKS_DOWN: u32 = 30;

/// Bounds between which the pool is as large as its load wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Autoscale {
    /// The fewest workers.
    pub min: usize,
    /// The most.
    pub max: usize,
}

/// What the last looks had in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Trend {
    hurts: u32,
    idles: u32,
    /// Looks before do not count: growing has just failed.
    rests_until: Moment,
}

impl Trend {
    /// Notes a look at a pool of `workers`; whether there should be one more, or one fewer.
    fn note(&mut self, load: &Load, workers: usize) -> Option<Change> {
        let (hurts, idles) = (hurts(load), idles(load, workers));
        self.hurts = if hurts { self.hurts + 1 } else { 0 };
        self.idles = if idles { self.idles + 1 } else { 0 };
        let change = match () {
            () if self.hurts >= LOOKS_UP => Change::More,
            () if self.idles >= LOOKS_DOWN => Change::Fewer,
            () => return None,
        };
        (self.hurts, self.idles) = (0, 0);
        Some(change)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    More,
    Fewer,
}

/// Requests wait that nobody has time for, or nearly everybody is busy.
fn hurts(load: &Load) -> bool {
    let all_busy = load.permits > 0 && load.running >= load.permits;
    all_busy && load.queued + load.waiting > 0 || load.permits > 0 && load.running * 10 > load.permits * 9
}

/// With a worker fewer at most half of the rest would be busy, and nothing waits.
fn idles(load: &Load, workers: usize) -> bool {
    let left = load.permits.saturating_sub(load.permits / workers.max(1));
    load.queued + load.waiting == 0 && load.running * 2 <= left
}

/// A change of size that has not arrived yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Scaling {
    /// How many there were before, and will be again if it fails.
    from: usize,
    tickets: Vec<Ticket>,
}

impl Machine {
    /// Somebody wants `target` workers.
    pub(super) fn ask_scale(
        &mut self,
        target: usize,
        ticket: Option<Ticket>,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        if target < 1 || target > self.policy.max_workers {
            let reason = format!("{target} workers: expected 1 to {}", self.policy.max_workers);
            return self.answer(ticket, &Answer::Refused(reason), effects);
        }
        let allowed = self.policy.allowed(target);
        if allowed != target {
            let reason = format!("{target} workers: autoscaling keeps them within its bounds");
            return self.answer(ticket, &Answer::Refused(reason), effects);
        }
        // What an unfinished change has added so far may fail yet.
        let older = self.scaling.take();
        let from = older.as_ref().map_or(self.target, |older| older.from.min(self.target));
        let tickets = older.map(|older| older.tickets).unwrap_or_default();
        self.answer(tickets, &Answer::Superseded, effects);
        self.scaling = Some(Scaling { from, tickets: ticket.into_iter().collect() });
        self.scale(target, now, effects);
        // One that boots goes there as well, whatever its settings say: the newest request wins.
        self.scale_rollout(target, now, effects);
    }

    /// Goes to `target` workers, in the generation that serves. One that boots goes there as well, unless its settings
    /// name a number of their own.
    fn scale(&mut self, target: usize, now: Moment, effects: &mut Vec<Effect>) {
        let (from, target) = (self.target, self.policy.allowed(target));
        if target == from {
            return;
        }
        effects.push(Effect::Tell(Notice::Scaled { from, to: target }));
        self.target = target;
        self.table.cancel_respawns(target);
        match &self.phase {
            Phase::Reloading(rollout) if rollout.workers == from => self.scale_rollout(target, now, effects),
            _ => self.leave_slots(now, effects),
        }
    }

    /// The generation that boots goes to `workers`.
    fn scale_rollout(&mut self, workers: usize, now: Moment, effects: &mut Vec<Effect>) {
        match &mut self.phase {
            Phase::Reloading(rollout) if rollout.workers != workers => {
                rollout.workers = workers;
                self.leave_slots(now, effects);
            }
            _ => {}
        }
    }

    /// How many slots somebody needs: the generation that serves, or one that boots.
    pub(super) fn slots(&self) -> usize {
        self.slots_of(self.current).max(match &self.phase {
            Phase::Reloading(rollout) => rollout.workers,
            _ => 0,
        })
    }

    /// How many slots `generation` needs.
    fn slots_of(&self, generation: Generation) -> usize {
        match &self.phase {
            Phase::Reloading(rollout) if rollout.generation == generation => rollout.workers,
            _ => self.target,
        }
    }

    /// Has listeners for the slots that are needed, and nobody in others.
    pub(super) fn leave_slots(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        effects.push(Effect::Resize { slots: self.slots() });
        let is_left = |entry: &Entry| entry.slot >= self.slots_of(entry.generation);
        for worker in self.table.select(|entry| is_left(entry) && !entry.state.is_leaving()) {
            // What is queued for its slot alone is nobody else's to accept.
            let how = if self.policy.own_listeners { Drain::Stop } else { Drain::Retire };
            self.retire(worker, how, now, effects);
        }
    }

    /// Answers whoever waits for a size that the pool has by now, and brings a size that the settings do not allow any
    /// more back within their bounds.
    pub(super) fn settle_scaling(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        if self.phase == Phase::Serving && self.policy.allowed(self.target) != self.target {
            self.scale(self.target, now, effects);
            // Its workers are forked when this is settled next, which must not wait for something to happen.
            self.fill(now, effects);
        }
        let Some(Scaling { from, .. }) = self.scaling else { return };
        if self.table.are_served(from.min(self.target)..self.target) {
            let tickets = self.scaling.take().map(|scaling| scaling.tickets).unwrap_or_default();
            let message = format!("{} workers", self.target);
            self.answer(tickets, &Answer::Done(message), effects);
        }
    }

    /// A new worker failed; where it is one that a change of size added, the size is what it was.
    pub(super) fn note_failed_addition(
        &mut self,
        slot: Slot,
        (reason, detail): (&str, Option<String>),
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        if self.table.in_slot(slot).any(|entry| entry.state.is_ready()) {
            return;
        }
        let Some(scaling) = self.scaling.take_if(|scaling| slot >= scaling.from) else { return };
        let (from, to) = (scaling.from, self.target);
        // The load will want it again at the next look.
        self.trend.rests_until = now + self.policy.restart.cap;
        self.scale(from, now, effects);
        let reason = reason.to_owned();
        effects.push(Effect::Tell(Notice::ScaleFailed { from, to, reason: reason.clone() }));
        self.answer(scaling.tickets, &Answer::Failed { reason, detail }, effects);
    }

    /// The pool ends, whatever size somebody wanted.
    pub(super) fn stop_scaling(&mut self, effects: &mut Vec<Effect>) {
        let tickets = self.scaling.take().map(|scaling| scaling.tickets).unwrap_or_default();
        self.answer(tickets, &Answer::Superseded, effects);
    }

    /// Whether somebody wants to know the load, or the memory.
    fn measures(&self) -> bool {
        let ready = matches!(self.phase, Phase::Serving | Phase::Reloading(_));
        ready && (self.policy.autoscale.is_some() || self.policy.recycling.rss.0 > 0)
    }

    /// When the next look is due.
    pub(super) fn next_look(&self) -> Option<Moment> {
        self.next_look.filter(|_| self.measures())
    }

    /// Looks, when it is time.
    pub(super) fn settle_looks(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        if self.measures() && self.next_look.is_none_or(|at| at <= now) {
            self.next_look = Some(now + LOOK_EVERY);
            effects.push(Effect::Measure);
        }
    }

    /// How busy the pool is.
    pub(super) fn on_load(&mut self, load: Load, now: Moment, effects: &mut Vec<Effect>) {
        let settled = self.phase == Phase::Serving && self.table.is_full(self.target);
        if self.policy.autoscale.is_none() || !settled || now < self.trend.rests_until {
            return;
        }
        let Some(change) = self.trend.note(&load, self.target) else { return };
        let (target, notice) = match change {
            Change::More => (self.target + 1, Notice::Overloaded { load }),
            Change::Fewer => (self.target - 1, Notice::Underloaded { load }),
        };
        if self.policy.allowed(target) != self.target {
            effects.push(Effect::Tell(notice));
            self.scaling = Some(Scaling { from: self.target, tickets: Vec::new() });
            self.scale(target, now, effects);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(running: usize, permits: usize, waiting: usize) -> Load {
        Load { queued: 0, waiting, running, permits }
    }

    fn after(trend: &mut Trend, looks: u32, load: &Load, workers: usize) -> Option<Change> {
        (0..looks).filter_map(|_| trend.note(load, workers)).next()
    }

    #[test]
    fn requests_that_wait_while_all_are_busy_ask_for_a_worker_more_and_a_burst_does_not() {
        let mut trend = Trend::default();
        assert_eq!(after(&mut trend, 1, &load(2, 2, 5), 2), None);
        assert_eq!(after(&mut trend, 1, &load(0, 2, 0), 2), None);
        assert_eq!(after(&mut trend, 2, &load(2, 2, 5), 2), Some(Change::More));
    }

    #[test]
    fn a_pool_that_has_long_been_idle_gets_smaller_but_not_one_that_would_hurt_then() {
        let mut trend = Trend::default();
        assert_eq!(after(&mut trend, 29, &load(1, 4, 0), 4), None);
        assert_eq!(after(&mut trend, 1, &load(1, 4, 0), 4), Some(Change::Fewer));
        assert_eq!(after(&mut trend, 100, &load(2, 4, 0), 4), None);
    }

    #[test]
    fn what_brings_a_worker_never_takes_it_away_again() {
        for permits in 1..40 {
            for workers in 1..=permits {
                let busy = load(permits, permits, 1);
                let grown = load(permits, permits + permits / workers, 0);
                assert!(hurts(&busy));
                assert!(!idles(&grown, workers + 1), "{permits} permits of {workers} workers");
            }
        }
    }
}
