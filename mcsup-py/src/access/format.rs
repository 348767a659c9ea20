//! gunicorn's access-log atoms, compiled once, and the JSON form.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use jiff::ZonedDateTime;

use super::Entry;

/// How a line looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// Text and atoms.
    Text(Vec<Part>),
    /// One JSON object a line.
    Json,
}

/// A piece of a text format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Itself.
    Text(String),
    /// A value of the request.
    Atom(Atom),
}

/// A value of a request, by gunicorn's letter.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is gunicorn's letter, given in `Atom::parse`")]
pub enum Atom {
    RemoteAddress,
    Dash,
    User,
    Time,
    RequestLine,
    Status,
    Method,
    Path,
    Query,
    Protocol,
    BytesOrDash,
    Bytes,
    Referer,
    UserAgent,
    Seconds,
    Milliseconds,
    Microseconds,
    DecimalSeconds,
    ProcessId,
    RequestField(String),
    ResponseField(String),
    Variable(String),
}

impl Format {
    /// gunicorn's default.
    pub const DEFAULT: &str = r#"%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s""#;

    /// Compiles a format; the word `json` asks for JSON.
    ///
    /// # Errors
    /// An invalid part of the format, and its position.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "json" {
            return Ok(Format::Json);
        }
        let (mut parts, mut literal, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find('%') {
            literal.push_str(&rest[..at]);
            let behind = &rest[at + 1..];
            if let Some(behind) = behind.strip_prefix('%') {
                literal.push('%');
                rest = behind;
                continue;
            }
            let wrong = || format!("access log format: expected %(atom)s at {:?}", &rest[at..]);
            let (name, behind) =
                behind.strip_prefix('(').and_then(|text| text.split_once(")s")).ok_or_else(wrong)?;
            let atom =
                Atom::parse(name).ok_or_else(|| format!("access log format: unknown atom %({name})s"))?;
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(Part::Atom(atom));
            rest = behind;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Format::Text(parts))
    }

    pub(super) fn write(&self, out: &mut Vec<u8>, entry: &Entry<'_>, clock: &mut Clock) {
        match self {
            Format::Json => write_json(out, entry, clock),
            Format::Text(parts) => {
                for part in parts {
                    match part {
                        Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                        Part::Atom(atom) => write_atom(out, atom, entry, clock),
                    }
                }
                out.push(b'\n');
            }
        }
    }
}

impl Atom {
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
            "b" => Atom::BytesOrDash,
            "B" => Atom::Bytes,
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
                    "e" => Atom::Variable(field.to_uppercase()),
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
    let Entry { head, response, bytes, took, .. } = entry;
    let head = head.as_ref();
    match atom {
        Atom::RemoteAddress => match entry.client() {
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
        Atom::Path => escaped(out, head.map(|head| head.path())),
        // An empty query is an empty word, as gunicorn has it.
        Atom::Query => {
            let query = head.map(|head| head.query()).unwrap_or_default();
            if !query.is_empty() {
                escaped(out, Some(query));
            }
        }
        Atom::Protocol => escaped(out, head.map(|head| head.version().as_str().as_bytes())),
        Atom::BytesOrDash if *bytes == 0 => out.push(b'-'),
        Atom::BytesOrDash | Atom::Bytes => put(out, format_args!("{bytes}")),
        Atom::Referer => escaped(out, head.and_then(|head| head.header("referer"))),
        Atom::UserAgent => escaped(out, head.and_then(|head| head.header("user-agent"))),
        Atom::Seconds => put(out, format_args!("{}", took.as_secs())),
        Atom::Milliseconds => put(out, format_args!("{}", took.as_millis())),
        Atom::Microseconds => put(out, format_args!("{}", took.as_micros())),
        Atom::DecimalSeconds => put(out, format_args!("{:.6}", took.as_secs_f64())),
        Atom::ProcessId => put(out, format_args!("<{}>", std::process::id())),
        Atom::RequestField(name) => escaped(out, head.and_then(|head| head.header(name))),
        Atom::ResponseField(name) if name.eq_ignore_ascii_case("content-length") => {
            escaped(
                out,
                response.content_length().map(|length| length.to_string()).as_deref().map(str::as_bytes),
            );
        }
        Atom::ResponseField(name) => escaped(out, response.field(name)),
        Atom::Variable(name) => escaped(out, variable(entry, name).as_deref()),
    }
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a vector cannot fail.
    let _ = out.write_fmt(text);
}

/// A value so that it can neither end its quotes nor its line: quotes, backslashes and control characters escaped.
fn escaped(out: &mut Vec<u8>, value: Option<&[u8]>) {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return out.push(b'-') };
    for &byte in value {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b' '..=b'~' => out.push(byte),
            _ => put(out, format_args!("\\x{byte:02x}")),
        }
    }
}

