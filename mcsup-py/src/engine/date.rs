//! The Date field (RFC 9110 §5.6.7).

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use httpdate::HttpDate;

/// The Date field's value, made once a second.
#[derive(Debug, Default)]
pub(super) struct Date {
    second: u64,
    text: String,
}

impl Date {
    /// As of now.
    pub(super) fn now(&mut self) -> &[u8] {
        let now = SystemTime::now();
        let second = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        if self.second != second || self.text.is_empty() {
            self.second = second;
            self.text.clear();
            // Writing to a string cannot fail.
            let _ = write!(self.text, "{}", HttpDate::from(now));
        }
        self.text.as_bytes()
    }
}
