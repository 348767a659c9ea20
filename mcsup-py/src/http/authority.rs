//! An authority without userinfo (RFC 3986 §3.2): a host and perhaps a port, as a Host field and a target have it.

use core::net::Ipv6Addr;

/// Host and port of an authority; the host keeps its brackets, and the port is empty where there is none. `None`:
/// `bytes` is no authority, or has userinfo. Host and port may be empty (RFC 3986 §3.2.2, §3.2.3).
pub(crate) fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let is_literal = bytes.first() == Some(&b'[');
    let end = match is_literal {
        true => memchr::memchr(b']', bytes)? + 1,
        false => memchr::memchr(b':', bytes).unwrap_or(bytes.len()),
    };
    let (host, rest) = bytes.split_at(end);
    let port = match rest {
        [] => rest,
        [b':', port @ ..] if port.iter().all(u8::is_ascii_digit) => port,
        _ => return None,
    };
    let is_host = if is_literal { is_ip_literal(&host[1..end - 1]) } else { is_registered_name(host) };
    is_host.then_some((host, port))
}

/// Whether `value` is that of a Host field (RFC 9112 §3.2): an authority with a host, or empty, which says that the target
/// URI has no authority.
pub(super) fn is_host_field(value: &[u8]) -> bool {
    value.is_empty() || names_a_host(value)
}

/// Whether `bytes` are an authority of an `http` or `https` URI, which never has an empty host (RFC 9110 §4.2.1).
pub(super) fn names_a_host(bytes: &[u8]) -> bool {
    split(bytes).is_some_and(|(host, _)| !host.is_empty())
}

/// Whether bytes are the content of brackets (RFC 3986 §3.2.2). RFC 6874 §3 has no zone on the wire, but many clients
/// send one to a link-local address: a percent sign and unreserved bytes.
fn is_ip_literal(bytes: &[u8]) -> bool {
    match bytes {
        [b'v' | b'V', rest @ ..] => {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
            let Some([b'.', address @ ..]) = rest.get(digits..) else { return false };
            let fits = |byte: &u8| *byte == b':' || (NAME[usize::from(*byte)] && *byte != b'%');
            digits > 0 && !address.is_empty() && address.iter().all(fits)
        }
        _ => {
            let end = memchr::memchr(b'%', bytes).unwrap_or(bytes.len());
            let (address, zone) = bytes.split_at(end);
            let is_unreserved = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
            let has_zone = zone.len() > 1 && zone[1..].iter().all(is_unreserved);
            (zone.is_empty() || has_zone)
                && std::str::from_utf8(address).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
        }
    }
}

/// RFC 3986 §3.2.2; an IPv4 address is one too.
fn is_registered_name(bytes: &[u8]) -> bool {
    if !bytes.iter().all(|byte| NAME[usize::from(*byte)]) {
        return false;
    }
    memchr::memchr_iter(b'%', bytes)
        .all(|at| bytes.get(at + 1..at + 3).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit)))
}

/// The bytes of a registered name: unreserved, delimiters within a part, and the beginning of an escape.
const NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte as usize] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"-._~!$&'()*+,;=%";
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_taken_apart() {
        for (text, host, port) in [
            ("h", "h", ""),
            ("h:80", "h", "80"),
            ("h:", "h", ""),
            ("", "", ""),
            (":80", "", "80"),
            ("127.0.0.1:1", "127.0.0.1", "1"),
            ("[::1]:1", "[::1]", "1"),
            ("[1:2:3:4:5:6:7.8.9.0]", "[1:2:3:4:5:6:7.8.9.0]", ""),
            ("[v1.a:b]", "[v1.a:b]", ""),
            ("[fe80::1%eth0]:80", "[fe80::1%eth0]", "80"),
            ("[fe80::1%25br-0.1_~]", "[fe80::1%25br-0.1_~]", ""),
            ("a_b.example..", "a_b.example..", ""),
            ("%41!$&'()*+,;=~", "%41!$&'()*+,;=~", ""),
        ] {
            assert_eq!(split(text.as_bytes()), Some((host.as_bytes(), port.as_bytes())), "{text}");
        }
    }

    #[test]
    fn what_is_no_authority_is_none() {
        for text in [
            "a b",
            "a/b",
            "u@h",
            "h, i",
            "[::1",
            "a:b",
            "a:1:2",
            "::1",
            "[]",
            "[::1]x",
            "[::1%]",
            "[::1%e/0]",
            "[::1%e%0]",
            "[::1%e:0]",
            "[::1%e]0]",
            "[%eth0]",
            "[v1.a%e]",
            "127.0.0.1%eth0",
            "[1::2::3]",
            "[v.a]",
            "[vg.a]",
            "[v1.]",
            "[v1]",
            "[v1.%41]",
            "[12345::]",
            "[::1.2.3]",
            "]",
            "a[",
            "%4",
            "%",
            "%zz",
            "a\0",
            "caf\u{e9}",
            "a\\b",
            "a?b",
            "a#b",
            "a\"b",
            "a<b>",
            "h:-1",
            "h:+1",
            "h: 1",
            "h:8 ",
        ] {
            assert_eq!(split(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn a_host_field_has_a_host_or_nothing() {
        for (text, expected) in [("", true), ("h", true), (":80", false), (":", false), ("a b", false)] {
            assert_eq!(is_host_field(text.as_bytes()), expected, "{text:?}");
        }
    }
}
