//! Records of TLS that a client sends (RFC 8446 §5.1): how many are whole, and how many of them may be without content.
//!
//! A record without content costs the server as much as one with content, and no limit of the engine counts it. Sound
//! clients send some: to hide when they speak, or with new keys. Padding is not limited: it belongs to a record.

use std::time::{Duration, Instant};

/// The header of a record: its kind, its version and its length.
const HEADER: usize = 5;
/// How many records without content a client may send within [`PERIOD`],
const MOST: usize = 1024;
/// and how many more for each record with content. OpenSSL and BoringSSL end a client after 32 in a row.
const FOR_EACH: usize = 16;
const PERIOD: Duration = Duration::from_secs(10);

/// The longest message of a handshake that rustls takes.
const LONGEST_MESSAGE: usize = 0xffff;

/// What a client has sent.
#[derive(Debug, Default)]
pub(super) struct Received {
    records: Records,
    contentless: Contentless,
    /// How many bytes of records have come since the last content, or since the beginning of the handshake,
    since_content: usize,
    /// and how many of them may be parts of a message.
    held: usize,
}

impl Received {
    /// How many records end within the next bytes.
    pub(super) fn whole_in(&mut self, bytes: &[u8]) -> usize {
        self.records.whole_in(bytes)
    }

    /// How many bytes of incomplete messages are kept, at most.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Counts bytes of a handshake, of which all may be kept until it ends.
    pub(super) fn note_of_handshake(&mut self, count: usize, is_over: bool) {
        self.since_content = if is_over { 0 } else { self.since_content + count };
        self.held = self.since_content;
    }

    /// Counts bytes behind the handshake, the records that they have made whole, and their content; whether there were too
    /// many records without content.
    pub(super) fn are_too_many(&mut self, count: usize, whole: usize, content: usize) -> bool {
        if content > 0 {
            (self.since_content, self.held) = (0, 0);
        } else {
            self.since_content += count;
            if whole > 0 {
                self.held = self.since_content.min(LONGEST_MESSAGE);
            }
        }
        let with = whole.min(content);
        self.contentless.are_too_many(with, whole - with)
    }
}

/// Finds the ends of records.
#[derive(Debug, Default)]
struct Records {
    /// How many bytes of a header have come.
    of_header: usize,
    /// How many bytes of the record are still to come.
    left: usize,
}

impl Records {
    /// How many records end within the next bytes.
    fn whole_in(&mut self, mut bytes: &[u8]) -> usize {
        let mut whole = 0;
        loop {
            while self.of_header < HEADER {
                let Some((first, rest)) = bytes.split_first() else { return whole };
                bytes = rest;
                self.of_header += 1;
                if self.of_header > 3 {
                    self.left = self.left << 8 | usize::from(*first);
                }
            }
            let count = self.left.min(bytes.len());
            bytes = &bytes[count..];
            self.left -= count;
            if self.left > 0 {
                return whole;
            }
            (self.of_header, whole) = (0, whole + 1);
        }
    }
}

/// How many records without content a client has sent.
#[derive(Debug, Default)]
struct Contentless {
    count: usize,
    /// The beginning of the period.
    since: Option<Instant>,
}

impl Contentless {
    /// Counts records with and without content; whether there were too many without.
    fn are_too_many(&mut self, with: usize, without: usize) -> bool {
        self.count = self.count.saturating_sub(with.saturating_mul(FOR_EACH));
        if without == 0 {
            return false;
        }
        let now = Instant::now();
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= PERIOD) {
            *self = Self { count: 0, since: Some(now) };
        }
        self.count += without;
        self.count > MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_counted_at_their_ends_however_they_are_cut() {
        let record = |length: u16| {
            let [high, low] = length.to_be_bytes();
            [&[23, 3, 3, high, low][..], &vec![0x55; usize::from(length)]].concat()
        };
        let all = [record(300), record(0), record(1), record(0x4100)].concat();
        for piece in [1, 2, 4, 5, 6, 299, 305, 4096, all.len()] {
            let mut records = Records::default();
            let mut counts = all.chunks(piece).map(|bytes| records.whole_in(bytes));
            assert_eq!(counts.by_ref().sum::<usize>(), 4, "{piece}");
            assert_eq!(records.whole_in(&all[..305]), 1);
        }
        let mut records = Records::default();
        assert_eq!([&all[..304], &all[304..312]].map(|bytes| records.whole_in(bytes)), [0, 2]);
    }

    #[test]
    fn records_with_content_allow_as_many_without() {
        let mut sound = Contentless::default();
        assert!((0..10_000).all(|_| !sound.are_too_many(1, FOR_EACH)));
        let mut flood = Contentless::default();
        assert!((0..10_000).any(|_| flood.are_too_many(1, 2 * FOR_EACH)));
        let mut silent = Contentless::default();
        assert!(!silent.are_too_many(0, MOST) && silent.are_too_many(0, 1));
    }

    #[test]
    fn records_of_another_period_do_not_count() {
        let mut contentless = Contentless::default();
        assert!(!contentless.are_too_many(0, MOST));
        contentless.since = Instant::now().checked_sub(PERIOD);
        assert!(contentless.since.is_none() || !contentless.are_too_many(0, MOST));
    }
}
