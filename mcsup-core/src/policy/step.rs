//! One step of the machine: when it happens, and its effects.

use std::time::Duration;

use super::effect::{Answer, Effect};
use super::event::{Moment, Ticket, WorkerId};
use super::notice::Notice;

/// The time of an event, and the effects that it has so far.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) now: Moment,
    effects: Vec<Effect>,
}

/// One answer to all requests that wait for it.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) tickets: Vec<Ticket>,
    pub(super) answer: Answer,
}

impl Step {
    /// A step in which nothing is decided yet.
    pub(super) fn at(now: Moment) -> Self {
        Self { now, effects: Vec::new() }
    }

    /// The moment that is `time` away; the last one that there is, where that is too far.
    pub(super) fn after(&self, time: Duration) -> Moment {
        self.now.saturating_add(time)
    }

    /// Has something done, after all that was asked for before.
    pub(super) fn push(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// Tells the operator.
    pub(super) fn tell(&mut self, notice: impl Into<Notice>) {
        self.effects.push(Effect::Tell(notice.into()));
    }

    /// Has processes killed that are known to be on their way out.
    pub(super) fn kill(&mut self, processes: impl IntoIterator<Item = WorkerId>) {
        self.effects.extend(processes.into_iter().map(|worker| Effect::Kill { worker }));
    }

    /// Gives one answer to all requests that wait for it.
    pub(super) fn answer(&mut self, tickets: impl IntoIterator<Item = Ticket>, answer: &Answer) {
        let answers = tickets.into_iter().map(|ticket| Effect::Answer { ticket, answer: answer.clone() });
        self.effects.extend(answers);
    }

    /// Gives answers that a part has decided on.
    pub(super) fn reply(&mut self, replies: impl IntoIterator<Item = Reply>) {
        for Reply { tickets, answer } in replies {
            self.answer(tickets, &answer);
        }
    }

    /// All effects, in their order.
    pub(super) fn into_effects(self) -> Vec<Effect> {
        self.effects
    }
}
