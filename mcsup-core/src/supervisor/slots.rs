//! Where each slot has sockets of its own: they get connections when a worker accepts them, and close when nothing can
//! arrive on them any more.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::generation_configs::GenerationConfigs;
use super::orphaned::OrphanedConnections;
use crate::link::handover::Handover;
use crate::policy::{Machine, Moment, PoolPhase};

/// How often sockets that are to close are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The slots that there are listeners for, and connections of those that have ended.
#[derive(Debug)]
pub(crate) struct SlotSockets {
    known: SlotsRecord,
    orphaned: OrphanedConnections,
}

/// How many slots there are listeners for, for the next image.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct SlotsRecord {
    count: usize,
    /// For which pool connections were last spread.
    spread: Spread,
}

/// A pool over whose slots connections are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Spread {
    generation: u64,
    slots: usize,
}

impl SlotSockets {
    /// Listeners for `count` slots, of which the first generation serves all.
    pub(super) fn new(count: usize) -> Self {
        Self::adopt(SlotsRecord { count, spread: Spread { generation: 1, slots: count } })
    }

    /// As the last image has left them.
    pub(super) fn adopt(known: SlotsRecord) -> Self {
        Self { known, orphaned: OrphanedConnections::default() }
    }

    /// For the next image.
    pub(super) fn describe(&self) -> SlotsRecord {
        self.known
    }

    /// How many slots there are listeners for.
    pub(super) fn count(&self) -> usize {
        self.known.count
    }

    /// There are listeners for `count` slots from now on.
    pub(super) fn set_count(&mut self, count: usize) {
        self.known.count = count;
    }

    /// Whether connections of slots that have ended wait for a worker.
    pub(super) fn has_connections(&self) -> bool {
        !self.orphaned.is_empty()
    }

    /// In a forked child: the connections are the supervisor's.
    pub(super) fn close_in_child(&mut self) {
        self.orphaned.clear();
    }

    /// Does what has become due; called in every turn of the loop.
    pub(super) fn tend(
        &mut self,
        generation_configs: &mut GenerationConfigs,
        handover: &Handover,
        machine: &Machine,
    ) {
        let wanted = Spread { generation: machine.current(), slots: machine.target() };
        if self.known.spread != wanted && machine.table().is_full(wanted.slots) {
            generation_configs.aim(wanted.slots);
            self.known.spread = wanted;
        }
        // The next image gets these sockets; it would not know of connections that were taken out of them.
        if generation_configs.is_leaving() && !matches!(machine.phase(), PoolPhase::Upgrading { .. }) {
            self.orphaned.add(generation_configs.end_leaving());
        }
        self.orphaned.give(handover);
    }

    /// When to look again.
    pub(super) fn deadline(&self, generation_configs: &GenerationConfigs, now: Moment) -> Option<Moment> {
        match self.orphaned.is_empty() {
            false => Some(now.saturating_add(self.orphaned.pause())),
            true => generation_configs.is_leaving().then(|| now.saturating_add(LOOK_EVERY)),
        }
    }
}
