"""Lines of the access log and environ, and gunicorn's own for the same requests."""

import contextlib
import json
import subprocess
import sys

from harness import clean_environment, connect, free_port, read_all, wait_for

APP = '''
import json

def note(environ):
    """A line for all of environ: the value of a text or number, and the type of anything else."""
    plain = (str, int, bool, tuple)
    noted = {key: value if isinstance(value, plain) else str(type(value)) for key, value in environ.items()}
    with open(f"environ.{environ['SERVER_PORT']}", "a") as file:
        file.write(json.dumps(noted, sort_keys=True) + "\\n")

def app(environ, start_response):
    note(environ)
    path = environ["PATH_INFO"]
    headers = [("X-Resp", "a"), ("Content-Type", "text/plain")]
    environ["app.note"] = "from the application"
    environ["app.number"] = 7
    if path == "/proxied":
        environ["REMOTE_ADDR"] = environ["HTTP_X_FORWARDED_FOR"]
    if path == "/moved":
        environ["PATH_INFO"] = "/elsewhere"
    if path == "/none":
        start_response("204 No Content", [])
        return []
    if path == "/same":
        start_response("304 Not Modified", headers)
        return []
    if path == "/chunks":
        start_response("200 OK", headers)
        return iter([b"one", b"", b"three"])
    if path == "/large":
        start_response("200 OK", headers + [("Content-Length", "300000")])
        return [b"x" * 300000]
    if path == "/missing":
        start_response("404 Not Here", headers)
        return [b"missing"]
    if path == "/written":
        start_response("201 Created", headers)(b"written")
        return [b" and more"]
    if path == "/backslash":
        headers = [("X-Resp", "a\\\\b"), ("X-Resp", "c\\\\d")]
    body = environ["wsgi.input"].read()
    start_response("200 OK", headers + [("Content-Length", str(len(body)))])
    return [body]
'''

FORMAT = "|".join(
    ["%(h)s %(l)s %(u)s \"%(r)s\" %(s)s %(b)s %(B)s", "%(m)s", "%(U)s", "%(q)s", "%(H)s", "%(f)s", "%(a)s"]
    + [f"%({{{name}}}i)s" for name in ("host", "X-Request", "none")]
    + [f"%({{{name}}}o)s" for name in ("X-RESP", "content-type", "content-length", "none")]
    + [f"%({{{name}}}e)s" for name in ("request_method", "app.note", "App.Number", "wsgi.url_scheme", "HTTP_X_REQUEST", "none")]
)  # fmt: skip


def request(target, method="GET", *fields, version="1.1", body=b""):
    """The bytes of a request that ends its connection."""
    fields = ["Host: h", "Connection: close", *fields]
    if body or method in ("POST", "PUT"):
        fields.append(f"Content-Length: {len(body)}")
    return "\r\n".join([f"{method} {target} HTTP/{version}", *fields, "", ""]).encode("latin-1") + body


CHUNKED = "\r\n".join(["POST /chunked HTTP/1.1", "Host: h", "Connection: close", "Transfer-Encoding: chunked", "", ""])

REQUESTS = [
    request("/"), request("/?"), request("/?a=b&c=d"), request("/?q=%20%22"), request("/a/b/c"), request("/;p=1"),
    request("/%41%20b"), request("/a//b"), request("/a/../b"), request("/~user"),
    request("/none"), request("/same"), request("/chunks"), request("/large"), request("/missing"), request("/written"),
    request("/", "HEAD"), request("/missing", "HEAD"), request("/", "OPTIONS"), request("/x", "DELETE"),
    request("/", "POST", body=b"hello"), request("/", "PUT", body=b"y" * 70000), request("/", "PATCH", body=b"z"),
    request("/", "POST"), request("/", version="1.0"), request("/chunks", version="1.0"),
    request("http://h/absolute?x=y"), CHUNKED.encode() + b"3\r\nabc\r\n0\r\n\r\n",
    request("/", "GET", "User-Agent: curl/8.0"), request("/", "GET", 'User-Agent: a "quoted" one'),
    request("/", "GET", "Referer: http://r/?a=b"), request("/", "GET", 'Referer: "'), request("/", "GET", "X-Request: 17"),
    request("/", "GET", "X-Request: one", "X-Request: two"), request("/", "GET", "X-Request: "),
    request("/", "GET", "Authorization: Basic bWU6cHc="), request("/", "GET", "authorization: basic  bWU6cHc="),
    request("/", "GET", "Authorization: Bearer x"), request("/", "GET", "Authorization: Basic !"),
    request("/proxied", "GET", "X-Forwarded-For: 198.51.100.7"), request("/moved"),
    request("/backslash"), request("/caf%C3%A9"),
]  # fmt: skip

# The targets of requests whose lines differ, and why.
DIFFERENT = {
    b"/moved": "%(U)s is the path that was requested, also where the application has changed PATH_INFO",
    b"/backslash": "a backslash is escaped: the escape of a quote would be ambiguous otherwise",
    b"/caf%C3%A9": "a byte that is no ASCII is escaped; gunicorn writes it as the character of Latin-1",
}


