//! A request line (RFC 9112 §3): checked as soon as it is whole, with the forms of it that httparse does not know.

use std::ops::Range;

use super::reject::{self, Reject};
use super::target::{self, Parts};
use super::version::Version;

/// A place in a connection's bytes.
pub(super) type Place = Range<usize>;

/// A request line taken apart: places in the bytes that it was read from.
#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) method: Place,
    pub(super) target: Place,
    /// Of an absolute target; empty for another one.
    pub(super) authority: Place,
    pub(super) path: Place,
    pub(super) query: Place,
    pub(super) version: Version,
}

/// Takes a whole line apart, with its CRLF and perhaps empty lines before it.
///
/// # Errors
/// The refusal that a head with this line gets, whatever its fields are.
pub(super) fn read(line: &[u8]) -> Result<Line, Reject> {
    read_as(line, line)
}

/// `known`: `line`, in a form that httparse knows.
fn read_as(known: &[u8], line: &[u8]) -> Result<Line, Reject> {
    let mut request = httparse::Request::new(&mut []);
    if let Err(error) = request.parse(known) {
        return match known_form(known, error) {
            Some(known) => read_as(&known, line),
            // There is no other line whose end can be wrong.
            None if error == httparse::Error::NewLine => Err(reject::REQUEST_LINE),
            None => Err(explain(error, line)),
        };
    }
    take_apart(&request, known, line)
}

/// The line of a request that httparse has read. `known`: what it was read from, `bytes` in a form that httparse knows.
///
/// # Errors
/// The refusal of its method or target.
pub(super) fn take_apart(
    request: &httparse::Request<'_, '_>,
    known: &[u8],
    bytes: &[u8],
) -> Result<Line, Reject> {
    let version = if request.version == Some(0) { Version::Http10 } else { Version::Http11 };
    let method = request.method.unwrap_or_default();
    check_method(method)?;
    let target = place(known, request.path.unwrap_or_default().as_bytes());
    let Parts { authority, path, query } = target::split(&bytes[target.clone()], method)?;
    let in_bytes = |part: Place| target.start + part.start..target.start + part.end;
    let (authority, path, query) = (in_bytes(authority), in_bytes(path), in_bytes(query));
    Ok(Line { method: place(known, method.as_bytes()), target, authority, path, query, version })
}

/// gunicorn's rules: stricter than a token, so that a TLS handshake or a typing error is not taken for a method.
fn check_method(method: &str) -> Result<(), Reject> {
    let fits = (3..=20).contains(&method.len());
    let plain = method.bytes().all(|byte| !byte.is_ascii_lowercase() && byte != b'#');
    if fits && plain { Ok(()) } else { Err(reject::METHOD) }
}

/// A head that httparse refuses with `error`, of the same length and with a request line that it knows: a later minor
/// version is processed as the latest that is known (RFC 9110 §2.5), and a byte of the target that is no ASCII is taken
/// as it is. `None`: the request line has nothing of the kind.
pub(super) fn known_form(bytes: &[u8], error: httparse::Error) -> Option<Vec<u8>> {
    if !matches!(error, httparse::Error::Version | httparse::Error::Token) {
        return None;
    }
    let (target, version) = words_in(bytes)?;
    let is_later = matches!(&bytes[version.clone()], [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9']);
    if !is_later && bytes[target.clone()].is_ascii() {
        return None;
    }
    let mut known = bytes.to_vec();
    if is_later {
        known[version.end - 1] = b'1';
    }
    for byte in known[target].iter_mut().filter(|byte| !byte.is_ascii()) {
        *byte = b'x';
    }
    Some(known)
}

/// The refusal of a head that httparse refuses with `error`. [`read`] knows better where the fault is in the line.
pub(super) fn explain(error: httparse::Error, bytes: &[u8]) -> Reject {
    match error {
        httparse::Error::Version if names_a_version(bytes) => reject::VERSION,
        httparse::Error::Token if has_foreign_byte(bytes) => reject::TARGET_BYTE,
        httparse::Error::HeaderName if is_folded(bytes) => reject::FOLDED,
        httparse::Error::HeaderName => reject::FIELD_NAME,
        httparse::Error::HeaderValue | httparse::Error::NewLine => reject::FIELD,
        httparse::Error::TooManyHeaders => reject::FIELD_COUNT,
        _ => reject::REQUEST_LINE,
    }
}

/// Where `part`, a slice of `whole`, is in it.
pub(super) fn place(whole: &[u8], part: &[u8]) -> Place {
    let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
    if start > whole.len() {
        // An empty slice that httparse did not take from the bytes.
        return 0..0;
    }
    start..start + part.len()
}

/// The places of the second and the third word of a request line of three. `None`: it has another form.
fn words_in(bytes: &[u8]) -> Option<(Place, Place)> {
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    let line = bytes[start..].split(|byte| *byte == b'\r').next()?;
    let mut spaces = memchr::memchr_iter(b' ', line).map(|at| start + at);
    let (first, second) = (spaces.next()?, spaces.next()?);
    spaces.next().is_none().then_some((first + 1..second, second + 1..start + line.len()))
}

/// Whether the line ends with the version of some HTTP.
fn names_a_version(bytes: &[u8]) -> bool {
    words_in(bytes).is_some_and(|(_, version)| {
        matches!(&bytes[version], [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'])
    })
}

fn has_foreign_byte(bytes: &[u8]) -> bool {
    words_in(bytes).is_some_and(|(target, _)| !bytes[target].iter().all(|byte| target::may_have(*byte)))
}

fn is_folded(bytes: &[u8]) -> bool {
    bytes.windows(3).any(|window| matches!(window, [b'\r', b'\n', b' ' | b'\t']))
}
