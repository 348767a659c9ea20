//! The record of a machine, for the next image of the supervisor.

use serde::{Deserialize, Serialize};

use super::Machine;
use crate::policy::event::Generation;
use crate::policy::molds::Molds;
use crate::policy::pool::Pool;
use crate::policy::recycle::Recycler;
use crate::policy::refusals::Refusals;
use crate::policy::reloads::Reloads;
use crate::policy::rules::Policy;
use crate::policy::scale::Scaler;
use crate::policy::starts::Starts;
use crate::policy::status::PoolPhase;
use crate::policy::table::Table;
use crate::policy::upgrades::Upgrades;

/// The facts of a serving pool, and the waiting requests.
///
/// Moments stay valid: the monotonic clock continues over an exec.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MachineRecord {
    table: Table,
    current: Generation,
    newest: Generation,
    target: usize,
    configured: usize,
    molds: Molds,
    starts: Starts,
    refusals: Refusals,
    reloads: Reloads,
    recycler: Recycler,
    scaler: Scaler,
    upgrades: Upgrades,
}

impl Machine {
    /// The record of this machine.
    pub(crate) fn record(&self) -> MachineRecord {
        MachineRecord {
            table: self.pool.table.clone(),
            current: self.pool.current,
            newest: self.pool.newest,
            target: self.pool.target,
            configured: self.pool.configured,
            molds: self.molds.clone(),
            starts: self.starts.clone(),
            refusals: self.refusals.clone(),
            reloads: self.reloads.clone(),
            recycler: self.recycler.clone(),
            scaler: self.scaler.clone(),
            upgrades: self.upgrades.clone(),
        }
    }

    /// The recorded machine, with the settings `policy`.
    ///
    /// It answers the requests for the upgrade at [`Event::Upgraded`], or in the old image at [`Event::UpgradeFailed`].
    ///
    /// [`Event::Upgraded`]: crate::policy::Event::Upgraded
    /// [`Event::UpgradeFailed`]: crate::policy::Event::UpgradeFailed
    pub(crate) fn resume(record: MachineRecord, policy: Policy) -> Self {
        let MachineRecord { table, current, newest, target, configured, molds, starts, refusals, .. } =
            record;
        let phase = PoolPhase::Serving;
        let mut machine = Self {
            pool: Pool {
                policy,
                table,
                phase,
                current,
                newest,
                target,
                configured,
                ever_ready: true,
                serves_while_booting: false,
            },
            molds,
            starts,
            refusals,
            reloads: record.reloads,
            recycler: record.recycler,
            scaler: record.scaler,
            upgrades: record.upgrades,
            stops: crate::policy::stops::Stops::default(),
        };
        machine.upgrades.resume();
        machine
    }
}
