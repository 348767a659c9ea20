//! A token bucket: a bounded number of events at once, and a bounded rate over time. Pure: the time is given.

use std::time::{Duration, Instant};

/// The bucket; full at first.
#[derive(Debug)]
pub(super) struct Bucket {
    most: u32,
    tokens: u32,
    /// A token is put in as often as this.
    period: Duration,
    /// When the last one was; `None`: none was missing yet.
    filled: Option<Instant>,
}

impl Bucket {
    pub(super) fn new(most: u32, period: Duration) -> Self {
        Self { most, tokens: most, period, filled: None }
    }

    /// Takes a token out; `false`: there is none.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        self.fill(now);
        let has_one = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        has_one
    }

    fn fill(&mut self, now: Instant) {
        let Some(filled) = self.filled.filter(|_| self.tokens < self.most) else {
            self.filled = Some(now);
            return;
        };
        let periods = now.saturating_duration_since(filled).as_nanos() / self.period.as_nanos().max(1);
        let gained = u32::try_from(periods).unwrap_or(u32::MAX);
        self.tokens = self.tokens.saturating_add(gained).min(self.most);
        self.filled = Some(filled + self.period.saturating_mul(gained.min(self.most)));
        if self.tokens == self.most {
            self.filled = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_millis(250);

    fn taken(bucket: &mut Bucket, now: Instant) -> usize {
        (0..100).filter(|_| bucket.take(now)).count()
    }

    #[test]
    fn it_gives_a_burst_and_then_one_a_period() {
        let (mut bucket, start) = (Bucket::new(5, PERIOD), Instant::now());
        assert_eq!(taken(&mut bucket, start), 5);
        assert_eq!(taken(&mut bucket, start + PERIOD - Duration::from_nanos(1)), 0);
        assert_eq!(taken(&mut bucket, start + PERIOD), 1);
        // The rest of a period counts for the next token.
        assert_eq!(taken(&mut bucket, start + PERIOD * 5 / 2), 1);
        assert_eq!(taken(&mut bucket, start + PERIOD * 3), 1);
    }

    #[test]
    fn it_is_never_more_than_full() {
        let (mut bucket, start) = (Bucket::new(5, PERIOD), Instant::now());
        assert!(bucket.take(start));
        let later = start + Duration::from_secs(1_000_000_000);
        assert_eq!(taken(&mut bucket, later), 5);
        assert_eq!(taken(&mut bucket, later), 0);
        // A clock that stands still or goes back gives nothing.
        assert_eq!(taken(&mut bucket, start), 0);
        assert_eq!(taken(&mut bucket, later + PERIOD), 1);
    }
}
