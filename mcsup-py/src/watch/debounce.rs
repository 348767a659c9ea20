//! When a burst of changes is over: an editor that saves all its files, a checkout of another branch. Pure.

use std::time::{Duration, Instant};

/// A burst is over when nothing has changed for so long,
pub(super) const QUIET: Duration = Duration::from_millis(100);
/// and at the latest so long after its beginning.
pub(super) const LONGEST: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Debounce {
    /// Nothing has changed.
    #[default]
    Calm,
    /// A burst, since when, and when something last changed.
    Burst { first: Instant, last: Instant },
}

impl Debounce {
    /// Something has changed.
    pub(super) fn changed(&mut self, now: Instant) {
        *self = match *self {
            Debounce::Calm => Debounce::Burst { first: now, last: now },
            Debounce::Burst { first, .. } => Debounce::Burst { first, last: now },
        };
    }

    /// When the burst will be over, if there is one and nothing more changes.
    pub(super) fn over_at(self) -> Option<Instant> {
        match self {
            Debounce::Calm => None,
            Debounce::Burst { first, last } => Some((last + QUIET).min(first + LONGEST)),
        }
    }

    /// Whether there was a burst and it is over.
    pub(super) fn is_over(self, now: Instant) -> bool {
        self.over_at().is_some_and(|end| now >= end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The clock is turned by hand.
    fn at(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn where_nothing_changes_nothing_is_over() {
        let start = Instant::now();
        assert_eq!(Debounce::Calm.over_at(), None);
        assert!(!Debounce::Calm.is_over(at(start, 10_000)));
    }

    #[test]
    fn a_burst_is_over_when_it_was_quiet_for_a_moment() {
        let start = Instant::now();
        let mut debounce = Debounce::default();
        debounce.changed(start);
        assert!(!debounce.is_over(at(start, 99)));
        debounce.changed(at(start, 99));
        assert!(!debounce.is_over(at(start, 198)));
        assert!(debounce.is_over(at(start, 199)));
    }

    #[test]
    fn one_that_does_not_end_is_over_after_a_second() {
        let start = Instant::now();
        let mut debounce = Debounce::default();
        for millis in (0..1000).step_by(50) {
            debounce.changed(at(start, millis));
            assert!(!debounce.is_over(at(start, millis)));
        }
        assert_eq!(debounce.over_at(), Some(at(start, 1000)));
        debounce.changed(at(start, 1000));
        assert!(debounce.is_over(at(start, 1000)));
    }
}
