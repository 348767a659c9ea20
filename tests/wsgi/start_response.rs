//! `start_response` and `write`: rules 14 to 22.

use crate::app::{Body, Verdict};

use super::fixture::{Event, Served, block, said, whole};

/// An application that calls `start_response` with these arguments.
fn calling(arguments: &str) -> Served {
    Served::new(&format!(
        "def application(environ, start_response):\n    start_response({arguments})\n    return [b'ok']\n"
    ))
}

#[test]
fn status_and_reason_are_the_applications() {
    let outcome = calling("'299 Custom Reason', [('X-A', 'b')]").get();
    outcome.is_complete();
    assert_eq!((outcome.status(), outcome.field("x-a")), (299, Some(&b"b"[..])));
    let head = format!("{:?}", outcome.head.unwrap());
    assert!(head.contains(&format!("{:?}", b"Custom Reason".to_vec())), "{head}");
    calling("'204', []").get().is_complete();
    let outcome = calling("'200 Tr\\u00e8s bien', []").get();
    let head = format!("{:?}", outcome.head.unwrap());
    assert!(head.contains(&format!("{:?}", b"Tr\xe8s bien".to_vec())), "{head}");
}

#[test]
fn a_status_that_is_none_is_refused() {
    for status in ["'OK'", "'20'", "'2000 OK'", "'200OK'", "' 200 OK'", "'099 x'", "''"] {
        calling(&format!("{status}, []")).get().is_refused(&["ValueError", "status"]);
    }
    for status in ["'100 Continue'", "'101 Switching Protocols'", "'103 Early Hints'", "'199'"] {
        calling(&format!("{status}, []")).get().is_refused(&["ValueError", "interim"]);
    }
    for status in ["b'200 OK'", "200", "None"] {
        calling(&format!("{status}, []")).get().is_refused(&["TypeError", "status"]);
    }
    calling("'200 \\u20ac', []").get().is_refused(&["UnicodeEncodeError"]);
}

#[test]
fn a_line_end_gets_into_no_head() {
    for arguments in [
        "'200 OK\\r\\nX-Bad: 1', []",
        "'200 OK', [('X', 'a\\r\\nX-Bad: 1')]",
        "'200 OK', [('X', 'a\\nb')]",
        "'200 OK', [('X', 'a\\0b')]",
        "'200 OK', [('X\\r\\nX-Bad', 'a')]",
        "'200 OK', [('X Y', 'a')]",
        "'200 OK', [('', 'a')]",
        "'200 OK\\nX-Bad: 1', []",
        "'200 OK\\0', []",
        "'200 OK', [('X:', 'a')]",
        "'200 OK', [('X\\u00e9', 'a')]",
        "'200 OK', [('X', 'a\\x7f')]",
        "'200 OK', [('X', 'a\\x0b')]",
        "'200 OK', [('X', 'a\\r')]",
        // Also where the field itself would be left out.
        "'200 OK', [('Connection', 'a\\r\\nX-Bad: 1')]",
        "'200 OK', [('Content-Length', '1\\r\\nX-Bad: 1')]",
    ] {
        calling(arguments).get().is_refused(&["ValueError"]);
    }
}

#[test]
fn headers_are_a_list_of_pairs_of_str() {
    for headers in
        ["()", "{}", "None", "[['X', 'a']]", "[('X',)]", "[('X', 'a', 'b')]", "[(b'X', 'a')]", "[('X', 1)]"]
    {
        calling(&format!("'200 OK', {headers}")).get().is_refused(&["TypeError", "header"]);
    }
    calling("'200 OK', [('X', '\\u20ac')]").get().is_refused(&["UnicodeEncodeError"]);
}

#[test]
fn headers_are_sent_in_latin_1() {
    let outcome = calling("'200 OK', [('X-Name', 'caf\\u00e9')]").get();
    assert_eq!(outcome.field("X-Name"), Some(&b"caf\xe9"[..]));
}

#[test]
fn what_concerns_the_connection_is_left_out() {
    for name in [
        "Connection",
        "Keep-Alive",
        "Proxy-Authenticate",
        "proxy-authorization",
        "TE",
        "Trailer",
        "Trailers",
        "TRANSFER-ENCODING",
        "Upgrade",
    ] {
        let outcome = calling(&format!("'200 OK', [('{name}', 'chunked'), ('X', 'y')]")).get();
        outcome.is_complete();
        assert_eq!((outcome.field(name), outcome.field("X")), (None, Some(&b"y"[..])), "{name}");
    }
}

