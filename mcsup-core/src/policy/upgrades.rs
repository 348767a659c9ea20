//! Upgrades to another image of the supervisor: they wait while anything else is in progress.

use serde::{Deserialize, Serialize};

use super::event::Ticket;
use super::pool::Pool;
use super::status::PoolPhase;

/// The requested upgrade, and the outcome of the one to this image.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Upgrades {
    #[serde(skip)]
    is_wanted: bool,
    tickets: Vec<Ticket>,
    /// Whether this image was resumed from a record, and the outcome of that upgrade is not reported yet.
    #[serde(skip)]
    is_resumed: bool,
}

impl Upgrades {
    /// Notes that this image was resumed from a record.
    pub(super) fn resume(&mut self) {
        self.is_resumed = true;
    }

    /// Notes a request; `true`: it is the first.
    pub(super) fn ask(&mut self, ticket: Option<Ticket>) -> bool {
        self.tickets.extend(ticket);
        !std::mem::replace(&mut self.is_wanted, true)
    }

    /// Whether an upgrade is requested.
    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// Whether the outcome of the upgrade to this image is not reported yet.
    pub(super) fn is_resumed(&self) -> bool {
        self.is_resumed
    }

    /// Whether an upgrade may begin.
    pub(super) fn may_begin(&self, pool: &Pool, is_replacing: bool) -> bool {
        pool.phase == PoolPhase::Serving && !is_replacing && !self.is_resumed
    }

    /// Ends the upgrade. Returns its requests.
    pub(super) fn end(&mut self) -> Vec<Ticket> {
        self.is_wanted = false;
        self.is_resumed = false;
        std::mem::take(&mut self.tickets)
    }
}
