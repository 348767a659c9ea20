//! A request's head: found in the bytes that have arrived, checked, and kept as places in them.
//!
//! [`Heads`] is kept by a connection and reads one head after the other without allocating; [`Head`] is the view of
//! one for the rest of the crate.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::authority;
use super::framing::{Collected, Delimited};
use super::reject::{self, Reject};
use super::request_line::{self, Line, place};
use super::response::is_token;
use super::target::Parts;
use super::version::Version;

/// How large a request may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the request line; 0: only the engine's own bound, 64 KiB.
    pub line: usize,
    /// Header fields.
    pub fields: usize,
    /// Bytes of one field; 0: only the engine's own bound, 64 KiB.
    pub field_size: usize,
    /// Bytes of the body.
    pub body: u64,
}

impl Default for Limits {
    fn default() -> Self {
        // RFC 9112 §3 recommends at least 8000 bytes of a request line.
        Self { line: 8190, fields: 100, field_size: 8190, body: 1 << 30 }
    }
}

/// Places in a connection's bytes.
type Place = Range<usize>;

/// One head after the other on a connection.
#[derive(Debug, Default)]
pub struct Heads {
    /// How far the lines have been looked at, and how many there were: a head that drips in is not read twice.
    looked_at: usize,
    line_start: usize,
    lines: usize,
    /// Empty lines before the request line.
    empty_lines: usize,
    /// Where the request line ends, once it is whole.
    line_end: usize,
    /// Whether the places from here on are those of a request line that was understood.
    is_known: bool,
    method: Place,
    target: Place,
    /// Of an absolute target; empty where there is none.
    authority: Place,
    path: Place,
    query: Place,
    version: Version,
    fields: Vec<(Place, Place)>,
    delimited: Delimited,
}

/// The head of one request.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    bytes: &'a [u8],
    heads: &'a Heads,
}

