//! The socket in the environ of a request whose client asks for another protocol.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::fixture::*;
use crate::app::{Body, Verdict};

const ASKS: &[u8] = b"GET /chat HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";

/// Asks for another protocol; returns also what the client has received.
fn ask(code: &str, received: &[u8]) -> (Outcome, String) {
    let mut served = Served::new(code);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.write_all(b"sent").unwrap();
    served.connection = Some((Some(ours.into()), received.to_vec()));
    let outcome = served.ask(ASKS, Body::Empty);
    let mut text = Vec::new();
    theirs.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
    // What the application has not read makes the end a reset.
    let _ = theirs.read_to_end(&mut text);
    (outcome, String::from_utf8(text).unwrap())
}

#[test]
fn only_a_request_for_another_protocol_has_it() {
    let code = "assert not [key for key in environ if key.endswith('.socket')]";
    let mut served = Served::new(&wrapped(code));
    let (ours, _theirs) = UnixStream::pair().unwrap();
    served.connection = Some((Some(ours.into()), Vec::new()));
    served.get().is_complete();
    // RFC 9110 §7.8: a server ignores it in a request of 1.0.
    check("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", Body::Empty, code);
}

#[test]
fn it_is_a_socket_under_both_names_and_costs_nothing_if_it_is_not_used() {
    let code = wrapped(
        "import socket
sock = environ['gunicorn.socket']
assert environ['werkzeug.socket'] is sock and isinstance(sock, socket.socket)
assert sock.gettimeout() is None and 'unused' in repr(sock)
sock.getsockname()
sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
global kept
kept = sock",
    );
    let (outcome, text) = ask(&code, b"");
    outcome.is_complete();
    assert_eq!((outcome.status(), outcome.is_taken, text.as_str()), (200, false, ""));
    assert_eq!(outcome.events, [whole("ok")]);
}

#[test]
fn a_process_that_the_application_forks_does_not_have_a_socket_that_is_not_used() {
    let code = wrapped(
        "import os, socket, stat
descriptor = socket.socket.fileno(environ['gunicorn.socket'])
is_socket = lambda: stat.S_ISSOCK(os.fstat(descriptor).st_mode)
assert is_socket()
pid = os.fork()
if pid == 0:
    try:
        os._exit(1 if is_socket() else 0)
    except OSError:
        os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert is_socket()",
    );
    let (outcome, _) = ask(&code, b"");
    outcome.is_complete();
}

#[test]
fn its_first_use_takes_the_connection_and_what_wsgi_demands_afterwards_is_not_sent() {
    for end in [
        "start_response('200 OK', []); return [b'no']",
        "return []",
        "raise StopIteration()",
        "raise BrokenPipeError()",
    ] {
        let code = format!(
            "def application(environ, start_response):
    sock = environ['gunicorn.socket']
    sock.sendall(b'hello ' + sock.recv(100))
    assert sock.getblocking() and sock.gettimeout() is None
    {end}
"
        );
        let (outcome, text) = ask(&code, b"");
        assert_eq!(
            (outcome.is_taken, text.as_str(), outcome.log.as_str()),
            (true, "hello sent", ""),
            "{end}"
        );
        assert!(outcome.events.is_empty(), "{outcome:?}");
    }
}

#[test]
fn a_duplicate_shares_the_connection_and_what_was_received_behind_the_request() {
    let code = "def application(environ, start_response):
    sock = environ['gunicorn.socket']
    copy = sock.dup()
    assert isinstance(copy, type(sock)) and copy.fileno() != sock.fileno() and copy.gettimeout() is None
    assert not copy.get_inheritable()
    first = copy.recv(3)
    copy.sendall(first + sock.recv(100) + b' ' + copy.recv(100))
    copy.close()
    sock.sendall(b'!')
    return []
";
    let (outcome, text) = ask(code, b"before");
    assert_eq!((outcome.is_taken, text.as_str(), outcome.log.as_str()), (true, "before sent!", ""));
}

#[test]
fn an_iterable_may_speak_as_well() {
    let code = "def application(environ, start_response):
    environ['gunicorn.socket'].send(b'one ')
    yield b''
    environ['gunicorn.socket'].send(b'two')
    yield b'no'
";
    let (outcome, text) = ask(code, b"");
    outcome.is_complete();
    assert_eq!((text.as_str(), outcome.events.len()), ("one two", 0));
}

#[test]
fn an_application_that_raises_stop_iteration_wants_no_answer() {
    let (outcome, text) = ask("def application(environ, start_response):\n    raise StopIteration()\n", b"");
    outcome.is_complete();
    assert_eq!((outcome.is_taken, text.as_str()), (true, ""));
    // Otherwise it is a fault.
    let mut served = Served::new("def application(environ, start_response):\n    raise StopIteration()\n");
    served.get().is_refused(&["StopIteration"]);
}

