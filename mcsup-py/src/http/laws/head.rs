//! The laws of heads and of framing.

use super::super::framing::{Delimited, Framing};
use super::super::head::{Heads, Limits};
use super::super::reject::{self, Reject};
use super::super::version::Version;
use super::authority::by_the_grammar;
use super::{Shown, authority_in, is_token, is_visible, take_field, take_line};

/// So tight that a fuzzer comes to them.
const TIGHT: Limits = Limits { line: 40, fields: 4, field_size: 30, body: 10 };

/// None but the engine's own.
const LOOSE: Limits = Limits { line: 0, fields: usize::MAX, field_size: 0, body: 0 };

/// The content of a head.
#[derive(Debug, PartialEq, Eq)]
struct Said<'a> {
    method: &'a str,
    target: &'a [u8],
    path: &'a [u8],
    query: &'a [u8],
    version: Version,
    fields: Vec<(&'a [u8], &'a [u8])>,
    delimited: Delimited,
}

/// The laws of a head, for whatever `bytes`, also as they come in pieces of `size` bytes:
///
/// - It never panics.
/// - Pieces come to the same as the whole, and a head is seen with its last byte. What follows it changes nothing.
/// - What was accepted is what the grammar says: lines that end in CRLF, tokens, no control byte, a host where one is
///   named. Written again in the plainest way it says the same.
/// - The host of an absolute target is the only one.
/// - A body has one end: never both a length and a coding, nor two of either.
/// - What a request line says is known before its fields have come, and whatever they are.
/// - A limit that a head just keeps does not refuse it, and a limit never changes what a head says.
///
/// # Panics
/// Where a law is broken.
pub fn head(bytes: &[u8], size: usize) {
    for limits in [Limits::default(), TIGHT, LOOSE] {
        let Some(end) = is_the_same_in_pieces(bytes, size, &limits) else { continue };
        let head = &bytes[..end];
        let mut heads = Heads::default();
        assert_eq!(heads.read(head, &limits), Ok(Some(end)), "what follows a head changed it");
        let said = said(&heads, head);
        is_as_the_grammar_says(head, &said);
        has_one_framing(&said);
        comes_to_the_same_when_written_again(&said);
        is_asked_whatever_follows_the_line(head, &said);
        let just = limits_just_kept(head);
        assert_eq!(is_the_same_in_pieces(bytes, size, &just), Some(end), "{just:?} refuses what keeps them");
        assert!(keeps(&just, &limits), "a head of {just:?} was accepted with {limits:?}");
    }
}

/// Reads `bytes` at once, byte by byte and in pieces; the head's length, if it was accepted.
fn is_the_same_in_pieces(bytes: &[u8], size: usize, limits: &Limits) -> Option<usize> {
    let mut heads = Heads::default();
    let whole = heads.read(bytes, limits);
    let mut other = Heads::default();
    for size in [1, size.max(1)] {
        let (pieces, arrived) = read_in_pieces(&mut other, bytes, size, limits);
        match (whole, pieces) {
            (Ok(Some(end)), Ok(Some(same))) => {
                assert_eq!(end, same, "pieces of {size} end elsewhere");
                assert!(arrived < end + size, "the head of {end} bytes was seen late, at {arrived}");
                assert_eq!(said(&heads, bytes), said(&other, bytes), "pieces of {size} say something else");
            }
            // What is too long is refused before its end is there, and so before the end can be found wrong.
            (Err(_), Err(early)) if is_too_large(early) => {}
            _ => assert_eq!(whole, pieces, "pieces of {size} are answered otherwise"),
        }
        // The next head on a connection finds nothing of the last.
        other.reset();
    }
    whole.ok().flatten()
}

/// The answer, and how many bytes it took.
fn read_in_pieces(
    heads: &mut Heads,
    bytes: &[u8],
    size: usize,
    limits: &Limits,
) -> (Result<Option<usize>, Reject>, usize) {
    let mut arrived = 0;
    loop {
        let answer = heads.read(&bytes[..arrived], limits);
        if arrived == bytes.len() || answer != Ok(None) {
            return (answer, arrived);
        }
        arrived = (arrived + size).min(bytes.len());
    }
}

fn said<'a>(heads: &'a Heads, bytes: &'a [u8]) -> Said<'a> {
    let head = heads.view(bytes);
    Said {
        method: head.method(),
        target: head.target(),
        path: head.path(),
        query: head.query(),
        version: head.version(),
        fields: head.headers().collect(),
        delimited: head.delimited(),
    }
}

