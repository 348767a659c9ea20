//! Conditional requests (RFC 9110 §13), for a file with a strong entity tag and a date.

use std::time::{Duration, SystemTime};

use crate::http::head::Head;

/// What identifies the content of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Validators<'a> {
    /// The entity tag, with its quotes.
    pub(super) tag: &'a str,
    /// When it was changed: whole seconds. `None`: that is not known, and conditions by date are ignored.
    pub(super) modified: Option<SystemTime>,
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
    } else if modified_and(head, "if-unmodified-since", file).is_some_and(|(modified, date)| modified > date)
    {
        return Outcome::Failed;
    }
    if head.header("if-none-match").is_some() {
        if list_has(head, "if-none-match", file.tag, Comparison::Weak) {
            return Outcome::NotModified;
        }
    } else if modified_and(head, "if-modified-since", file).is_some_and(|(modified, date)| modified <= date) {
        return Outcome::NotModified;
    }
    Outcome::Send
}

/// Whether a `Range` counts (RFC 9110 §13.1.5): there is no `If-Range`, or it has the entity tag of this content. A date is
/// never a strong validator here (§8.8.2.2): the file may have changed twice in its second.
pub(super) fn range_counts(head: &Head<'_>, file: Validators<'_>) -> bool {
    head.header("if-range").is_none() || only(head, "if-range") == Some(file.tag.as_bytes())
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

/// When the file was changed, and the date of a field. `None`: one of them is not known. A field that is malformed or
/// comes twice is ignored (RFC 9110 §13.1.3, §13.1.4).
fn modified_and(head: &Head<'_>, name: &str, file: Validators<'_>) -> Option<(SystemTime, SystemTime)> {
    let date = std::str::from_utf8(only(head, name)?).ok()?;
    Some((file.modified?, httpdate::parse_http_date(date).ok()?))
}

/// The value of a field that comes once.
pub(super) fn only<'a>(head: &Head<'a>, name: &str) -> Option<&'a [u8]> {
    let mut values = head.headers().filter(|(field, _)| field.eq_ignore_ascii_case(name.as_bytes()));
    let (_, value) = values.next()?;
    values.next().is_none().then_some(value)
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
        let modified = httpdate::parse_http_date(AT).ok();
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
            (format!("If-Modified-Since: {AT}\r\nIf-Modified-Since: {AT}\r\n"), Send),
            (format!("If-Unmodified-Since: {BEFORE}\r\nIf-Unmodified-Since: {BEFORE}\r\n"), Send),
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
            ("If-Range: \"t\"\r\nIf-Range: \"t\"\r\n".into(), false),
            (format!("If-Range: {AT}\r\n"), false),
            (format!("If-Range: {BEFORE}\r\n"), false),
            ("If-Range: x\r\n".into(), false),
        ] {
            assert_eq!(with(&fields, range_counts), expected, "{fields}");
        }
    }
}
