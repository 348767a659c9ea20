//! The Date field (RFC 9110 §5.6.7).

use std::fmt::Write;
use std::time::{Duration, Instant, SystemTime};

use httpdate::HttpDate;

/// The Date field's value, made once a second.
#[derive(Debug, Default)]
pub(super) struct Date {
    text: String,
    /// When the second is over.
    until: Option<Instant>,
}

impl Date {
    /// As of `now`, which is now.
    pub(super) fn at(&mut self, now: Instant) -> &[u8] {
        if self.until.is_none_or(|until| now >= until) {
            let time = SystemTime::now();
            let into_second =
                time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).subsec_nanos();
            self.until = Some(now + Duration::from_nanos(1_000_000_000 - u64::from(into_second)));
            self.text.clear();
            // Writing to a string cannot fail.
            let _ = write!(self.text, "{}", HttpDate::from(time));
        }
        self.text.as_bytes()
    }
}
