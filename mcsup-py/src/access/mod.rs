//! The access log: a line for each request, formatted in Rust, written in whole lines at the end of a loop turn.
//!
//! - `format`: gunicorn's atoms, compiled once; or one JSON object a line.
//! - `sink`: where lines go.

mod format;
mod sink;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

pub use format::Format;

use crate::http::head::Head;
use crate::http::response::ResponseHead;
use sink::Sink;

/// One answered request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    /// The request head; `None` if it was not understood.
    pub head: Option<Head<'a>>,
    /// The client's address as the connection has it; `None` on a Unix socket.
    pub remote: Option<SocketAddr>,
    /// The answer's head.
    pub response: &'a ResponseHead,
    /// The bytes of the body that were handed over.
    pub bytes: u64,
    /// From the whole request to the last byte handed over.
    pub took: Duration,
}

impl Entry<'_> {
    /// The client's address, as trusted proxies name it, or as that of the connection.
    fn client(&self) -> Option<SocketAddr> {
        self.head.and_then(|head| head.client()).or(self.remote)
    }
}

/// A format and a place for lines.
#[derive(Debug)]
pub struct AccessLog {
    format: Format,
    sink: Sink,
    lines: Vec<u8>,
    clock: format::Clock,
}

/// Lines are written before they take more memory than this.
const FULL: usize = 64 * 1024;

impl AccessLog {
    /// A log in `format` at `place`: the path of a file, or `-` for standard output.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(format: Format, place: &str) -> io::Result<Self> {
        Ok(Self { format, sink: Sink::open(place)?, lines: Vec::new(), clock: format::Clock::default() })
    }

    /// Notes a request.
    pub(crate) fn note(&mut self, entry: &Entry<'_>) {
        self.format.write(&mut self.lines, entry, &mut self.clock);
        if self.lines.len() > FULL {
            self.flush();
        }
    }

    /// Writes what was noted.
    pub(crate) fn flush(&mut self) {
        if !self.lines.is_empty() {
            self.sink.write(&self.lines);
            self.lines.clear();
        }
    }

    /// Reopens the file, after the pending lines went to the old one.
    pub(crate) fn reopen(&mut self) {
        self.flush();
        self.sink.reopen();
    }
}
