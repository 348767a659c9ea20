//! A request's head: found in the bytes that have arrived, checked, and kept as places in them.
//!
//! [`Heads`] is kept by a connection and reads one head after the other without allocating; [`Head`] is the view of
//! one for the rest of the crate.

mod lines;

use core::net::SocketAddr;
use std::mem::MaybeUninit;

use super::authority;
use super::framing::{Collected, Delimited};
use super::reject::{self, Reject};
use super::request_line::{self, Line, Place, place};
use super::version::Version;
use crate::trust::{Claims, Kept, Malformed, Reader, mount_point};
use lines::Lines;

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

/// One head after the other on a connection.
#[derive(Debug, Default)]
pub(crate) struct Heads {
    lines: Lines,
    /// Whether `line` is the request line of this head.
    is_known: bool,
    line: Line,
    /// Names and values.
    fields: Vec<(Place, Place)>,
    delimited: Delimited,
    claims: Claims,
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
    /// After a head was found, call [`Heads::reset`] before the next. `rules`: those for the fields of the peer.
    pub(crate) fn read_by(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
        rules: Reader<'_>,
    ) -> Result<Option<usize>, Reject> {
        let read = self.lines.find_end(bytes, limits).and_then(|end| match end {
            Some(end) => self.parse(&bytes[..end], &bytes[..end], rules).map(|()| Some(end)),
            None => Ok(None),
        });
        // Its own fault comes before those of fields, whether these have arrived or not.
        if !matches!(read, Ok(Some(_))) && self.lines.first_end > 0 && !self.is_known {
            self.line = request_line::read(&bytes[..self.lines.first_end])?;
            self.is_known = true;
        }
        read
    }

    /// As [`Heads::read_by`], from a peer that is not trusted.
    #[cfg(any(test, feature = "laws"))]
    pub(crate) fn read(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<usize>, Reject> {
        self.read_by(bytes, limits, crate::trust::FieldRules::NONE.reader(false))
    }

    /// Whether the request line was understood: then a view says what was asked, also of a head that is refused or not whole.
    /// It has the fields where all of them were taken apart, otherwise none.
    pub(crate) fn is_known(&self) -> bool {
        self.is_known
    }

    /// How many of `bytes`, at whose beginning a request is expected, are empty lines: they are no part of it (RFC 9112
    /// §2.2). [`Heads::read_by`] refuses a request with more than a few.
    pub(crate) fn pass_over_empty_lines(&mut self, bytes: &[u8]) -> usize {
        self.lines.pass_over_empty(bytes)
    }

    /// Forgets the head that was read.
    pub(crate) fn reset(&mut self) {
        (self.lines, self.is_known, self.claims) = (Lines::default(), false, Claims::default());
        self.fields.clear();
    }

    /// The head that was read from `bytes`.
    pub(crate) fn view<'a>(&'a self, bytes: &'a [u8]) -> Head<'a> {
        Head { bytes, heads: self }
    }

    /// How the body is delimited, and whether the connection goes on.
    pub(crate) fn delimited(&self) -> Delimited {
        self.delimited
    }

    /// `known`: `bytes`, in a form that httparse knows.
    fn parse(&mut self, known: &[u8], bytes: &[u8], rules: Reader<'_>) -> Result<(), Reject> {
        let mut few = [const { MaybeUninit::uninit() }; USUAL_FIELDS];
        let mut many = Vec::new();
        let room = if self.lines.count <= USUAL_FIELDS {
            &mut few[..]
        } else {
            many.resize_with(self.lines.count, MaybeUninit::uninit);
            &mut many[..]
        };
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(known, room) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err(reject::REQUEST_LINE),
            Err(error) => {
                return match request_line::known_form(known, error) {
                    Some(known) => self.parse(&known, bytes, rules),
                    None => Err(request_line::explain(error, bytes)),
                };
            }
        }
        self.line = request_line::take_apart(&request, known, bytes)?;
        self.is_known = true;
        self.read_fields(known, request.headers, rules)?;
        self.check_mount_point(bytes)
    }

