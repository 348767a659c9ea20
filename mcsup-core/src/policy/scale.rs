//! How many workers there should be, as asked; and when their memory is measured.

use std::time::Duration;

use super::effect::{Answer, Drain, Effect};
use super::event::{Generation, Moment, Slot, Ticket};
use super::machine::Machine;
use super::notice::{Notice, ScaleNotice};
use super::status::Phase;
use super::step::Step;
use super::table::Entry;
use super::under_way::Scaling;

/// How often the workers' memory is measured, where a limit needs it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Machine {
    /// Somebody wants `target` workers.
    pub(super) fn ask_scale(&mut self, target: usize, ticket: Option<Ticket>, step: &mut Step) {
        if target < 1 || target > self.policy.max_workers {
            let reason = format!("{target} workers: expected 1 to {}", self.policy.max_workers);
            return step.answer(ticket, &Answer::Refused(reason));
        }
        // What an unfinished change has added so far may fail yet.
        let older = self.scaling.take();
        let from = older.as_ref().map_or(self.target, |older| older.from.min(self.target));
        let tickets = older.map(|older| older.tickets).unwrap_or_default();
        step.answer(tickets, &Answer::Superseded);
        self.scaling = Some(Scaling { from, tickets: ticket.into_iter().collect() });
        self.scale(target, step);
        // One that boots goes there as well, whatever its settings say: the newest request wins.
        self.scale_rollout(target, step);
    }

    /// Goes to `target` workers, in the generation that serves. One that boots goes there as well, unless its settings
    /// name a number of their own.
    fn scale(&mut self, target: usize, step: &mut Step) {
        let (from, target) = (self.target, self.policy.allowed(target));
        if target == from {
            return;
        }
        step.tell(Notice::Scale(ScaleNotice::Begun { from, to: target }));
        self.target = target;
        self.table.cancel_respawns(target);
        self.restarts.forget_from(target.min(from));
        match &self.phase {
            Phase::Reloading(rollout) if rollout.workers == from => self.scale_rollout(target, step),
            _ => self.leave_slots(step),
        }
    }

    /// The generation that boots goes to `workers`.
    fn scale_rollout(&mut self, workers: usize, step: &mut Step) {
        match &mut self.phase {
            Phase::Reloading(rollout) if rollout.workers != workers => {
                rollout.workers = workers;
                self.leave_slots(step);
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
    pub(super) fn leave_slots(&mut self, step: &mut Step) {
        step.push(Effect::Resize { slots: self.slots() });
        let is_left = |entry: &Entry| entry.slot >= self.slots_of(entry.generation);
        for worker in self.table.select(|entry| is_left(entry) && !entry.state.is_leaving()) {
            // Others go on, also with what waits on a socket of the slot's own: the supervisor gives it to them.
            self.retire(worker, Drain::Retire, step);
        }
    }

    /// Answers whoever waits for a size that the pool has by step.now, and brings a size that the settings do not allow any
    /// more back within their bounds.
    pub(super) fn settle_scaling(&mut self, step: &mut Step) {
        if self.phase == Phase::Serving && self.policy.allowed(self.target) != self.target {
            self.scale(self.target, step);
            // Its workers are forked when this is settled next, which must not wait for something to happen.
            self.fill(step);
        }
        let Some(Scaling { from, .. }) = self.scaling else { return };
        if self.table.are_served(from.min(self.target)..self.target) {
            let tickets = self.scaling.take().map(|scaling| scaling.tickets).unwrap_or_default();
            let message = format!("{} workers", self.target);
            step.answer(tickets, &Answer::Done(message));
        }
    }

    /// A new worker failed; where it is one that a change of size added, the size is what it was.
    pub(super) fn note_failed_addition(
        &mut self,
        slot: Slot,
        (reason, detail): (&str, Option<String>),
        step: &mut Step,
    ) {
        if self.table.in_slot(slot).any(|entry| entry.state.is_ready()) {
            return;
        }
        let Some(scaling) = self.scaling.take_if(|scaling| slot >= scaling.from) else { return };
        let (from, to) = (scaling.from, self.target);
        self.scale(from, step);
        let reason = reason.to_owned();
        step.tell(Notice::Scale(ScaleNotice::Failed { from, to, reason: reason.clone() }));
        step.answer(scaling.tickets, &Answer::Failed { reason, detail });
    }

    /// The pool ends, whatever size somebody wanted.
    pub(super) fn stop_scaling(&mut self, step: &mut Step) {
        let tickets = self.scaling.take().map(|scaling| scaling.tickets).unwrap_or_default();
        step.answer(tickets, &Answer::Superseded);
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
    pub(super) fn settle_looks(&mut self, step: &mut Step) {
        if self.measures() && self.next_look.is_none_or(|at| at <= step.now) {
            self.next_look = Some(step.after(LOOK_EVERY));
            step.push(Effect::Measure);
        }
    }
}