#[test]
fn an_exception_after_the_connection_was_taken_is_logged() {
    let code = "def application(environ, start_response):
    environ['gunicorn.socket'].send(b'x')
    raise ValueError('of the conversation')
";
    let (outcome, text) = ask(code, b"");
    assert_eq!((outcome.verdict, text.as_str()), (Verdict::Failed, "x"));
    assert!(outcome.log.contains("ValueError: of the conversation"), "{}", outcome.log);
}

#[test]
fn bytes_that_came_with_the_request_come_first_whatever_is_called() {
    let code = "import socket
def application(environ, start_response):
    sock = environ['gunicorn.socket']
    assert sock.recv(3, socket.MSG_PEEK) == b'abc'
    assert sock.recv(1) == b'a'
    room = bytearray(10)
    assert sock.recv_into(room, 2) == 2 and room[:3] == b'bc\\0'
    assert sock.recvfrom(1)[0] == b'd'
    assert sock.recvmsg(1)[0] == b'e'
    buffers = [bytearray(1), bytearray(9)]
    assert sock.recvmsg_into(buffers)[0] == 2, buffers
    assert buffers[0] == b'f' and buffers[1][:2] == b'g\\0'
    assert sock.makefile('rb').read(4) == b'sent'
    return []
";
    let (outcome, _) = ask(code, b"abcdefg");
    outcome.is_complete();
}

#[test]
fn a_request_is_answered_where_no_descriptor_is_left_for_the_socket() {
    let mut served = Served::new(&wrapped("assert 'gunicorn.socket' not in environ"));
    served.connection = Some((None, Vec::new()));
    assert_eq!(served.ask(ASKS, Body::Empty).status(), 200);
}

#[test]
fn a_client_that_is_gone_is_an_error_of_the_socket() {
    let mut served = Served::new(
        "def application(environ, start_response):
    try:
        environ['gunicorn.socket'].send(b'x')
    except BrokenPipeError:
        pass
    else:
        assert False
    return []
",
    );
    let (ours, _theirs) = UnixStream::pair().unwrap();
    served.connection = Some((Some(ours.into()), Vec::new()));
    served.patience = 0;
    let outcome = served.ask(ASKS, Body::Empty);
    assert!(!outcome.log.contains("Assertion"), "{}", outcome.log);
}

#[test]
fn the_status_101_is_for_a_client_that_has_asked_and_names_its_protocol() {
    let switches = "def application(environ, start_response):
    start_response('101 Switching Protocols', [('Upgrade', 'x'), ('Connection', 'Upgrade')])(b'')
    environ['gunicorn.socket'].send(b'spoken')
    return []
";
    let (outcome, text) = ask(switches, b"");
    outcome.is_complete();
    assert_eq!((outcome.status(), outcome.field("upgrade")), (101, Some(&b"x"[..])));
    assert_eq!((outcome.is_taken, text.as_str()), (true, "spoken"));
    // `write` need not be called.
    let (outcome, text) = ask(&switches.replace("(b'')", ""), b"");
    outcome.is_complete();
    assert_eq!((outcome.status(), outcome.field("upgrade")), (101, Some(&b"x"[..])));
    assert_eq!((outcome.is_taken, text.as_str()), (true, "spoken"));
    // The head of an answer is not sent on a connection that is taken.
    let (outcome, text) = ask(&switches.replace("(b'')", "").replace("101", "200"), b"");
    outcome.is_complete();
    assert_eq!((outcome.is_taken, text.as_str(), outcome.events.len()), (true, "spoken", 0));
    let (outcome, _) = ask("def application(e, start_response): start_response('101 Y', [])", b"");
    outcome.is_refused(&["ValueError", "needs a header Upgrade"]);
    Served::new(switches).get().is_refused(&["ValueError", "101 is interim"]);
    // Also behind the request of a client that has asked.
    let code = "def application(environ, start_response):
    if 'HTTP_UPGRADE' in environ:
        start_response('200 OK', [])
        return [b'ok']
    start_response('101 Y', [('Upgrade', 'x'), ('Connection', 'Upgrade')])
    return []
";
    let mut served = Served::new(code);
    let (ours, _theirs) = UnixStream::pair().unwrap();
    served.connection = Some((Some(ours.into()), Vec::new()));
    served.ask(ASKS, Body::Empty).is_complete();
    served.get().is_refused(&["ValueError", "101 is interim"]);
}
