//! `environ`: rules 1 to 8.

use std::sync::atomic::Ordering;

use crate::app::{Body, Local, Secured};
use crate::wsgi::WsgiSettings;

use super::fixture::{Served, check, checked, settings, wrapped};

const GET: &str = "GET /a%20b%2Fc%C3%A9?x=%20y&z HTTP/1.1\r\nHost: example.org\r\n\r\n";

#[test]
fn it_is_a_dict_of_its_own_for_each_request() {
    let code = "assert type(environ) is dict\nassert 'mine' not in environ\nenviron['mine'] = 1\nenviron.pop('wsgi.version')";
    let mut served = Served::new(&wrapped(code));
    for _ in 0..2 {
        served.get().is_complete();
    }
}

#[test]
fn the_required_keys_are_there() {
    let code = "
for key in ('REQUEST_METHOD', 'SERVER_NAME', 'SERVER_PORT', 'SERVER_PROTOCOL'):
    assert type(environ[key]) is str and environ[key], key
assert environ['SCRIPT_NAME'] == '' and environ['PATH_INFO'] == '/' and environ['QUERY_STRING'] == ''
assert environ['wsgi.input'].read() == b''
assert environ['wsgi.errors'].write('') == 0
assert environ['wsgi.version'] == (1, 0) and type(environ['wsgi.version']) is tuple
assert environ['wsgi.url_scheme'] == 'http'
assert environ['wsgi.multithread'] is False
assert environ['wsgi.multiprocess'] is True
assert environ['wsgi.run_once'] is False
assert environ['wsgi.input_terminated'] is True
assert callable(environ['wsgi.file_wrapper'])";
    check("GET / HTTP/1.1\r\nHost: h\r\n\r\n", Body::Empty, code);
}

#[test]
fn an_application_can_ask_at_any_time_whether_its_worker_will_end() {
    let code = "
draining = environ['mcsup.draining']
kept = application.__dict__.setdefault('kept', draining)
expected = environ['PATH_INFO'] == '/true'
assert bool(draining) is draining() is bool(kept) is kept() is expected, draining
assert repr(draining) == f'<mcsup.Draining: {str(expected).lower()}>'
assert kept is draining";
    let mut served = Served::new(&wrapped(code));
    for path in ["/false", "/true"] {
        served.is_draining.store(path == "/true", Ordering::SeqCst);
        served.ask(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes(), Body::Empty).is_complete();
    }
}

#[test]
fn the_request_line_is_taken_apart() {
    let code = "
assert environ['REQUEST_METHOD'] == 'GET'
assert environ['SERVER_PROTOCOL'] == 'HTTP/1.1'
assert environ['RAW_URI'] == environ['REQUEST_URI'] == '/a%20b%2Fc%C3%A9?x=%20y&z'
assert environ['QUERY_STRING'] == 'x=%20y&z'
assert environ['PATH_INFO'] == '/a b/c\\u00c3\\u00a9', ascii(environ['PATH_INFO'])
assert environ['PATH_INFO'].encode('latin-1').decode() == '/a b/c\\u00e9'";
    check(GET, Body::Empty, code);
    check(
        "PURGE / HTTP/1.0\r\n\r\n",
        Body::Empty,
        "assert environ['REQUEST_METHOD'] == 'PURGE'\nassert environ['SERVER_PROTOCOL'] == 'HTTP/1.0'\nassert environ['QUERY_STRING'] == ''",
    );
    check(
        "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
        Body::Empty,
        "assert environ['PATH_INFO'] == ''\nassert environ['RAW_URI'] == '*'",
    );
    check(
        "GET http://h/p?q HTTP/1.1\r\nHost: h\r\n\r\n",
        Body::Empty,
        "assert environ['PATH_INFO'] == '/p'\nassert environ['RAW_URI'] == 'http://h/p?q'",
    );
}

