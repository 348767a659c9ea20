//! A request target (RFC 9112 §3.2): checked, taken apart, decoded.

use std::ops::Range;

use super::reject::{self, Reject};

/// Where in a target its parts are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// From the slash on; empty where the target has none. `*` is a path.
    pub path: Range<usize>,
    /// Without the question mark.
    pub query: Range<usize>,
}

/// Takes a target apart. A fragment, which no client should send, belongs to neither part.
///
/// # Errors
/// The refusal of a target whose form `method` does not allow, or with bytes that no URI has.
pub fn split(target: &[u8], method: &str) -> Result<Parts, Reject> {
    // RFC 3986 2: whatever else is meant is escaped.
    if !target.iter().all(u8::is_ascii_graphic) {
        return Err(reject::TARGET);
    }
    let path_start = match target.first() {
        // RFC 9112 3.2.3: host and port are all that it may have.
        _ if method == "CONNECT" => return authority(target),
        Some(b'/') => 0,
        Some(b'*') if method == "OPTIONS" && target.len() == 1 => 0,
        _ => absolute_path_start(target).ok_or(reject::TARGET)?,
    };
    let end = memchr::memchr(b'#', target).unwrap_or(target.len()).max(path_start);
    let question = memchr::memchr(b'?', &target[path_start..end]).map(|at| path_start + at);
    Ok(Parts { path: path_start..question.unwrap_or(end), query: question.map_or(end, |at| at + 1)..end })
}

/// RFC 3986 §2.1; what is no escape stays as it is.
pub fn percent_decoded(bytes: &[u8]) -> Vec<u8> {
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

/// The target of CONNECT: host and port, no path.
fn authority(target: &[u8]) -> Result<Parts, Reject> {
    if target.contains(&b'/') || !target.contains(&b':') {
        return Err(reject::TARGET);
    }
    let end = target.len();
    Ok(Parts { path: end..end, query: end..end })
}

/// Where the path of `http://host/path` begins; `None`: not of this form.
fn absolute_path_start(target: &[u8]) -> Option<usize> {
    let rest = [&b"http://"[..], b"https://"].iter().find_map(|scheme| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    })?;
    let authority = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    (authority > 0).then(|| target.len() - rest.len() + authority)
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
