//! The own sockets of each slot, with `reuse_port`.
//!
//! They get connections when a worker accepts them, and close when no connection can arrive on them any more.

use std::os::fd::RawFd;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::generation_configs::GenerationConfigs;
use super::orphaned::OrphanedConnections;
use crate::link::handover::Handover;
use crate::policy::{Machine, Moment, PoolPhase};

/// The interval between checks of sockets that will close.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The slots with listeners, and the connections of ended slots.
#[derive(Debug)]
pub(crate) struct SlotSockets {
    known: SlotsRecord,
    orphaned: OrphanedConnections,
}

/// The number of slots with listeners, for the next image.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct SlotsRecord {
    count: usize,
    /// The pool over which connections were last spread.
    spread: Spread,
}

/// The generation and slots over which connections are spread.
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

    /// The recorded slots of the last image.
    pub(super) fn adopt(known: SlotsRecord) -> Self {
        Self { known, orphaned: OrphanedConnections::default() }
    }

    /// For the next image.
    pub(super) fn describe(&self) -> SlotsRecord {
        self.known
    }

    /// The number of slots with listeners.
    pub(super) fn count(&self) -> usize {
        self.known.count
    }

    /// Sets the number of slots with listeners.
    pub(super) fn set_count(&mut self, count: usize) {
        self.known.count = count;
    }

    /// Whether connections of slots that have ended wait for a worker.
    pub(super) fn has_connections(&self) -> bool {
        !self.orphaned.is_empty()
    }

    /// The descriptors of the connections.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = RawFd> + '_ {
        self.orphaned.descriptors()
    }

    /// Closes the connections in a forked child.
    pub(super) fn close_in_child(&mut self) {
        self.orphaned.clear();
    }

    /// Spreads connections over new slots, and closes ended ones. Runs in every iteration of the loop.
    pub(super) fn update(
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
        // The next image adopts these sockets, but not the connections that were accepted from them.
        if generation_configs.is_leaving() && !matches!(machine.phase(), PoolPhase::Upgrading { .. }) {
            self.orphaned.add(generation_configs.end_leaving());
        }
        self.orphaned.give(handover);
    }

    /// The time of the next check.
    pub(super) fn deadline(&self, generation_configs: &GenerationConfigs, now: Moment) -> Option<Moment> {
        match self.orphaned.is_empty() {
            false => Some(now.saturating_add(self.orphaned.pause())),
            true => generation_configs.is_leaving().then(|| now.saturating_add(LOOK_EVERY)),
        }
    }
}