impl Heads {
    /// Looks for a whole head at the beginning of `bytes`, which is what has arrived so far. Returns its length, with
    /// the empty line; `None`: more must arrive.
    ///
    /// After a head was found, call [`Heads::reset`] before the next.
    pub fn read(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<usize>, Reject> {
        let read = self.find_end(bytes, limits).and_then(|end| match end {
            Some(end) => self.parse(&bytes[..end], &bytes[..end]).map(|()| Some(end)),
            None => Ok(None),
        });
        // Its own fault comes before those of fields, whether these have arrived or not.
        if !matches!(read, Ok(Some(_))) && self.line_end > 0 && !self.is_known {
            self.know(request_line::read(&bytes[..self.line_end])?);
        }
        read
    }

    /// Whether the request line was understood: then a view says what was asked, also of a head that is refused or not whole.
    /// It has the fields where all of them were taken apart, otherwise none.
    pub fn is_known(&self) -> bool {
        self.is_known
    }

    /// How many of `bytes`, at whose beginning a request is expected, are empty lines: they are no part of it (RFC 9112
    /// §2.2). Those beyond the bound are left to [`Heads::read`], which refuses them.
    pub fn pass_over_empty_lines(&mut self, bytes: &[u8]) -> usize {
        let mut passed = 0;
        while self.empty_lines < MOST_EMPTY_LINES && bytes[passed..].starts_with(b"\r\n") {
            self.empty_lines += 1;
            passed += 2;
        }
        passed
    }

    /// Forgets the head that was read.
    pub fn reset(&mut self) {
        (self.looked_at, self.line_start, self.lines, self.empty_lines) = (0, 0, 0, 0);
        (self.line_end, self.is_known) = (0, false);
        self.fields.clear();
    }

    /// The head that was read from `bytes`.
    pub fn view<'a>(&'a self, bytes: &'a [u8]) -> Head<'a> {
        Head { bytes, heads: self }
    }

    /// How the body is delimited, and whether the connection goes on.
    pub fn delimited(&self) -> Delimited {
        self.delimited
    }

    /// Goes from line to line, measuring each; the empty line ends the head.
    fn find_end(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<usize>, Reject> {
        loop {
            self.check_first_byte(bytes)?;
            let Some(found) = memchr::memchr(b'\n', &bytes[self.looked_at..]) else { break };
            let end = self.looked_at + found;
            if end == self.line_start || bytes[end - 1] != b'\r' {
                return Err(reject::BARE_LF);
            }
            let length = end - 1 - self.line_start;
            (self.looked_at, self.line_start) = (end + 1, end + 1);
            match (length, self.lines) {
                // RFC 9112 §2.2: empty lines before a request line are ignored; httparse skips them too. Those that a connection has sent
                (0, 0) if self.empty_lines < MOST_EMPTY_LINES => {
                    self.empty_lines += 1;
                    continue;
                }
                (0, 0) => return Err(reject::REQUEST_LINE),
                (0, _) => return Ok(Some(end + 1)),
                _ => self.measure(length, limits)?,
            }
            if self.lines == 0 {
                self.line_end = end + 1;
            }
            self.lines += 1;
        }
        self.looked_at = bytes.len();
        // The CR of a line's end is none of its bytes; and where nothing else is there yet, this may be the empty line,
        // which is no field.
        let line = &bytes[self.line_start..];
        match line.strip_suffix(b"\r").unwrap_or(line).len() {
            0 => {}
            length => self.measure(length, limits)?,
        }
        Ok(None)
    }

    /// Refuses at once a request line that begins with a byte of no method: other protocols may send no line end, and
    /// their clients would wait for the deadline.
    fn check_first_byte(&self, bytes: &[u8]) -> Result<(), Reject> {
        match bytes.get(self.line_start) {
            Some(&byte) if self.lines == 0 && !is_token(byte) && byte != b'\r' && byte != b'\n' => {
                Err(reject::REQUEST_LINE)
            }
            _ => Ok(()),
        }
    }

    /// `self.lines` lines came before this one.
    fn measure(&self, length: usize, limits: &Limits) -> Result<(), Reject> {
        match self.lines {
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

    /// `known`: `bytes`, in a form that httparse knows.
    fn parse(&mut self, known: &[u8], bytes: &[u8]) -> Result<(), Reject> {
        let mut few = [const { MaybeUninit::uninit() }; USUAL_FIELDS];
        let mut many = Vec::new();
        let room = if self.lines <= USUAL_FIELDS {
            &mut few[..]
        } else {
            many.resize_with(self.lines, MaybeUninit::uninit);
            &mut many[..]
        };
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(known, room) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err(reject::REQUEST_LINE),
            Err(error) => {
                return match request_line::known_form(known, error) {
                    Some(known) => self.parse(&known, bytes),
                    None => Err(request_line::explain(error, bytes)),
                };
            }
        }
        self.know(request_line::take_apart(&request, known, bytes)?);
        self.read_fields(known, request.headers)
    }

    fn know(&mut self, line: Line) {
        let Line { method, target, parts: Parts { authority, path, query }, version } = line;
        let start = target.start;
        let in_bytes = |part: Place| start + part.start..start + part.end;
        (self.authority, self.path, self.query) = (in_bytes(authority), in_bytes(path), in_bytes(query));
        (self.method, self.target, self.version) = (method, target, version);
        self.is_known = true;
    }

    fn read_fields(&mut self, bytes: &[u8], headers: &[httparse::Header<'_>]) -> Result<(), Reject> {
        let mut collected = Collected::default();
        let (mut hosts, mut types, mut host, mut found) = (0, 0, None, Ok(()));
        for header in headers {
            let (name, value) = (header.name.as_bytes(), header.value.trim_ascii());
            // A proxy may know a field with a hyphen that CGI cannot tell from one with an underscore: such fields
            // are how clients forge what only a proxy may say.
            if memchr::memchr(b'_', name).is_some() {
                continue;
            }
            let mut judge = |judged: Result<(), Reject>| found = found.and(judged);
            match name.len() {
                4 if name.eq_ignore_ascii_case(b"host") => {
                    judge(if authority::is_host_field(value) { Ok(()) } else { Err(reject::HOST) });
                    hosts += 1;
                    host = Some(self.fields.len());
                }
                6 if name.eq_ignore_ascii_case(b"expect") => judge(collected.expect(value)),
                10 if name.eq_ignore_ascii_case(b"connection") => collected.connection(value),
                12 if name.eq_ignore_ascii_case(b"content-type") => types += 1,
                14 if name.eq_ignore_ascii_case(b"content-length") => judge(collected.content_length(value)),
                17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                    judge(collected.transfer_encoding(value));
                }
                _ => {}
            }
            // Also behind a fault: the access log names what was asked.
            self.fields.push((place(bytes, name), place(bytes, value)));
        }
        found?;
        match hosts {
            0 if self.version == Version::Http11 => return Err(reject::HOST_MISSING),
            0 | 1 => {}
            _ => return Err(reject::HOST_REPEATED),
        }
        if types > 1 {
            return Err(reject::TYPE_REPEATED);
        }
        if let Some((_, value)) = host.and_then(|host| self.fields.get_mut(host)) {
            // RFC 9112 §3.2.2: the target's authority counts, and what the field says does not.
            if !self.authority.is_empty() {
                *value = self.authority.clone();
            }
        }
        self.delimited = collected.decide(self.version)?;
        Ok(())
    }
}

impl<'a> Head<'a> {
    /// The method: uppercase.
    pub fn method(&self) -> &'a str {
        std::str::from_utf8(self.at(&self.heads.method)).unwrap_or_default()
    }

    /// The request target as sent.
    pub fn target(&self) -> &'a [u8] {
        self.at(&self.heads.target)
    }

    /// Host and port of an absolute target. They are the value of Host as well, where there is that field.
    pub fn authority(&self) -> Option<&'a [u8]> {
        Some(self.at(&self.heads.authority)).filter(|authority| !authority.is_empty())
    }

