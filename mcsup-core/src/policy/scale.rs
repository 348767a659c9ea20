//! A change of the number of workers, and when their memory is measured.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::effect::Answer;
use super::event::{Moment, Slot, Ticket};
use super::pool::Pool;
use super::status::PoolPhase;
use super::step::Reply;

/// How often the workers' memory is measured, where a limit needs it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The change that has not arrived yet.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Scaler {
    scaling: Option<Scaling>,
    #[serde(skip)]
    next_look: Option<Moment>,
}

/// A change of size that has not arrived yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Scaling {
    /// How many workers there were before, and will be again if it fails.
    pub(super) from: usize,
    pub(super) tickets: Vec<Ticket>,
}

impl Scaler {
    /// A change begins in the place of an older one: returns the requests that wait for that.
    pub(super) fn begin(&mut self, pool: &Pool, ticket: Option<Ticket>) -> Vec<Ticket> {
        let older = self.scaling.take();
        // Workers that an unfinished change has added may fail yet.
        let from = older.as_ref().map_or(pool.target, |older| older.from.min(pool.target));
        self.scaling = Some(Scaling { from, tickets: ticket.into_iter().collect() });
        older.map(|older| older.tickets).unwrap_or_default()
    }

    /// Answers those that wait for a size that the pool has by now.
    pub(super) fn settle(&mut self, pool: &Pool) -> Option<Reply> {
        let has_arrived =
            |scaling: &mut Scaling| pool.table.are_served(scaling.from.min(pool.target)..pool.target);
        let Scaling { tickets, .. } = self.scaling.take_if(has_arrived)?;
        Some(Reply { tickets, answer: Answer::Done(format!("{} workers", pool.target)) })
    }

    /// A new worker failed in `slot`, which no other serves: the change that has added the slot.
    pub(super) fn take_failed(&mut self, slot: Slot) -> Option<Scaling> {
        self.scaling.take_if(|scaling| slot >= scaling.from)
    }

    /// The pool ends, whatever size was asked for: returns the requests that wait.
    pub(super) fn stop(&mut self) -> Vec<Ticket> {
        self.scaling.take().map(|scaling| scaling.tickets).unwrap_or_default()
    }

    /// When the next look at the memory is due.
    pub(super) fn next_look(&self, pool: &Pool) -> Option<Moment> {
        self.next_look.filter(|_| measures(pool))
    }

    /// Whether it is time to look.
    pub(super) fn looks(&mut self, pool: &Pool, now: Moment) -> bool {
        let is_due = measures(pool) && self.next_look.is_none_or(|at| at <= now);
        if is_due {
            self.next_look = Some(now.saturating_add(LOOK_EVERY));
        }
        is_due
    }
}

/// Whether a limit needs the workers' memory.
fn measures(pool: &Pool) -> bool {
    matches!(pool.phase, PoolPhase::Serving | PoolPhase::Reloading(_)) && pool.policy.recycling.rss.is_some()
}
