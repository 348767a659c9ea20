//! The race for the start of an answer between the application and the deadline of its request.
//!
//! An interim response of the application takes part, since nothing may follow the deadline's answer.

use std::sync::atomic::{AtomicU8, Ordering::SeqCst};

/// The winner of the race for a permit's request: the application or the deadline, never both.
///
/// The deadline cannot win while an interim response is sent.
#[derive(Debug, Default)]
pub(super) struct AnswerRace(AtomicU8);

const OPEN: u8 = 0;
const APPLICATION: u8 = 1;
const DEADLINE: u8 = 2;
const INTERIM: u8 = 3;
const TAKEN: u8 = 4;

impl AnswerRace {
    /// A new request.
    pub(super) fn start(&self) {
        self.0.store(OPEN, SeqCst);
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
        self.0.store(OPEN, SeqCst);
    }

    /// The application takes the connection: the request has no deadline from now on; `false`: too late.
    pub(super) fn take(&self) -> bool {
        self.begin(TAKEN) || self.0.compare_exchange(APPLICATION, TAKEN, SeqCst, SeqCst).is_ok()
    }

    /// Whether the application has the connection.
    pub(super) fn is_taken(&self) -> bool {
        self.0.load(SeqCst) == TAKEN
    }

    /// The application begins something.
    fn begin(&self, what: u8) -> bool {
        // A part of an interim response that waits for its client goes with what follows.
        let begin = |from| self.0.compare_exchange(from, what, SeqCst, SeqCst).is_ok();
        begin(OPEN) || begin(INTERIM)
    }

    /// Wins the race for the deadline; `false`: the application has begun to answer.
    pub(super) fn expire(&self) -> bool {
        self.0.compare_exchange(OPEN, DEADLINE, SeqCst, SeqCst).is_ok()
    }

    /// Whether the deadline came first.
    pub(super) fn has_expired(&self) -> bool {
        self.0.load(SeqCst) == DEADLINE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_begins_behind_the_deadlines_answer() {
        let clock = AnswerRace::default();
        assert!(clock.begin_interim());
        clock.end_interim();
        assert!(clock.expire() && clock.has_expired());
        assert!(!clock.begin_interim() && !clock.begin_answer());
        clock.start();
        assert!(clock.begin_answer() && !clock.expire());
    }

    #[test]
    fn a_taken_connection_has_no_deadline_and_a_late_application_takes_none() {
        let clock = AnswerRace::default();
        assert!(clock.begin_answer() && clock.take() && clock.is_taken());
        assert!(!clock.expire() && !clock.has_expired());
        clock.start();
        assert!(clock.expire() && !clock.take() && !clock.is_taken());
    }

    #[test]
    fn the_deadline_does_not_begin_while_an_interim_response_leaves() {
        let clock = AnswerRace::default();
        assert!(clock.begin_interim() && !clock.expire());
        // Another one, and the answer, go behind what waits for the client.
        assert!(clock.begin_interim() && clock.begin_answer());
        assert!(!clock.expire() && !clock.has_expired());
    }
}
