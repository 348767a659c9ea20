//! A response's head as the application gives it, and the bytes of a whole one.

use std::fmt;

use super::framing::digits;
use super::version::Version;

/// Status, reason and fields of a response, checked as they are given; kept by a worker and used again.
#[derive(Debug, Default)]
pub struct ResponseHead {
    status: u16,
    reason: Vec<u8>,
    /// `Name: value\r\n`, one behind the other, without Content-Length.
    fields: Vec<u8>,
    content_length: Option<u64>,
    names_date: bool,
    names_server: bool,
    /// It has an Upgrade field.
    names_upgrade: bool,
}

/// A part of a head that is not sent, since a client could misread it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeadFault {
    /// No status from 100 to 999.
    Status(u16),
    /// A control character in the reason.
    Reason,
    /// A field name that is no token.
    Name(String),
    /// A control character in a field's value: header injection.
    Value(String),
    /// A Content-Length that is no number, or not the only one.
    ContentLength,
}

impl fmt::Display for HeadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeadFault::Status(status) => write!(f, "status {status} is not in the range 100 to 999"),
            HeadFault::Reason => f.write_str("the reason phrase contains a control character"),
            HeadFault::Name(name) => write!(f, "header name {name:?} is not a token"),
            HeadFault::Value(name) => write!(f, "the value of header {name:?} contains a control character"),
            HeadFault::ContentLength => f.write_str("Content-Length is not one whole number"),
        }
    }
}

impl std::error::Error for HeadFault {}

const USUAL_FIELDS: usize = 256;

/// Fields that concern one connection alone: the engine's business (RFC 9110 §7.6.1, PEP 3333).
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
];

impl Clone for ResponseHead {
    fn clone(&self) -> Self {
        let mut copy = Self::default();
        copy.clone_from(self);
        copy
    }

    /// Keeps the memory that it has, which a derived one would not: the access log has each head copied.
    fn clone_from(&mut self, source: &Self) {
        let Self { status, reason, fields, content_length, names_date, names_server, names_upgrade } = source;
        self.reason.clone_from(reason);
        self.fields.clone_from(fields);
        (self.status, self.content_length) = (*status, *content_length);
        (self.names_date, self.names_server) = (*names_date, *names_server);
        self.names_upgrade = *names_upgrade;
    }
}

impl ResponseHead {
    /// An empty head: 200 without fields.
    pub fn new() -> Self {
        Self { status: 200, reason: b"OK".to_vec(), ..Self::default() }
    }

    /// The head of an answer of the engine's own, which is plain text.
    pub fn of_text(status: u16) -> Self {
        let mut head = Self::new();
        // Constants that are in order.
        let _ = head.begin(status, reason_of(status).as_bytes());
        let _ = head.push(b"Content-Type", b"text/plain");
        head
    }

    /// Clears the head and sets its status.
    ///
    /// # Errors
    /// A status or reason that cannot be sent.
    pub fn begin(&mut self, status: u16, reason: &[u8]) -> Result<(), HeadFault> {
        if !(100..=999).contains(&status) {
            return Err(HeadFault::Status(status));
        }
        if !reason.iter().all(|byte| is_text(*byte)) {
            return Err(HeadFault::Reason);
        }
        self.status = status;
        self.reason.clear();
        self.reason.extend_from_slice(reason);
        self.fields.clear();
        // The usual head at once, rather than in many small steps.
        self.fields.reserve(USUAL_FIELDS);
        (self.content_length, self.names_date, self.names_server) = (None, false, false);
        self.names_upgrade = false;
        Ok(())
    }

