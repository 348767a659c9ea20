//! The fields of the server itself: Server, and Date (RFC 9110 §5.6.7).

use std::fmt::Write;
use std::time::{Duration, Instant, SystemTime};

use httpdate::HttpDate;

use super::ServerField;
use crate::http::response::Stamp;

/// The Server field, and the Date field's value, which is made once a second.
#[derive(Debug)]
pub(super) struct Date {
    server: ServerField,
    text: String,
    /// When the second is over.
    until: Option<Instant>,
}

impl Date {
    pub(super) fn new(server: &ServerField) -> Self {
        Self { server: server.clone(), text: String::new(), until: None }
    }

    /// As of `now`, which is now.
    pub(super) fn at(&mut self, now: Instant) -> Stamp<'_> {
        if self.until.is_none_or(|until| now >= until) {
            let time = SystemTime::now();
            let into_second =
                time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).subsec_nanos();
            self.until = Some(now + Duration::from_nanos(1_000_000_000 - u64::from(into_second)));
            self.text.clear();
            // Writing to a string cannot fail.
            let _ = write!(self.text, "{}", HttpDate::from(time));
        }
        Stamp { server: self.server.line(), date: self.text.as_bytes() }
    }
}
