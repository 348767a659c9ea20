//! How long a connection stays open behind its last answer, while its client still sends.
//!
//! A close resets a connection that has unread bytes, and a reset takes the answer from a client that has not read it yet
//! (RFC 9112 9.6). So further input is received and discarded: for five seconds, and longer only at the speed of an
//! upload. The number of bytes is limited too, since a client on a fast network would otherwise keep a processor busy.
//! Apache httpd has the same limits of time (`SECONDS_TO_LINGER`, `MAX_SECS_TO_LINGER`); nginx has `lingering_timeout` and
//! `lingering_time`.
//!
//! A lingering connection has no buffer without input, takes turns as any other, and is closed first if descriptors are
//! short (`room`).

use std::time::{Duration, Instant};

/// Between two pieces.
const IDLE: Duration = Duration::from_secs(2);
/// At any rate, and while the engine ends.
const AT_LEAST: Duration = Duration::from_secs(5);
/// At most, however fast the client sends.
const AT_MOST: Duration = Duration::from_secs(30);
/// How many bytes earn a further second beyond [`AT_LEAST`].
const RATE: u64 = 64 * 1024;
/// No more bytes are received than this: as large is an upload that its client still sends while it reads the answer.
const MOST_BYTES: u64 = 64 << 20;

/// The bytes that a client has sent since its last answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lingering {
    since: Instant,
    received: u64,
    at_most: Duration,
}

impl Lingering {
    /// The last answer has left. `goes_on`: the engine is not about to end.
    pub(super) fn new(now: Instant, goes_on: bool) -> Self {
        Self { since: now, received: 0, at_most: if goes_on { AT_MOST } else { AT_LEAST } }
    }

    /// Something more was received; returns the time at which the connection is closed unless more comes; `None`: now.
    pub(super) fn received(&mut self, count: usize, now: Instant) -> Option<Instant> {
        self.received = self.received.saturating_add(count as u64);
        if self.received > MOST_BYTES {
            return None;
        }
        let earned = Duration::from_secs(self.received / RATE).clamp(AT_LEAST, self.at_most);
        Some((now + IDLE).min(self.since + earned))
    }

    /// The engine is about to end; returns the time at which the connection is closed at the latest.
    pub(super) fn shorten(&mut self) -> Instant {
        self.at_most = AT_LEAST;
        self.since + AT_LEAST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// For how many seconds a client may send `rate` bytes each second.
    fn lasts(rate: usize, goes_on: bool) -> u64 {
        let start = Instant::now();
        let mut lingering = Lingering::new(start, goes_on);
        let mut deadline = lingering.received(0, start).unwrap();
        for second in 1.. {
            let now = start + second * SECOND;
            if now >= deadline {
                return (deadline - start).as_secs();
            }
            deadline = lingering.received(rate, now).unwrap();
        }
        0
    }

    #[test]
    fn a_client_may_send_for_some_seconds_and_for_longer_only_at_the_rate_of_an_upload() {
        assert_eq!(lasts(1, true), 5);
        assert_eq!(lasts(32 * 1024, true), 5);
        assert_eq!(lasts(1 << 20, true), 30);
        assert_eq!(lasts(1 << 20, false), 5);
    }

    #[test]
    fn a_client_that_sends_nothing_is_given_two_seconds() {
        let start = Instant::now();
        let mut lingering = Lingering::new(start, true);
        assert_eq!(lingering.received(0, start), Some(start + 2 * SECOND));
        assert_eq!(lingering.received(1, start + SECOND), Some(start + 3 * SECOND));
        assert_eq!(lingering.shorten(), start + 5 * SECOND);
    }

    #[test]
    fn a_client_that_sends_much_at_once_does_not_go_on_for_long() {
        let start = Instant::now();
        let mut lingering = Lingering::new(start, true);
        let pieces = (0..).take_while(|_| lingering.received(1 << 20, start).is_some()).count();
        assert_eq!(pieces, 64);
    }
}
