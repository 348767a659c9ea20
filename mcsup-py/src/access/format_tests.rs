use super::*;
use crate::app::Left;
use crate::http::head::{Heads, Limits};
use crate::http::response::ResponseHead;

fn line(format: &str, request: &str) -> String {
    line_of(format, request, &LEFT)
}

fn line_of(format: &str, request: &str, left: &Left) -> String {
    let mut heads = Heads::default();
    heads.read(request.as_bytes(), &Limits::default()).unwrap();
    let mut response = ResponseHead::new();
    response.push(b"X-Id", b"7").unwrap();
    response.push(b"Content-Length", b"3").unwrap();
    let entry = Entry {
        head: Some(heads.view(request.as_bytes())),
        remote: Some("192.0.2.1:5".parse().unwrap()),
        response: &response,
        bytes: 3,
        took: Duration::from_micros(1_234_567),
        left,
    };
    let mut out = Vec::new();
    Format::parse(format).unwrap().write(&mut out, &entry, &mut Clock::default());
    String::from_utf8(out).unwrap()
}

/// The application has changed nothing.
static LEFT: Left = Left { remote: None, variables: Vec::new() };

const REQUEST: &str = "GET /a?b=c HTTP/1.1\r\nHost: h\r\nX: one\r\nX: two\r\nEmpty:\r\nUser-Agent: x\"y\\\r\n\
    Authorization: Basic bWU6cHc=\r\n\r\n";

#[test]
fn every_atom_has_gunicorns_meaning() {
    for (format, expected) in [
        ("%(h)s %(l)s %(u)s", "192.0.2.1 - me"),
        ("%(r)s", "GET /a?b=c HTTP/1.1"),
        ("%(m)s|%(U)s|%(q)s|%(H)s", "GET|/a|b=c|HTTP/1.1"),
        ("%(s)s %(b)s %(B)s", "200 3 3"),
        ("%(f)s %(a)s", r#"- x\"y\\"#),
        ("%(T)s %(M)s %(D)s %(L)s", "1 1234 1234567 1.234567"),
        ("%({host}i)s %({x-id}o)s %({x}o)s %({content-length}o)s", "h 7 - 3"),
        ("%({REQUEST_METHOD}e)s %({http_host}e)s %({NO}e)s", "GET h -"),
        ("%({x}i)s|%({X}i)s|%({empty}i)s|%({none}i)s", "two|two||-"),
        ("100%%", "100%"),
    ] {
        assert_eq!(line(format, REQUEST), format!("{expected}\n"), "{format}");
    }
    assert_eq!(line("%(p)s", REQUEST), format!("<{}>\n", std::process::id()));
}

#[test]
fn the_time_has_the_common_logs_form() {
    let time = line("%(t)s", REQUEST);
    assert_eq!((time.len(), &time[..1], &time[3..4]), (29, "[", "/"), "{time}");
}

#[test]
fn json_is_one_object_a_line() {
    let line = line("json", REQUEST);
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (line.matches('\n').count(), &value["status"], &value["user_agent"]),
        (1, &200.into(), &"x\"y\\".into())
    );
}

#[test]
fn a_format_that_cannot_be_meant_is_refused() {
    for text in ["%h", "%(h)d", "%(b)d", "%(h)", "%(h", "%(h)*s", "%(h)x", "100%"] {
        assert!(Format::parse(text).is_err(), "{text}");
    }
    Format::parse(Format::DEFAULT).unwrap();
}

#[test]
fn a_name_that_is_no_atom_is_a_dash_and_is_known_for_a_warning() {
    let text = "%(asctime)s %()s %(a(b)c)5s|%({x}z)s %(m)s";
    assert_eq!(line(text, REQUEST), "- -     -|- GET\n");
    assert_eq!(Format::parse(text).unwrap().unknown(), ["asctime", "", "a(b)c", "{x}z"]);
}

#[test]
fn an_atom_may_have_a_conversion_of_python() {
    for (format, expected) in [
        ("%(h)-15s|%(s)5s|%(D)d|%(L).2s|%(T)06d", "192.0.2.1      |  200|1234567|1.|000001"),
        ("%(m)r %({x}i)5s %(B)4i|%(M)-8d|", "'GET'   two    3|1234    |"),
    ] {
        assert_eq!(line(format, REQUEST), format!("{expected}\n"), "{format}");
    }
}

#[test]
fn values_are_those_that_the_application_has_left() {
    let left = Left {
        remote: Some(b"198.51.100.7".to_vec()),
        variables: vec![Some(b"a \"b\"\n\xe9".to_vec()), None, Some(Vec::new())],
    };
    let text = "%(h)s %({app.user}e)s %({REQUEST_METHOD}e)s %({c}e)s|";
    let expected = "198.51.100.7 a \\\"b\\\"\\x0a\\xe9 - |\n";
    assert_eq!(line_of(text, REQUEST, &left), expected);
    assert!(line_of("json", REQUEST, &left).contains(r#""remote_addr":"198.51.100.7""#));
}