    /// Adds a field; leaves it out where it concerns the connection alone.
    ///
    /// # Errors
    /// A name or value that cannot be sent.
    pub fn push(&mut self, name: &[u8], value: &[u8]) -> Result<(), HeadFault> {
        let lossy = || String::from_utf8_lossy(name).into_owned();
        if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
            return Err(HeadFault::Name(lossy()));
        }
        if !value.iter().all(|byte| is_text(*byte)) {
            return Err(HeadFault::Value(lossy()));
        }
        if HOP_BY_HOP.iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes())) {
            if self.may_name_upgrade() && name.eq_ignore_ascii_case(b"upgrade") {
                self.names_upgrade = true;
                write_field(&mut self.fields, name, value);
            }
            return Ok(());
        }
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"date") => self.names_date = true,
            6 if name.eq_ignore_ascii_case(b"server") => self.names_server = true,
            14 if name.eq_ignore_ascii_case(b"content-length") => return self.set_length(value),
            _ => {}
        }
        write_field(&mut self.fields, name, value);
        Ok(())
    }

    /// Whether a field Upgrade belongs to its meaning (RFC 9110 §15.2.2, §15.5.22).
    fn may_name_upgrade(&self) -> bool {
        matches!(self.status, 101 | 426)
    }

    /// Whether it has a field Upgrade.
    pub(crate) fn names_upgrade(&self) -> bool {
        self.names_upgrade
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The reason phrase.
    pub fn reason(&self) -> &[u8] {
        &self.reason
    }

    /// The fields in their order, names as they were given; without Content-Length.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.split(|byte| *byte == b'\n').filter_map(|line| {
            let at = memchr::memchr(b':', line)?;
            Some((&line[..at], line[at + 1..].trim_ascii()))
        })
    }

    /// The length of the body, where the application announced it.
    pub fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    /// The first field of this name; Content-Length is [`content_length`](Self::content_length).
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields.split(|byte| *byte == b'\n').find_map(|line| {
            let (field, value) = line.split_at_checked(name.len())?;
            let value = value.strip_prefix(b": ")?;
            field.eq_ignore_ascii_case(name.as_bytes()).then(|| value.trim_ascii_end())
        })
    }

    fn set_length(&mut self, value: &[u8]) -> Result<(), HeadFault> {
        let length = digits(value.trim_ascii()).ok_or(HeadFault::ContentLength)?;
        if self.content_length.is_some() {
            return Err(HeadFault::ContentLength);
        }
        self.content_length = Some(length);
        Ok(())
    }
}

/// The fields that the engine adds to a head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Finish<'a> {
    /// The version that the request spoke.
    pub version: Version,
    /// How the body is delimited.
    pub body: BodyFraming,
    /// Whether the connection goes on.
    pub keep_alive: bool,
    /// The fields of the server itself.
    pub stamp: Stamp<'a>,
}

/// The name of the server, and the time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp<'a> {
    /// The whole Server field (RFC 9110 §10.2.4) with its end; empty: none.
    pub server: &'a [u8],
    /// The Date field's value (RFC 9110 §5.6.7).
    pub date: &'a [u8],
}

/// How a response's body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyFraming {
    /// By the Content-Length that the head has already, or there is none.
    Given,
    /// By a Content-Length that the engine adds.
    Length(u64),
    /// By chunks.
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// Appends the bytes of an interim response to `out`: its status and its fields, nothing else (RFC 8297 §2).
pub(crate) fn write_interim(out: &mut Vec<u8>, head: &ResponseHead) {
    write_status(out, head);
    out.extend_from_slice(&head.fields);
    out.extend_from_slice(b"\r\n");
}

