//! A common bound on the waits of a log's writes for a slow reader.
//!
//! A reader that takes a few bytes at a time ends each wait early. A limit on one write would therefore not
//! bound the waits of many.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock;

/// The longest wait for a log's reader in any [`RENEWED_AFTER`]. All clients of a worker may wait meanwhile.
const READER_PATIENCE: Duration = Duration::from_millis(50);

/// The time without waits after which the budget is full again.
pub const RENEWED_AFTER: Duration = Duration::from_secs(10);

/// A budget of time for waits. It is full again when nothing has waited for a while.
///
/// Waits in quick succession therefore share one budget. Threads that wait at the same time have it each.
#[derive(Debug)]
pub struct Patience {
    most: Duration,
    renewed_after: Duration,
    spent: Mutex<Spent>,
}

/// The time that waits have used.
#[derive(Debug, Clone, Copy)]
struct Spent {
    time: Duration,
    /// The end of the last wait.
    at: Duration,
}

impl Patience {
    /// A budget of `most` in any `renewed_after`.
    pub(crate) const fn new(most: Duration, renewed_after: Duration) -> Self {
        let spent = Spent { time: Duration::ZERO, at: Duration::ZERO };
        Self { most, renewed_after, spent: Mutex::new(spent) }
    }

    /// A worker's budget for the reader of one log.
    pub const fn with_a_reader() -> Self {
        Self::new(READER_PATIENCE, RENEWED_AFTER)
    }

    /// A budget of `most` in all.
    pub const fn once(most: Duration) -> Self {
        Self::new(most, Duration::MAX)
    }

    /// An empty budget.
    pub const fn none() -> Self {
        Self::once(Duration::ZERO)
    }

    /// The longest permitted wait that begins now.
    pub(crate) fn left(&self) -> Duration {
        self.left_at(clock::now())
    }

    /// Charges a wait that ends now.
    pub(crate) fn spend(&self, waited: Duration) {
        self.spend_at(waited, clock::now());
    }

    fn left_at(&self, now: Duration) -> Duration {
        let spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        self.most.saturating_sub(self.counted(*spent, now))
    }

    fn spend_at(&self, waited: Duration, now: Duration) {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.counted(*spent, now.saturating_sub(waited));
        *spent = Spent { time: before.saturating_add(waited), at: now };
    }

    /// The part of it that counts for a wait that begins now.
    fn counted(&self, spent: Spent, now: Duration) -> Duration {
        let is_over = now.saturating_sub(spent.at) >= self.renewed_after;
        if is_over { Duration::ZERO } else { spent.time }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn waits_share_one_budget_until_none_has_waited_for_a_while() {
        let patience = Patience::new(ms(50), ms(10_000));
        assert_eq!(patience.left_at(ms(1_000)), ms(50));
        patience.spend_at(ms(20), ms(1_020));
        assert_eq!(patience.left_at(ms(1_020)), ms(30));
        patience.spend_at(ms(30), ms(9_000));
        // The first wait was long ago, the last one was not.
        assert_eq!(patience.left_at(ms(18_999)), ms(0));
        assert_eq!(patience.left_at(ms(19_000)), ms(50));
        patience.spend_at(ms(5), ms(19_005));
        assert_eq!(patience.left_at(ms(19_005)), ms(45));
    }

    #[test]
    fn a_budget_for_once_is_not_renewed() {
        let patience = Patience::once(ms(50));
        patience.spend_at(ms(50), ms(60));
        assert_eq!(patience.left_at(Duration::from_secs(1 << 40)), ms(0));
        assert_eq!(Patience::none().left(), ms(0));
    }
}
