//! The lines of a head: their ends, their number, their sizes.

use super::Limits;
use crate::http::reject::{self, Reject};
use crate::http::response::is_token;

/// The number of empty lines before a request line that are passed over.
const MOST_EMPTY: usize = 4;

/// The longest request line or field where the limit is off.
const MAX_LINE: usize = 65_536;

/// The lines of a head that have arrived. A head that arrives in pieces is read once.
#[derive(Debug, Default)]
pub(super) struct Lines {
    looked_at: usize,
    /// Where the line begins that has not ended.
    start: usize,
    /// How many have ended.
    pub(super) count: usize,
    /// Empty lines before the request line.
    empty: usize,
    /// Where the request line ends, once it has.
    pub(super) first_end: usize,
}

impl Lines {
    /// Counts the empty lines at the beginning of `bytes`, up to the bound; returns how many bytes they have.
    pub(super) fn pass_over_empty(&mut self, bytes: &[u8]) -> usize {
        let mut passed = 0;
        while self.empty < MOST_EMPTY && bytes[passed..].starts_with(b"\r\n") {
            self.empty += 1;
            passed += 2;
        }
        passed
    }

    /// Goes from line to line, measuring each; the empty line ends the head.
    pub(super) fn find_end(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<usize>, Reject> {
        loop {
            self.check_first_byte(bytes)?;
            let Some(found) = memchr::memchr(b'\n', &bytes[self.looked_at..]) else { break };
            let end = self.looked_at + found;
            if end == self.start || bytes[end - 1] != b'\r' {
                return Err(reject::BARE_LF);
            }
            let length = end - 1 - self.start;
            (self.looked_at, self.start) = (end + 1, end + 1);
            match (length, self.count) {
                // RFC 9112 §2.2: empty lines before a request line are ignored; httparse skips them too.
                (0, 0) if self.empty < MOST_EMPTY => {
                    self.empty += 1;
                    continue;
                }
                (0, 0) => return Err(reject::REQUEST_LINE),
                (0, _) => return Ok(Some(end + 1)),
                _ => self.measure(length, limits)?,
            }
            if self.count == 0 {
                self.first_end = end + 1;
            }
            self.count += 1;
        }
        self.looked_at = bytes.len();
        // The CR of a line's end is none of its bytes; and where nothing else is there yet, this may be the empty line,
        // which is no field.
        let line = &bytes[self.start..];
        match line.strip_suffix(b"\r").unwrap_or(line).len() {
            0 => Ok(None),
            length => self.measure(length, limits).map(|()| None),
        }
    }

    /// Refuses at once a request line that begins with a byte of no method: other protocols may send no line end, and
    /// their clients would wait for the deadline.
    fn check_first_byte(&self, bytes: &[u8]) -> Result<(), Reject> {
        match bytes.get(self.start) {
            Some(&byte) if self.count == 0 && !is_token(byte) && byte != b'\r' && byte != b'\n' => {
                Err(reject::REQUEST_LINE)
            }
            _ => Ok(()),
        }
    }

    /// `self.count` lines came before this one.
    fn measure(&self, length: usize, limits: &Limits) -> Result<(), Reject> {
        match self.count {
            0 if limits.line > 0 && length > limits.line => Err(reject::LINE_SIZE),
            0 if length > MAX_LINE => Err(reject::LINE_SIZE),
            0 => Ok(()),
            count if count > limits.fields => Err(reject::FIELD_COUNT),
            // With the CRLF, as gunicorn counts.
            _ if limits.field_size > 0 && length + 2 > limits.field_size => Err(reject::FIELD_SIZE),
            _ if length > MAX_LINE => Err(reject::FIELD_SIZE),
            _ => Ok(()),
        }
    }
}