#[test]
fn both_ends_of_the_connection_are_named() {
    let code = "
assert environ['SERVER_NAME'] == '127.0.0.1' and environ['SERVER_PORT'] == '8080'
assert environ['REMOTE_ADDR'] == '192.0.2.7' and environ['REMOTE_PORT'] == '4711'
assert environ['SERVER_SOFTWARE'] == 'mcsup/test'";
    check(GET, Body::Empty, code);
}

#[test]
fn the_name_of_an_ipv6_listener_has_brackets() {
    let code = "assert (environ['SERVER_NAME'], environ['SERVER_PORT']) == ('[::1]', '8080'), environ['SERVER_NAME']";
    let mut served = Served::new(&wrapped(code));
    served.local = Local::Tcp("[::1]:8080".parse().unwrap());
    checked(served, GET, Body::Empty);
}

#[test]
fn behind_a_unix_socket_the_host_field_names_the_server() {
    for (host, name, port) in [
        ("example.org", "example.org", "80"),
        ("example.org:8443", "example.org", "8443"),
        ("[::1]", "[::1]", "80"),
        ("[::1]:81", "[::1]", "81"),
        ("", "/run/app.sock", "80"),
        ("example.org:", "example.org", "80"),
    ] {
        let code = format!(
            "assert environ['SERVER_NAME'] == '{name}', ascii(environ['SERVER_NAME'])\nassert environ['SERVER_PORT'] == '{port}'\nassert environ['REMOTE_ADDR'] == ''\nassert 'REMOTE_PORT' not in environ"
        );
        let mut served = Served::new(&wrapped(&code));
        served.local = Local::Unix("/run/app.sock".to_owned());
        checked(served, &format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), Body::Empty);
    }
}

#[test]
fn a_connection_by_tls_is_https_with_its_variables_and_the_next_one_without_is_http() {
    let code = "
by_tls = environ['PATH_INFO'] == '/tls'
assert environ['wsgi.url_scheme'] == ('https' if by_tls else 'http')
assert ('HTTPS' in environ) == ('SSL_CLIENT_S_DN' in environ) == by_tls
if by_tls:
    assert environ['HTTPS'] == 'on'
    assert environ['SSL_CLIENT_S_DN'].encode('latin-1').decode() == 'O=Gr\u{fc}n'
    assert environ['SERVER_PORT'] == '443'";
    let mut served = Served::new(&wrapped(code));
    served.local = Local::Unix("/run/app.sock".to_owned());
    let variables = vec![("HTTPS", "on".to_owned()), ("SSL_CLIENT_S_DN", "O=Gr\u{fc}n".to_owned())];
    for (path, secured) in [("/tls", Some(Secured { variables })), ("/", None)] {
        served.secured = secured;
        served.ask(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes(), Body::Empty).is_complete();
    }
}

#[test]
fn an_absolute_target_names_the_host_whatever_the_field_says() {
    let code = "
assert environ['HTTP_HOST'] == 'real.example:81', environ['HTTP_HOST']
assert environ['PATH_INFO'] == '/p' and environ['QUERY_STRING'] == 'q'
assert (environ['SERVER_NAME'], environ['SERVER_PORT']) == NAMES, environ['SERVER_NAME']";
    let inet = (Local::Tcp("127.0.0.1:8080".parse().unwrap()), "('127.0.0.1', '8080')");
    let unix = (Local::Unix("/run/app.sock".to_owned()), "('real.example', '81')");
    for (local, names) in [inet, unix] {
        for rest in ["1.1\r\nHost: forged\r\n", "1.1\r\nhost:\r\n", "1.0\r\nHost: forged\r\n", "1.0\r\n"] {
            let mut served = Served::new(&wrapped(&code.replace("NAMES", names)));
            served.local = local.clone();
            checked(served, &format!("GET http://real.example:81/p?q HTTP/{rest}\r\n"), Body::Empty);
        }
    }
}

