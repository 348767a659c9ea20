//! Whether a client goes on with the body of its request. Where room is lacking, a body that does not go on counts as idle
//! (`room`), and so does one that comes a few bytes at a time.
//!
//! Pure: the time is given.

use std::time::{Duration, Instant};

/// A body that is not received counts as idle after this time. The bounds are those of Kestrel, the server of ASP.NET Core
/// (`MinRequestBodyDataRate`): 240 bytes a second, over 5 seconds. One segment of TCP is more than that.
pub(super) const STALLED: Duration = Duration::from_secs(5);
/// The number of bytes that are progress.
const PROGRESS: usize = 1200;

/// How far a client is with a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    since: Instant,
    received: usize,
}

impl Pace {
    /// The body begins, or its client is waited for from now on.
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, received: 0 }
    }

    /// Counts bytes that were received.
    pub(super) fn received(&mut self, count: usize, now: Instant) {
        self.received = self.received.saturating_add(count);
        if self.received >= PROGRESS {
            *self = Self::new(now);
        }
    }

    /// Since when the body has made no progress.
    pub(super) fn since(&self) -> Instant {
        self.since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For how long a body has made no progress at most, of which `count` bytes come every `period`.
    fn longest(count: usize, period: Duration) -> Duration {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let times = (1..=1000).map(|time| start + period * time);
        let gaps = times.map(|now| {
            let gap = now - pace.since();
            pace.received(count, now);
            gap
        });
        gaps.max().unwrap()
    }

    #[test]
    fn a_body_goes_on_if_a_segment_comes_in_time_and_not_if_single_bytes_do() {
        let (second, tenth) = (Duration::from_secs(1), Duration::from_millis(100));
        assert!(longest(1, tenth) > STALLED);
        assert!(longest(200, second) > STALLED);
        assert!(longest(240, second) <= STALLED);
        assert!(longest(1200, second * 5) <= STALLED);
        assert!(longest(usize::MAX, second * 6) > STALLED);
    }
}
