//! Connections that are to leave an engine that retires, and whether an answer may still keep one. `drain` does it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use super::{Host, Phase};

/// Those who are to go to a sibling.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// Idle connections that could not go yet.
    pub(super) tokens: Vec<u64>,
    /// Until when it is tried.
    pub(super) until: Option<Instant>,
    /// The time of the last check and the close of the listeners, if no sibling serves their queue.
    pub(super) last_look: Option<Instant>,
    /// Until when a further look may follow it.
    pub(super) looks_until: Option<Instant>,
    /// Whether no sibling took them: from now on an answer is a connection's last. Read without the lock.
    pub(super) gave_up: Arc<AtomicBool>,
}

/// Whether an answer that begins now may leave its connection open.
pub(super) fn may_keep_open(host: &dyn Host, gave_up: &AtomicBool) -> bool {
    match host.phase() {
        Phase::Serving | Phase::LameDuck => true,
        Phase::Retiring => !gave_up.load(Relaxed) && host.siblings().count > 0,
        Phase::Draining | Phase::Quitting => false,
    }
}
