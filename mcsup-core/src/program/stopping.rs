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
    /// The time of the stop signal.
    begun: Option<Instant>,
    /// The time of SIGKILL; `None`: the end has not begun, or the clock cannot hold the time.
    deadline: Option<Instant>,
}

impl Stopping {
    /// A program that may take `graceful` to end. Its supervisor kills the worker then, so it is killed
    /// shortly before: a worker that is killed cannot end the program's descendants.
    pub(super) fn new(graceful: Duration) -> Self {
        Self { graceful, begun: None, deadline: None }
    }

    pub(super) fn margin(&self) -> Duration {
        (self.graceful / 10).min(MOST_MARGIN)
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun.is_some()
    }

    /// The act that is due in `phase`.
    ///
    /// The order to end at once may follow that to drain in the same moment, so its time counts from the stop signal.
    pub(super) fn act(&mut self, phase: Phase, now: Instant) -> Act {
        let (first, limit) = match phase {
            Phase::Serving | Phase::LameDuck => return Act::None,
            Phase::Retiring | Phase::Draining if self.graceful.is_zero() => (Act::Kill, Duration::ZERO),
            Phase::Retiring | Phase::Draining => (Act::Stop, self.graceful - self.margin()),
            Phase::Quitting => (Act::Stop, QUICK),
        };
        let is_first = self.begun.is_none();
        let deadline = self.begun.get_or_insert(now).checked_add(limit);
        self.deadline = self.deadline.into_iter().chain(deadline).min();
        match self.deadline {
            _ if is_first => first,
            Some(deadline) if deadline <= now => Act::Kill,
            _ => Act::None,
        }
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
    fn a_quick_stop_leaves_half_a_second_from_the_stop_signal_on() {
        let begin = Instant::now();
        let mut stopping = Stopping::new(seconds(30.0));
        assert_eq!(stopping.act(Phase::Quitting, begin), Act::Stop);
        assert_eq!(stopping.act(Phase::Quitting, begin + seconds(0.4)), Act::None);
        assert_eq!(stopping.act(Phase::Quitting, begin + seconds(0.5)), Act::Kill);
        let mut stopping = Stopping::new(seconds(30.0));
        assert_eq!(stopping.act(Phase::Draining, begin), Act::Stop);
        assert_eq!(stopping.act(Phase::Quitting, begin + seconds(1.0)), Act::Kill);
        let mut stopping = Stopping::new(seconds(30.0));
        assert_eq!(stopping.act(Phase::Draining, begin), Act::Stop);
        assert_eq!(stopping.act(Phase::Quitting, begin), Act::None);
        assert_eq!(stopping.wait(begin), Some(QUICK));
        assert_eq!(stopping.act(Phase::Quitting, begin + seconds(0.5)), Act::Kill);
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
        assert_eq!(stopping.act(Phase::Quitting, begin + seconds(0.5)), Act::Kill);
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
