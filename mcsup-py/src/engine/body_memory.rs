//! Memory for bodies above 64 KiB, in all of an engine: how much is left, and which of the bodies grow.

use std::sync::Arc;
use std::time::Instant;

use super::growth::Growth;
use crate::net::memory::{Memory, Spare};

/// A body that is no larger than this and says how long it is is kept in memory, if there is any left: a file costs a multiple.
pub(super) const LARGEST_IN_MEMORY: usize = 2 << 20;
/// How many bytes such bodies may take together: the smaller ones and those in files do not count.
pub(super) const BODY_MEMORY: usize = 32 << 20;

/// The free memory.
#[derive(Debug)]
pub(super) struct BodyMemory {
    left: usize,
    spare: Arc<Spare>,
    growth: Growth,
}

impl Default for BodyMemory {
    fn default() -> Self {
        Self::of(BODY_MEMORY)
    }
}

impl BodyMemory {
    /// With `left` bytes.
    pub(super) fn of(left: usize) -> Self {
        Self { left, spare: Arc::default(), growth: Growth::default() }
    }

    /// Memory for a body of `length` bytes; `None`: too little is left.
    pub(super) fn grant(&mut self, length: usize) -> Option<Memory> {
        self.left = self.left.checked_sub(length)?;
        Some(self.spare.take(length))
    }

    /// A body that wants memory waits for it, and for its place.
    pub(super) fn wait(&mut self, token: u64, length: usize, now: Instant) {
        self.growth.wait(token, length, now);
    }

    /// The next one that begins.
    pub(super) fn next(&mut self, now: Instant) -> Option<u64> {
        self.growth.next(self.left, now)
    }

    /// When it does at the latest; `None`: none waits.
    pub(super) fn next_start(&self) -> Option<Instant> {
        self.growth.next_start(self.left)
    }

    /// Something came for the body of the connection `token`.
    pub(super) fn fed(&mut self, token: u64, now: Instant) {
        self.growth.fed(token, now);
    }

    /// One that was to begin does not.
    pub(super) fn leave(&mut self, token: u64) {
        self.growth.leave(token);
    }

    /// The request of the connection `token` is over, and the `granted` bytes of its body are free again.
    pub(super) fn give_back(&mut self, token: u64, granted: usize) {
        if granted > 0 {
            self.left += granted;
            self.growth.leave(token);
        }
    }

    /// Called in every turn: memory that is not in use is kept for a moment only.
    pub(super) fn tidy(&self, now: Instant) {
        self.spare.tidy(now);
    }
}
