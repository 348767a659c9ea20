//! The race for an answer: the application and the deadline of its request want to begin it, and one of them does.

use std::sync::atomic::{AtomicU8, Ordering::SeqCst};

/// Who has begun the answer to a permit's request: the application, or the deadline. One of them, never both.
#[derive(Debug, Default)]
pub(super) struct RequestClock(AtomicU8);

const NOBODY: u8 = 0;
const APPLICATION: u8 = 1;
const DEADLINE: u8 = 2;

impl RequestClock {
    /// A new request.
    pub(super) fn start(&self) {
        self.0.store(NOBODY, SeqCst);
    }

    /// The application begins to answer; `false`: too late.
    pub(super) fn begin_answer(&self) -> bool {
        self.0.compare_exchange(NOBODY, APPLICATION, SeqCst, SeqCst).is_ok()
    }

    /// The deadline has come; `false`: the application has begun to answer.
    pub(super) fn strike(&self) -> bool {
        self.0.compare_exchange(NOBODY, DEADLINE, SeqCst, SeqCst).is_ok()
    }

    /// Whether the deadline came first.
    pub(super) fn has_struck(&self) -> bool {
        self.0.load(SeqCst) == DEADLINE
    }
}