#[test]
fn the_application_is_called_by_position_and_so_may_start_response_be() {
    let code = "
def application(a, b, /):
    b('200 OK', [], None)
    return [b'ok']";
    Served::new(code).get().is_complete();
    calling("status='200 OK', headers=[]").get().is_complete();
}

#[test]
fn a_second_call_without_exc_info_raises() {
    let code = "
def application(environ, start_response):
    start_response('200 OK', [])
    start_response('201 Created', [])
    return [b'']";
    Served::new(code).get().is_refused(&["AssertionError", "twice"]);
    let code = "
def application(environ, start_response):
    start_response('200 OK', [])
    yield b'begun'
    start_response('201 Created', [], None)
    yield b'never'";
    let outcome = Served::new(code).get();
    assert_eq!((outcome.verdict, outcome.events), (Verdict::Failed, vec![block("begun")]));
    assert!(outcome.log.contains("AssertionError") && outcome.log.contains("twice"), "{}", outcome.log);
}

#[test]
fn a_second_call_that_the_application_survives_changes_nothing() {
    let code = "
def application(environ, start_response):
    start_response('200 OK', [('X', 'first')])
    try:
        start_response('201 Created', [('X', 'second')])
    except AssertionError:
        environ['wsgi.errors'].write('refused')
    return [b'ok']";
    let outcome = Served::new(code).get();
    outcome.is_complete();
    assert_eq!((outcome.status(), outcome.field("X")), (200, Some(&b"first"[..])));
    assert_eq!(outcome.events, [said("refused"), whole("ok")]);
}

#[test]
fn with_exc_info_a_head_that_was_not_sent_is_replaced() {
    let code = "
import sys
def application(environ, start_response):
    start_response('200 OK', [('X-Old', '1')])
    try:
        raise ValueError
    except ValueError:
        start_response('500 Oops', [('X-New', '2')], sys.exc_info())
    return [b'sorry']";
    let outcome = Served::new(code).get();
    outcome.is_complete();
    assert_eq!(
        (outcome.status(), outcome.field("X-Old"), outcome.field("X-New")),
        (500, None, Some(&b"2"[..]))
    );
    assert_eq!(outcome.events, [whole("sorry")]);
}

#[test]
fn with_exc_info_after_the_head_was_sent_the_exception_goes_on() {
    let code = "
import sys
def fail():
    raise KeyError('first')
def application(environ, start_response):
    start_response('200 OK', [])
    yield b'begun'
    try:
        fail()
    except KeyError as error:
        told = sys.exc_info()
        error.__traceback__ = None
        start_response('500 Oops', [], exc_info=told)
    yield b'never'";
    let outcome = Served::new(code).get();
    assert_eq!((outcome.verdict, outcome.status()), (Verdict::Failed, 200));
    assert_eq!(outcome.events, [block("begun")]);
    // With the traceback of the triple, not one that begins in the handler.
    assert!(outcome.log.contains("KeyError: 'first'") && outcome.log.contains("in fail"), "{}", outcome.log);
}

#[test]
fn no_reference_to_a_traceback_is_kept() {
    let code = "
import sys, weakref
class Local:
    pass
kept = []
def fail():
    local = Local()
    kept.append(weakref.ref(local))
    raise KeyError('failed')
def application(environ, start_response):
    assert [local for local in kept if local() is not None] == []
    if environ['PATH_INFO'] == '/late':
        start_response('200 OK', [])
        yield b'begun'
    try:
        fail()
    except KeyError:
        start_response('500 Oops', [], sys.exc_info())
    assert kept[-1]() is None
    yield b'sorry'";
    let mut served = Served::new(code);
    for _ in 0..2 {
        served.get().is_complete();
        let late = served.ask(b"GET /late HTTP/1.1\r\nHost: h\r\n\r\n", Body::Empty);
        assert!(late.log.contains("KeyError: 'failed'"), "{}", late.log);
    }
    served.get().is_complete();
}

#[test]
fn the_head_may_change_until_the_first_byte_and_not_after() {
    let code = "
import sys
def application(environ, start_response):
    start_response('200 OK', [])
    yield b''
    try:
        raise ValueError
    except ValueError:
        start_response('503 Later', [], sys.exc_info())
    yield b'x'";
    let outcome = Served::new(code).get();
    outcome.is_complete();
    assert_eq!((outcome.status(), outcome.events), (503, vec![block("x")]));
}

