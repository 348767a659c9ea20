//! Changes of the number of workers.

use serde::{Deserialize, Serialize};

use super::effect::Answer;
use super::event::{Slot, Ticket};
use super::pool::Pool;
use super::step::Reply;

/// The change of size in progress.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Scaler {
    scaling: Option<Scaling>,
}

/// A change of size in progress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Scaling {
    /// The number of workers before, and after a failure.
    pub(super) from: usize,
    pub(super) tickets: Vec<Ticket>,
}

impl Scaler {
    /// Begins a change. Returns the requests for the older one that it replaces.
    pub(super) fn begin(&mut self, pool: &Pool, ticket: Option<Ticket>) -> Vec<Ticket> {
        let older = self.scaling.take();
        // Workers of an unfinished change may still fail.
        let from = older.as_ref().map_or(pool.target, |older| older.from.min(pool.target));
        self.scaling = Some(Scaling { from, tickets: ticket.into_iter().collect() });
        older.map(|older| older.tickets).unwrap_or_default()
    }

    /// Answers the requests for a change that is complete.
    pub(super) fn settle(&mut self, pool: &Pool) -> Option<Reply> {
        let has_arrived =
            |scaling: &mut Scaling| pool.table.are_served(scaling.from.min(pool.target)..pool.target);
        let Scaling { tickets, .. } = self.scaling.take_if(has_arrived)?;
        Some(Reply { tickets, answer: Answer::Done(format!("{} workers", pool.target)) })
    }

    /// Takes the change that has added `slot`, because its worker failed.
    pub(super) fn take_failed(&mut self, slot: Slot) -> Option<Scaling> {
        self.scaling.take_if(|scaling| slot >= scaling.from)
    }

    /// Takes all requests, because the pool ends.
    pub(super) fn stop(&mut self) -> Vec<Ticket> {
        self.scaling.take().map(|scaling| scaling.tickets).unwrap_or_default()
    }
}
