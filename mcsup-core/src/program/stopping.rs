//! The decisions about the end of a program: its stop signal, and SIGKILL when its time is over.

use std::time::{Duration, Instant};

use crate::link::lifeline::Phase;

/// The time from the stop signal to SIGKILL when the worker is to end at once.
const QUICK: Duration = Duration::from_millis(500);

/// The longest time of the descendants to end when the program has ended.
const PATIENCE: Duration = Duration::from_secs(2);

/// The longest time between the kill of the program and the supervisor's kill of the worker.
const MOST_MARGIN: Duration = Duration::from_millis(500);

/// The next act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    None,
    /// Send the stop signal.
    Stop,
    /// Kill all processes of the program.
    Kill,
}

/// The state of the end.
#[derive(Debug)]
pub(super) struct Stopping {
    graceful: Duration,
    /// Whether the stop signal was sent.
    has_begun: bool,
    /// The time of SIGKILL; `None`: the end has not begun, or the clock cannot hold the time.
    deadline: Option<Instant>,
}

impl Stopping {
    /// A program that may take `graceful` to end. Its supervisor kills the worker then, so it is killed
    /// shortly before: a worker that is killed cannot end the program's descendants.
    pub(super) fn new(graceful: Duration) -> Self {
        Self { graceful, has_begun: false, deadline: None }
    }

    pub(super) fn margin(&self) -> Duration {
        (self.graceful / 10).min(MOST_MARGIN)
    }

    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// The act that is due in `phase`.
    pub(super) fn act(&mut self, phase: Phase, now: Instant) -> Act {
        match phase {
            Phase::Quitting if self.has_begun && self.graceful > QUICK => {
                self.deadline = Some(now);
                Act::Kill
            }
            _ if self.has_begun => match self.deadline {
                Some(deadline) if deadline <= now => Act::Kill,
                _ => Act::None,
            },
            Phase::Serving | Phase::LameDuck => Act::None,
            Phase::Quitting => {
                self.graceful = QUICK;
                self.begin(now.checked_add(QUICK))
            }
            Phase::Retiring | Phase::Draining => self.begin(now.checked_add(self.graceful - self.margin())),
        }
    }

    fn begin(&mut self, deadline: Option<Instant>) -> Act {
        (self.has_begun, self.deadline) = (true, deadline);
        if self.graceful.is_zero() { Act::Kill } else { Act::Stop }
    }

    /// The time until the next act; `None`: it depends on the phase alone.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(now))
    }

    /// The time that descendants have when the program has ended.
    pub(super) fn patience(&self, now: Instant) -> Duration {
        self.wait(now).map_or(PATIENCE, |wait| wait.min(PATIENCE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_program_gets_one_stop_signal_and_is_killed_before_its_worker_would_be() {
        let begin = Instant::now();
        let mut stopping = Stopping::new(seconds(30.0));
        assert_eq!(stopping.act(Phase::LameDuck, begin), Act::None);
        assert_eq!(stopping.act(Phase::Retiring, begin), Act::Stop);
        assert_eq!(stopping.act(Phase::Draining, begin + seconds(29.0)), Act::None);
        assert_eq!(stopping.wait(begin + seconds(29.0)), Some(seconds(0.5)));
        assert_eq!(stopping.act(Phase::Draining, begin + seconds(29.5)), Act::Kill);
    }

    #[test]
    fn a_quick_stop_leaves_half_a_second_and_none_after_a_graceful_one() {
        let begin = Instant::now();
        let mut stopping = Stopping::new(seconds(30.0));
        assert_eq!(stopping.act(Phase::Quitting, begin), Act::Stop);
        assert_eq!(stopping.act(Phase::Quitting, begin + seconds(0.4)), Act::None);
        assert_eq!(stopping.act(Phase::Quitting, begin + seconds(0.5)), Act::Kill);
        let mut stopping = Stopping::new(seconds(30.0));
        assert_eq!(stopping.act(Phase::Draining, begin), Act::Stop);
        assert_eq!(stopping.act(Phase::Quitting, begin + seconds(1.0)), Act::Kill);
        let mut stopping = Stopping::new(Duration::ZERO);
        assert_eq!(stopping.act(Phase::Retiring, begin), Act::Kill);
    }

    #[test]
    fn a_time_that_the_clock_cannot_hold_never_ends() {
        let begin = Instant::now();
        let mut stopping = Stopping::new(Duration::MAX);
        assert_eq!(stopping.act(Phase::Retiring, begin), Act::Stop);
        assert!(stopping.has_begun());
        assert_eq!((stopping.act(Phase::Retiring, begin), stopping.wait(begin)), (Act::None, None));
        assert_eq!(stopping.act(Phase::Quitting, begin), Act::Kill);
    }

    #[test]
    fn descendants_have_two_seconds_and_no_more_than_the_program() {
        let begin = Instant::now();
        let mut stopping = Stopping::new(seconds(10.0));
        assert_eq!(stopping.patience(begin), PATIENCE);
        stopping.act(Phase::Retiring, begin);
        assert_eq!(stopping.patience(begin + seconds(9.0)), seconds(0.5));
    }
}
