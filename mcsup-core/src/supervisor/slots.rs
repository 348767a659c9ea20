//! Where each slot has sockets of its own: they get connections when there is somebody to accept them, and close when
//! nothing can arrive on them any more.

use std::os::fd::AsFd;
use std::time::Duration;

use super::Supervisor;
use super::effects::Executor;
use crate::policy::{Machine, Moment};

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
        if !self.editions.is_leaving() {
            return;
        }
        for connection in self.editions.end_leaving() {
            // Whoever takes it finds out by itself where it came in.
            let given = connection.set_nonblocking(true);
            if let Err(error) = given.and_then(|()| self.handover.give(connection.as_fd(), &[])) {
                log::error!("a connection of a slot that is no more is lost: {error}");
            }
        }
    }

    /// When to look again.
    pub(super) fn next_look_at_slots(&self, now: Moment) -> Option<Moment> {
        self.editions.is_leaving().then(|| now + LOOK_EVERY)
    }
}