fn write_status(out: &mut Vec<u8>, head: &ResponseHead) {
    let mut number = itoa::Buffer::new();
    for part in [b"HTTP/1.1 ", number.format(head.status).as_bytes(), b" ", &head.reason, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// Appends the bytes of a head to `out`.
///
/// We answer in HTTP/1.1 whatever the client speaks (RFC 9110 §2.5), with 1.0's rules where it speaks 1.0.
pub(crate) fn write_head(out: &mut Vec<u8>, head: &ResponseHead, finish: &Finish<'_>) {
    write_status(out, head);
    if !head.names_server {
        out.extend_from_slice(finish.stamp.server);
    }
    if !head.names_date {
        write_field(out, b"Date", finish.stamp.date);
    }
    match (finish.keep_alive, finish.version) {
        // RFC 9110 §7.8: with the field goes the connection option.
        _ if head.status == 101 => out.extend_from_slice(b"Connection: upgrade\r\n"),
        (true, _) if head.names_upgrade => out.extend_from_slice(b"Connection: upgrade\r\n"),
        (false, _) if head.names_upgrade => out.extend_from_slice(b"Connection: close, upgrade\r\n"),
        (false, _) => out.extend_from_slice(b"Connection: close\r\n"),
        (true, Version::Http10) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        (true, Version::Http11) => {}
    }
    let length = match finish.body {
        BodyFraming::Given => head.content_length.filter(|_| may_have_length(head.status)),
        BodyFraming::Length(length) => Some(length),
        BodyFraming::Chunked | BodyFraming::UntilClose => None,
    };
    if let Some(length) = length {
        write_field(out, b"Content-Length", itoa::Buffer::new().format(length).as_bytes());
    }
    if finish.body == BodyFraming::Chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    out.extend_from_slice(&head.fields);
    out.extend_from_slice(b"\r\n");
}

/// Whether a response to `method` with `status` may have a body (RFC 9110 §6.4.1).
pub(crate) fn may_have_body(method: &str, status: u16) -> bool {
    method != "HEAD" && !(100..200).contains(&status) && ![204, 205, 304].contains(&status)
}

/// Whether a response with `status` may name a length: one of 304 is that of the answer it stands for, one of 1xx or
/// 204 would be taken for a body's (RFC 9110 §8.6).
fn may_have_length(status: u16) -> bool {
    status >= 200 && status != 204
}

/// The standard reason phrase of the statuses that the engine itself answers with.
fn reason_of(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Internal Server Error",
    }
}

/// RFC 9110 §5.6.2.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Visible characters, blanks and tabs (RFC 9110 §5.5).
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 127)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finish(version: Version, body: BodyFraming, keep_alive: bool) -> Finish<'static> {
        let stamp = Stamp { server: b"Server: mcsup\r\n", date: b"D" };
        Finish { version, body, keep_alive, stamp }
    }

    #[test]
    fn a_head_has_what_the_application_gave_and_what_the_engine_owes() {
        let mut head = ResponseHead::new();
        head.begin(404, b"Not Here").unwrap();
        head.push(b"X-A", b"caf\xe9").unwrap();
        let mut out = Vec::new();
        write_head(&mut out, &head, &finish(Version::Http11, BodyFraming::Length(3), true));
        assert_eq!(
            out,
            b"HTTP/1.1 404 Not Here\r\nServer: mcsup\r\nDate: D\r\nContent-Length: 3\r\nX-A: caf\xe9\r\n\r\n"
        );
        assert_eq!(head.field("x-a"), Some(&b"caf\xe9"[..]));
    }

    #[test]
    fn nothing_that_a_client_could_misread_gets_in() {
        let mut head = ResponseHead::new();
        assert!(head.push(b"X", b"a\r\nSet-Cookie: b").is_err());
        assert!(head.push(b"X", b"a\nb").is_err());
        assert!(head.push(b"X", b"a\0").is_err());
        assert!(head.push(b"X Y", b"a").is_err());
        assert!(head.push(b"", b"a").is_err());
        assert!(head.begin(200, b"OK\r\nX: y").is_err());
        assert!(head.begin(99, b"").is_err());
        assert!(head.push(b"Content-Length", b"+1").is_err());
        head.push(b"Content-Length", b"1").unwrap();
        assert!(head.push(b"content-length", b"1").is_err());
    }

    #[test]
    fn what_concerns_the_connection_is_the_engines_business() {
        let mut head = ResponseHead::new();
        for name in HOP_BY_HOP {
            head.push(name.to_uppercase().as_bytes(), b"x").unwrap();
        }
        assert!(head.fields.is_empty());
    }

    #[test]
    fn an_upgrade_field_goes_with_its_connection_option_where_the_status_has_a_meaning_for_it() {
        let written = |status, keep_alive| {
            let mut head = ResponseHead::new();
            head.begin(status, b"R").unwrap();
            head.push(b"Upgrade", b"websocket").unwrap();
            head.push(b"Connection", b"Upgrade").unwrap();
            let mut out = Vec::new();
            write_head(&mut out, &head, &finish(Version::Http11, BodyFraming::Given, keep_alive));
            String::from_utf8(out).unwrap().replace("Server: mcsup\r\nDate: D\r\n", "")
        };
        let switches = "HTTP/1.1 101 R\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
        assert_eq!(written(101, false), switches);
        let required = "HTTP/1.1 426 R\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
        assert_eq!(written(426, true), required);
        assert_eq!(written(426, false), required.replace(": upgrade", ": close, upgrade"));
        assert_eq!(written(200, true), "HTTP/1.1 200 R\r\n\r\n");
    }

    #[test]
    fn every_refusal_has_the_reason_phrase_of_its_status() {
        for reject in super::super::reject::ALL {
            assert_ne!(reason_of(reject.status), reason_of(500), "{reject}");
        }
    }

    #[test]
    fn the_applications_date_and_server_win() {
        let mut head = ResponseHead::new();
        head.push(b"Date", b"then").unwrap();
        head.push(b"Server", b"me").unwrap();
        let mut out = Vec::new();
        write_head(&mut out, &head, &finish(Version::Http10, BodyFraming::UntilClose, false));
        assert_eq!(out, b"HTTP/1.1 200 OK\r\nConnection: close\r\nDate: then\r\nServer: me\r\n\r\n");
    }
}
