//! When another image of the supervisor takes over, in the same process: only while nothing else is under way, and only
//! one that has shown that it can.

use serde::{Deserialize, Serialize};

use super::event::Ticket;
use super::pool::Pool;
use super::status::PoolPhase;

/// Upgrades that are asked for, and the one that has brought this image.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Upgrades {
    #[serde(skip)]
    is_wanted: bool,
    tickets: Vec<Ticket>,
    /// Gone on from a record; the outcome of the upgrade is not known yet.
    #[serde(skip)]
    is_resumed: bool,
}

impl Upgrades {
    /// In an image that goes on from a record.
    pub(super) fn resume(&mut self) {
        self.is_resumed = true;
    }

    /// One is asked for; says whether it is the first.
    pub(super) fn ask(&mut self, ticket: Option<Ticket>) -> bool {
        self.tickets.extend(ticket);
        !std::mem::replace(&mut self.is_wanted, true)
    }

    /// Whether one waits.
    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// Whether the outcome of the upgrade to this image is not known yet.
    pub(super) fn is_resumed(&self) -> bool {
        self.is_resumed
    }

    /// Whether one may begin, where no worker is being replaced.
    pub(super) fn may_begin(&self, pool: &Pool, is_replacing: bool) -> bool {
        pool.phase == PoolPhase::Serving && !is_replacing && !self.is_resumed
    }

    /// It is over: returns the requests that wait for it.
    pub(super) fn end(&mut self) -> Vec<Ticket> {
        self.is_wanted = false;
        self.is_resumed = false;
        std::mem::take(&mut self.tickets)
    }
}
