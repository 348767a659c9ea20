//! A request target (RFC 9112 §3.2): checked, taken apart, decoded.

use std::ops::Range;

use super::authority;
use super::reject::{self, Reject};

/// Where in a target its parts are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parts {
    /// Host and port; empty where the target does not begin with a scheme.
    pub authority: Range<usize>,
    /// From the slash on; empty where the target has none. `*` is a path.
    pub path: Range<usize>,
    /// Without the question mark.
    pub query: Range<usize>,
}

/// Takes a target apart.
///
/// # Errors
/// The refusal of a target whose form `method` does not allow, with a byte that `may_have` has not, with another scheme
/// than http and https, or with a fragment, which no form has; and of each target of CONNECT.
pub(crate) fn split(target: &[u8], method: &str) -> Result<Parts, Reject> {
    if !target.iter().all(|byte| may_have(*byte)) {
        return Err(reject::TARGET_BYTE);
    }
    if memchr::memchr(b'#', target).is_some() {
        return Err(reject::FRAGMENT);
    }
    let authority = match target.first() {
        _ if method == "CONNECT" => return Err(refusal_of_connect(target)),
        Some(b'/') => 0..0,
        Some(b'*') if method == "OPTIONS" && target.len() == 1 => 0..0,
        _ => authority_of(target)?,
    };
    let (start, end) = (authority.end, target.len());
    let question = memchr::memchr(b'?', &target[start..]).map(|at| start + at);
    let query = question.map_or(end, |at| at + 1)..end;
    Ok(Parts { authority, path: start..question.unwrap_or(end), query })
}

/// Whether a target may have this byte: no control character, blank or DEL. RFC 3986 §2 has those that are no ASCII
/// escaped, but many clients send them as they are.
pub(super) fn may_have(byte: u8) -> bool {
    byte.is_ascii_graphic() || !byte.is_ascii()
}

/// The target as a log has it: in ASCII alone.
pub(crate) fn shown(target: &[u8]) -> String {
    let mut text = String::with_capacity(target.len());
    for byte in target {
        match byte {
            b' '..=b'~' => text.push(char::from(*byte)),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text
}

/// RFC 3986 §2.1; what is no escape stays as it is.
pub(crate) fn percent_decoded(bytes: &[u8]) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| (*byte as char).to_digit(16));
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match (byte, digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                at += 3;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}

/// RFC 9112 §3.2.3: the target has host and port, and a port is never empty (RFC 9110 §9.3.6).
fn refusal_of_connect(target: &[u8]) -> Reject {
    match authority::split(target) {
        Some((host, port)) if !host.is_empty() && !port.is_empty() => reject::CONNECT,
        _ => reject::TARGET,
    }
}

/// Where the authority of `http://host:port/path` is.
fn authority_of(target: &[u8]) -> Result<Range<usize>, Reject> {
    let is_of = |scheme: &&&str| {
        target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme.as_bytes()))
    };
    let Some(scheme) = ["http://", "https://"].iter().find(is_of) else {
        return Err(if names_a_scheme(target) { reject::SCHEME } else { reject::TARGET });
    };
    let start = scheme.len();
    let rest = &target[start..];
    let length = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    if authority::names_a_host(&rest[..length]) { Ok(start..start + length) } else { Err(reject::AUTHORITY) }
}

/// Whether it begins as a URI of some scheme with an authority (RFC 3986 §3.1).
fn names_a_scheme(target: &[u8]) -> bool {
    let Some(length) = target.windows(3).position(|three| three == b"://") else { return false };
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    target[0].is_ascii_alphabetic() && target[..length].iter().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_and_what_is_none_stays() {
        for (text, expected) in
            [("/a%20b", "/a b"), ("%2F%2f", "//"), ("%", "%"), ("%4", "%4"), ("%zz%41", "%zzA")]
        {
            assert_eq!(percent_decoded(text.as_bytes()), expected.as_bytes(), "{text}");
        }
        assert_eq!(percent_decoded(b"%e9\xe9"), b"\xe9\xe9");
    }
}