    /// The target's path, not decoded, without query; `/` where an absolute target has none; `*` for OPTIONS.
    pub fn path(&self) -> &'a [u8] {
        match self.at(&self.heads.path) {
            b"" => b"/",
            path => path,
        }
    }

    /// The target's query, not decoded, without the question mark.
    pub fn query(&self) -> &'a [u8] {
        self.at(&self.heads.query)
    }

    /// The protocol version.
    pub fn version(&self) -> Version {
        self.heads.version
    }

    /// Name and value of each field, in order, without those whose name has an underscore.
    pub fn headers(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let Head { bytes, heads } = *self;
        heads.fields.iter().map(move |(name, value)| (&bytes[name.clone()], &bytes[value.clone()]))
    }

    /// The first field of this name.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers().find(|(other, _)| other.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// How the body is delimited, and whether the connection goes on.
    pub fn delimited(&self) -> Delimited {
        self.heads.delimited
    }

    fn at(&self, place: &Place) -> &'a [u8] {
        &self.bytes[place.clone()]
    }
}

/// Largest number of fields without an allocation.
const USUAL_FIELDS: usize = 128;

/// The number of empty lines before a request line that are passed over.
const MOST_EMPTY_LINES: usize = 4;

/// The longest request line or field where the limit is off.
const MAX_LINE: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::super::framing::Framing;
    use super::*;

    fn read(bytes: &[u8]) -> Result<Option<usize>, Reject> {
        Heads::default().read(bytes, &Limits::default())
    }

    fn framing(fields: &str) -> Result<Delimited, Reject> {
        let text = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let mut heads = Heads::default();
        heads.read(text.as_bytes(), &Limits::default()).map(|_| heads.delimited())
    }

    #[test]
    fn a_head_is_read_and_taken_apart() {
        let bytes = b"\r\nGET /a%20b?c=d HTTP/1.1\r\nHost: h\r\nX-One:  1 \r\nX_Two: 2\r\n\r\nrest";
        let mut heads = Heads::default();
        assert_eq!(heads.read(bytes, &Limits::default()), Ok(Some(bytes.len() - 4)));
        let head = heads.view(bytes);
        assert_eq!(head.method(), "GET");
        assert_eq!(head.target(), b"/a%20b?c=d");
        assert_eq!((head.path(), head.query()), (&b"/a%20b"[..], &b"c=d"[..]));
        let fields: Vec<_> = head.headers().collect();
        assert_eq!(fields, [(&b"Host"[..], &b"h"[..]), (b"X-One", b"1")]);
        assert_eq!(head.header("x-one"), Some(&b"1"[..]));
        assert!(head.delimited().keep_alive);
    }

    #[test]
    fn every_form_of_target_is_taken_apart() {
        for (line, path, query) in [
            ("GET http://h/p?q HTTP/1.1", "/p", "q"),
            ("GET http://h HTTP/1.1", "/", ""),
            ("GET HTTP://h?q HTTP/1.1", "/", "q"),
            ("OPTIONS * HTTP/1.1", "*", ""),
            ("GET //a HTTP/1.1", "//a", ""),
        ] {
            let bytes = format!("{line}\r\nHost: h\r\n\r\n");
            let mut heads = Heads::default();
            heads.read(bytes.as_bytes(), &Limits::default()).unwrap();
            let head = heads.view(bytes.as_bytes());
            assert_eq!((head.path(), head.query()), (path.as_bytes(), query.as_bytes()), "{line}");
        }
    }

    #[test]
    fn an_absolute_target_overrides_host() {
        for (text, hosts) in [
            ("GET http://h:81/ HTTP/1.1\r\nHost: other\r\n\r\n", vec![&b"h:81"[..]]),
            ("GET http://h/ HTTP/1.1\r\nHost:\r\n\r\n", vec![b"h"]),
            ("GET http://h/ HTTP/1.0\r\n\r\n", vec![]),
            ("GET / HTTP/1.1\r\nHost: other\r\n\r\n", vec![b"other"]),
        ] {
            let mut heads = Heads::default();
            heads.read(text.as_bytes(), &Limits::default()).unwrap();
            let head = heads.view(text.as_bytes());
            let fields: Vec<_> = head.headers().map(|(_, value)| value).collect();
            assert_eq!(fields, hosts, "{text:?}");
            assert_eq!(head.authority().is_some(), text.contains("http:"), "{text:?}");
        }
    }

    #[test]
    fn a_later_minor_version_is_read_as_the_latest_that_is_known() {
        for minor in 1..=9 {
            let text = format!("\r\nGET /a HTTP/1.{minor}\r\nHost: h\r\nX: y\r\n\r\n");
            let mut heads = Heads::default();
            assert_eq!(heads.read(text.as_bytes(), &Limits::default()), Ok(Some(text.len())), "{text:?}");
            let head = heads.view(text.as_bytes());
            assert_eq!((head.version(), head.path()), (Version::Http11, &b"/a"[..]));
            assert_eq!((head.header("x"), head.delimited().keep_alive), (Some(&b"y"[..]), true));
        }
    }

    #[test]
    fn what_is_malformed_or_ambiguous_is_refused_with_its_reason() {
        let host = "Host: a\r\n";
        for (text, why) in [
            ("get / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::METHOD),
            ("GE / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::METHOD),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::REQUEST_LINE),
            ("GET x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::TARGET),
            ("GET * HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::TARGET),
            ("GET /\x1b HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::TARGET_BYTE),
            ("GET /\u{e9}\t HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::TARGET_BYTE),
            ("GET http://\u{e9}/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::AUTHORITY),
            ("GET ftp://h/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::SCHEME),
            ("GET h:1 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::TARGET),
            ("CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::TARGET),
            ("CONNECT h HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::TARGET),
            ("CONNECT h: HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::TARGET),
            ("CONNECT u@h:1 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::TARGET),
            ("CONNECT h:443 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::CONNECT),
            ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::FRAGMENT),
            ("GET http://h#b HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::FRAGMENT),
            ("GET http://u@h/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::AUTHORITY),
            ("GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::AUTHORITY),
            ("GET https://:80/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::AUTHORITY),
            ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::REQUEST_LINE),
            ("GET /a b HTTP/2.0\r\nHost: a\r\n\r\n".to_owned(), reject::REQUEST_LINE),
            ("GET / HTTP/1.10\r\nHost: a\r\n\r\n".to_owned(), reject::REQUEST_LINE),
            ("GET / HTTP/1.1\r\r\nHost: a\r\n\r\n".to_owned(), reject::REQUEST_LINE),
            ("\r\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::REQUEST_LINE),
            ("GET / HTTP/1.1\r\nHost: a\r\r\n\r\n".to_owned(), reject::FIELD),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\r\n\r\n".to_owned(), reject::FIELD),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned(), reject::VERSION),
            ("GET / HTTP/0.9\r\nHost: a\r\n\r\n".to_owned(), reject::VERSION),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n".to_owned(), reject::HOST),
            ("GET / HTTP/1.0\r\nHost: a/b\r\n\r\n".to_owned(), reject::HOST),
            ("GET http://h/ HTTP/1.1\r\nHost: a:b\r\n\r\n".to_owned(), reject::HOST),
            ("GET http://h/ HTTP/1.1\r\n\r\n".to_owned(), reject::HOST_MISSING),
            ("\u{16}".to_owned(), reject::REQUEST_LINE),
            ("\r\n{".to_owned(), reject::REQUEST_LINE),
            ("GET / HTTP/1.1\nHost: a\r\n\r\n".to_owned(), reject::BARE_LF),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n".to_owned(), reject::BARE_LF),
            ("GET / HTTP/1.1\r\n\r\n".to_owned(), reject::HOST_MISSING),
            (format!("GET / HTTP/1.1\r\n{host}{host}\r\n"), reject::HOST_REPEATED),
            (format!("GET / HTTP/1.1\r\n{host}X : y\r\n\r\n"), reject::FIELD_NAME),
            (format!("GET / HTTP/1.1\r\n{host}X\r\n\r\n"), reject::FIELD_NAME),
            (format!("GET / HTTP/1.1\r\n{host}X: a\r\n b\r\n\r\n"), reject::FOLDED),
            (format!("GET / HTTP/1.1\r\n{host}X: a\0b\r\n\r\n"), reject::FIELD),
            ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), reject::CODING_ON_1_0),
        ] {
            assert_eq!(read(text.as_bytes()), Err(why), "{text:?}");
        }
    }

    #[test]
    fn the_end_of_a_body_has_one_answer_or_none() {
        let length = "Content-Length: 5\r\n";
        let chunked = "Transfer-Encoding: chunked\r\n";
        assert_eq!(framing("").unwrap().framing, Framing::Empty);
        assert_eq!(framing(length).unwrap().framing, Framing::Length(5));
        assert_eq!(framing(chunked).unwrap().framing, Framing::Chunked);
        for (fields, why) in [
            (format!("{length}{chunked}"), reject::LENGTH_AND_CODING),
            (format!("{length}{length}"), reject::LENGTH_REPEATED),
            ("Content-Length: 5, 5\r\n".to_owned(), reject::LENGTH),
            ("Content-Length: +5\r\n".to_owned(), reject::LENGTH),
            ("Content-Length: -0\r\n".to_owned(), reject::LENGTH),
            ("Content-Length: 0_1\r\n".to_owned(), reject::LENGTH),
            ("Content-Length:\r\n".to_owned(), reject::LENGTH),
            ("Content-Length: 99999999999999999999\r\n".to_owned(), reject::LENGTH),
            (format!("{chunked}{chunked}"), reject::CODING),
            ("Transfer-Encoding: chunked, gzip\r\n".to_owned(), reject::CODING),
            ("Transfer-Encoding: gzip, chunked\r\n".to_owned(), reject::CODING_UNKNOWN),
            ("Transfer-Encoding: xchunked\r\n".to_owned(), reject::CODING_UNKNOWN),
            ("Transfer-Encoding:\r\n".to_owned(), reject::CODING),
            ("Expect: more\r\n".to_owned(), reject::EXPECTATION),
            ("Expect: 100-continue, more\r\n".to_owned(), reject::EXPECTATION),
        ] {
            assert_eq!(framing(&fields), Err(why), "{fields:?}");
        }
    }

    #[test]
    fn the_connection_goes_on_as_both_sides_say() {
        for (version, fields, expected) in [
            ("1.1", "", true),
            ("1.1", "Connection: close\r\n", false),
            ("1.1", "Connection: foo, Close\r\n", false),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
            ("1.0", "Connection: keep-alive, close\r\n", false),
        ] {
            let text = format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n");
            let mut heads = Heads::default();
            heads.read(text.as_bytes(), &Limits::default()).unwrap();
            assert_eq!(heads.delimited().keep_alive, expected, "{text:?}");
        }
    }

    #[test]
    fn limits_hold_also_while_the_head_is_not_whole() {
        let long = "a".repeat(9000);
        assert_eq!(read(format!("GET /{long}").as_bytes()), Err(reject::LINE_SIZE));
        let (just, more) = ("a".repeat(8190 - 14), "a".repeat(8190 - 13));
        let text = |path: &str| format!("GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(read(text(&just).as_bytes()).unwrap().is_some());
        assert_eq!(read(text(&more).as_bytes()), Err(reject::LINE_SIZE));
        assert_eq!(read(format!("GET / HTTP/1.1\r\nX: {long}").as_bytes()), Err(reject::FIELD_SIZE));
        let limits = Limits { field_size: 0, ..Limits::default() };
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n");
        assert!(Heads::default().read(text.as_bytes(), &limits).unwrap().is_some());
        let many = "X: y\r\n".repeat(101);
        assert_eq!(read(format!("GET / HTTP/1.1\r\n{many}").as_bytes()), Err(reject::FIELD_COUNT));
        let most = "X: y\r\n".repeat(99);
        assert!(read(format!("GET / HTTP/1.1\r\nHost: a\r\n{most}\r\n").as_bytes()).unwrap().is_some());
        let limits = Limits { fields: 300, ..Limits::default() };
        let many = "X: y\r\n".repeat(299);
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n");
        assert!(Heads::default().read(text.as_bytes(), &limits).unwrap().is_some());
    }

    #[test]
    fn a_head_that_drips_in_is_looked_at_once() {
        let text =
            format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", format!("X: {}\r\n", "x".repeat(8000)).repeat(90));
        let (mut heads, mut seen) = (Heads::default(), 0);
        for end in (1000..text.len()).step_by(1000) {
            // A second look would find bare LFs. The last byte may be the CR before one that comes.
            let mut bytes = text.as_bytes()[..end].to_vec();
            bytes[..usize::saturating_sub(seen, 1)].fill(b'\n');
            assert_eq!(heads.read(&bytes, &Limits::default()), Ok(None), "{end}");
            seen = end;
        }
        assert_eq!(heads.read(text.as_bytes(), &Limits::default()), Ok(Some(text.len())));
    }

    #[test]
    fn a_head_that_just_keeps_the_limits_is_accepted_wherever_it_is_cut() {
        let limits = Limits { line: 14, fields: 2, field_size: 9, body: 0 };
        let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nX: yyyy\r\n\r\n";
        for cut in 0..bytes.len() {
            let mut heads = Heads::default();
            assert_eq!(heads.read(&bytes[..cut], &limits), Ok(None), "{cut}");
            assert_eq!(heads.read(bytes, &limits), Ok(Some(bytes.len())), "{cut}");
        }
        for (bytes, why) in [
            (&b"GET /a HTTP/1.1"[..], reject::LINE_SIZE),
            (b"GET / HTTP/1.1\r\nX: yyyyy", reject::FIELD_SIZE),
            (b"GET / HTTP/1.1\r\nX: y\r\nX: y\r\nX", reject::FIELD_COUNT),
        ] {
            assert_eq!(Heads::default().read(bytes, &limits), Err(why));
        }
    }
}
