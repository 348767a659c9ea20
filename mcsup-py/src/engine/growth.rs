//! Which of the large bodies are received at present. Those that are kept in memory grow a few at a time, since a few
//! pieces of memory stay warm, and a body that is whole is answered and makes room. The others wait where they are, in the
//! sockets. A client that sends slowly holds up no other: its body grows beside those that have a place.
//!
//! Pure: the time is given.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// So many have a place.
const PLACES: usize = 8;
/// A body that nothing came for loses its place,
const STALLED: Duration = Duration::from_millis(5);
/// and so does one that is not whole and answered after this.
const LONGEST: Duration = Duration::from_millis(50);
/// A body waits no longer for memory, and not at all where none came free for so long: slow clients hold it.
const PATIENCE: Duration = Duration::from_millis(250);

/// The places, and the bodies that wait for one.
#[derive(Debug, Default)]
pub(super) struct Growth {
    places: Vec<Place>,
    waiting: VecDeque<Waiting>,
    /// When memory last came free.
    freed: Option<Instant>,
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
    /// A body of so many bytes is to begin.
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
        let memory = match self.freed {
            Some(freed) if memory < first.length => freed.min(first.since) + PATIENCE,
            _ => first.since,
        };
        Some(place.unwrap_or(first.since).max(memory))
    }

    /// Something came for a body.
    pub(super) fn fed(&mut self, token: u64, now: Instant) {
        if let Some(place) = self.places.iter_mut().find(|place| place.token == token) {
            place.fed = now;
        }
    }

    /// A body is answered, or given up, and its memory is free.
    pub(super) fn freed(&mut self, token: u64, now: Instant) {
        self.leave(token);
        self.freed = Some(now);
    }

    /// It does without its place.
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
        growth.freed(3, start);
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
    fn a_body_waits_for_memory_but_not_for_long() {
        let (start, mut growth) = (Instant::now(), Growth::default());
        growth.freed(9, start);
        (0..3).for_each(|token| growth.wait(token, 10, start));
        assert_eq!(growth.next(9, start), None);
        assert_eq!(growth.next(10, start + ms(1)), Some(0));
        assert_eq!(growth.next_start(9), Some(start + PATIENCE));
        assert_eq!(growth.next(9, start + PATIENCE), Some(1));
        // That was all that is to be had: slow clients hold the rest.
        growth.wait(3, 10, start + PATIENCE * 2);
        assert_eq!(growth.next(9, start + PATIENCE * 2), Some(2));
        assert_eq!(growth.next(9, start + PATIENCE * 2), Some(3));
        assert_eq!(growth.next_start(10), None);
    }
}
