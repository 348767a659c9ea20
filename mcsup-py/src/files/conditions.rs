//! Conditional requests (RFC 9110 §13), for a file with a strong entity tag and a date.

use std::time::{Duration, SystemTime};

use crate::http::head::Head;

/// What identifies the content of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Validators<'a> {
    /// The entity tag, with its quotes.
    pub(super) tag: &'a str,
    /// When it was changed: whole seconds.
    pub(super) modified: SystemTime,
}

/// What the conditions of a request come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The file.
    Send,
    /// 304: the client has it.
    NotModified,
    /// 412.
    Failed,
}

/// Evaluates the conditions in the order of RFC 9110 §13.2.2.
pub(super) fn evaluate(head: &Head<'_>, file: Validators<'_>) -> Outcome {
    if head.header("if-match").is_some() {
        if !list_has(head, "if-match", file.tag, Comparison::Strong) {
            return Outcome::Failed;
        }
    } else if date(head, "if-unmodified-since").is_some_and(|date| file.modified > date) {
        return Outcome::Failed;
    }
    if head.header("if-none-match").is_some() {
        if list_has(head, "if-none-match", file.tag, Comparison::Weak) {
            return Outcome::NotModified;
        }
    } else if date(head, "if-modified-since").is_some_and(|date| file.modified <= date) {
        return Outcome::NotModified;
    }
    Outcome::Send
}

/// Whether a `Range` counts (RFC 9110 §13.1.5): there is no `If-Range`, or it is about this content.
pub(super) fn range_counts(head: &Head<'_>, file: Validators<'_>) -> bool {
    match head.header("if-range") {
        None => true,
        Some(value) if value.ends_with(b"\"") => value == file.tag.as_bytes(),
        Some(_) => date(head, "if-range") == Some(file.modified),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

/// Whether a list of entity tags, over all lines of its field, has `tag` or is `*`.
fn list_has(head: &Head<'_>, name: &str, tag: &str, comparison: Comparison) -> bool {
    head.headers().filter(|(field, _)| field.eq_ignore_ascii_case(name.as_bytes())).any(|(_, value)| {
        value.trim_ascii() == b"*"
            || tags(value).any(|other| match other.strip_prefix(b"W/") {
                Some(other) => comparison == Comparison::Weak && other == tag.as_bytes(),
                None => other == tag.as_bytes(),
            })
    })
}

/// The entity tags of a list. A tag of another server may have a comma in it: then none of its pieces is equal to ours.
fn tags(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// The date of a field; `None`: there is none, or it is malformed, and is ignored (RFC 9110 §13.1.3).
fn date(head: &Head<'_>, name: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(std::str::from_utf8(head.header(name)?).ok()?).ok()
}

/// A time without its fraction, as a date in a field has none.
pub(super) fn whole_seconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::{Heads, Limits};

    const AT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";

    fn with<T>(fields: &str, act: impl FnOnce(&Head<'_>, Validators<'_>) -> T) -> T {
        let text = format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        let mut heads = Heads::default();
        heads.read(text.as_bytes(), &Limits::default()).unwrap().unwrap();
        let modified = httpdate::parse_http_date(AT).unwrap();
        act(&heads.view(text.as_bytes()), Validators { tag: "\"t\"", modified })
    }

    #[test]
    fn conditions_come_to_what_rfc_9110_says() {
        use Outcome::{Failed, NotModified, Send};
        for (fields, expected) in [
            (String::new(), Send),
            ("If-None-Match: \"t\"\r\n".into(), NotModified),
            ("If-None-Match: W/\"t\"\r\n".into(), NotModified),
            ("If-None-Match: \"a\"\r\nIf-None-Match: \"b\", \"t\"\r\n".into(), NotModified),
            ("If-None-Match: *\r\n".into(), NotModified),
            ("If-None-Match: \"a\"\r\n".into(), Send),
            (format!("If-None-Match: \"a\"\r\nIf-Modified-Since: {AT}\r\n"), Send),
            (format!("If-Modified-Since: {AT}\r\n"), NotModified),
            (format!("If-Modified-Since: {BEFORE}\r\n"), Send),
            ("If-Modified-Since: yesterday\r\n".into(), Send),
            ("If-Match: \"t\"\r\n".into(), Send),
            ("If-Match: *\r\n".into(), Send),
            ("If-Match: W/\"t\"\r\n".into(), Failed),
            ("If-Match: \"a\"\r\nIf-None-Match: \"t\"\r\n".into(), Failed),
            (format!("If-Unmodified-Since: {BEFORE}\r\n"), Failed),
            (format!("If-Unmodified-Since: {AT}\r\n"), Send),
            (format!("If-Match: \"t\"\r\nIf-Unmodified-Since: {BEFORE}\r\n"), Send),
        ] {
            assert_eq!(with(&fields, evaluate), expected, "{fields}");
        }
    }

    #[test]
    fn a_range_counts_if_it_is_of_this_content() {
        for (fields, expected) in [
            (String::new(), true),
            ("If-Range: \"t\"\r\n".into(), true),
            ("If-Range: W/\"t\"\r\n".into(), false),
            ("If-Range: \"a\"\r\n".into(), false),
            (format!("If-Range: {AT}\r\n"), true),
            (format!("If-Range: {BEFORE}\r\n"), false),
            ("If-Range: x\r\n".into(), false),
        ] {
            assert_eq!(with(&fields, range_counts), expected, "{fields}");
        }
    }
}
