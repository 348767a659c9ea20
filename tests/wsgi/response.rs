//! What the application returns: rules 19 to 28.

use crate::app::{Body, Verdict};

use super::fixture::{Event, Served, block, said, whole};

/// An application that returns this, after 200 with these headers.
fn returning(headers: &str, returned: &str) -> Served {
    Served::new(&format!(
        "def application(environ, start_response):\n    start_response('200 OK', {headers})\n    return {returned}\n"
    ))
}

/// An iterable that reports its `close()` and each request of a block.
const TELLING: &str = "
class Telling:
    def __init__(self, environ, blocks, broken=False):
        self.errors, self.blocks, self.broken = environ['wsgi.errors'], blocks, broken
    def __iter__(self):
        for block in self.blocks:
            self.errors.write('asked')
            if isinstance(block, BaseException):
                raise block
            yield block
    def close(self):
        self.errors.write('closed')
        if self.broken:
            raise RuntimeError('close is broken')
";

fn telling(headers: &str, arguments: &str) -> Served {
    Served::new(&format!(
        "{TELLING}\ndef application(environ, start_response):\n    start_response('200 OK', {headers})\n    return Telling(environ, {arguments})\n"
    ))
}

#[test]
fn one_block_is_the_whole_body() {
    for returned in ["[b'body']", "(b'body',)"] {
        let outcome = returning("[]", returned).get();
        outcome.is_complete();
        assert_eq!(outcome.events, [whole("body")]);
    }
    let large = returning("[]", "[b'x' * 200000]").get();
    assert_eq!(large.events, [Event::Whole(vec![b'x'; 200_000])]);
}

#[test]
fn no_block_is_an_empty_body() {
    for returned in ["[]", "()", "[b'']", "[b'', b'']", "iter([])"] {
        let outcome = returning("[]", returned).get();
        outcome.is_complete();
        assert_eq!(outcome.events, [whole("")], "{returned}");
    }
}

#[test]
fn each_block_is_sent_before_the_next_is_asked_for() {
    let outcome = telling("[]", "[b'a', b'b']").get();
    outcome.is_complete();
    assert_eq!(outcome.events, [said("asked"), block("a"), said("asked"), block("b"), said("closed")]);
}

#[test]
fn empty_blocks_are_not_sent() {
    let outcome = returning("[]", "[b'', b'a', b'', b'b']").get();
    outcome.is_complete();
    assert_eq!(outcome.events, [block("a"), block("b")]);
}

#[test]
fn a_body_is_made_of_bytes_alone() {
    for returned in
        ["['text']", "'text'", "[bytearray(b'x')]", "[memoryview(b'x')]", "[None]", "b'x'", "iter(['x'])"]
    {
        returning("[]", returned).get().is_refused(&["TypeError", "bytes"]);
    }
    for returned in ["None", "1"] {
        returning("[]", returned).get().is_refused(&["TypeError", "iterable"]);
    }
    returning("[]", "[type('Mine', (bytes,), {})(b'x')]").get().is_complete();
}

#[test]
fn no_block_is_requested_without_need() {
    let outcome = telling("[('Content-Length', '2')]", "[b'a', b'b', b'c', b'd']").get();
    outcome.is_complete();
    assert_eq!(outcome.events, [said("asked"), block("a"), said("asked"), block("b"), said("closed")]);
}

#[test]
fn close_is_called_after_an_exception() {
    let outcome = telling("[]", "[b'a', ValueError('midway')]").get();
    assert_eq!((outcome.verdict, outcome.status()), (Verdict::Failed, 200));
    assert_eq!(outcome.events, [said("asked"), block("a"), said("asked"), said("closed")]);
    assert!(outcome.log.contains("ValueError: midway"), "{}", outcome.log);
}

#[test]
fn close_is_called_when_nothing_could_be_sent() {
    let application = |start: &str, iter: &str| {
        format!(
            "
class Closing:
    def __init__(self, environ):
        self.errors = environ['wsgi.errors']
    def __iter__(self):
        {iter}
    def close(self):
        self.errors.write('closed')
def application(environ, start_response):
    {start}
    return Closing(environ)"
        )
    };
    for (start, iter, text) in [
        ("pass", "return iter([b'x'])", "did not call start_response()"),
        ("start_response('200 OK', [])", "raise ValueError('no iterator')", "ValueError: no iterator"),
        ("start_response('200 OK', [])", "return iter(['text'])", "TypeError"),
    ] {
        let outcome = Served::new(&application(start, iter)).get();
        outcome.is_refused(&[text]);
        assert_eq!(outcome.events, [said("closed")], "{iter}");
    }
}

#[test]
fn close_is_called_when_the_client_is_gone_and_nothing_is_logged() {
    let mut served = telling("[]", "[b'a', b'b', b'c']");
    served.patience = 1;
    let outcome = served.get();
    assert_eq!((outcome.verdict, outcome.log.as_str()), (Verdict::Failed, ""));
    assert_eq!(outcome.events, [said("asked"), block("a"), said("asked"), said("closed")]);
}

