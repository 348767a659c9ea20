//! The large bodies that are received at present.
//!
//! Bodies in memory are received a few at a time: the same few pieces of memory stay warm, and a complete body is
//! answered and frees its memory. The other bodies wait in their sockets. A slow client delays no other, because its body
//! loses its place and is received beside the others.
//!
//! Pure: the time is given.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The number of bodies that have a place.
const PLACES: usize = 8;
/// A body loses its place after this time without a byte.
const STALLED: Duration = Duration::from_millis(5);
/// A body loses its place after this time in any case.
const LONGEST: Duration = Duration::from_millis(50);
/// The longest wait for memory. A body does not wait if all memory is held by bodies without a place.
const PATIENCE: Duration = Duration::from_millis(250);
/// The longest wait in total. Otherwise clients that send for longer than a place lasts would be received at a fixed rate,
/// and the queue behind them would grow.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// The places, and the bodies that wait for one.
#[derive(Debug, Default)]
pub(super) struct Growth {
    places: Vec<Place>,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Place {
    token: u64,
    since: Instant,
    fed: Instant,
}

#[derive(Debug)]
struct Waiting {
    token: u64,
    length: usize,
    since: Instant,
}

impl Place {
    fn lasts_until(&self) -> Instant {
        (self.fed + STALLED).min(self.since + LONGEST)
    }
}

impl Growth {
    /// A body of `length` bytes is to begin.
    pub(super) fn wait(&mut self, token: u64, length: usize, now: Instant) {
        self.waiting.push_back(Waiting { token, length, since: now });
    }

    /// The next one that begins, if there is a place for it. `memory`: how many bytes are left.
    pub(super) fn next(&mut self, memory: usize, now: Instant) -> Option<u64> {
        if self.next_start(memory)? > now {
            return None;
        }
        self.places.retain(|place| place.lasts_until() > now);
        let token = self.waiting.pop_front()?.token;
        self.places.push(Place { token, since: now, fed: now });
        Some(token)
    }

    /// When the next one begins at the latest; `None`: none waits.
    pub(super) fn next_start(&self, memory: usize) -> Option<Instant> {
        let first = self.waiting.front()?;
        let is_full = self.places.len() >= PLACES;
        let place = self.places.iter().filter(|_| is_full).map(Place::lasts_until).min();
        // Those that have a place will give their memory back soon.
        let growing = self.places.iter().filter(|_| memory < first.length).map(Place::lasts_until).max();
        let memory = growing.map_or(first.since, |ends| ends.min(first.since + PATIENCE));
        Some(place.unwrap_or(first.since).max(memory).min(first.since + LONGEST_WAIT))
    }

    /// Something came for a body.
    pub(super) fn fed(&mut self, token: u64, now: Instant) {
        if let Some(place) = self.places.iter_mut().find(|place| place.token == token) {
            place.fed = now;
        }
    }

    /// A body is answered, or given up.
    pub(super) fn leave(&mut self, token: u64) {
        self.places.retain(|place| place.token != token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// Bodies 0 to 19 wait, and those begin for which there is a place.
    fn begun(now: Instant) -> Growth {
        let mut growth = Growth::default();
        (0..20).for_each(|token| growth.wait(token, 10, now));
        assert_eq!(all(&mut growth, now), (0..8).collect::<Vec<_>>());
        growth
    }

    fn all(growth: &mut Growth, now: Instant) -> Vec<u64> {
        std::iter::from_fn(|| growth.next(10, now)).collect()
    }

    #[test]
    fn the_next_begins_when_one_is_answered() {
        let start = Instant::now();
        let mut growth = begun(start);
        assert_eq!(growth.next_start(10), Some(start + STALLED));
        growth.leave(3);
        assert!(growth.next_start(10) <= Some(start));
        assert_eq!(all(&mut growth, start), [8]);
        assert_eq!(growth.next_start(10), Some(start + STALLED));
    }

    #[test]
    fn a_body_that_nothing_comes_for_holds_up_no_other() {
        let start = Instant::now();
        let mut growth = begun(start);
        (0..7).for_each(|token| growth.fed(token, start + ms(1)));
        assert_eq!(all(&mut growth, start + STALLED), [8]);
        assert_eq!(all(&mut growth, start + STALLED + ms(1)), (9..16).collect::<Vec<_>>());
    }

    #[test]
    fn nor_does_one_that_something_always_comes_for() {
        let start = Instant::now();
        let mut growth = begun(start);
        for passed in (1..50).map(ms) {
            (0..8).for_each(|token| growth.fed(token, start + passed));
            assert_eq!(all(&mut growth, start + passed), [0; 0]);
        }
        assert_eq!(all(&mut growth, start + LONGEST), (8..16).collect::<Vec<_>>());
    }

    #[test]
    fn no_body_waits_for_long_behind_many_that_something_always_comes_for() {
        let (start, mut growth) = (Instant::now(), Growth::default());
        let mut begun = Vec::new();
        for passed in (0..2000).map(ms) {
            let now = start + passed;
            growth.wait(u64::try_from(passed.as_millis()).unwrap(), 10, now);
            begun.iter().for_each(|token| growth.fed(*token, now));
            while let Some(token) = growth.next(usize::MAX, now) {
                assert!(now - (start + ms(token)) <= LONGEST_WAIT, "{token} began after {passed:?}");
                begun.push(token);
            }
        }
        assert!(begun.len() >= 1500);
    }

    #[test]
    fn a_body_waits_for_memory_of_those_that_grow_but_not_for_long() {
        let (start, mut growth) = (Instant::now(), Growth::default());
        (0..3).for_each(|token| growth.wait(token, 10, start));
        assert_eq!(growth.next(10, start), Some(0));
        assert_eq!((growth.next(9, start), growth.next_start(9)), (None, Some(start + STALLED)));
        // Those that hold it are slow, and the next one is for a file.
        assert_eq!(growth.next(9, start + STALLED), Some(1));
        for passed in (6..250).map(ms) {
            growth.fed(1, start + passed);
            growth.wait(9, 10, start + passed);
            let begun = growth.next(9, start + passed);
            assert!(begun.is_none() || passed >= LONGEST, "{begun:?} after {passed:?}");
            if begun.is_some() {
                return;
            }
        }
        panic!("the body waits for ever");
    }
}
