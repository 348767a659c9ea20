//! gunicorn's access-log atoms, compiled once, and the JSON form.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use jiff::ZonedDateTime;

use super::Entry;
use super::conversion::Conversion;
use crate::http::target::percent_decoded;

/// How a line looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    text: String,
    form: Form,
    /// The names of the variables of the environ that it has, as they are written.
    variables: Vec<String>,
    /// The names that are no atoms.
    unknown: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    /// Text and atoms.
    Text(Vec<Part>),
    /// One JSON object a line.
    Json,
}

/// A piece of a text format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// Itself.
    Text(String),
    /// A value of the request.
    Atom(Atom),
    /// The same with a width or another conversion.
    Converted(Atom, Conversion),
}

/// A value of a request, by gunicorn's letter.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is gunicorn's letter, given in `Atom::parse`")]
pub(super) enum Atom {
    RemoteAddress,
    /// Of `%(l)s`, and of a name that is no atom.
    Dash,
    User,
    Time,
    RequestLine,
    Status,
    Method,
    Path,
    Query,
    Protocol,
    Bytes,
    NumberOfBytes,
    Referer,
    UserAgent,
    Seconds,
    Milliseconds,
    Microseconds,
    DecimalSeconds,
    ProcessId,
    RequestField(String),
    ResponseField(String),
    /// With its place among the variables of its format.
    Variable(String, usize),
}

impl Format {
    /// gunicorn's default.
    pub const DEFAULT: &str = r#"%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s""#;

    /// Whether a line is a JSON object.
    pub(super) fn is_json(&self) -> bool {
        self.form == Form::Json
    }

    /// The format as it was given.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The names of the variables of the environ that a line has.
    pub fn variables(&self) -> &[String] {
        &self.variables
    }

    /// The names that are no atoms, and have a dash for a value.
    pub fn unknown(&self) -> &[String] {
        &self.unknown
    }

    /// Compiles a format; the word `json` asks for JSON.
    ///
    /// # Errors
    /// An invalid part of the format, and its position.
    pub fn parse(text: &str) -> Result<Self, String> {
        let whole = text.to_owned();
        if text == "json" {
            return Ok(Self { text: whole, form: Form::Json, variables: Vec::new(), unknown: Vec::new() });
        }
        let (mut parts, mut literal, mut rest) = (Vec::new(), String::new(), text);
        let (mut variables, mut unknown) = (Vec::new(), Vec::new());
        while let Some(at) = rest.find('%') {
            literal.push_str(&rest[..at]);
            let behind = &rest[at + 1..];
            if let Some(behind) = behind.strip_prefix('%') {
                literal.push('%');
                rest = behind;
                continue;
            }
            let wrong = || format!("access log format: expected %(atom)s at {:?}", &rest[at..]);
            let (name, behind) = name_of(behind).ok_or_else(wrong)?;
            let (conversion, behind) = Conversion::parse(behind).ok_or_else(wrong)?;
            let mut atom = Atom::parse(name).unwrap_or_else(|| {
                unknown.push(name.to_owned());
                Atom::Dash
            });
            if conversion.is_of_numbers() && !atom.is_number() {
                return Err(format!("access log format: %({name}) is no number at {:?}", &rest[at..]));
            }
            if let Atom::Variable(name, place) = &mut atom {
                *place = variables.len();
                variables.push(name.clone());
            }
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(if conversion.is_plain() {
                Part::Atom(atom)
            } else {
                Part::Converted(atom, conversion)
            });
            rest = behind;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self { text: whole, form: Form::Text(parts), variables, unknown })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>, entry: &Entry<'_>, clock: &mut Clock) {
        match &self.form {
            Form::Json => write_json(out, entry, clock),
            Form::Text(parts) => {
                for part in parts {
                    match part {
                        Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                        Part::Atom(atom) => write_atom(out, atom, entry, clock),
                        Part::Converted(atom, conversion) => {
                            let mut value = Vec::new();
                            write_atom(&mut value, atom, entry, clock);
                            conversion.write(out, &value);
                        }
                    }
                }
                out.push(b'\n');
            }
        }
    }
}

/// The name at the beginning of `(NAME)`, which may have pairs of parentheses itself, and the rest.
fn name_of(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix('(')?;
    let mut depth = 0;
    let end = text.find(|letter| {
        depth += i32::from(letter == '(') - i32::from(letter == ')');
        depth < 0
    })?;
    Some((&text[..end], &text[end + 1..]))
}

