//! The past of a pool: numbers and last causes, for `mcsup status`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::journal;
use crate::policy::{Moment, Notice, ReloadNotice, UpgradeNotice, WorkerNotice};

/// The pool's past; it outlives an upgrade.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct History {
    /// When the pool began.
    pub(crate) started: Moment,
    pub(crate) reloads: u64,
    pub(crate) upgrades: u64,
    pub(crate) slots: BTreeMap<usize, SlotHistory>,
}

/// A slot's past.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct SlotHistory {
    /// The number of workers that were forked because another had died or left.
    pub(crate) restarts: u64,
    /// The time and cause of the last unexpected death.
    pub(crate) last_death: Option<(Moment, String)>,
}

impl History {
    pub(crate) fn new(started: Moment) -> Self {
        Self { started, ..Self::default() }
    }

    /// Records a notice for the status.
    pub(crate) fn note(&mut self, notice: &Notice, now: Moment) {
        match notice {
            Notice::Reload(ReloadNotice::Done { .. }) => self.reloads += 1,
            Notice::Upgrade(UpgradeNotice::Done { .. }) => self.upgrades += 1,
            Notice::Worker(notice) => self.note_worker(notice, now),
            Notice::Reload(_)
            | Notice::Upgrade(_)
            | Notice::Mold(_)
            | Notice::Recycle(_)
            | Notice::Scale(_)
            | Notice::Pool(_) => {}
        }
    }

    fn note_worker(&mut self, notice: &WorkerNotice, now: Moment) {
        let (slot, respawn_in, cause) = match notice {
            WorkerNotice::Died { slot, exit, killed, respawn_in, .. } => {
                (slot, respawn_in, journal::cause(exit, *killed))
            }
            WorkerNotice::Unkillable { slot, respawn_in, .. } => {
                (slot, respawn_in, "was sent SIGKILL and is still there".to_owned())
            }
            WorkerNotice::Leaving { slot, reason, respawn_in, .. } => {
                (slot, respawn_in, format!("left: {reason}"))
            }
            WorkerNotice::Booting { .. }
            | WorkerNotice::Ready { .. }
            | WorkerNotice::BootFailed { .. }
            | WorkerNotice::BootTimeout { .. }
            | WorkerNotice::SpawnFailed { .. }
            | WorkerNotice::Silent { .. }
            | WorkerNotice::Overdue { .. }
            | WorkerNotice::Retired { .. }
            | WorkerNotice::Gone { .. } => return,
        };
        let slot = self.slots.entry(*slot).or_default();
        slot.restarts += u64::from(respawn_in.is_some());
        slot.last_death = Some((now, cause));
    }
}
