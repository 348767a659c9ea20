//! The operator's side of refused requests: a line at warning for each, at most a few a second; the rest are counted.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::bucket::Bucket;
use crate::http::foreign;
use crate::http::reject::{self, Reject};

/// The number of lines at once; one more is allowed each period.
const MOST_AT_ONCE: u32 = 5;
const PERIOD: Duration = Duration::from_millis(250);

/// How long refusals are counted before the count is logged.
const COUNTED_FOR: Duration = Duration::from_secs(1);

/// The number of bytes of a request that are shown.
const SHOWN: usize = 64;

/// Which refusals are logged.
#[derive(Debug)]
pub(super) struct RefusalLog {
    bucket: Bucket,
    /// How many were only counted, and since when.
    counted: u64,
    since: Option<Instant>,
    /// Whether the limit of bodies was logged.
    has_named_limit: bool,
}

impl Default for RefusalLog {
    fn default() -> Self {
        Self { bucket: Bucket::new(MOST_AT_ONCE, PERIOD), counted: 0, since: None, has_named_limit: false }
    }
}

impl RefusalLog {
    /// Logs or counts a refusal. `received`: the request, as far as it has arrived.
    pub(super) fn note(
        &mut self,
        (remote, by_tls): (Option<SocketAddr>, bool),
        reject: Reject,
        received: &[u8],
        now: Instant,
    ) {
        if self.bucket.take(now) {
            log::warn!("{}", Refusal { remote, by_tls, reject, received });
        } else {
            self.counted += 1;
            self.since.get_or_insert(now);
        }
    }

    /// Logs the limit of bodies once: other servers have none, and an upload that they took is refused here.
    pub(super) fn note_body_limit(&mut self, limit: u64) {
        if !std::mem::replace(&mut self.has_named_limit, true) {
            log::warn!(
                "A request body may have {limit} bytes at most; --limit-request-body (Limits::body) sets another limit, 0 none"
            );
        }
    }

    /// Logs or counts a handshake of TLS that has failed.
    pub(super) fn note_handshake(&mut self, remote: Option<SocketAddr>, reason: &str, now: Instant) {
        self.note_tls("Refused a TLS handshake", remote, reason, now);
    }

    /// Logs or counts a connection by TLS that has ended by a fault of its client, behind the handshake.
    pub(super) fn note_fault(&mut self, remote: Option<SocketAddr>, reason: &str, now: Instant) {
        self.note_tls("Ended a TLS connection", remote, reason, now);
    }

    fn note_tls(&mut self, what: &str, remote: Option<SocketAddr>, reason: &str, now: Instant) {
        if !self.bucket.take(now) {
            self.counted += 1;
            self.since.get_or_insert(now);
            return;
        }
        // The reason may have words of the client.
        let reason = reason.replace(|letter: char| !matches!(letter, ' '..='~'), "?");
        match remote {
            Some(remote) => log::warn!("{what} from {remote}: {reason}"),
            None => log::warn!("{what} on a Unix socket: {reason}"),
        }
    }

    /// Logs the count once it is old enough.
    pub(super) fn log_count(&mut self, now: Instant) {
        if self.since.is_some_and(|since| now >= since + COUNTED_FOR) {
            self.flush();
        }
    }

    /// Logs the count.
    pub(super) fn flush(&mut self) {
        if self.since.take().is_some() {
            let counted = std::mem::take(&mut self.counted);
            log::warn!("Refused {counted} further requests without a line for each");
        }
    }
}

/// The content of one log line.
struct Refusal<'a> {
    remote: Option<SocketAddr>,
    by_tls: bool,
    reject: Reject,
    received: &'a [u8],
}

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refusal { remote, by_tls, reject: Reject { status, why, source }, received } = self;
        match remote {
            Some(remote) => write!(f, "Refused a request from {remote}: {status} ")?,
            None => write!(f, "Refused a request on a Unix socket: {status} ")?,
        }
        match received {
            _ if foreign::is_tls(received) => f.write_str("TLS handshake on a plain-text port")?,
            _ if foreign::is_http2(received) && *by_tls => f.write_str("HTTP/2 is not spoken here")?,
            _ if foreign::is_http2(received) => f.write_str("HTTP/2 without TLS is not spoken here")?,
            _ if matches!(self.reject, reject::REQUEST_LINE | reject::PLAIN_TEXT)
                && foreign::is_proxy_header(received) =>
            {
                f.write_str("PROXY header, which this server does not accept; see --proxy-protocol")?;
            }
            _ => write!(f, "{why} ({source})")?,
        }
        // Nothing of a client's reaches the log as it came: a terminal or a parser may read it.
        let shown = &received[..received.len().min(SHOWN)];
        let cut = if shown.len() < received.len() { " ..." } else { "" };
        write!(f, "; it begins with \"{}\"{cut}", shown.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(received: &[u8]) -> String {
        let remote = Some("192.0.2.7:4711".parse().unwrap());
        Refusal { remote, by_tls: false, reject: reject::REQUEST_LINE, received }.to_string()
    }

    #[test]
    fn a_line_names_the_client_the_reason_and_the_beginning_of_the_request() {
        assert_eq!(
            line(b"GET /\x1b[31m\r\n\0\"\\\xe9"),
            r#"Refused a request from 192.0.2.7:4711: 400 malformed request line (RFC 9112 3); it begins with "GET /\x1b[31m\r\n\x00\"\\\xe9""#
        );
        assert!(line(b"\x16\x03\x01\x02\x00\x01").contains(": 400 TLS handshake on a plain-text port; "));
        let unix =
            Refusal { remote: None, by_tls: false, reject: reject::TIMEOUT, received: b"GET" }.to_string();
        assert!(unix.starts_with("Refused a request on a Unix socket: 408 "), "{unix}");
        for header in [&b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"[..], b"\0\r\nQUIT\n\x21"] {
            assert!(
                line(header).contains(": 400 PROXY header, which this server does not accept; "),
                "{header:?}"
            );
        }
        let received = b"PRI * HTTP/2.0\r\n\r\n";
        assert!(line(received).contains(": 400 HTTP/2 without TLS is not spoken here; "));
        let by_tls = Refusal { remote: None, by_tls: true, reject: reject::REQUEST_LINE, received };
        assert!(by_tls.to_string().contains(": 400 HTTP/2 is not spoken here; "));
    }

    #[test]
    fn a_line_is_short_and_plain_whatever_was_received() {
        let all: Vec<u8> = (0..=255).collect();
        for received in [all.repeat(300), vec![0xff; 64], vec![0xff; 65], all.iter().rev().copied().collect()]
        {
            let line = line(&received);
            assert!(
                line.len() < 500 && line.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '),
                "{line}"
            );
            assert_eq!(line.ends_with(" ..."), received.len() > 64);
        }
    }
}
