//! Requests for files of a folder, and the answers.

use super::*;
use crate::http::head::{Heads, Limits};

/// A folder with a text and its compressed forms.
fn files() -> (tempfile::TempDir, StaticFiles) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in
        [("a.txt", "0123456789"), ("a.txt.br", "b"), ("a.txt.gz", "zz"), ("plain.css", "p"), ("empty", "")]
    {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let mut files = StaticFiles::default();
    files.add("/static", folder.path()).unwrap();
    (folder, files)
}

/// Status, head and body of an answer.
type Parts = (u16, crate::http::response::ResponseHead, String);

fn ask(files: &StaticFiles, line: &str, fields: &str) -> Option<Parts> {
    let text = format!("{line} HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
    let mut heads = Heads::default();
    heads.read(text.as_bytes(), &Limits::default()).unwrap().unwrap();
    let head = heads.view(text.as_bytes());
    if !files.may_answer(&head) {
        return None;
    }
    let answer = files.answer(&head).unwrap()?;
    let body = match answer.content {
        Content::None => String::new(),
        Content::Bytes(bytes) => String::from_utf8(bytes).unwrap(),
        Content::Part(part) => format!("{} from {}", part.length, part.offset),
    };
    if !body.is_empty() && !body.contains(" from ") {
        assert_eq!(answer.head.content_length(), Some(body.len() as u64));
    }
    Some((answer.head.status(), answer.head, body))
}

#[track_caller]
fn field(parts: &Parts, name: &str) -> Option<String> {
    parts.1.field(name).map(|value| String::from_utf8(value.to_vec()).unwrap())
}

#[test]
fn a_file_has_its_type_its_length_and_its_validators() {
    let (_folder, files) = files();
    let parts = ask(&files, "GET /static/a%2Etxt?v=1", "").unwrap();
    assert_eq!((parts.0, parts.2.as_str(), parts.1.content_length()), (200, "0123456789", Some(10)));
    assert_eq!(field(&parts, "content-type").as_deref(), Some("text/plain; charset=utf-8"));
    assert_eq!(field(&parts, "accept-ranges").as_deref(), Some("bytes"));
    assert_eq!(field(&parts, "vary").as_deref(), Some("Accept-Encoding"));
    let tag = field(&parts, "etag").unwrap();
    let date = field(&parts, "last-modified").unwrap();
    for condition in [format!("If-None-Match: {tag}\r\n"), format!("If-Modified-Since: {date}\r\n")] {
        let parts = ask(&files, "GET /static/a.txt", &condition).unwrap();
        assert_eq!((parts.0, parts.2.as_str(), parts.1.content_length()), (304, "", None));
        assert_eq!(field(&parts, "etag"), Some(tag.clone()));
        assert_eq!(field(&parts, "vary").as_deref(), Some("Accept-Encoding"));
    }
    assert_eq!(ask(&files, "GET /static/a.txt", "If-Match: \"x\"\r\n").unwrap().0, 412);
}

#[test]
fn a_part_of_a_file_is_sent_where_the_range_is_of_this_content() {
    let (_folder, files) = files();
    let parts = ask(&files, "GET /static/a.txt", "Range: bytes=2-4\r\n").unwrap();
    assert_eq!((parts.0, parts.2.as_str()), (206, "234"));
    assert_eq!(field(&parts, "content-range").as_deref(), Some("bytes 2-4/10"));
    let parts = ask(&files, "GET /static/a.txt", "Range: bytes=2-4\r\nIf-Range: \"x\"\r\n").unwrap();
    assert_eq!((parts.0, parts.2.as_str()), (200, "0123456789"));
    // RFC 9110 §14.2: a range is for GET alone.
    let parts = ask(&files, "HEAD /static/a.txt", "Range: bytes=2-4\r\n").unwrap();
    assert_eq!((parts.0, parts.2.as_str(), parts.1.content_length()), (200, "", Some(10)));
    let parts = ask(&files, "GET /static/a.txt", "Range: bytes=10-\r\n").unwrap();
    assert_eq!((parts.0, parts.1.content_length()), (416, Some(0)));
    assert_eq!(field(&parts, "content-range").as_deref(), Some("bytes */10"));
}

#[test]
fn a_compressed_form_is_sent_to_a_client_that_takes_it() {
    let (folder, files) = files();
    let plain = ask(&files, "GET /static/a.txt", "").unwrap();
    for (accepts, coding, body) in
        [("gzip, br", Some("br"), "b"), ("gzip", Some("gzip"), "zz"), ("identity", None, "0123456789")]
    {
        let parts = ask(&files, "GET /static/a.txt", &format!("Accept-Encoding: {accepts}\r\n")).unwrap();
        assert_eq!((field(&parts, "content-encoding").as_deref(), parts.2.as_str()), (coding, body));
        assert_eq!(field(&parts, "content-type").as_deref(), Some("text/plain; charset=utf-8"));
        assert_eq!(field(&parts, "vary").as_deref(), Some("Accept-Encoding"));
        assert_eq!(field(&parts, "etag") == field(&plain, "etag"), coding.is_none());
    }
    let parts = ask(&files, "GET /static/plain.css", "Accept-Encoding: br, gzip\r\n").unwrap();
    assert_eq!(
        (field(&parts, "vary"), field(&parts, "content-encoding"), parts.2.as_str()),
        (None, None, "p")
    );
    // A compressed form alone is not the file.
    std::fs::remove_file(folder.path().join("a.txt")).unwrap();
    assert!(ask(&files, "GET /static/a.txt", "Accept-Encoding: br\r\n").is_none());
}

#[test]
fn other_methods_and_paths_without_a_file_are_the_applications() {
    let (folder, mut files) = files();
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    for line in [
        "POST /static/a.txt",
        "GET /other",
        "GET /static",
        "GET /static/",
        "GET /static/none",
        "GET /static/sub",
        "GET /static/sub/",
        "GET /static/..%2Fa.txt",
        "GET /static/%2E%2E/a.txt",
        "GET /static/a.txt%00",
        "OPTIONS *",
    ] {
        assert!(ask(&files, line, "").is_none(), "{line}");
    }
    assert_eq!(ask(&files, "GET /static/empty", "").unwrap().1.content_length(), Some(0));
    // The longest route counts.
    std::fs::write(folder.path().join("sub/a.txt"), "of the other").unwrap();
    files.add("/static/deep", &folder.path().join("sub")).unwrap();
    assert_eq!(ask(&files, "GET /static/deep/a.txt", "").unwrap().2, "of the other");
    let error = files.add("/static/", folder.path()).unwrap_err();
    assert_eq!(error, "the route /static/ has two folders");
}

#[test]
fn a_long_file_is_sent_from_where_it_is() {
    let (folder, files) = files();
    std::fs::write(folder.path().join("long"), vec![b'x'; 20_000]).unwrap();
    assert_eq!(ask(&files, "GET /static/long", "").unwrap().2, "20000 from 0");
    assert_eq!(ask(&files, "GET /static/long", "Range: bytes=10-\r\n").unwrap().2, "19990 from 10");
    assert_eq!(ask(&files, "GET /static/long", "Range: bytes=-3\r\n").unwrap().2, "xxx");
}

/// Gives files a time.
fn set_time(folder: &tempfile::TempDir, names: &[&str], time: std::time::SystemTime) {
    for name in names {
        std::fs::File::options()
            .write(true)
            .open(folder.path().join(name))
            .unwrap()
            .set_modified(time)
            .unwrap();
    }
}

#[test]
fn two_forms_of_a_file_with_one_time_and_size_have_two_tags() {
    let (folder, files) = files();
    for name in ["a.txt.br", "a.txt.gz"] {
        std::fs::write(folder.path().join(name), "9876543210").unwrap();
    }
    for seconds in [1, 1_700_000_000] {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        set_time(&folder, &["a.txt", "a.txt.br", "a.txt.gz"], time);
        let tag = field(&ask(&files, "GET /static/a.txt", "").unwrap(), "etag").unwrap();
        for coding in ["br", "gzip"] {
            let fields = format!("Accept-Encoding: {coding}\r\n");
            let parts =
                ask(&files, "GET /static/a.txt", &format!("{fields}If-None-Match: {tag}\r\n")).unwrap();
            assert_eq!((parts.0, parts.2.as_str()), (200, "9876543210"));
            let of_plain = format!("{fields}Range: bytes=5-\r\nIf-Range: {tag}\r\n");
            assert_eq!(ask(&files, "GET /static/a.txt", &of_plain).unwrap().0, 200);
        }
    }
}

#[test]
fn a_file_whose_time_is_a_constant_of_a_build_has_no_date_and_another_tag_when_it_is_replaced() {
    let (folder, files) = files();
    let of_1980 = std::time::Duration::from_secs(315_532_800);
    let mut tags = std::collections::HashSet::new();
    for since in [std::time::Duration::ZERO, std::time::Duration::from_secs(1), of_1980] {
        set_time(&folder, &["plain.css"], std::time::UNIX_EPOCH + since);
        let parts = ask(&files, "GET /static/plain.css", "").unwrap();
        assert_eq!(field(&parts, "last-modified"), None);
        tags.insert(field(&parts, "etag").unwrap());
        // The time of the inode has steps of a timer's interrupt.
        let changed = || {
            std::os::unix::fs::MetadataExt::ctime_nsec(&folder.path().join("plain.css").metadata().unwrap())
        };
        let before = changed();
        while changed() == before {
            set_time(&folder, &["plain.css"], std::time::UNIX_EPOCH + since);
        }
        tags.insert(field(&ask(&files, "GET /static/plain.css", "").unwrap(), "etag").unwrap());
        assert_eq!(
            ask(&files, "GET /static/plain.css", "If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT\r\n")
                .unwrap()
                .0,
            200
        );
    }
    assert!(tags.len() >= 4, "{tags:?}");
}

#[test]
fn a_file_of_the_future_has_no_date() {
    let (folder, files) = files();
    set_time(&folder, &["a.txt"], std::time::SystemTime::now() + std::time::Duration::from_secs(86_400));
    let now = httpdate::fmt_http_date(std::time::SystemTime::now());
    let parts = ask(&files, "GET /static/a.txt", &format!("If-Unmodified-Since: {now}\r\n")).unwrap();
    assert_eq!((parts.0, field(&parts, "last-modified")), (200, None));
    assert!(field(&parts, "etag").is_some());
}

#[test]
fn every_range_of_an_empty_file_gets_all_of_it() {
    let (_folder, files) = files();
    for range in ["bytes=0-", "bytes=-5"] {
        let parts = ask(&files, "GET /static/empty", &format!("Range: {range}\r\n")).unwrap();
        assert_eq!((parts.0, parts.1.content_length()), (200, Some(0)), "{range}");
    }
    let twice = "Range: bytes=0-1\r\nRange: bytes=3-4\r\n";
    assert_eq!(ask(&files, "GET /static/plain.css", twice).unwrap().0, 200);
}
