//! Whether the supervisor itself runs: what it was kept from (stopped, suspended), apart from what its own work takes.
//! Judges time alone, and does nothing about it.

use std::time::Duration;

use crate::policy::Moment;

/// From how long on the supervisor counts as not having run.
const LATE: Duration = Duration::from_secs(1);

/// The loop's looks at the clock.
#[derive(Debug)]
pub(crate) struct StallDetector {
    last: Moment,
    /// For how long it did not run outside of its waits, since the last one.
    lost: Duration,
}

impl StallDetector {
    pub(crate) fn new(now: Moment) -> Self {
        Self { last: now, lost: Duration::ZERO }
    }

    /// Between two looks is little to do: where much time has passed, the supervisor did not run.
    pub(crate) fn looks(&mut self, now: Moment) {
        let passed = now.saturating_sub(self.last);
        if passed > LATE {
            self.lost += passed;
        }
        self.last = now;
    }

    /// Since the last look it did something that may take its time.
    pub(crate) fn has_worked(&mut self, now: Moment) {
        self.last = now;
    }

    /// It wakes up, and has waited since the last look for `deadline` at the longest. Returns for how long it did not run,
    /// where that is worth a word: a deadline that had passed before the wait was missed by its own work.
    pub(crate) fn wakes(&mut self, deadline: Option<Moment>, now: Moment) -> Option<Duration> {
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
        stall_detector.looks(ms(10));
        assert_eq!(stall_detector.wakes(Some(ms(500)), ms(1400)), None);
        assert_eq!(stall_detector.wakes(Some(ms(1500)), ms(4500)), Some(ms(3000)));
        // It says so once; and without a deadline there is no delay.
        assert_eq!(stall_detector.wakes(Some(ms(4600)), ms(4600)), None);
        assert_eq!(stall_detector.wakes(None, ms(90_000)), None);
    }

    #[test]
    fn a_deadline_that_the_supervisors_own_work_has_missed_is_no_reason_to_forgive() {
        let mut stall_detector = StallDetector::new(ms(0));
        stall_detector.has_worked(ms(5000));
        stall_detector.looks(ms(5010));
        assert_eq!(stall_detector.wakes(Some(ms(100)), ms(5020)), None);
        // Only what was slept beyond the work counts.
        stall_detector.has_worked(ms(9000));
        assert_eq!(stall_detector.wakes(Some(ms(6000)), ms(11_000)), Some(ms(2000)));
    }

    #[test]
    fn a_stop_between_two_looks_counts() {
        let mut stall_detector = StallDetector::new(ms(0));
        stall_detector.looks(ms(3000));
        stall_detector.looks(ms(3001));
        assert_eq!(stall_detector.wakes(Some(ms(2000)), ms(3001)), Some(ms(3000)));
    }
}