#[test]
fn it_may_be_called_as_late_as_the_first_next() {
    let code = "
class Lazy:
    def __init__(self, start_response):
        self.start_response, self.blocks = start_response, iter([b'a', b'b'])
    def __iter__(self):
        return self
    def __next__(self):
        if self.start_response:
            self.start_response('202 Lazy', [])
            self.start_response = None
        return next(self.blocks)
def application(environ, start_response):
    return Lazy(start_response)";
    let outcome = Served::new(code).get();
    outcome.is_complete();
    assert_eq!((outcome.status(), outcome.events), (202, vec![block("a"), block("b")]));
}

#[test]
fn what_is_written_is_sent_before_write_returns() {
    let code = "
def application(environ, start_response):
    write = start_response('200 OK', [])
    for text in (b'a', b'b'):
        write(text)
        environ['wsgi.errors'].write('returned')
    return [b'c']";
    let outcome = Served::new(code).get();
    outcome.is_complete();
    let events = [block("a"), said("returned"), block("b"), said("returned"), block("c")];
    assert_eq!(outcome.events, events);
}

#[test]
fn a_last_block_behind_written_ones_is_sent_while_others_may_run_python() {
    let code = "
def application(environ, start_response):
    start_response('200 OK', [])(b'written')
    return [b'returned']";
    let mut served = Served::new(code);
    served.needs_python = true;
    let outcome = served.get();
    outcome.is_complete();
    assert_eq!(outcome.events, [block("written"), block("returned")]);
}

#[test]
fn the_first_write_sends_the_head_whatever_is_written() {
    let code = "
import sys
def application(environ, start_response):
    start_response('200 OK', [])(b'')
    try:
        raise KeyError('late')
    except KeyError:
        start_response('500 Oops', [], sys.exc_info())
    return [b'never']";
    let outcome = Served::new(code).get();
    assert_eq!((outcome.verdict, outcome.status()), (Verdict::Failed, 200));
    assert!(outcome.log.contains("KeyError: 'late'"), "{}", outcome.log);
}

#[test]
fn only_bytes_can_be_written() {
    let code = "
def application(environ, start_response):
    start_response('200 OK', [])('text')
    return []";
    Served::new(code).get().is_refused(&["TypeError"]);
}

#[test]
fn an_application_that_never_calls_it_has_failed() {
    for returned in ["[b'x']", "[]", "[b'']", "iter([b'x'])", "(b'x', b'y')"] {
        let code = format!("def application(environ, start_response):\n    return {returned}\n");
        Served::new(&code).get().is_refused(&["AssertionError", "did not call start_response()"]);
    }
}

#[test]
fn after_the_request_write_reaches_no_client() {
    let code = "
kept = []
def application(environ, start_response):
    if kept:
        try:
            kept[0](b'late')
        except RuntimeError as error:
            environ['wsgi.errors'].write(str(error))
    kept.append(start_response('200 OK', []))
    return [b'ok']";
    let mut served = Served::new(code);
    served.get().is_complete();
    let second = served.get();
    assert_eq!(second.events, [said("the request is over"), whole("ok")]);
}

#[test]
fn another_thread_may_write_while_the_application_waits() {
    let code = "
import threading
def application(environ, start_response):
    write = start_response('200 OK', [])
    thread = threading.Thread(target=write, args=(b'elsewhere',))
    thread.start()
    thread.join()
    return []";
    let outcome = Served::new(code).get();
    outcome.is_complete();
    assert_eq!(outcome.events, [block("elsewhere")]);
}

#[test]
fn early_hints_are_sent_at_once_and_the_head_follows() {
    let outcome = Served::new(
        "def application(environ, start_response):
    hints = environ['wsgi.early_hints']
    assert hints([('Link', '</a.css>; rel=preload'), ('Connection', 'close')]) is None
    start_response('200 OK', [])
    return [b'ok']
",
    )
    .get();
    outcome.is_complete();
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
    assert_eq!(outcome.events, [Event::Interim(hints.to_owned()), whole("ok")]);
}

#[test]
fn nothing_gets_into_early_hints_that_gets_into_no_head() {
    for (hints, kind) in [
        ("[('X', 'a\\r\\nX-Bad: 1')]", "ValueError"),
        ("[('X\\n', 'a')]", "ValueError"),
        ("[('X', b'a')]", "TypeError"),
        ("(('X', 'a'),)", "TypeError"),
    ] {
        let source =
            format!("def application(environ, start_response):\n    environ['wsgi.early_hints']({hints})\n");
        Served::new(&source).get().is_refused(&[kind]);
    }
}

#[test]
fn a_status_alone_is_no_call_of_start_response() {
    calling("'200 OK'").get().is_refused(&["TypeError", "headers"]);
}
