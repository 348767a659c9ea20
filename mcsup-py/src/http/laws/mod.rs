//! The laws of this folder's parsers: properties that hold for any bytes of a client.
//!
//! Each law is a plain function that panics where it is broken. The fuzz targets in `mcsup-py/fuzz` and the tests
//! beside this file call the same ones. A build without tests and without the feature `laws` has none of them.
//!
//! The laws read a message a second time, in the plainest way and without regard to speed, and compare: so they must
//! not use the parsers' own means.

mod authority;
mod chunked;
mod head;
mod target;

pub use authority::authority;
pub use chunked::{chunked, chunks_of};
pub use head::head;
pub use target::target;

/// Blanks that may stand around a value (RFC 9110 §5.6.3).
fn without_blanks(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// Takes the line at the front of `rest`, and its end, which is the two bytes of a CRLF and no other.
fn take_line<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let Some(length) = rest.windows(2).position(|pair| pair == b"\r\n") else {
        panic!("a line without an end: {:?}", Shown(rest));
    };
    let (line, after) = rest.split_at(length);
    *rest = &after[2..];
    assert!(line.iter().all(|byte| is_text(*byte)), "control bytes in a line: {:?}", Shown(line));
    line
}

/// Name and value of a field's line (RFC 9112 §5).
fn take_field(line: &[u8]) -> (&[u8], &[u8]) {
    let Some(colon) = line.iter().position(|byte| *byte == b':') else {
        panic!("a field without a colon: {:?}", Shown(line));
    };
    let (name, value) = (&line[..colon], without_blanks(&line[colon + 1..]));
    assert!(is_token(name), "a field name that is no token: {:?}", Shown(name));
    (name, value)
}

/// RFC 9110 §5.6.2.
fn is_token(bytes: &[u8]) -> bool {
    let fits = |byte: &u8| byte.is_ascii_graphic() && !br#""(),/:;<=>?@[\]{}"#.contains(byte);
    !bytes.is_empty() && bytes.iter().all(fits)
}

/// Host and port in a target that begins with a scheme.
fn authority_in(target: &[u8]) -> Option<&[u8]> {
    if target.starts_with(b"/") || target == b"*" {
        return None;
    }
    let start = target.windows(3).position(|three| three == b"://")? + 3;
    let rest = &target[start..];
    Some(rest.split(|byte| matches!(byte, b'/' | b'?')).next().unwrap_or(rest))
}

/// Neither a control byte nor DEL; a tab is text.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 127)
}

/// No control byte, blank or DEL.
fn is_visible(byte: u8) -> bool {
    byte > b' ' && byte != 127
}

/// Bytes, shown as text in a law's complaint.
#[derive(PartialEq, Eq)]
struct Shown<'a>(&'a [u8]);

impl std::fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests;