#[test]
fn fields_become_latin_1_text() {
    let mut served =
        Served::new(&wrapped("assert environ['HTTP_X_NAME'] == 'caf\\u00e9', ascii(environ['HTTP_X_NAME'])"));
    served.ask(b"GET / HTTP/1.1\r\nHost: h\r\nx-Name: caf\xe9\r\n\r\n", Body::Empty).is_complete();
}

#[test]
fn bytes_of_the_target_that_are_no_ascii_become_latin_1_text() {
    let code = "
assert environ['RAW_URI'] == environ['REQUEST_URI'] == '/\\u00c3\\u00a9/%C3%A9?q=\\u00e9', ascii(environ['RAW_URI'])
assert environ['PATH_INFO'] == '/\\u00c3\\u00a9/\\u00c3\\u00a9', ascii(environ['PATH_INFO'])
assert environ['QUERY_STRING'] == 'q=\\u00e9', ascii(environ['QUERY_STRING'])";
    let mut served = Served::new(&wrapped(code));
    served.ask(b"GET /\xc3\xa9/%C3%A9?q=\xe9 HTTP/1.1\r\nHost: h\r\n\r\n", Body::Empty).is_complete();
}

#[test]
fn every_variable_of_cgi_is_latin_1_text() {
    let code = "
for key, value in environ.items():
    assert type(key) is str
    if '.' not in key:
        assert type(value) is str, key
        value.encode('latin-1')
assert environ['SCRIPT_NAME'] == '/caf\\u00c3\\u00a9', ascii(environ['SCRIPT_NAME'])
assert environ['PATH_INFO'] == '/\\u00e9', ascii(environ['PATH_INFO'])
assert environ['CONTENT_TYPE'] == 'text/\\u00e9'";
    for local in [Local::Tcp("[::1]:8080".parse().unwrap()), Local::Unix("/run/caf\u{e9}.sock".to_owned())] {
        let settings = WsgiSettings { script_name: "/caf\u{e9}".to_owned(), ..settings() };
        let mut served = Served::with(settings, &wrapped(code));
        served.local = local;
        let head =
            b"POST /caf%C3%A9/%E9?%E9 HTTP/1.1\r\nHost: %E9\r\nContent-Type: text/\xe9\r\nTransfer-Encoding: chunked\r\n\r\n";
        served.ask(head, Body::Empty).is_complete();
    }
}

#[test]
fn type_and_length_have_no_prefix() {
    let head = "POST / HTTP/1.1\r\nHost: h\r\ncontent-type: text/x\r\nCONTENT-LENGTH: 2\r\n\r\n";
    let code = "
assert environ['CONTENT_TYPE'] == 'text/x' and environ['CONTENT_LENGTH'] == '2'
assert 'HTTP_CONTENT_TYPE' not in environ and 'HTTP_CONTENT_LENGTH' not in environ";
    check(head, Body::Memory(b"ab".to_vec().into()), code);
    check(GET, Body::Empty, "assert 'CONTENT_TYPE' not in environ and 'CONTENT_LENGTH' not in environ");
}

#[test]
fn repeated_fields_are_joined() {
    let head = "GET / HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nCookie: a=1\r\nx-a: 2\r\ncookie: b=2\r\nX-a: 3\r\nCOOKIE: c=3\r\n\r\n";
    check(
        head,
        Body::Empty,
        "assert environ['HTTP_X_A'] == '1,2,3'\nassert environ['HTTP_COOKIE'] == 'a=1; b=2; c=3'",
    );
}

#[test]
fn fields_that_repeat_one_letter_or_nothing_are_joined_as_well() {
    // Python has one object for each text of that length.
    let head = "GET / HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nX-B:\r\nCookie: c\r\nX-A: 1\r\nX-B:\r\nCookie: c\r\nX-A: 1\r\n\r\n";
    let code = "
got = [environ[name] for name in ('HTTP_X_A', 'HTTP_X_B', 'HTTP_COOKIE')]
assert got == ['1,1,1', ',', 'c; c'], got";
    check(head, Body::Empty, code);
}

