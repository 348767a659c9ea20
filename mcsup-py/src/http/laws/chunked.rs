//! The laws of the chunked coding.

use super::super::chunked::{Decoder, LAST_CHUNK, write_chunk};
use super::super::reject::Reject;
use super::{Shown, is_text, is_token, take_field, take_line};

/// The result of decoding a body.
#[derive(Debug, PartialEq, Eq)]
struct Decoded {
    data: Vec<u8>,
    is_done: bool,
    taken: usize,
}

/// The laws of a chunked body, for whatever `bytes`, also as they come in pieces of `size` bytes:
///
/// - It never panics, takes no more than there is, and hands out no more than it took.
/// - Pieces come to the same as the whole.
/// - What follows the body is not taken, whatever it is.
/// - What was accepted is what the grammar says: lines that end in CRLF, extensions with a name and perhaps a value,
///   trailer fields that do not say how the message is to be read.
///
/// # Panics
/// Where a law is broken.
pub fn chunked(bytes: &[u8], size: usize) {
    let size = size.max(1);
    let whole = decode(bytes, usize::MAX);
    for size in [1, size] {
        assert_eq!(whole, decode(bytes, size), "pieces of {size} come to something else");
    }
    let Ok(decoded) = whole else { return };
    assert!(decoded.taken <= bytes.len() && decoded.data.len() <= decoded.taken);
    if !decoded.is_done {
        assert_eq!(decoded.taken, bytes.len(), "the body goes on, and bytes are left");
        return;
    }
    let body = &bytes[..decoded.taken];
    assert_eq!(Shown(&by_the_grammar(body)), Shown(&decoded.data), "the grammar says something else");
    for next in [&b""[..], b"0\r\n\r\n", b"\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\0"] {
        let followed = [body, next].concat();
        assert_eq!(decode(&followed, size).as_ref(), Ok(&decoded), "what follows a body changed it");
    }
}

/// The law of the encoder: `data` comes back from its chunks of `size` bytes, and what follows them is left.
///
/// # Panics
/// Where it is broken.
pub fn chunks_of(data: &[u8], size: usize) {
    let size = size.max(1);
    let mut body = Vec::new();
    for chunk in data.chunks(size) {
        write_chunk(&mut body, chunk);
    }
    body.extend_from_slice(LAST_CHUNK);
    let expected = Decoded { data: data.to_vec(), is_done: true, taken: body.len() };
    body.extend_from_slice(data);
    for size in [1, size, usize::MAX] {
        assert_eq!(decode(&body, size).as_ref(), Ok(&expected), "not what was encoded");
    }
}

/// Decodes `bytes` as they come in pieces of `size`.
fn decode(bytes: &[u8], size: usize) -> Result<Decoded, Reject> {
    let mut decoder = Decoder::default();
    let (mut data, mut taken) = (Vec::new(), 0);
    for piece in bytes.chunks(size) {
        let count = decoder.decode(piece, |part| data.extend_from_slice(part))?;
        assert!(count == piece.len() || decoder.is_done(), "bytes are left before the body's end");
        taken += count;
    }
    Ok(Decoded { data, is_done: decoder.is_done(), taken })
}

/// The data of a whole body (RFC 9112 §7.1), which has nothing behind it.
fn by_the_grammar(body: &[u8]) -> Vec<u8> {
    let (mut rest, mut data) = (body, Vec::new());
    loop {
        let line = take_line(&mut rest);
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (digits, extension) = line.split_at(digits);
        let zeros = digits.iter().take_while(|byte| **byte == b'0').count();
        assert!(digits.len() <= 256, "a size of too many digits: {:?}", Shown(line));
        assert!(digits.len() - zeros <= 16, "a size that no u64 has: {:?}", Shown(line));
        let size = std::str::from_utf8(digits).ok().and_then(|digits| usize::from_str_radix(digits, 16).ok());
        let Some(size) = size else { panic!("a chunk without a size: {:?}", Shown(line)) };
        assert!(are_extensions(extension), "no extensions: {:?}", Shown(line));
        if size == 0 {
            break;
        }
        data.extend_from_slice(&rest[..size]);
        rest = &rest[size..];
        assert!(take_line(&mut rest).is_empty(), "a chunk is longer than it says");
    }
    loop {
        let line = take_line(&mut rest);
        if line.is_empty() {
            assert!(rest.is_empty(), "the body ends before its end: {:?}", Shown(body));
            return data;
        }
        let (name, _) = take_field(line);
        let reframes = ["content-length", "transfer-encoding", "host"];
        assert!(
            !reframes.iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes())),
            "{:?}",
            Shown(line)
        );
    }
}

/// RFC 9112 §7.1.1.
fn are_extensions(bytes: &[u8]) -> bool {
    let Some(rest) = behind_blanks(bytes).strip_prefix(b";") else { return bytes.is_empty() };
    let Some(rest) = behind_token(behind_blanks(rest)) else { return false };
    let Some(value) = behind_blanks(rest).strip_prefix(b"=") else { return are_extensions(rest) };
    let value = behind_blanks(value);
    let rest = if value.starts_with(b"\"") { behind_quoted(value) } else { behind_token(value) };
    rest.is_some_and(are_extensions)
}

fn behind_blanks(bytes: &[u8]) -> &[u8] {
    let blanks = bytes.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    &bytes[blanks..]
}

fn behind_token(bytes: &[u8]) -> Option<&[u8]> {
    let length = bytes.iter().take_while(|byte| is_token(&[**byte])).count();
    (length > 0).then(|| &bytes[length..])
}

/// RFC 9110 §5.6.4.
fn behind_quoted(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.strip_prefix(b"\"")?;
    loop {
        rest = match rest {
            [b'"', behind @ ..] => return Some(behind),
            [b'\\', byte, behind @ ..] | [byte, behind @ ..] if is_text(*byte) => behind,
            _ => return None,
        };
    }
}