/// The name in a Basic Authorization field.
fn user(entry: &Entry<'_>) -> Option<Vec<u8>> {
    let value = entry.head?.header("authorization")?;
    let (scheme, code) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(code.trim_ascii()).ok()?;
    decoded.split(|byte| *byte == b':').next().map(<[u8]>::to_vec)
}

/// The value of a CGI variable that the request determines.
fn variable(entry: &Entry<'_>, name: &str) -> Option<Vec<u8>> {
    let head = entry.head?;
    let owned = |bytes: &[u8]| Some(bytes.to_vec());
    match name {
        "REQUEST_METHOD" => owned(head.method().as_bytes()),
        "PATH_INFO" => owned(head.path()),
        "QUERY_STRING" => owned(head.query()),
        "RAW_URI" | "REQUEST_URI" => owned(head.target()),
        "SERVER_PROTOCOL" => owned(head.version().as_str().as_bytes()),
        "REMOTE_ADDR" => entry.client().map(|remote| remote.ip().to_string().into_bytes()),
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
        "remote_addr": entry.client().map(|remote| remote.ip().to_string()),
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
mod tests {
    use super::*;
    use crate::http::head::{Heads, Limits};
    use crate::http::response::ResponseHead;

    fn line(format: &str, request: &str) -> String {
        let mut heads = Heads::default();
        heads.read(request.as_bytes(), &Limits::default()).unwrap();
        let mut response = ResponseHead::new();
        response.push(b"X-Id", b"7").unwrap();
        response.push(b"Content-Length", b"3").unwrap();
        let entry = Entry {
            head: Some(heads.view(request.as_bytes())),
            remote: Some("192.0.2.1:5".parse().unwrap()),
            response: &response,
            bytes: 3,
            took: Duration::from_micros(1_234_567),
        };
        let mut out = Vec::new();
        Format::parse(format).unwrap().write(&mut out, &entry, &mut Clock::default());
        String::from_utf8(out).unwrap()
    }

    const REQUEST: &str = "GET /a?b=c HTTP/1.1\r\nHost: h\r\nUser-Agent: x\"y\\\r\n\
        Authorization: Basic bWU6cHc=\r\n\r\n";

    #[test]
    fn every_atom_has_gunicorns_meaning() {
        for (format, expected) in [
            ("%(h)s %(l)s %(u)s", "192.0.2.1 - me"),
            ("%(r)s", "GET /a?b=c HTTP/1.1"),
            ("%(m)s|%(U)s|%(q)s|%(H)s", "GET|/a|b=c|HTTP/1.1"),
            ("%(s)s %(b)s %(B)s", "200 3 3"),
            ("%(f)s %(a)s", r#"- x\"y\\"#),
            ("%(T)s %(M)s %(D)s %(L)s", "1 1234 1234567 1.234567"),
            ("%({host}i)s %({x-id}o)s %({x}o)s %({content-length}o)s", "h 7 - 3"),
            ("%({REQUEST_METHOD}e)s %({HTTP_HOST}e)s %({NO}e)s", "GET h -"),
            ("100%%", "100%"),
        ] {
            assert_eq!(line(format, REQUEST), format!("{expected}\n"), "{format}");
        }
        assert_eq!(line("%(p)s", REQUEST), format!("<{}>\n", std::process::id()));
    }

    #[test]
    fn the_time_has_the_common_logs_form() {
        let time = line("%(t)s", REQUEST);
        assert_eq!((time.len(), &time[..1], &time[3..4]), (29, "[", "/"), "{time}");
    }

    #[test]
    fn json_is_one_object_a_line() {
        let line = line("json", REQUEST);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (line.matches('\n').count(), &value["status"], &value["user_agent"]),
            (1, &200.into(), &"x\"y\\".into())
        );
    }

    #[test]
    fn a_format_that_cannot_be_meant_is_refused() {
        for text in ["%(x)s", "%h", "%(h)d", "%({x}z)s"] {
            assert!(Format::parse(text).is_err(), "{text}");
        }
        Format::parse(Format::DEFAULT).unwrap();
    }
}
