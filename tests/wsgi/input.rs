//! `wsgi.input`: rules 10 to 12, the same for a body in memory and one in a file.

use std::io::{Seek, Write};

use crate::app::Body;

use super::fixture::check;

/// Runs `code`, in which `stream` is the input, over both kinds of body; and the like over `io.BytesIO`, which is the
/// measure.
#[track_caller]
fn both(body: &[u8], code: &str) {
    let head = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(body).unwrap();
    file.rewind().unwrap();
    let code = format!("stream = environ['wsgi.input']\n{code}");
    check(&head, Body::Memory(body.to_vec().into()), &code);
    check(&head, Body::File { file: file.into(), length: body.len() as u64 }, &code);
    let measure = format!("import io\nstream = io.BytesIO({})\n{code}", python_bytes(body));
    check(&head, Body::Empty, &measure.replace("stream = environ['wsgi.input']\n", ""));
}

fn python_bytes(body: &[u8]) -> String {
    let bytes: Vec<String> = body.iter().map(ToString::to_string).collect();
    format!("bytes([{}])", bytes.join(","))
}

#[test]
fn read_gives_what_is_asked_for_and_then_nothing() {
    both(
        b"hello world",
        "assert stream.read(5) == b'hello'\nassert stream.read(0) == b''\nassert stream.read(100) == b' world'\nassert stream.read(1) == b''\nassert stream.read() == b''",
    );
}

#[test]
fn read_without_a_size_gives_all() {
    for call in ["read()", "read(-1)", "read(None)", "read(-7)", "read(__import__('sys').maxsize)"] {
        both(b"a\nb", &format!("assert stream.{call} == b'a\\nb'\nassert stream.{call} == b''"));
    }
}

#[test]
fn readline_keeps_the_line_end_and_heeds_its_size() {
    both(
        b"ab\n\ncd",
        "assert stream.readline() == b'ab\\n'\nassert stream.readline() == b'\\n'\nassert stream.readline(1) == b'c'\nassert stream.readline(0) == b''\nassert stream.readline(-1) == b'd'\nassert stream.readline() == b''",
    );
    both(
        b"ab\ncd",
        "assert stream.readline(2) == b'ab'\nassert stream.readline(9) == b'\\n'\nassert stream.readline(None) == b'cd'",
    );
    both(
        b"ab\ncd",
        "import sys\nassert stream.readline(sys.maxsize) == b'ab\\n'\nassert stream.readlines(sys.maxsize) == [b'cd']",
    );
}

#[test]
fn readlines_heeds_its_hint() {
    both(
        b"a\nb\nc",
        "assert stream.readlines() == [b'a\\n', b'b\\n', b'c']\nassert stream.readlines() == []",
    );
    both(
        b"a\nb\nc",
        "assert stream.readlines(3) == [b'a\\n', b'b\\n']\nassert stream.readlines(0) == [b'c']",
    );
    both(b"a\nb\nc", "assert len(stream.readlines(None)) == 3");
    both(b"a\nb\nc", "assert len(stream.readlines(-1)) == 3");
}

#[test]
fn iterating_gives_lines() {
    both(
        b"a\nb\n\nc",
        "assert list(stream) == [b'a\\n', b'b\\n', b'\\n', b'c']\nassert next(stream, None) is None",
    );
}

#[test]
fn lines_and_blocks_may_be_mixed() {
    both(
        b"a\nbcd\ne",
        "assert stream.readline() == b'a\\n'\nassert stream.read(2) == b'bc'\nassert next(stream) == b'd\\n'\nassert stream.read() == b'e'",
    );
}

#[test]
fn a_large_body_is_read_whole() {
    let body: Vec<u8> = (0..300_000u32).map(|at| (at % 251) as u8).collect();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&body).unwrap();
    file.rewind().unwrap();
    let code = "
stream = environ['wsgi.input']
expected = bytes(at % 251 for at in range(300000))
assert stream.read(10) == expected[:10]
assert stream.read(200000) == expected[10:200010]
assert stream.read() == expected[200010:]
assert stream.read() == b''";
    let head = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 300000\r\n\r\n";
    check(head, Body::File { file: file.into(), length: 300_000 }, code);
    check(head, Body::Memory(body.into()), code);
}

#[test]
fn a_request_without_a_body_has_an_empty_input_that_cannot_be_closed() {
    let code = "stream = environ['wsgi.input']\nassert stream.read() == b'' and stream.readline() == b'' and list(stream) == []\nassert not hasattr(stream, 'close')";
    check("GET / HTTP/1.1\r\nHost: h\r\n\r\n", Body::Empty, code);
}