impl Atom {
    /// Whether gunicorn has a number for it, not text.
    fn is_number(&self) -> bool {
        matches!(self, Self::NumberOfBytes | Self::Seconds | Self::Milliseconds | Self::Microseconds)
    }

    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "h" => Atom::RemoteAddress,
            "l" => Atom::Dash,
            "u" => Atom::User,
            "t" => Atom::Time,
            "r" => Atom::RequestLine,
            "s" => Atom::Status,
            "m" => Atom::Method,
            "U" => Atom::Path,
            "q" => Atom::Query,
            "H" => Atom::Protocol,
            "b" => Atom::Bytes,
            "B" => Atom::NumberOfBytes,
            "f" => Atom::Referer,
            "a" => Atom::UserAgent,
            "T" => Atom::Seconds,
            "M" => Atom::Milliseconds,
            "D" => Atom::Microseconds,
            "L" => Atom::DecimalSeconds,
            "p" => Atom::ProcessId,
            _ => {
                let (field, kind) = name.strip_prefix('{')?.split_once('}')?;
                match kind {
                    "i" => Atom::RequestField(field.to_owned()),
                    "o" => Atom::ResponseField(field.to_owned()),
                    "e" => Atom::Variable(field.to_owned(), 0),
                    _ => return None,
                }
            }
        })
    }
}

/// The time as the log writes it, made once a second.
#[derive(Debug, Default)]
pub(super) struct Clock {
    second: u64,
    common: String,
    rfc3339: String,
}

impl Clock {
    fn tick(&mut self) {
        let now =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        if now != self.second {
            let zoned = ZonedDateTime::now();
            self.second = now;
            self.common.clear();
            self.rfc3339.clear();
            // Writing to a string cannot fail, and the formats are in order.
            let _ = write!(self.common, "{}", zoned.strftime("[%d/%b/%Y:%H:%M:%S %z]"));
            let _ = write!(self.rfc3339, "{}", zoned.strftime("%Y-%m-%dT%H:%M:%S%:z"));
        }
    }

    fn common(&mut self) -> &str {
        self.tick();
        &self.common
    }

    fn rfc3339(&mut self) -> &str {
        self.tick();
        &self.rfc3339
    }
}

fn write_atom(out: &mut Vec<u8>, atom: &Atom, entry: &Entry<'_>, clock: &mut Clock) {
    let Entry { head, response, bytes, took, left, .. } = entry;
    let head = head.as_ref();
    match atom {
        Atom::RemoteAddress => match entry.client() {
            _ if left.remote.is_some() => escaped(out, left.remote.as_deref()),
            Some(remote) => put(out, format_args!("{}", remote.ip())),
            None => out.push(b'-'),
        },
        Atom::Dash => out.push(b'-'),
        Atom::User => escaped(out, user(entry).as_deref()),
        Atom::Time => out.extend_from_slice(clock.common().as_bytes()),
        Atom::RequestLine => match head {
            Some(head) => {
                out.extend_from_slice(head.method().as_bytes());
                out.push(b' ');
                escaped(out, Some(head.target()));
                put(out, format_args!(" {}", head.version().as_str()));
            }
            None => out.push(b'-'),
        },
        Atom::Status => put(out, format_args!("{}", response.status())),
        Atom::Method => escaped(out, head.map(|head| head.method().as_bytes())),
        // PATH_INFO has no percent-encoding.
        Atom::Path => escaped(out, head.map(|head| percent_decoded(head.path())).as_deref()),
        Atom::Query => escaped(out, Some(head.map(|head| head.query()).unwrap_or_default())),
        Atom::Protocol => escaped(out, head.map(|head| head.version().as_str().as_bytes())),
        // gunicorn writes 0 for an empty body, whatever the common log format says.
        Atom::Bytes | Atom::NumberOfBytes => put(out, format_args!("{bytes}")),
        Atom::Referer => escaped(out, head.and_then(|head| head.header("referer"))),
        Atom::UserAgent => escaped(out, head.and_then(|head| head.header("user-agent"))),
        Atom::Seconds => put(out, format_args!("{}", took.as_secs())),
        Atom::Milliseconds => put(out, format_args!("{}", took.as_millis())),
        Atom::Microseconds => put(out, format_args!("{}", took.as_micros())),
        Atom::DecimalSeconds => put(out, format_args!("{:.6}", took.as_secs_f64())),
        Atom::ProcessId => put(out, format_args!("<{}>", std::process::id())),
        // Of several fields the last, as with gunicorn.
        Atom::RequestField(name) => escaped(out, head.and_then(|head| last(head.headers(), name))),
        Atom::ResponseField(name) if name.eq_ignore_ascii_case("content-length") => {
            escaped(
                out,
                response.content_length().map(|length| length.to_string()).as_deref().map(str::as_bytes),
            );
        }
        Atom::ResponseField(name) => escaped(out, last(response.fields(), name)),
        Atom::Variable(name, place) => match left.variables.get(*place) {
            Some(value) => escaped(out, value.as_deref()),
            // The application did not get the request.
            None => escaped(out, variable(entry, &name.to_uppercase()).as_deref()),
        },
    }
}

