//! One step of the machine: its time and its effects.

use std::time::Duration;

use super::effect::{Answer, Effect};
use super::event::{Moment, Ticket, WorkerId};
use super::notice::Notice;

/// The time of an event, and its effects so far.
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
    /// A step without effects.
    pub(super) fn at(now: Moment) -> Self {
        Self { now, effects: Vec::new() }
    }

    /// The moment `time` later; the largest moment if that overflows.
    pub(super) fn after(&self, time: Duration) -> Moment {
        self.now.saturating_add(time)
    }

    /// Adds an effect.
    pub(super) fn push(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// Adds a log message.
    pub(super) fn log(&mut self, notice: impl Into<Notice>) {
        self.effects.push(Effect::Log(notice.into()));
    }

    /// Adds the SIGKILL of processes whose state is already `Killed`.
    pub(super) fn kill(&mut self, processes: impl IntoIterator<Item = WorkerId>) {
        self.effects.extend(processes.into_iter().map(|worker| Effect::Kill { worker }));
    }

    /// Adds one answer to each of `tickets`.
    pub(super) fn answer(&mut self, tickets: impl IntoIterator<Item = Ticket>, answer: &Answer) {
        let answers = tickets.into_iter().map(|ticket| Effect::Answer { ticket, answer: answer.clone() });
        self.effects.extend(answers);
    }

    /// Adds the answers that a part has returned.
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
