//! The race for an answer: the application and the deadline of its request want to begin it, and one of them does. What
//! the application sends before its answer takes part, since nothing may follow the deadline's.

use std::sync::atomic::{AtomicU8, Ordering::SeqCst};

/// Who has begun the answer to a permit's request: the application, or the deadline. One of them, never both. While an
/// interim response leaves the deadline cannot begin.
#[derive(Debug, Default)]
pub(super) struct RequestClock(AtomicU8);

const NOBODY: u8 = 0;
const APPLICATION: u8 = 1;
const DEADLINE: u8 = 2;
const INTERIM: u8 = 3;

impl RequestClock {
    /// A new request.
    pub(super) fn start(&self) {
        self.0.store(NOBODY, SeqCst);
    }

    /// The application begins to answer; `false`: too late.
    pub(super) fn begin_answer(&self) -> bool {
        self.begin(APPLICATION)
    }

    /// The application begins an interim response; `false`: too late.
    pub(super) fn begin_interim(&self) -> bool {
        self.begin(INTERIM)
    }

    /// All of the interim response has left, so that an answer may follow it.
    pub(super) fn end_interim(&self) {
        self.0.store(NOBODY, SeqCst);
    }

    /// The application begins something.
    fn begin(&self, what: u8) -> bool {
        // A part of an interim response that waits for its client goes with what follows.
        let begin = |from| self.0.compare_exchange(from, what, SeqCst, SeqCst).is_ok();
        begin(NOBODY) || begin(INTERIM)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_begins_behind_the_deadlines_answer() {
        let clock = RequestClock::default();
        assert!(clock.begin_interim());
        clock.end_interim();
        assert!(clock.strike() && clock.has_struck());
        assert!(!clock.begin_interim() && !clock.begin_answer());
        clock.start();
        assert!(clock.begin_answer() && !clock.strike());
    }

    #[test]
    fn the_deadline_does_not_begin_while_an_interim_response_leaves() {
        let clock = RequestClock::default();
        assert!(clock.begin_interim() && !clock.strike());
        // Another one, and the answer, go behind what waits for the client.
        assert!(clock.begin_interim() && clock.begin_answer());
        assert!(!clock.strike() && !clock.has_struck());
    }
}
