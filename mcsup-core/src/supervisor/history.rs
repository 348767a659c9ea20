//! What has happened in the life of a pool: numbers and last causes, for whoever asks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::journal;
use crate::policy::{Moment, Notice};

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
    /// How often a worker was forked because another had died or left.
    pub(crate) restarts: u64,
    /// When a worker last died that nobody had asked to, and of what.
    pub(crate) last_death: Option<(Moment, String)>,
}

impl History {
    pub(crate) fn new(started: Moment) -> Self {
        Self { started, ..Self::default() }
    }

    /// Keeps what will be asked for.
    pub(crate) fn note(&mut self, notice: &Notice, now: Moment) {
        match notice {
            Notice::ReloadDone { .. } => self.reloads += 1,
            Notice::Upgraded { .. } => self.upgrades += 1,
            Notice::Died { slot, exit, killed, respawn_in, .. } => {
                let slot = self.slots.entry(*slot).or_default();
                slot.restarts += u64::from(respawn_in.is_some());
                slot.last_death = Some((now, journal::cause(exit, *killed)));
            }
            Notice::Unkillable { slot, respawn_in, .. } => {
                let slot = self.slots.entry(*slot).or_default();
                slot.restarts += u64::from(respawn_in.is_some());
                slot.last_death = Some((now, "was sent SIGKILL and is still there".to_owned()));
            }
            Notice::Leaving { slot, reason, respawn_in, .. } => {
                let slot = self.slots.entry(*slot).or_default();
                slot.restarts += u64::from(respawn_in.is_some());
                slot.last_death = Some((now, format!("left: {reason}")));
            }
            _ => {}
        }
    }
}