    fn read_fields(
        &mut self,
        bytes: &[u8],
        headers: &[httparse::Header<'_>],
        rules: Reader<'_>,
    ) -> Result<(), Reject> {
        let mut collected = Collected::default();
        let (mut hosts, mut types, mut host, mut found) = (0, 0, None, Ok(()));
        let mut claims = Claims::default();
        for header in headers {
            let (name, value) = (header.name.as_bytes(), header.value.trim_ascii());
            if rules.note(name, value, &mut claims).is_err() {
                found = found.and(Err(reject::SCHEMES));
            }
            // A proxy may know a field with a hyphen that CGI cannot tell from one with an underscore: such fields
            // are how clients forge what only a proxy may say.
            if memchr::memchr(b'_', name).is_some() {
                match rules.underscored(name, self.fields.len(), &mut claims) {
                    Kept::Yes => {}
                    Kept::No => continue,
                    Kept::Refused => found = found.and(Err(reject::UNDERSCORE)),
                    Kept::Repeated => found = found.and(Err(reject::SCRIPT_NAME_REPEATED)),
                }
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
        if rules.counts_hops() {
            let place = |(name, value): &(Place, Place)| (&bytes[name.clone()], &bytes[value.clone()]);
            match rules.client(self.fields.iter().map(place)) {
                Ok(client) => claims.client = client,
                Err(Malformed) => found = found.and(Err(reject::FORWARDED)),
            }
        }
        self.claims = claims;
        found?;
        match hosts {
            0 if self.line.version == Version::Http11 => return Err(reject::HOST_MISSING),
            0 | 1 => {}
            _ => return Err(reject::HOST_REPEATED),
        }
        if types > 1 {
            return Err(reject::TYPE_REPEATED);
        }
        if let Some((_, value)) = host.and_then(|host| self.fields.get_mut(host)) {
            // RFC 9112 §3.2.2: the target's authority counts, and what the field says does not.
            if !self.line.authority.is_empty() {
                *value = self.line.authority.clone();
            }
        }
        self.delimited = collected.decide(self.line.version)?;
        Ok(())
    }
}

impl Heads {
    /// A field that names a mount point is believed if the path confirms it. A client that can send the field through
    /// its proxy changes the links of a page in no other way than by the URL of the request.
    fn check_mount_point(&self, bytes: &[u8]) -> Result<(), Reject> {
        let head = self.view(bytes);
        match head.script_name() {
            Some(name) if !mount_point::is_path(name) => Err(reject::SCRIPT_NAME_FORM),
            Some(name) if mount_point::below(head.path(), &mount_point::of(name)).is_none() => {
                Err(reject::SCRIPT_NAME_ELSEWHERE)
            }
            _ => Ok(()),
        }
    }
}

impl<'a> Head<'a> {
    /// The bytes that it was read from.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The method: uppercase.
    pub fn method(&self) -> &'a str {
        std::str::from_utf8(self.at(&self.heads.line.method)).unwrap_or_default()
    }

    /// The request target as sent.
    pub fn target(&self) -> &'a [u8] {
        self.at(&self.heads.line.target)
    }

    /// Host and port of an absolute target. They are the value of Host as well, where there is that field.
    pub fn authority(&self) -> Option<&'a [u8]> {
        Some(self.at(&self.heads.line.authority)).filter(|authority| !authority.is_empty())
    }

    /// The target's path, not decoded, without query; `/` where an absolute target has none; `*` for OPTIONS.
    pub fn path(&self) -> &'a [u8] {
        match self.at(&self.heads.line.path) {
            b"" => b"/",
            path => path,
        }
    }

    /// The target's query, not decoded, without the question mark.
    pub fn query(&self) -> &'a [u8] {
        self.at(&self.heads.line.query)
    }

    /// The protocol version.
    pub fn version(&self) -> Version {
        self.heads.line.version
    }

    /// Name and value of each field, in order; those whose name has an underscore as the rules for them say.
    pub fn headers(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let Head { bytes, heads } = *self;
        heads.fields.iter().map(move |(name, value)| (&bytes[name.clone()], &bytes[value.clone()]))
    }

    /// The first field of this name.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers().find(|(other, _)| other.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// How the body is delimited, and whether the connection goes on.
    pub(crate) fn delimited(&self) -> Delimited {
        self.heads.delimited
    }

    /// The scheme of the request, where fields of a trusted proxy name it.
    pub fn scheme(&self) -> Option<&'static str> {
        self.heads.claims.is_https.map(|is_https| if is_https { "https" } else { "http" })
    }

    /// The mount point of the application as a field of a trusted proxy names it: the path begins with it.
    pub fn script_name(&self) -> Option<&'a [u8]> {
        let (_, value) = self.heads.fields.get(self.heads.claims.script_name?)?;
        Some(self.at(value))
    }

    /// The client's address, where trusted hops name it; its port is 0 where they name none.
    pub fn client(&self) -> Option<SocketAddr> {
        self.heads.claims.client
    }

    fn at(&self, place: &Place) -> &'a [u8] {
        &self.bytes[place.clone()]
    }
}

/// Largest number of fields without an allocation.
const USUAL_FIELDS: usize = 128;

#[cfg(test)]
mod tests;