@contextlib.contextmanager
def gunicorn(directory, *arguments):
    """gunicorn's threads in the test's directory."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "-k", "gthread", "--threads", "2", "-b", f"127.0.0.1:{port}"]
    with (directory / "gunicorn.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *arguments, "app:app"], cwd=directory, env=clean_environment(), stdout=log, stderr=log
        )
        try:
            wait_for(lambda: can_connect(port), "gunicorn to listen", patience=20)
            yield port
        finally:
            process.terminate()
            process.wait(20)


def can_connect(port):
    """Whether something listens."""
    try:
        connect(port).close()
    except OSError:
        return False
    return True


def lines_of(port, path, requests):
    """The line of each request, in order."""
    lines = []
    for sent in requests:
        with connect(port) as connection:
            connection.sendall(sent)
            read_all(connection)
        before = len(lines)
        lines = wait_for(lambda: more_than(path, before), f"a line for {sent[:60]!r}")  # noqa: B023
    return lines


def more_than(path, count):
    """The lines of a file, if there are more than that."""
    lines = path.read_text().splitlines() if path.exists() else []
    return lines if len(lines) > count else None


CONVERTED = "%(asctime)s %(h)-15s|%(m)r|%(s)5s|%(B)06d|%(T)4d|%(U).3s|%({x-request}i)8.2s|%({nothing}z)s|100%%"


def test_names_that_are_no_atoms_and_other_conversions_are_gunicorns(serve, directory):
    requests = [request("/abc", "GET", "X-Request: word"), request("/none"), request("/?", "POST", body=b"hello")]
    options = ["--access-logformat", CONVERTED, "--access-logfile"]
    server = serve(APP, *options, "ours.log")
    ours = lines_of(server.port, directory / "ours.log", requests)
    with gunicorn(directory, *options, "theirs.log") as port:
        theirs = lines_of(port, directory / "theirs.log", requests)
    assert ours == theirs
    server.wait_log(r"\[WARNING\] access_logformat \(from the command line\): %\(asctime\)s is no atom: each line has - for it")


def test_the_lines_of_forty_requests_are_gunicorns(serve, directory):
    options = ["--access-logformat", FORMAT, "--access-logfile"]
    server = serve(APP, "--threads", "2", *options, "ours.log")
    ours = lines_of(server.port, directory / "ours.log", REQUESTS)
    with gunicorn(directory, *options, "theirs.log") as port:
        theirs = lines_of(port, directory / "theirs.log", REQUESTS)
    assert len(ours) == len(theirs) == len(REQUESTS) >= 40
    pairs = zip(REQUESTS, ours, theirs, strict=True)
    differences = {sent: (one, other) for sent, one, other in pairs if one != other}
    unlisted = {sent: both for sent, both in differences.items() if sent.split()[1] not in DIFFERENT}
    assert not unlisted, "\n".join(f"{sent!r}\n  {one}\n  {other}" for sent, (one, other) in unlisted.items())
    assert {sent.split()[1] for sent in differences} == set(DIFFERENT), "a listed difference is none any more"


# The keys of environ that differ in each request, and why.
OTHER_KEYS = {
    "SERVER_SOFTWARE": "the name of the server",
    "SERVER_PORT": "each has its own",
    "REMOTE_PORT": "each connection has its own",
    "REQUEST_URI": "the name that other servers than gunicorn have for RAW_URI",
    "gunicorn.socket": "only a request that asks for another protocol has it",
    "mcsup.draining": "mcsup's own",
    "wsgi.early_hints": "another type with the same use",
    "wsgi.errors": "another type with the same use",
    "wsgi.input": "another type with the same use",
    "wsgi.multiprocess": "a reload has two processes at once, also with one worker",
}

# The keys that differ in a request whose body is chunked.
CHUNKED_KEYS = {
    "CONTENT_LENGTH": "the body is received before the application is called, so its length is known",
    "HTTP_TRANSFER_ENCODING": "the body is no longer in chunks",
}


def test_the_environ_of_forty_requests_is_gunicorns(serve, directory):
    server = serve(APP, "--threads", "2")
    with gunicorn(directory) as port:
        ours, theirs = (lines_of(each, directory / f"environ.{each}", REQUESTS) for each in (server.port, port))
    assert len(ours) == len(theirs) == len(REQUESTS) >= 40
    for sent, one, other in zip(REQUESTS, map(json.loads, ours), map(json.loads, theirs), strict=True):
        differences = {key: (one.get(key), other.get(key)) for key in one.keys() | other.keys() if one.get(key) != other.get(key)}
        expected = OTHER_KEYS.keys() | (CHUNKED_KEYS.keys() if b"chunked" in sent else set())
        assert differences.keys() == expected, f"{sent!r}: {differences}"
