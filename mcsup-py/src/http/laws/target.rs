//! The laws of request targets.

use super::super::head::{Heads, Limits};
use super::super::target::{percent_decoded, split};
use super::authority::by_the_grammar;
use super::{Shown, authority_in, is_visible};

/// The laws of a target, for whatever `bytes`:
///
/// - Taking it apart and decoding it never panic.
/// - What was accepted is visible ASCII, or bytes that are no ASCII, in a form that its method allows (RFC 9112 §3.2), without a fragment. Nothing that
///   CONNECT asks for is accepted.
/// - Scheme, authority, path and query, put together, are the target again; no part has the mark that ends it.
/// - A head with this target tells the same parts.
/// - Each escape that is decoded makes one byte of three, all else stays; and every byte survives being escaped.
///
/// # Panics
/// Where a law is broken.
pub fn target(bytes: &[u8]) {
    for method in ["GET", "OPTIONS", "CONNECT"] {
        match split(bytes, method) {
            Ok(parts) => {
                let (path, query) = (&bytes[parts.path.clone()], &bytes[parts.query.clone()]);
                assert!(bytes.iter().all(|byte| is_visible(*byte)), "no URI: {:?}", Shown(bytes));
                assert!(!bytes.contains(&b'#') && method != "CONNECT", "{method} {:?}", Shown(bytes));
                let authority = &bytes[parts.authority.clone()];
                assert_eq!(Shown(authority), Shown(authority_in(bytes).unwrap_or_default()));
                assert_eq!(parts.authority.end, parts.path.start, "a path begins behind the authority");
                comes_together_again(bytes, parts.path.start, path, query);
                has_a_form_of(method, &bytes[..parts.path.start], path);
                head_says(bytes, method, Some((path, query)));
            }
            Err(_) => head_says(bytes, method, None),
        }
    }
    decodes(bytes);
}

fn comes_together_again(target: &[u8], start: usize, path: &[u8], query: &[u8]) {
    let mut rest = target[start..].strip_prefix(path).expect("the path begins where it says");
    assert!(!path.contains(&b'?'), "in a path: {:?}", Shown(path));
    if let Some(behind) = rest.strip_prefix(b"?") {
        rest = behind.strip_prefix(query).expect("the query is behind the path");
    } else {
        assert!(query.is_empty(), "a query without a question mark: {:?}", Shown(query));
    }
    assert!(rest.is_empty(), "in no part: {:?}", Shown(rest));
}

fn has_a_form_of(method: &str, before: &[u8], path: &[u8]) {
    if before.is_empty() {
        let is_star = method == "OPTIONS" && path == b"*";
        assert!(is_star || path.starts_with(b"/"), "no path: {:?}", Shown(path));
        return;
    }
    let before = before.to_ascii_lowercase();
    let host = before.strip_prefix(b"http://").or_else(|| before.strip_prefix(b"https://"));
    let host = host.expect("what is before a path is scheme and host");
    assert!(by_the_grammar(host).is_some_and(|(host, _)| !host.is_empty()), "no host: {:?}", Shown(host));
    assert!(path.is_empty() || path[0] == b'/', "no path: {:?}", Shown(path));
}

/// `expected`: path and query, where the target is accepted.
fn head_says(target: &[u8], method: &str, expected: Option<(&[u8], &[u8])>) {
    let fits = !target.is_empty() && target.iter().all(|byte| is_visible(*byte));
    if !fits || target.len() > 8000 {
        // It would not come as a target: it is none, or the line's end is in it.
        return;
    }
    let bytes = [method.as_bytes(), b" ", target, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
    let limits = Limits { line: 0, ..Limits::default() };
    let mut heads = Heads::default();
    let end = heads.read(&bytes, &limits).ok().flatten();
    assert_eq!(end, expected.map(|_| bytes.len()), "{method} {:?}", Shown(target));
    let Some((path, query)) = expected else { return };
    let head = heads.view(&bytes);
    // Of an absolute target without one.
    let path = if path.is_empty() { b"/" } else { path };
    assert_eq!((head.target(), head.path(), head.query()), (target, path, query));
}

fn decodes(bytes: &[u8]) {
    let decoded = percent_decoded(bytes);
    // An escape begins with a percent sign, so that no two of them overlap.
    let is_escape =
        |three: &&[u8]| three[0] == b'%' && three[1].is_ascii_hexdigit() && three[2].is_ascii_hexdigit();
    let escapes = bytes.windows(3).filter(is_escape).count();
    assert_eq!(decoded.len() + 2 * escapes, bytes.len(), "{:?}", Shown(bytes));
    if escapes == 0 {
        assert_eq!(Shown(&decoded), Shown(bytes));
    }
    let escaped: String = bytes.iter().map(|byte| format!("%{byte:02x}")).collect();
    assert_eq!(Shown(&percent_decoded(escaped.as_bytes())), Shown(bytes));
    assert_eq!(Shown(&percent_decoded(escaped.to_uppercase().as_bytes())), Shown(bytes));
}
