//! Where each slot has sockets of its own: they get connections when a worker accepts them, and close when
//! nothing can arrive on them any more.

use std::time::Duration;

use super::Supervisor;
use super::effects::Executor;
use crate::policy::{Machine, Moment, Phase};

/// How often sockets that are to close are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl<S: Supervisor> Executor<S> {
    /// Does what has become due; called in every turn of the loop.
    pub(super) fn tend_slots(&mut self, machine: &Machine) {
        let wanted = (machine.current(), machine.target());
        if self.aimed != wanted && machine.table().is_full(machine.target()) {
            self.editions.aim(machine.target());
            self.aimed = wanted;
        }
        // The next image gets these sockets; it would not know of connections that were taken out of them.
        if self.editions.is_leaving() && !matches!(machine.phase(), Phase::Upgrading { .. }) {
            self.homeless.add(self.editions.end_leaving());
        }
        self.homeless.give(&self.handover);
    }

    /// When to look again.
    pub(super) fn next_look_at_slots(&self, now: Moment) -> Option<Moment> {
        let waits = self.editions.is_leaving() || !self.homeless.is_empty();
        waits.then(|| {
            now.saturating_add(if self.homeless.is_empty() { LOOK_EVERY } else { self.homeless.pause() })
        })
    }
}
