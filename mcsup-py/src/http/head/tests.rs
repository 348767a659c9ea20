use super::*;
use crate::http::framing::Framing;

fn read(bytes: &[u8]) -> Result<Option<usize>, Reject> {
    Heads::default().read(bytes, &Limits::default())
}

fn framing(fields: &str) -> Result<Delimited, Reject> {
    let text = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let mut heads = Heads::default();
    heads.read(text.as_bytes(), &Limits::default()).map(|_| heads.delimited())
}

#[test]
fn a_head_is_read_and_taken_apart() {
    let bytes = b"\r\nGET /a%20b?c=d HTTP/1.1\r\nHost: h\r\nX-One:  1 \r\nX_Two: 2\r\n\r\nrest";
    let mut heads = Heads::default();
    assert_eq!(heads.read(bytes, &Limits::default()), Ok(Some(bytes.len() - 4)));
    let head = heads.view(bytes);
    assert_eq!(head.method(), "GET");
    assert_eq!(head.target(), b"/a%20b?c=d");
    assert_eq!((head.path(), head.query()), (&b"/a%20b"[..], &b"c=d"[..]));
    let fields: Vec<_> = head.headers().collect();
    assert_eq!(fields, [(&b"Host"[..], &b"h"[..]), (b"X-One", b"1")]);
    assert_eq!(head.header("x-one"), Some(&b"1"[..]));
    assert!(head.delimited().keep_alive);
}

#[test]
fn every_form_of_target_is_taken_apart() {
    for (line, path, query) in [
        ("GET http://h/p?q HTTP/1.1", "/p", "q"),
        ("GET http://h HTTP/1.1", "/", ""),
        ("GET HTTP://h?q HTTP/1.1", "/", "q"),
        ("OPTIONS * HTTP/1.1", "*", ""),
        ("GET //a HTTP/1.1", "//a", ""),
    ] {
        let bytes = format!("{line}\r\nHost: h\r\n\r\n");
        let mut heads = Heads::default();
        heads.read(bytes.as_bytes(), &Limits::default()).unwrap();
        let head = heads.view(bytes.as_bytes());
        assert_eq!((head.path(), head.query()), (path.as_bytes(), query.as_bytes()), "{line}");
    }
}

#[test]
fn an_absolute_target_overrides_host() {
    for (text, hosts) in [
        ("GET http://h:81/ HTTP/1.1\r\nHost: other\r\n\r\n", vec![&b"h:81"[..]]),
        ("GET http://h/ HTTP/1.1\r\nHost:\r\n\r\n", vec![b"h"]),
        ("GET http://h/ HTTP/1.0\r\n\r\n", vec![]),
        ("GET / HTTP/1.1\r\nHost: other\r\n\r\n", vec![b"other"]),
    ] {
        let mut heads = Heads::default();
        heads.read(text.as_bytes(), &Limits::default()).unwrap();
        let head = heads.view(text.as_bytes());
        let fields: Vec<_> = head.headers().map(|(_, value)| value).collect();
        assert_eq!(fields, hosts, "{text:?}");
        assert_eq!(head.authority().is_some(), text.contains("http:"), "{text:?}");
    }
}

#[test]
fn a_later_minor_version_is_read_as_the_latest_that_is_known() {
    for minor in 1..=9 {
        let text = format!("\r\nGET /a HTTP/1.{minor}\r\nHost: h\r\nX: y\r\n\r\n");
        let mut heads = Heads::default();
        assert_eq!(heads.read(text.as_bytes(), &Limits::default()), Ok(Some(text.len())), "{text:?}");
        let head = heads.view(text.as_bytes());
        assert_eq!((head.version(), head.path()), (Version::Http11, &b"/a"[..]));
        assert_eq!((head.header("x"), head.delimited().keep_alive), (Some(&b"y"[..]), true));
    }
}

