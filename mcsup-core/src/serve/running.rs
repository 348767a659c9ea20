//! The requests in progress: the age of the oldest one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The beginnings of the requests in progress, by a number that grows.
#[derive(Debug, Default)]
pub(super) struct Running {
    next: AtomicU64,
    begun: Mutex<BTreeMap<u64, Instant>>,
}

impl Running {
    /// Adds a request; returns its number.
    pub(super) fn begin(&self) -> u64 {
        let number = self.next.fetch_add(1, Relaxed);
        self.begun().insert(number, Instant::now());
        number
    }

    /// Removes a request.
    pub(super) fn end(&self, number: u64) {
        self.begun().remove(&number);
    }

    /// The age of the oldest request; `None`: none is in progress.
    pub(super) fn oldest(&self) -> Option<Duration> {
        self.begun().first_key_value().map(|(_, begun)| begun.elapsed())
    }

    fn begun(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_request_is_the_one_that_began_first_of_those_in_progress() {
        let running = Running::default();
        assert!(running.oldest().is_none());
        let (first, begun) = (running.begin(), Instant::now());
        let second = running.begin();
        assert!(running.oldest().unwrap() >= begun.elapsed());
        running.end(first);
        assert!(running.oldest().unwrap() <= begun.elapsed());
        running.end(second);
        assert!(running.oldest().is_none());
    }
}
