"""PEP 3333 over the wire, under wsgiref.validate."""

import http.client
import json

from harness import connect, read_all

VALIDATED = '''
import io, json, sys, tempfile
from wsgiref.validate import validator

def respond(start_response, body, status="200 OK", kind="text/plain", extra=()):
    start_response(status, [("Content-Type", kind), *extra])
    return body

class Closing:
    closed = 0
    def __init__(self, blocks):
        self.blocks = iter(blocks)
    def __iter__(self):
        return self
    def __next__(self):
        return next(self.blocks)
    def close(self):
        Closing.closed += 1

def echo(environ, start_response):
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    return respond(start_response, [body])

def lines(environ, start_response):
    source = environ["wsgi.input"]
    found = [source.readline(), source.readline(3), source.readlines(), source.read(5)]
    text = json.dumps([part.decode() if isinstance(part, bytes) else [l.decode() for l in part] for part in found])
    return respond(start_response, [text.encode()], kind="application/json")

def iterated(environ, start_response):
    found = [line.decode() for line in environ["wsgi.input"]]
    return respond(start_response, [json.dumps(found).encode()], kind="application/json")

def show(environ, start_response):
    plain = {key: value for key, value in environ.items() if isinstance(value, (str, bool))}
    plain["version"] = list(environ["wsgi.version"])
    return respond(start_response, [json.dumps(plain).encode()], kind="application/json")

def generator(environ, start_response):
    return respond(start_response, Closing([b"a", b"", b"b"]))

def lazy(environ, start_response):
    def blocks():
        respond(start_response, None)
        yield b"lazy"
    return blocks()

def writer(environ, start_response):
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    write(b"written ")
    return [b"returned"]

def recovered(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    try:
        raise ValueError("recovered")
    except ValueError:
        start_response("500 Recovered", [("Content-Type", "text/plain")], sys.exc_info())
    return [b"recovered"]

def empty(environ, start_response):
    start_response("204 No Content", [])
    return []

def nothing(environ, start_response):
    return respond(start_response, [])

def file(environ, start_response):
    source = tempfile.TemporaryFile()
    source.write(b"0123456789" * 1000)
    source.seek(5)
    return respond(start_response, environ["wsgi.file_wrapper"](source, 4096))

def memory_file(environ, start_response):
    return respond(start_response, environ["wsgi.file_wrapper"](io.BytesIO(b"from memory")))

def errors(environ, start_response):
    environ["wsgi.errors"].write("said to wsgi.errors\\n")
    environ["wsgi.errors"].writelines(["line one\\n", "line two\\n"])
    environ["wsgi.errors"].flush()
    return respond(start_response, [b"ok"])

def closed(environ, start_response):
    return respond(start_response, [str(Closing.closed).encode()])

PATHS = {"/" + f.__name__: f for f in (
    echo, lines, iterated, show, generator, lazy, writer, recovered, empty, nothing, file, memory_file, errors, closed)}

def router(environ, start_response):
    return PATHS.get(environ["PATH_INFO"], show)(environ, start_response)

valid = validator(router)

def app(environ, start_response):
    # The validator's file wrapper would hide the server's own; it is tested without.
    if environ["PATH_INFO"] in ("/file", "/memory_file"):
        return router(environ, start_response)
    return valid(environ, start_response)
'''


