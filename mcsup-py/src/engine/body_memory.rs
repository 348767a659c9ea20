//! Memory for bodies above 64 KiB, in all of an engine: how much is left, and which of the bodies grow.

use std::sync::Arc;
use std::time::Instant;

use super::growth::Growth;
use crate::net::memory::{Memory, MemoryPool};

/// A body that is no larger than this and says how long it is is kept in memory, if there is any left: a file costs a multiple.
pub(super) const LARGEST_IN_MEMORY: usize = 2 << 20;
/// How many bytes such bodies may take together: the smaller ones and those in files do not count.
pub(super) const BODY_MEMORY: usize = 32 << 20;

/// The free memory.
#[derive(Debug)]
pub(super) struct BodyMemory {
    left: usize,
    pool: Arc<MemoryPool>,
    pub(super) growth: Growth,
}

impl Default for BodyMemory {
    fn default() -> Self {
        Self::of(BODY_MEMORY)
    }
}

impl BodyMemory {
    /// With `left` bytes.
    pub(super) fn of(left: usize) -> Self {
        Self { left, pool: Arc::default(), growth: Growth::default() }
    }

    /// Memory for a body of `length` bytes; `None`: too little is left.
    pub(super) fn grant(&mut self, length: usize) -> Option<Memory> {
        self.left = self.left.checked_sub(length)?;
        Some(self.pool.take(length))
    }

    /// The next one that begins.
    pub(super) fn next(&mut self, now: Instant) -> Option<u64> {
        self.growth.next(self.left, now)
    }

    /// When it does at the latest; `None`: none waits.
    pub(super) fn next_start(&self) -> Option<Instant> {
        self.growth.next_start(self.left)
    }

    /// The request of the connection `token` is over, and the `granted` bytes of its body are free again.
    pub(super) fn give_back(&mut self, token: u64, granted: usize) {
        if granted > 0 {
            self.left += granted;
            self.growth.leave(token);
        }
    }

    /// Called in every round: memory that is not in use is kept for a moment only.
    pub(super) fn tidy(&self, now: Instant) {
        self.pool.tidy(now);
    }
}