#[test]
fn close_is_called_for_head_too() {
    let outcome = telling("[]", "[b'a']").ask(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", Body::Empty);
    outcome.is_complete();
    assert_eq!(outcome.events.last(), Some(&said("closed")));
}

#[test]
fn close_is_called_on_a_list_that_has_one() {
    let code = "
class Closing(list):
    def close(self):
        self[1].write('closed')
def application(environ, start_response):
    start_response('200 OK', [('Content-Length', '1')])
    return Closing([b'a', environ['wsgi.errors']])";
    let outcome = Served::new(code).get();
    outcome.is_complete();
    assert_eq!(outcome.events, [block("a"), said("closed")]);
}

#[test]
fn a_generator_is_finalised_when_the_client_is_gone() {
    let code = "
def application(environ, start_response):
    start_response('200 OK', [])
    try:
        while True:
            yield b'x'
    finally:
        environ['wsgi.errors'].write('finalised')";
    let mut served = Served::new(code);
    served.patience = 2;
    assert_eq!(served.get().events, [block("x"), block("x"), said("finalised")]);
}

#[test]
fn a_close_that_fails_is_logged_and_spoils_nothing() {
    let outcome = telling("[]", "[b'a'], broken=True").get();
    assert_eq!(outcome.verdict, Verdict::Complete);
    assert_eq!(outcome.events, [said("asked"), block("a"), said("closed")]);
    assert!(outcome.log.contains("RuntimeError: close is broken"), "{}", outcome.log);
}

#[test]
fn of_two_failures_both_are_logged() {
    let outcome = telling("[]", "[ValueError('first')], broken=True").get();
    outcome.is_refused(&["ValueError: first", "RuntimeError: close is broken"]);
}

#[test]
fn an_exception_is_logged_whole_with_its_request() {
    let code = "
def deep():
    raise LookupError('inner')
def application(environ, start_response):
    try:
        deep()
    except LookupError as error:
        raise ValueError('outer') from error";
    let outcome = Served::new(code).ask(b"POST /a?b=c HTTP/1.1\r\nHost: h\r\n\r\n", Body::Empty);
    outcome.is_refused(&[
        "POST /a?b=c",
        "LookupError: inner",
        "direct cause",
        "ValueError: outer",
        "in deep",
    ]);
}

#[test]
fn the_traceback_of_an_uncaught_exception_has_its_frames() {
    let code = "
def view():
    return 1 / 0
def application(environ, start_response):
    return view()";
    let outcome = Served::new(code).get();
    let frames = ["Traceback (most recent call last)", "line 5, in application", "line 3, in view"];
    outcome.is_refused(&frames);
    assert_eq!(outcome.log.matches("File ").count(), 2, "{}", outcome.log);
}

#[test]
fn an_exception_after_start_response_but_before_a_byte_is_a_failure_with_no_head() {
    let code = "
def application(environ, start_response):
    start_response('200 OK', [])
    raise ValueError('late')";
    Served::new(code).get().is_refused(&["ValueError: late"]);
}

#[test]
fn what_ends_a_process_ends_only_the_request() {
    for raised in ["SystemExit(3)", "KeyboardInterrupt()", "GeneratorExit()"] {
        let code = format!("def application(environ, start_response):\n    raise {raised}\n");
        let mut served = Served::new(&code);
        let name = raised.split('(').next().unwrap();
        served.get().is_refused(&[name]);
        // And the next one is answered alike.
        served.get().is_refused(&[name]);
    }
}

#[test]
fn endless_recursion_and_failing_messages_end_only_the_request() {
    let code = "
class Mute(Exception):
    def __str__(self):
        raise RuntimeError('not even a message')
def forever(): forever()
answers = [forever, Mute]
def application(environ, start_response):
    if answers:
        answer = answers.pop()
        if answer is Mute:
            raise Mute()
        answer()
    start_response('200 OK', [])
    return [b'alive']";
    let mut served = Served::new(code);
    served.get().is_refused(&["Mute"]);
    served.get().is_refused(&["RecursionError"]);
    assert_eq!(served.get().events, [whole("alive")]);
}

#[test]
fn an_application_in_the_middle_of_an_exception_is_served() {
    let code = "
def application(environ, start_response):
    try:
        1 / 0
    except ZeroDivisionError:
        start_response('200 OK', [])
        return iter([b'a', b'b'])";
    let mut served = Served::new(code);
    for _ in 0..3 {
        let outcome = served.get();
        outcome.is_complete();
        assert_eq!(outcome.events, [block("a"), block("b")]);
    }
}

#[test]
fn a_client_that_leaves_a_writing_application_is_not_logged_as_its_error() {
    let code = "
def application(environ, start_response):
    write = start_response('200 OK', [])
    while True:
        write(b'x')";
    let mut served = Served::new(code);
    served.patience = 1;
    let outcome = served.get();
    assert_eq!((outcome.verdict, outcome.log.as_str()), (Verdict::Failed, ""));
}

#[test]
fn an_application_may_catch_that_its_client_left() {
    let code = "
def application(environ, start_response):
    write = start_response('200 OK', [])
    try:
        while True:
            write(b'x')
    except OSError:
        environ['wsgi.errors'].write('left')
    return []";
    let mut served = Served::new(code);
    served.patience = 1;
    assert_eq!(served.get().events, [block("x"), said("left")]);
}

#[test]
fn other_threads_run_python_while_a_block_is_sent() {
    let mut served = returning("[]", "iter([b'a', b'b'])");
    served.needs_python = true;
    let outcome = served.get();
    outcome.is_complete();
    assert_eq!(outcome.events, [block("a"), block("b")]);
}

#[test]
fn any_kind_of_iterable_is_served() {
    for returned in [
        "(block for block in (b'a', b'b'))",
        "[b'a', b'b']",
        "{b'a': 1, b'b': 2}",
        "map(bytes, ([97], [98]))",
        // len() is not called: its result need not be true.
        "type('Lying', (), {'__len__': lambda self: 1, '__iter__': lambda self: iter([b'a', b'b'])})()",
    ] {
        assert_eq!(returning("[]", returned).get().events, [block("a"), block("b")], "{returned}");
    }
}