def ask(server, path, method="GET", body=None, headers=None):
    """One exchange: the response and its body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def test_every_path_of_a_validated_application_is_clean(serve):
    server = serve(VALIDATED)
    exchanges = {
        "/echo": ("POST", b"hello", b"hello"),
        "/generator": ("GET", None, b"ab"),
        "/lazy": ("GET", None, b"lazy"),
        "/writer": ("GET", None, b"written returned"),
        "/recovered": ("GET", None, b"recovered"),
        "/empty": ("GET", None, b""),
        "/nothing": ("GET", None, b""),
        "/errors": ("GET", None, b"ok"),
        "/file": ("GET", None, (b"0123456789" * 1000)[5:]),
        "/memory_file": ("GET", None, b"from memory"),
    }
    for path, (method, body, expected) in exchanges.items():
        response, received = ask(server, path, method, body)
        assert (response.status // 100 in (2, 5), received) == (True, expected), f"{path}\n{server.log}"
        head, received = ask(server, path, "HEAD")
        assert received == b"" and head.status == response.status
    assert ask(server, "/recovered")[0].reason == "Recovered"
    assert ask(server, "/closed")[1] == b"2"
    _, found = ask(server, "/lines", "POST", b"one\ntwo\nthree\nfour")
    assert json.loads(found) == ["one\n", "two", ["\n", "three\n", "four"], ""]
    _, found = ask(server, "/iterated", "POST", b"one\ntwo")
    assert json.loads(found) == ["one\n", "two"]
    assert server.stop() == 0
    assert "said to wsgi.errors\nline one\nline two\n" in server.log
    for sign in ("AssertionError", "WSGIWarning", "Traceback", "Error handling"):
        assert sign not in server.log, server.log


def test_the_environ_says_what_was_asked(serve):
    server = serve(VALIDATED)
    headers = {"X-Twice": "1", "Content-Type": "text/x", "X_Forged": "1", "Cookie": "a=b"}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.putrequest("POST", "/caf%C3%A9/%2Fx?q=%20&r", skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.putheader("X-Twice", "2")
    connection.putheader("Cookie", "c=d")
    connection.putheader("Content-Length", "0")
    connection.endheaders()
    environ = json.loads(connection.getresponse().read())
    connection.close()
    expected = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/caf\xc3\xa9//x",
        "QUERY_STRING": "q=%20&r",
        "RAW_URI": "/caf%C3%A9/%2Fx?q=%20&r",
        "REQUEST_URI": "/caf%C3%A9/%2Fx?q=%20&r",
        "SCRIPT_NAME": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": str(server.port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "CONTENT_TYPE": "text/x",
        "CONTENT_LENGTH": "0",
        "HTTP_X_TWICE": "1,2",
        "HTTP_COOKIE": "a=b; c=d",
        "wsgi.url_scheme": "http",
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "version": [1, 0],
    }
    assert {key: environ.get(key) for key in expected} == expected
    assert environ["REMOTE_PORT"].isdigit() and environ["SERVER_SOFTWARE"].startswith("mcsup/")
    assert not [key for key in environ if "FORGED" in key or key in ("HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH")]


def test_a_chunked_upload_reaches_the_application_decoded(serve):
    server = serve(VALIDATED)
    response, body = ask(server, "/echo", "POST", iter([b"one ", b"two"]))
    assert (response.status, body) == (200, b"one two")
    _, environ = ask(server, "/show", "POST", iter([b"one ", b"two"]))
    environ = json.loads(environ)
    assert environ["CONTENT_LENGTH"] == "7" and "HTTP_TRANSFER_ENCODING" not in environ


def test_a_script_name_is_taken_off_the_path(serve):
    server = serve(VALIDATED, "-e", "SCRIPT_NAME=/app")
    environ = json.loads(ask(server, "/app/show")[1])
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/app", "/show")


FAULTS = '''
def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/raises":
        raise RuntimeError("raised by the view")
    if path == "/exits":
        raise SystemExit(3)
    if path == "/interrupts":
        raise KeyboardInterrupt
    if path == "/silent":
        return [b"no start_response"]
    if path == "/text":
        start_response("200 OK", [])
        return ["text"]
    if path == "/twice":
        start_response("200 OK", [])
        start_response("200 OK", [])
    if path == "/injects":
        start_response("200 OK", [("X-A", "b\\r\\nSet-Cookie: c")])
    if path == "/reason":
        start_response("200 OK\\r\\nX: y", [])
    if path == "/half":
        start_response("200 OK", [("Content-Length", "10")])
        return [b"half"]
    if path == "/late":
        def blocks():
            start_response("200 OK", [])
            yield b"begun"
            raise RuntimeError("raised in the middle")
        return blocks()
    if path == "/hop":
        start_response("200 OK", [("Connection", "upgrade"), ("Transfer-Encoding", "chunked"), ("X-Ok", "1")])
        return [b"x"]
    start_response("200 OK", [])
    return [b"fine"]
'''


def test_faults_of_an_application_end_its_request_and_nothing_else(serve):
    server = serve(FAULTS)
    (worker,) = server.worker_pids()
    for path in ("/raises", "/exits", "/interrupts", "/silent", "/text", "/twice", "/injects", "/reason"):
        response, body = ask(server, path)
        assert response.status == 500, path
        assert b"Set-Cookie" not in body and response.getheader("Set-Cookie") is None
        assert response.getheader("Connection") == "close"
    assert ask(server, "/fine")[1] == b"fine"
    assert server.worker_pids() == [worker]
    assert server.log.count("Error handling request GET /raises") == 1
    for text in ("RuntimeError: raised by the view", "SystemExit: 3", "KeyboardInterrupt", "not of str"):
        assert text in server.log


def test_a_response_that_breaks_off_cannot_be_taken_for_a_whole_one(serve):
    server = serve(FAULTS)
    client = connect(server.port)
    client.sendall(b"GET /late HTTP/1.1\r\nHost: h\r\n\r\n")
    received = read_all(client)
    assert b"0\r\n\r\n" not in received
    server.wait_log("raised in the middle")
    client = connect(server.port)
    client.sendall(b"GET /half HTTP/1.1\r\nHost: h\r\n\r\n")
    assert read_all(client).endswith(b"half")


def test_what_concerns_the_connection_is_the_servers_business(serve):
    server = serve(FAULTS)
    response, body = ask(server, "/hop")
    assert (body, response.getheader("X-Ok"), response.getheader("Connection")) == (b"x", "1", None)


def test_every_form_of_target_is_served(serve, directory):
    (directory / "package").mkdir()
    (directory / "package" / "__init__.py").write_text("")
    (directory / "package" / "web.py").write_text(
        "def application(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [b'application']\n"
        "def make(text, times=1):\n"
        "    def app(environ, start_response):\n"
        "        start_response('200 OK', [])\n"
        "        return [(text * times).encode()]\n"
        "    return app\n"
        "class holder:\n"
        "    inner = staticmethod(make('inner'))\n"
    )
    for target, expected in [
        ("package.web", b"application"),
        ("package.web:application", b"application"),
        ("package.web:make('ab', times=2)", b"abab"),
        ("package.web:holder.inner", b"inner"),
    ]:
        server = serve(None, app=target)
        assert server.get()[1] == expected
        assert server.stop() == 0