#[test]
fn what_is_malformed_or_ambiguous_is_refused_with_its_reason() {
    let host = "Host: a\r\n";
    for (text, why) in [
        ("get / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::METHOD),
        ("GE / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::METHOD),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::REQUEST_LINE),
        ("GET x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::TARGET),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::TARGET),
        ("GET /\x1b HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::TARGET_BYTE),
        ("GET /\u{e9}\t HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::TARGET_BYTE),
        ("GET http://\u{e9}/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::AUTHORITY),
        ("GET ftp://h/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::SCHEME),
        ("GET h:1 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::TARGET),
        ("CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::TARGET),
        ("CONNECT h HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::TARGET),
        ("CONNECT h: HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::TARGET),
        ("CONNECT u@h:1 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::TARGET),
        ("CONNECT h:443 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::CONNECT),
        ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::FRAGMENT),
        ("GET http://h#b HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::FRAGMENT),
        ("GET http://u@h/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::AUTHORITY),
        ("GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::AUTHORITY),
        ("GET https://:80/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::AUTHORITY),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::REQUEST_LINE),
        ("GET /a b HTTP/2.0\r\nHost: a\r\n\r\n".to_owned(), reject::REQUEST_LINE),
        ("GET / HTTP/1.10\r\nHost: a\r\n\r\n".to_owned(), reject::REQUEST_LINE),
        ("GET / HTTP/1.1\r\r\nHost: a\r\n\r\n".to_owned(), reject::REQUEST_LINE),
        ("\r\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), reject::REQUEST_LINE),
        ("GET / HTTP/1.1\r\nHost: a\r\r\n\r\n".to_owned(), reject::FIELD),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\r\n\r\n".to_owned(), reject::FIELD),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned(), reject::VERSION),
        ("GET / HTTP/0.9\r\nHost: a\r\n\r\n".to_owned(), reject::VERSION),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n".to_owned(), reject::HOST),
        ("GET / HTTP/1.0\r\nHost: a/b\r\n\r\n".to_owned(), reject::HOST),
        ("GET http://h/ HTTP/1.1\r\nHost: a:b\r\n\r\n".to_owned(), reject::HOST),
        ("GET http://h/ HTTP/1.1\r\n\r\n".to_owned(), reject::HOST_MISSING),
        ("\u{16}".to_owned(), reject::REQUEST_LINE),
        ("\r\n{".to_owned(), reject::REQUEST_LINE),
        ("GET / HTTP/1.1\nHost: a\r\n\r\n".to_owned(), reject::BARE_LF),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n".to_owned(), reject::BARE_LF),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), reject::HOST_MISSING),
        (format!("GET / HTTP/1.1\r\n{host}{host}\r\n"), reject::HOST_REPEATED),
        (format!("GET / HTTP/1.1\r\n{host}X : y\r\n\r\n"), reject::FIELD_NAME),
        (format!("GET / HTTP/1.1\r\n{host}X\r\n\r\n"), reject::FIELD_NAME),
        (format!("GET / HTTP/1.1\r\n{host}X: a\r\n b\r\n\r\n"), reject::FOLDED),
        (format!("GET / HTTP/1.1\r\n{host}X: a\0b\r\n\r\n"), reject::FIELD),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), reject::CODING_ON_1_0),
    ] {
        assert_eq!(read(text.as_bytes()), Err(why), "{text:?}");
    }
}

#[test]
fn the_end_of_a_body_has_one_answer_or_none() {
    let length = "Content-Length: 5\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n";
    assert_eq!(framing("").unwrap().framing, Framing::Empty);
    assert_eq!(framing(length).unwrap().framing, Framing::Length(5));
    assert_eq!(framing(chunked).unwrap().framing, Framing::Chunked);
    for (fields, why) in [
        (format!("{length}{chunked}"), reject::LENGTH_AND_CODING),
        (format!("{length}{length}"), reject::LENGTH_REPEATED),
        ("Content-Length: 5, 5\r\n".to_owned(), reject::LENGTH),
        ("Content-Length: +5\r\n".to_owned(), reject::LENGTH),
        ("Content-Length: -0\r\n".to_owned(), reject::LENGTH),
        ("Content-Length: 0_1\r\n".to_owned(), reject::LENGTH),
        ("Content-Length:\r\n".to_owned(), reject::LENGTH),
        ("Content-Length: 99999999999999999999\r\n".to_owned(), reject::LENGTH),
        (format!("{chunked}{chunked}"), reject::CODING),
        ("Transfer-Encoding: chunked, gzip\r\n".to_owned(), reject::CODING),
        ("Transfer-Encoding: gzip, chunked\r\n".to_owned(), reject::CODING_UNKNOWN),
        ("Transfer-Encoding: xchunked\r\n".to_owned(), reject::CODING_UNKNOWN),
        ("Transfer-Encoding:\r\n".to_owned(), reject::CODING),
        ("Expect: more\r\n".to_owned(), reject::EXPECTATION),
        ("Expect: 100-continue, more\r\n".to_owned(), reject::EXPECTATION),
    ] {
        assert_eq!(framing(&fields), Err(why), "{fields:?}");
    }
}

#[test]
fn the_connection_goes_on_as_both_sides_say() {
    for (version, fields, expected) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: foo, Close\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        let text = format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n");
        let mut heads = Heads::default();
        heads.read(text.as_bytes(), &Limits::default()).unwrap();
        assert_eq!(heads.delimited().keep_alive, expected, "{text:?}");
    }
}

#[test]
fn limits_hold_also_while_the_head_is_not_whole() {
    let long = "a".repeat(9000);
    assert_eq!(read(format!("GET /{long}").as_bytes()), Err(reject::LINE_SIZE));
    let (just, more) = ("a".repeat(8190 - 14), "a".repeat(8190 - 13));
    let text = |path: &str| format!("GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(read(text(&just).as_bytes()).unwrap().is_some());
    assert_eq!(read(text(&more).as_bytes()), Err(reject::LINE_SIZE));
    assert_eq!(read(format!("GET / HTTP/1.1\r\nX: {long}").as_bytes()), Err(reject::FIELD_SIZE));
    let limits = Limits { field_size: 0, ..Limits::default() };
    let text = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n");
    assert!(Heads::default().read(text.as_bytes(), &limits).unwrap().is_some());
    let many = "X: y\r\n".repeat(101);
    assert_eq!(read(format!("GET / HTTP/1.1\r\n{many}").as_bytes()), Err(reject::FIELD_COUNT));
    let most = "X: y\r\n".repeat(99);
    assert!(read(format!("GET / HTTP/1.1\r\nHost: a\r\n{most}\r\n").as_bytes()).unwrap().is_some());
    let limits = Limits { fields: 300, ..Limits::default() };
    let many = "X: y\r\n".repeat(299);
    let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n");
    assert!(Heads::default().read(text.as_bytes(), &limits).unwrap().is_some());
}

#[test]
fn a_head_that_drips_in_is_looked_at_once() {
    let text =
        format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", format!("X: {}\r\n", "x".repeat(8000)).repeat(90));
    let (mut heads, mut seen) = (Heads::default(), 0);
    for end in (1000..text.len()).step_by(1000) {
        // A second look would find bare LFs. The last byte may be the CR before one that comes.
        let mut bytes = text.as_bytes()[..end].to_vec();
        bytes[..usize::saturating_sub(seen, 1)].fill(b'\n');
        assert_eq!(heads.read(&bytes, &Limits::default()), Ok(None), "{end}");
        seen = end;
    }
    assert_eq!(heads.read(text.as_bytes(), &Limits::default()), Ok(Some(text.len())));
}

#[test]
fn a_head_that_just_keeps_the_limits_is_accepted_wherever_it_is_cut() {
    let limits = Limits { line: 14, fields: 2, field_size: 9, body: 0 };
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nX: yyyy\r\n\r\n";
    for cut in 0..bytes.len() {
        let mut heads = Heads::default();
        assert_eq!(heads.read(&bytes[..cut], &limits), Ok(None), "{cut}");
        assert_eq!(heads.read(bytes, &limits), Ok(Some(bytes.len())), "{cut}");
    }
    for (bytes, why) in [
        (&b"GET /a HTTP/1.1"[..], reject::LINE_SIZE),
        (b"GET / HTTP/1.1\r\nX: yyyyy", reject::FIELD_SIZE),
        (b"GET / HTTP/1.1\r\nX: y\r\nX: y\r\nX", reject::FIELD_COUNT),
    ] {
        assert_eq!(Heads::default().read(bytes, &limits), Err(why));
    }
}

/// The refusal of a request for `path` with these fields, from a trusted peer with gunicorn's rules.
fn refusal(path: &str, fields: &str) -> Option<Reject> {
    let text = format!("GET {path} HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
    let rules = crate::trust::FieldRules::default();
    Heads::default().read_by(text.as_bytes(), &Limits::default(), rules.reader(true)).err()
}

#[test]
fn a_mount_point_that_the_path_does_not_begin_with_is_refused() {
    for (path, name) in [
        ("/app/x", "/app"),
        ("/app", "/app"),
        ("/app?x", "/app/"),
        ("http://h/app/x", "/app"),
        ("/x", ""),
        ("/x", "/"),
        ("/caf%C3%A9/x", "/caf%C3%A9"),
    ] {
        assert_eq!(refusal(path, &format!("SCRIPT_NAME: {name}\r\n")), None, "{path} {name}");
    }
    for (path, name) in [
        ("/", "/app"),
        ("/elsewhere", "/app"),
        ("/application", "/app"),
        ("/%61pp/x", "/app"),
        ("/x?/app", "/app"),
        // The head is read in another form, with this letter for each byte that is not ASCII.
        ("/\u{e9}", "/xx"),
    ] {
        let refused = refusal(path, &format!("script_name: {name}\r\n"));
        assert_eq!(refused, Some(reject::SCRIPT_NAME_ELSEWHERE), "{path} {name}");
    }
}

#[test]
fn a_mount_point_that_names_a_host_or_markup_is_refused_whatever_the_path_is() {
    for name in ["//evil.example", "//", "/\"><script>", "/a b", "/caf\u{e9}"] {
        for path in ["/", "//evil.example/login", "/\"><script>", "/caf\u{e9}/x"] {
            let refused = refusal(path, &format!("SCRIPT_NAME: {name}\r\n"));
            assert_eq!(refused, Some(reject::SCRIPT_NAME_FORM), "{path} {name}");
        }
    }
}

#[test]
fn a_field_with_an_underscore_names_the_scheme_and_is_dropped() {
    let text = "GET / HTTP/1.1\r\nHost: h\r\nX_FORWARDED_PROTO: https\r\n\r\n";
    let scheme = [("X_Forwarded_Proto".to_owned(), "https".to_owned())];
    let hops = crate::trust::Hops::default();
    let rules = crate::trust::FieldRules::new(scheme, [], crate::trust::HeaderMap::Drop, hops).unwrap();
    for (is_trusted, expected) in [(true, Some("https")), (false, None)] {
        let mut heads = Heads::default();
        heads.read_by(text.as_bytes(), &Limits::default(), rules.reader(is_trusted)).unwrap().unwrap();
        let head = heads.view(text.as_bytes());
        assert_eq!((head.scheme(), head.headers().count()), (expected, 1));
    }
}
