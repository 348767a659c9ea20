//! How many workers there should be, as asked; and when their memory is measured.

use std::time::Duration;

use super::event::{Answer, Drain, Effect, Generation, Moment, Notice, Slot, Ticket};
use super::machine::Machine;
use super::status::Phase;
use super::table::Entry;
use super::under_way::Scaling;

/// How often the workers' memory is measured, where a limit needs it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

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
        self.restarts.forget_from(target.min(from));
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
            // Others go on, also with what waits on a socket of the slot's own: the supervisor gives it to them.
            self.retire(worker, Drain::Retire, now, effects);
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

    /// Whether a limit needs the workers' memory.
    fn measures(&self) -> bool {
        let ready = matches!(self.phase, Phase::Serving | Phase::Reloading(_));
        ready && self.policy.recycling.rss.0 > 0
    }

    /// When the next look is due.
    pub(super) fn next_look(&self) -> Option<Moment> {
        self.next_look.filter(|_| self.measures())
    }

    /// Looks, when it is time.
    pub(super) fn settle_looks(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        if self.measures() && self.next_look.is_none_or(|at| at <= now) {
            self.next_look = Some(now.saturating_add(LOOK_EVERY));
            effects.push(Effect::Measure);
        }
    }
}
