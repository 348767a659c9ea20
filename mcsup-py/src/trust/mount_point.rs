//! The mount point of the application: the beginning of the path that is SCRIPT_NAME (RFC 3875 §4.1.13, PEP 3333).

use std::borrow::Cow;

/// The mount point that a setting or a field names: empty, or a path that begins with a slash and does not end in one.
pub(crate) fn of(name: &[u8]) -> Cow<'_, [u8]> {
    let end = name.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    match &name[..end] {
        name @ ([] | [b'/', ..]) => Cow::Borrowed(name),
        name => Cow::Owned([b"/", name].concat()),
    }
}

/// The part of `path` below a mount point; `None`: the path lies elsewhere.
pub(crate) fn below<'a>(path: &'a [u8], mount_point: &[u8]) -> Option<&'a [u8]> {
    path.strip_prefix(mount_point).filter(|rest| rest.is_empty() || rest[0] == b'/' || mount_point.is_empty())
}

/// Whether a field may name this mount point. Applications write it into pages and redirects, where two slashes begin the
/// name of a host, and a byte that no path has (RFC 3986 §3.3) may end an attribute or a line.
pub(crate) fn is_path(name: &[u8]) -> bool {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%/".contains(byte);
    !name.starts_with(b"//") && name.iter().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_begins_with_a_slash_and_does_not_end_in_one() {
        for (name, expected) in [("", ""), ("/", ""), ("/app", "/app"), ("/app//", "/app"), ("a/b/", "/a/b")]
        {
            assert_eq!(of(name.as_bytes()), expected.as_bytes(), "{name:?}");
        }
    }

    #[test]
    fn a_path_is_below_a_mount_point_only_at_a_slash() {
        for (path, mount_point, expected) in [
            ("/app/x", "/app", Some("/x")),
            ("/app", "/app", Some("")),
            ("/application", "/app", None),
            ("/elsewhere", "/app", None),
            ("*", "/app", None),
            ("/x", "", Some("/x")),
            ("*", "", Some("*")),
        ] {
            let found = below(path.as_bytes(), mount_point.as_bytes());
            assert_eq!(found, expected.map(str::as_bytes), "{path} {mount_point}");
        }
    }

    #[test]
    fn a_field_names_a_path_and_no_host_or_markup() {
        for name in ["", "/", "/app", "app", "/caf%C3%A9", "/a;v=1/b:c@d"] {
            assert!(is_path(name.as_bytes()), "{name:?}");
        }
        for name in ["//evil.example", "//", "/\"><script>", "/a b", "/a?b", "/a#b", "/a\\b", "/caf\u{e9}"] {
            assert!(!is_path(name.as_bytes()), "{name:?}");
        }
    }
}
