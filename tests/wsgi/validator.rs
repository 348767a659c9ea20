//! An application that exercises every path, under the validator of Python's own library.

use crate::app::{Body, Local};

use super::fixture::{Event, Served};

/// The validator reports an unclosed iterator on `sys.stderr` alone: here it has one of its own.
const APPLICATION: &str = "
import io, types, wsgiref.validate
complaints = io.StringIO()
wsgiref.validate.sys = types.SimpleNamespace(stderr=complaints)

TEXT = [('Content-Type', 'text/plain')]

def inner(environ, start_response):
    path = environ['PATH_INFO']
    if path == '/empty':
        start_response('204 No Content', [])
        return []
    if path == '/write':
        write = start_response('200 OK', TEXT)
        write(b'a')
        write(b'b')
        return [b'c']
    if path == '/replaced':
        start_response('200 OK', TEXT)
        try:
            raise ValueError
        except ValueError:
            import sys
            start_response('500 Oops', TEXT, sys.exc_info())
        return [b'sorry']
    if path == '/file':
        start_response('200 OK', TEXT)
        return environ['wsgi.file_wrapper'](io.BytesIO(b'abc'), 2)
    if path == '/announced':
        start_response('200 OK', TEXT + [('Content-Length', '2')])
        return iter([b'a', b'b', b'c'])
    if path == '/raises':
        start_response('200 OK', TEXT)
        return raising()
    stream = environ['wsgi.input']
    got = [stream.read(1), stream.readline(), *stream.readlines(2), *stream, stream.read(9)]
    environ['wsgi.errors'].write('seen')
    environ['wsgi.errors'].writelines(['a', 'b'])
    environ['wsgi.errors'].flush()
    start_response('200 OK', TEXT)
    return (piece for piece in got)

def raising():
    yield b'a'
    raise ValueError('midway')

validated = wsgiref.validate.validator(inner)

def application(environ, start_response):
    if environ['PATH_INFO'] == '/complaints':
        import gc
        gc.collect()
        start_response('200 OK', TEXT)
        return [complaints.getvalue().encode()]
    return validated(environ, start_response)
";

#[test]
fn the_validator_has_nothing_to_complain_of() {
    let mut served = Served::new(APPLICATION);
    for local in [Local::Tcp("[::1]:80".parse().unwrap()), Local::Unix("/run/a.sock".to_owned())] {
        served.local = local;
        for method in ["GET", "HEAD"] {
            for path in ["/", "/empty", "/write", "/replaced", "/file", "/announced", "/a%20b?c=d"] {
                let head = format!("{method} {path} HTTP/1.1\r\nHost: h:1\r\nCookie: a=b\r\nX-Y: z\r\n\r\n");
                served.ask(head.as_bytes(), Body::Empty).is_complete();
            }
        }
        let bodies = ["Content-Length: 9\r\nContent-Type: text/x", "Transfer-Encoding: chunked"];
        for fields in bodies {
            let head = format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n");
            let outcome = served.ask(head.as_bytes(), Body::Memory(b"ab\nc\nd\nef".to_vec().into()));
            outcome.is_complete();
            let sent = outcome.events.iter().filter_map(|event| match event {
                Event::Block(bytes) => Some(&bytes[..]),
                _ => None,
            });
            assert_eq!(sent.collect::<Vec<_>>().concat(), b"ab\nc\nd\nef");
        }
        let failed = served.ask(b"GET /raises HTTP/1.1\r\nHost: h\r\n\r\n", Body::Empty);
        assert!(
            failed.log.contains("ValueError: midway") && !failed.log.contains("AssertionError"),
            "{}",
            failed.log
        );
    }
    // A client that leaves is no reason for an iterator to stay open.
    served.patience = 0;
    served.ask(b"GET /file HTTP/1.1\r\nHost: h\r\n\r\n", Body::Empty);
    served.patience = usize::MAX;
    let complaints = served.ask(b"GET /complaints HTTP/1.1\r\nHost: h\r\n\r\n", Body::Empty);
    assert_eq!(complaints.events, [Event::Whole(Vec::new())]);
}