#[test]
fn a_name_with_an_underscore_forges_nothing() {
    let head = "GET / HTTP/1.1\r\nHost: h\r\nX_User: root\r\nX-User: me\r\n\r\n";
    check(head, Body::Empty, "assert environ['HTTP_X_USER'] == 'me'");
    let head = "GET / HTTP/1.1\r\nHost: h\r\nX_Only: a\r\nContent_Type: text/x\r\nContent_Length: 5\r\nTransfer_Encoding: chunked\r\n\r\n";
    let code = "
for name in ('X_ONLY', 'CONTENT_TYPE', 'CONTENT_LENGTH', 'TRANSFER_ENCODING'):
    assert name not in environ and 'HTTP_' + name not in environ, name";
    check(head, Body::Empty, code);
}

#[test]
fn a_body_that_came_in_chunks_has_a_length() {
    let head = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    let code = "
assert environ['CONTENT_LENGTH'] == '5'
assert 'HTTP_TRANSFER_ENCODING' not in environ
assert environ['HTTP_CONNECTION'] == 'close'
assert environ['wsgi.input'].read() == b'hello'";
    check(head, Body::Memory(b"hello".to_vec().into()), code);
    let code = "assert environ['CONTENT_LENGTH'] == '0' and environ['wsgi.input'].read() == b''";
    check(head, Body::Empty, code);
}

#[test]
fn the_script_name_is_taken_off_the_path_at_a_slash_only() {
    for (script_name, target, seen, path) in [
        ("/app", "/app/x", "/app", "/x"),
        ("/app/", "/app/x", "/app", "/x"),
        ("/app", "/app", "/app", ""),
        ("/app", "/application", "/app", "/application"),
        ("/app", "/x", "/app", "/x"),
        ("/", "/x", "", "/x"),
        ("app", "/app/x", "/app", "/x"),
        ("//", "/x", "", "/x"),
    ] {
        let code = format!(
            "got = environ['SCRIPT_NAME'], environ['PATH_INFO']\nassert got == ('{seen}', '{path}'), got"
        );
        let settings = WsgiSettings { script_name: script_name.to_owned(), ..settings() };
        checked(
            Served::with(settings, &wrapped(&code)),
            &format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"),
            Body::Empty,
        );
    }
}

#[test]
fn the_flags_for_threads_and_processes_are_correct() {
    let settings = WsgiSettings { multithread: true, multiprocess: false, ..settings() };
    let code = "assert environ['wsgi.multithread'] is True\nassert environ['wsgi.multiprocess'] is False";
    checked(Served::with(settings, &wrapped(code)), GET, Body::Empty);
}

#[test]
fn more_names_than_are_remembered_are_still_understood() {
    let mut served = Served::new(&wrapped("assert environ['HTTP_X_LAST'] == 'y'"));
    for round in 0..12 {
        let fields: String = (0..60).map(|field| format!("X-{round}-{field}: v\r\n")).collect();
        let head = format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}X-Last: y\r\n\r\n");
        served.ask(head.as_bytes(), Body::Empty).is_complete();
    }
}

#[test]
fn names_that_clients_invent_are_not_interned() {
    // Of an equal string, made at run time, `intern` returns another one where that is interned already.
    let code = "
import sys
for key in [key for key in environ if key.startswith('HTTP_X_')]:
    again = ''.join(list(key))
    assert sys.intern(again) is again, (len(key), key[:40])";
    let mut served = Served::new(&wrapped(code));
    let mut ask = |fields: String| {
        served
            .ask(format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n").as_bytes(), Body::Empty)
            .is_complete();
    };
    ask(format!("X-Long-{}: v\r\n", "n".repeat(8000)));
    // Names that are remembered, as many as there may be.
    for round in 0..10 {
        ask((0..60).map(|field| format!("Y-{round}-{field}: v\r\n")).collect());
    }
    ask((0..60).map(|field| format!("X-Late-{field}: v\r\n")).collect());
}