fn is_as_the_grammar_says(head: &[u8], said: &Said<'_>) {
    let mut rest = without_empty_lines(head);
    let mut line = take_line(&mut rest).to_vec();
    if let [.., b' ', b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ b'2'..=b'9'] = &mut line[..] {
        // RFC 9110 §2.5: as the latest that is known.
        *minor = b'1';
    }
    let plain = [said.method.as_bytes(), said.target, said.version.as_str().as_bytes()].join(&b' ');
    assert_eq!(Shown(&line), Shown(&plain), "the request line says something else");
    assert!(is_token(said.method.as_bytes()), "the method is no token: {:?}", said.method);
    assert!(
        said.target.iter().all(|byte| is_visible(*byte)),
        "the target is no URI: {:?}",
        Shown(said.target)
    );

    let mut fields = Vec::new();
    loop {
        let line = take_line(&mut rest);
        if line.is_empty() {
            break;
        }
        let mut field = take_field(line);
        if field.0.eq_ignore_ascii_case(b"host") {
            let has_host = |value: &[u8]| by_the_grammar(value).is_some_and(|(host, _)| !host.is_empty());
            assert!(field.1.is_empty() || has_host(field.1), "no host: {:?}", Shown(line));
            field.1 = authority_in(said.target).unwrap_or(field.1);
        }
        // They are how clients forge what only a proxy may say.
        if !field.0.contains(&b'_') {
            fields.push(field);
        }
    }
    assert!(rest.is_empty(), "the head ends before its end: {:?}", Shown(head));
    assert_eq!(fields, said.fields, "the fields say something else");
}

fn has_one_framing(said: &Said<'_>) {
    let values = |name: &str| -> Vec<&[u8]> {
        let named = said.fields.iter().filter(|field| field.0.eq_ignore_ascii_case(name.as_bytes()));
        named.map(|field| field.1).collect()
    };
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    assert!(lengths.len() <= 1, "more than one length");
    assert!(lengths.is_empty() || codings.is_empty(), "both a length and a coding");
    assert!(values("host").len() <= 1, "more than one host");
    assert!(said.version == Version::Http10 || values("host").len() == 1, "no host");
    let members = codings.join(&b',');
    let members: Vec<_> = members.split(|byte| *byte == b',').map(super::without_blanks).collect();
    let members: Vec<_> = members.into_iter().filter(|member| !member.is_empty()).collect();
    match said.delimited.framing {
        Framing::Chunked => {
            assert!(said.version == Version::Http11, "a coding that 1.0 does not know");
            assert!(members.len() == 1 && members[0].eq_ignore_ascii_case(b"chunked"), "another coding");
        }
        Framing::Empty | Framing::Length(_) if !codings.is_empty() => panic!("a coding is passed over"),
        Framing::Length(length) => {
            let zeros = lengths[0].iter().take_while(|byte| **byte == b'0').count();
            assert_eq!(Shown(&lengths[0][zeros..]), Shown(length.to_string().as_bytes()), "another length");
        }
        Framing::Empty => {
            let all_zeros = |value: &&[u8]| !value.is_empty() && value.iter().all(|byte| *byte == b'0');
            assert!(lengths.iter().all(all_zeros), "a length is passed over");
        }
    }
    if said.delimited.expects_continue {
        assert!(said.delimited.framing != Framing::Empty, "a client waits to send nothing");
    }
}

fn comes_to_the_same_when_written_again(said: &Said<'_>) {
    let mut plain = [said.method.as_bytes(), said.target, said.version.as_str().as_bytes()].join(&b' ');
    for (name, value) in &said.fields {
        plain.extend_from_slice(b"\r\n");
        plain.extend_from_slice(name);
        plain.push(b':');
        plain.extend_from_slice(value);
    }
    plain.extend_from_slice(b"\r\n\r\n");
    let mut heads = Heads::default();
    assert_eq!(heads.read(&plain, &LOOSE), Ok(Some(plain.len())), "refused when written again");
    assert_eq!(self::said(&heads, &plain), *said, "says something else when written again");
}

fn is_asked_whatever_follows_the_line(head: &[u8], said: &Said<'_>) {
    let mut rest = without_empty_lines(head);
    take_line(&mut rest);
    let line = &head[..head.len() - rest.len()];
    for next in [&b""[..], b"X", b"X\r\n\r\n", b"\n", b"Host: a b\r\n\r\n"] {
        let bytes = [line, next].concat();
        let mut heads = Heads::default();
        assert!(!matches!(heads.read(&bytes, &LOOSE), Ok(Some(_))), "accepted: {:?}", Shown(&bytes));
        assert!(heads.is_known(), "not known: {:?}", Shown(&bytes));
        let asked = self::said(&heads, &bytes);
        assert_eq!((asked.method, asked.target), (said.method, said.target));
        assert_eq!((asked.path, asked.query, asked.version), (said.path, said.query, said.version));
    }
}

/// The least limits that this head keeps.
fn limits_just_kept(head: &[u8]) -> Limits {
    let mut rest = without_empty_lines(head);
    let mut limits = Limits { line: take_line(&mut rest).len(), fields: 0, field_size: 2, body: 0 };
    loop {
        let line = take_line(&mut rest);
        if line.is_empty() {
            return limits;
        }
        limits.fields += 1;
        // With the CRLF, as gunicorn counts.
        limits.field_size = limits.field_size.max(line.len() + 2);
    }
}

fn keeps(just: &Limits, limits: &Limits) -> bool {
    (limits.line == 0 || just.line <= limits.line)
        && just.fields <= limits.fields
        && (limits.field_size == 0 || just.field_size <= limits.field_size)
}

/// RFC 9112 §2.2: a few empty lines before a request are passed over.
fn without_empty_lines(mut head: &[u8]) -> &[u8] {
    while let Some(rest) = head.strip_prefix(b"\r\n") {
        head = rest;
    }
    head
}

fn is_too_large(reject: Reject) -> bool {
    [reject::LINE_SIZE, reject::FIELD_SIZE, reject::FIELD_COUNT].contains(&reject)
}
