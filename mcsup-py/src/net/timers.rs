//! Deadlines of many connections. One that only moves on costs nothing: it is looked at again when its first one
//! has come.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// So far away is a deadline that the clock cannot hold.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// `wait` after `now`: a very long time away where the clock does not reach that far.
pub(crate) fn after(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait).unwrap_or_else(|| now + NEVER)
}

/// Number of stale timers that need no cleanup.
const FEW: usize = 1024;

/// The deadlines of the things that are known by a key.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, u64)>>,
    /// How many things have ended since what belonged to them was last forgotten.
    ended: usize,
}

/// When a thing is next looked at: kept by the thing itself, so that moving a deadline on is one comparison.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Armed(Option<Instant>);

impl Timers {
    /// Looks at `key` at `deadline` at the latest.
    pub(crate) fn arm(&mut self, key: u64, armed: &mut Armed, deadline: Instant) {
        if armed.0.is_none_or(|at| at > deadline) {
            armed.0 = Some(deadline);
            self.heap.push(Reverse((deadline, key)));
        }
    }

    /// A thing has ended. Forgets what belongs to no living thing, where that may have become much. For each end it looks at
    /// two deadlines on average, however many the living have.
    pub(crate) fn ended(&mut self, is_alive: impl Fn(u64) -> bool) {
        self.ended += 1;
        if self.heap.len() < FEW || self.heap.len() / 2 > self.ended {
            return;
        }
        self.ended = 0;
        self.heap.retain(|Reverse((_, key))| is_alive(*key));
        self.heap.shrink_to(2 * self.heap.len().max(FEW));
    }

    /// When the next one is to be looked at.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes out one whose moment has come. Its owner calls [`Armed::fired`], and where its deadline has moved on
    /// arms it again.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<(Instant, u64)> {
        let Reverse((at, _)) = self.heap.peek()?;
        if *at > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }
}

impl Armed {
    /// Whether `at` is the moment that counts; an earlier arming has left others behind.
    pub(crate) fn fired(&mut self, at: Instant) -> bool {
        let counts = self.0 == Some(at);
        if counts {
            self.0 = None;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_that_the_clock_cannot_hold_is_far_away() {
        let now = Instant::now();
        assert!(after(now, Duration::MAX) - now >= NEVER);
        assert_eq!(after(now, Duration::from_secs(1)) - now, Duration::from_secs(1));
    }

    #[test]
    fn deadlines_of_the_living_are_not_looked_at_for_each_thing_that_ends() {
        let (mut timers, start) = (Timers::default(), Instant::now());
        for key in 0..1000 {
            let mut armed = Armed::default();
            (0..30).rev().for_each(|second| timers.arm(key, &mut armed, start + Duration::from_secs(second)));
        }
        let looks = std::cell::Cell::new(0);
        for ended in 0..1000 {
            timers.ended(|key| {
                looks.set(looks.get() + 1);
                key > ended
            });
        }
        assert!(looks.get() <= 30_000, "{}", looks.get());
    }

    #[test]
    fn deadlines_of_what_has_ended_are_few() {
        let (mut timers, now) = (Timers::default(), Instant::now());
        for key in 0..100_000 {
            timers.arm(key, &mut Armed::default(), now);
            if key >= 10_000 {
                timers.ended(|other| other + 10_000 > key);
                assert!(timers.heap.len() <= 30_000);
            }
        }
        for ended in 90_000..100_000 {
            timers.ended(|other| other > ended);
        }
        assert!(timers.heap.len() <= FEW, "{}", timers.heap.len());
    }

    #[test]
    fn a_deadline_that_moves_on_is_armed_once_and_an_earlier_one_counts() {
        let (mut timers, mut armed, start) = (Timers::default(), Armed::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        timers.arm(1, &mut armed, at(15));
        timers.arm(1, &mut armed, at(20));
        timers.arm(1, &mut armed, at(2));
        assert_eq!(timers.heap.len(), 2);
        let (when, key) = timers.pop(at(30)).unwrap();
        assert_eq!((when, key, armed.fired(when)), (at(2), 1, true));
        let (when, _) = timers.pop(at(30)).unwrap();
        assert!(!armed.fired(when));
        assert!(timers.pop(at(30)).is_none());
    }
}
