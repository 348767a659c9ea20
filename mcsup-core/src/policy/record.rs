//! What a machine tells the one that goes on in its place, in another image of the supervisor.

use serde::{Deserialize, Serialize};

use super::event::{Generation, Ticket, WorkerId};
use super::machine::{Machine, Policy};
use super::mold::Molds;
use super::restart::Restarts;
use super::scale::Trend;
use super::status::Phase;
use super::table::Table;

/// All facts of a pool that serves and has nothing else under way. Moments are on the machine's monotonic clock, which
/// outlives an image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    table: Table,
    molds: Molds,
    restarts: Restarts,
    current: Generation,
    newest: Generation,
    target: usize,
    configured: usize,
    trend: Trend,
    recycle_tickets: Vec<(Ticket, WorkerId)>,
    upgrade_tickets: Vec<Ticket>,
}

impl Machine {
    /// The facts.
    pub fn record(&self) -> Record {
        Record {
            table: self.table.clone(),
            molds: self.molds.clone(),
            restarts: self.restarts.clone(),
            current: self.current,
            newest: self.newest,
            target: self.target,
            configured: self.configured,
            trend: self.trend,
            recycle_tickets: self.recycle_tickets.clone(),
            upgrade_tickets: self.upgrade_tickets.clone(),
        }
    }

    /// Goes on from `record`, deciding by `policy`.
    pub fn resume(record: Record, policy: Policy) -> Self {
        let Record {
            table,
            molds,
            restarts,
            current,
            newest,
            target,
            configured,
            trend,
            recycle_tickets,
            upgrade_tickets,
        } = record;
        Self {
            table,
            molds,
            restarts,
            phase: Phase::Serving,
            current,
            newest,
            target,
            configured,
            ever_ready: true,
            trend,
            recycle_tickets,
            upgrade_tickets,
            ..Self::new(policy)
        }
    }
}