/// The value of an atom, by its name; a dash if there is none.
pub(super) fn value(name: &str, entry: &Entry<'_>, clock: &mut Clock) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some(atom) = Atom::parse(name) {
        write_atom(&mut out, &atom, entry, clock);
    }
    out
}

/// A value as it stands in a line.
pub(super) fn as_in_a_line(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    escaped(&mut out, Some(value));
    out
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a vector cannot fail.
    let _ = out.write_fmt(text);
}

/// A value so that it can neither end its quotes nor its line: quotes, backslashes and control characters escaped.
fn escaped(out: &mut Vec<u8>, value: Option<&[u8]>) {
    let Some(value) = value else { return out.push(b'-') };
    for &byte in value {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b' '..=b'~' => out.push(byte),
            _ => put(out, format_args!("\\x{byte:02x}")),
        }
    }
}

/// The last field of this name.
fn last<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>, name: &str) -> Option<&'a [u8]> {
    fields.filter(|(other, _)| other.eq_ignore_ascii_case(name.as_bytes())).last().map(|(_, value)| value)
}

/// The name in a Basic Authorization field.
fn user(entry: &Entry<'_>) -> Option<Vec<u8>> {
    let value = entry.head?.header("authorization")?;
    let (scheme, code) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(code.trim_ascii()).ok()?;
    decoded.split(|byte| *byte == b':').next().filter(|name| !name.is_empty()).map(<[u8]>::to_vec)
}

/// The client's address, or what the application has replaced it with.
fn remote_address(entry: &Entry<'_>) -> Option<Vec<u8>> {
    let own = || entry.client().map(|remote| remote.ip().to_string().into_bytes());
    entry.left.remote.clone().or_else(own)
}

/// The value of a CGI variable that the request determines.
fn variable(entry: &Entry<'_>, name: &str) -> Option<Vec<u8>> {
    let head = entry.head?;
    let owned = |bytes: &[u8]| Some(bytes.to_vec());
    match name {
        "REQUEST_METHOD" => owned(head.method().as_bytes()),
        "PATH_INFO" => Some(percent_decoded(head.path())),
        "QUERY_STRING" => owned(head.query()),
        "RAW_URI" | "REQUEST_URI" => owned(head.target()),
        "SERVER_PROTOCOL" => owned(head.version().as_str().as_bytes()),
        "REMOTE_ADDR" => remote_address(entry),
        "REMOTE_PORT" => entry.client().map(|remote| remote.port().to_string().into_bytes()),
        "CONTENT_TYPE" => owned(head.header("content-type")?),
        "CONTENT_LENGTH" => owned(head.header("content-length")?),
        _ => owned(head.header(&name.strip_prefix("HTTP_")?.replace('_', "-"))?),
    }
}

fn write_json(out: &mut Vec<u8>, entry: &Entry<'_>, clock: &mut Clock) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let field = |name: &str| entry.head.and_then(|head| head.header(name)).map(text);
    let head = entry.head.as_ref();
    let line = serde_json::json!({
        "remote_addr": remote_address(entry).as_deref().map(text),
        "user": user(entry).as_deref().map(text),
        "time": clock.rfc3339(),
        "method": head.map(|head| head.method()),
        "path": head.map(|head| text(head.path())),
        "query": head.map(|head| text(head.query())),
        "protocol": head.map(|head| head.version().as_str()),
        "status": entry.response.status(),
        "bytes": entry.bytes,
        "duration_us": u64::try_from(entry.took.as_micros()).unwrap_or(u64::MAX),
        "referer": field("referer"),
        "user_agent": field("user-agent"),
        "pid": std::process::id(),
    });
    put(out, format_args!("{line}\n"));
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
