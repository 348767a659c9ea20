//! The law of authorities.

use super::super::authority::split;
use super::Shown;

/// The law of an authority, for whatever `bytes`: it is taken apart where the grammar of RFC 3986 §3.2 has it, into the
/// same host and port, and refused otherwise.
///
/// # Panics
/// Where it is broken.
pub fn authority(bytes: &[u8]) {
    let expected = by_the_grammar(bytes).map(|(host, port)| (Shown(host), Shown(port)));
    let parts = split(bytes).map(|(host, port)| (Shown(host), Shown(port)));
    assert_eq!(parts, expected, "{:?}", Shown(bytes));
}

/// Host and port.
pub(super) fn by_the_grammar(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    // A port has digits only, so that the last colon outside of brackets is the one before it.
    let ports = bytes.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (before, port) = bytes.split_at(bytes.len() - ports);
    let (host, port) = match before {
        [host @ .., b':'] if is_host(host) => (host, port),
        _ => (bytes, &b""[..]),
    };
    is_host(host).then_some((host, port))
}

fn is_host(bytes: &[u8]) -> bool {
    match bytes {
        [b'[', inside @ .., b']'] => is_ipv6(without_zone(inside)) || is_ip_of_the_future(inside),
        _ => is_registered_name(bytes),
    }
}

/// A zone is not in the grammar, and many clients send one.
fn without_zone(bytes: &[u8]) -> &[u8] {
    let is_unreserved = |byte: u8| is_plain(byte) && !b"!$&'()*+,;=".contains(&byte);
    match bytes.iter().position(|byte| *byte == b'%') {
        Some(at) if at + 1 < bytes.len() && bytes[at + 1..].iter().all(|byte| is_unreserved(*byte)) => {
            &bytes[..at]
        }
        _ => bytes,
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}

fn is_registered_name(bytes: &[u8]) -> bool {
    match bytes {
        [] => true,
        [b'%', one, two, rest @ ..] if one.is_ascii_hexdigit() && two.is_ascii_hexdigit() => {
            is_registered_name(rest)
        }
        [byte, rest @ ..] => is_plain(*byte) && is_registered_name(rest),
    }
}

fn is_ip_of_the_future(bytes: &[u8]) -> bool {
    let Some(point) = bytes.iter().position(|byte| *byte == b'.') else { return false };
    let (version, address) = (&bytes[..point], &bytes[point + 1..]);
    version.len() > 1
        && version[0].eq_ignore_ascii_case(&b'v')
        && version[1..].iter().all(u8::is_ascii_hexdigit)
        && !address.is_empty()
        && address.iter().all(|byte| is_plain(*byte) || *byte == b':')
}

fn is_ipv6(bytes: &[u8]) -> bool {
    match bytes.windows(2).position(|pair| pair == b"::") {
        None => groups(bytes, true) == Some(8),
        Some(at) => {
            let counts = (groups(&bytes[..at], false), groups(&bytes[at + 2..], true));
            matches!(counts, (Some(front), Some(back)) if front + back <= 7)
        }
    }
}

/// How many groups of 16 bits these are.
fn groups(bytes: &[u8], may_end_in_ipv4: bool) -> Option<usize> {
    if bytes.is_empty() {
        return Some(0);
    }
    let words: Vec<&[u8]> = bytes.split(|byte| *byte == b':').collect();
    let mut count = 0;
    for (at, word) in words.iter().enumerate() {
        if may_end_in_ipv4 && at + 1 == words.len() && is_ipv4(word) {
            count += 2;
        } else if (1..=4).contains(&word.len()) && word.iter().all(u8::is_ascii_hexdigit) {
            count += 1;
        } else {
            return None;
        }
    }
    Some(count)
}

fn is_ipv4(bytes: &[u8]) -> bool {
    let words: Vec<&[u8]> = bytes.split(|byte| *byte == b'.').collect();
    let is_octet = |word: &&[u8]| (0..=255).any(|octet: u32| octet.to_string().as_bytes() == *word);
    words.len() == 4 && words.iter().all(is_octet)
}
