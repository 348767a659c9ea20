//! Detects times in which the supervisor did not run (stopped, suspended), apart from its own work.
//!
//! It only measures; the policy reacts.

use std::time::Duration;

use crate::policy::Moment;

/// A longer delay counts as a stall.
const LATE: Duration = Duration::from_secs(1);

/// The times at which the loop read the clock.
#[derive(Debug)]
pub(crate) struct StallDetector {
    last: Moment,
    /// The time lost outside of waits since the last wait.
    lost: Duration,
}

impl StallDetector {
    pub(crate) fn new(now: Moment) -> Self {
        Self { last: now, lost: Duration::ZERO }
    }

    /// Compares the time since the last call: there is little work between two calls, so a long time is a stall.
    pub(crate) fn check(&mut self, now: Moment) {
        let passed = now.saturating_sub(self.last);
        if passed > LATE {
            self.lost += passed;
        }
        self.last = now;
    }

    /// The time since the last call was work that may take long.
    pub(crate) fn note_work(&mut self, now: Moment) {
        self.last = now;
    }

    /// Returns the length of a stall after a wait that was to end at `deadline`; `None`: there was none.
    ///
    /// Work before the wait may have missed the deadline, which is no stall.
    pub(crate) fn on_wake(&mut self, deadline: Option<Moment>, now: Moment) -> Option<Duration> {
        let overslept = deadline.map(|deadline| now.saturating_sub(deadline.max(self.last)));
        self.last = now;
        let overslept = overslept.filter(|late| *late > LATE).unwrap_or_default();
        let late = std::mem::take(&mut self.lost) + overslept;
        Some(late).filter(|late| !late.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Moment {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_supervisor_that_wakes_up_long_after_its_deadline_did_not_run() {
        let mut stall_detector = StallDetector::new(ms(0));
        stall_detector.check(ms(10));
        assert_eq!(stall_detector.on_wake(Some(ms(500)), ms(1400)), None);
        assert_eq!(stall_detector.on_wake(Some(ms(1500)), ms(4500)), Some(ms(3000)));
        // It is reported once; and without a deadline there is no delay.
        assert_eq!(stall_detector.on_wake(Some(ms(4600)), ms(4600)), None);
        assert_eq!(stall_detector.on_wake(None, ms(90_000)), None);
    }

    #[test]
    fn a_deadline_that_the_supervisors_own_work_has_missed_is_no_reason_to_forgive() {
        let mut stall_detector = StallDetector::new(ms(0));
        stall_detector.note_work(ms(5000));
        stall_detector.check(ms(5010));
        assert_eq!(stall_detector.on_wake(Some(ms(100)), ms(5020)), None);
        // Only what was slept beyond the work counts.
        stall_detector.note_work(ms(9000));
        assert_eq!(stall_detector.on_wake(Some(ms(6000)), ms(11_000)), Some(ms(2000)));
    }

    #[test]
    fn a_stop_between_two_looks_counts() {
        let mut stall_detector = StallDetector::new(ms(0));
        stall_detector.check(ms(3000));
        stall_detector.check(ms(3001));
        assert_eq!(stall_detector.on_wake(Some(ms(2000)), ms(3001)), Some(ms(3000)));
    }
}
