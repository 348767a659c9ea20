//! What a machine tells the one that goes on in its place, in another image of the supervisor.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::event::{Generation, Moment, Slot, Ticket, WorkerId};
use super::machine::Machine;
use super::molds::Molds;
use super::restart::Restarts;
use super::rules::Policy;
use super::status::Phase;
use super::table::Table;
use super::under_way::{Refusal, Scaling};

/// All facts of a pool that serves and has nothing else under way, and what waits. Moments are on the machine's monotonic clock, which
/// outlives an image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    table: Table,
    molds: Molds,
    restarts: Restarts,
    mold_restarts: Restarts,
    refusal: Option<Refusal>,
    slot_tickets: Vec<(Ticket, Slot)>,
    hurried: BTreeSet<Slot>,
    current: Generation,
    newest: Generation,
    target: usize,
    configured: usize,
    queued_reload: Option<Vec<Ticket>>,
    changed_at: Option<Moment>,
    scaling: Option<Scaling>,
    recycle_tickets: Vec<(Ticket, WorkerId)>,
    recycle_again: Option<Moment>,
    upgrade_tickets: Vec<Ticket>,
}

impl Machine {
    /// The facts.
    pub fn record(&self) -> Record {
        Record {
            table: self.table.clone(),
            molds: self.molds.clone(),
            restarts: self.restarts.clone(),
            mold_restarts: self.mold_restarts.clone(),
            refusal: self.refusal.clone(),
            slot_tickets: self.slot_tickets.clone(),
            hurried: self.hurried.clone(),
            current: self.current,
            newest: self.newest,
            target: self.target,
            configured: self.configured,
            queued_reload: self.queued_reload.clone(),
            changed_at: self.changed_at,
            scaling: self.scaling.clone(),
            recycle_tickets: self.recycle_tickets.clone(),
            recycle_again: self.recycle_again,
            upgrade_tickets: self.upgrade_tickets.clone(),
        }
    }

    /// Goes on from `record`, deciding by `policy`. Whoever asked for the upgrade is answered at [`Event::Upgraded`], or,
    /// where it is the old image that goes on, at [`Event::UpgradeFailed`].
    ///
    /// [`Event::Upgraded`]: super::Event::Upgraded
    /// [`Event::UpgradeFailed`]: super::Event::UpgradeFailed
    pub fn resume(record: Record, policy: Policy) -> Self {
        let Record {
            table,
            molds,
            restarts,
            mold_restarts,
            refusal,
            slot_tickets,
            hurried,
            current,
            newest,
            target,
            configured,
            queued_reload,
            changed_at,
            scaling,
            recycle_tickets,
            recycle_again,
            upgrade_tickets,
        } = record;
        Self {
            table,
            molds,
            restarts,
            mold_restarts,
            refusal,
            slot_tickets,
            hurried,
            phase: Phase::Serving,
            current,
            newest,
            target,
            configured,
            ever_ready: true,
            queued_reload,
            changed_at,
            scaling,
            recycle_tickets,
            recycle_again,
            upgrade_tickets,
            is_resumed: true,
            ..Self::new(policy)
        }
    }
}
