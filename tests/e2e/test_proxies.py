"""Proxies before the server: the same raw requests to mcsup and to gunicorn's gthread worker, and a Unix socket."""

import contextlib
import json
import signal
import socket
import struct
import subprocess
import sys

import harness
import pytest
from harness import PATIENCE, free_port, wait_for

APPLICATION = """
import json
NAMES = ("wsgi.url_scheme", "REMOTE_ADDR", "REMOTE_PORT", "SCRIPT_NAME", "PATH_INFO", "SERVER_PORT")
def app(environ, start_response):
    picked = {name: environ[name] for name in NAMES if name in environ}
    for name, value in environ.items():
        if name.startswith(("PROXY_", "HTTP_X", "HTTP_SCRIPT", "HTTP_PATH", "HTTP_CONTENT", "HTTP_FORWARDED")):
            picked[name] = value
    body = json.dumps(picked).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


class Gunicorn:
    """gunicorn's gthread worker in the directory of a test."""

    def __init__(self, directory, *options):
        self.port = free_port()
        bind = ["-k", "gthread", "--threads", "2", "-b", f"127.0.0.1:{self.port}"]
        command = [sys.executable, "-m", "gunicorn", "--no-control-socket", *bind, *options, "app:app"]
        self.log = (directory / f"gunicorn-{self.port}.log").open("wb")
        self.process = subprocess.Popen(
            command, cwd=directory, env=harness.clean_environment(), stdout=self.log, stderr=self.log
        )

    def stop(self):
        self.process.terminate()
        self.process.wait(20)
        self.log.close()


@pytest.fixture
def pair(serve, directory):
    """Starts both servers with the same options: the addresses of mcsup and of gunicorn."""
    with contextlib.ExitStack() as stack:

        def start(*options):
            (directory / "app.py").write_text(APPLICATION)
            theirs = Gunicorn(directory, *options)
            stack.callback(theirs.stop)
            ours = serve(None, "--threads", "2", *options)
            wait_for(lambda: harness.answers(theirs.port), "gunicorn to answer", patience=20)
            return ours.port, theirs.port

        yield start


def receive(connection):
    """The status of one answer and the environ in it, without the port of the connection."""
    with connection.makefile("rb") as stream:
        status = int(stream.readline().split()[1])
        length = 0
        while (line := stream.readline().strip()) != b"":
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        body = stream.read(length)
    if status != 200:
        return status, None
    environ = json.loads(body)
    if environ["REMOTE_ADDR"] == "127.0.0.1" and "PROXY_ADDR" not in environ:
        environ.pop("REMOTE_PORT")
    environ.pop("SERVER_PORT")
    return status, environ


def ask(port, *messages):
    """Sends each message on one connection; the last answer."""
    answer = None
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        for message in messages:
            connection.sendall(message)
            answer = receive(connection)
    return answer


def get(*fields, path="/app/x"):
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: h", *fields, "", ""]).encode()


# Requests with fields of a proxy.
FIELDS = [
    (),
    ("X-Forwarded-Proto: https",),
    ("X-Forwarded-Proto: http",),
    ("X-Forwarded-Proto: HTTPS",),
    ("x-forwarded-protocol: ssl",),
    ("X-Forwarded-Ssl: on",),
    ("X-Forwarded-Ssl: on", "X-Forwarded-Proto: https"),
    ("X-Forwarded-Ssl: off", "X-Forwarded-Proto: https"),
    ("X-Forwarded-Proto: https", "X-Forwarded-Proto: http"),
    ("X-Forwarded-For: 192.0.2.7", "X-Forwarded-Host: example.org", "Forwarded: for=192.0.2.7;proto=https"),
    ("SCRIPT_NAME: /app",),
    ("Script_Name: /app/x",),
    ("PATH_INFO: /y",),
    ("X_Other: 1",),
    ("X-Other: 1", "X_Other: 2"),
    ("Content_Length: 5",),
]

# What differs on purpose: a path outside of the mount point is the request's fault, also where the mount point ends within
# a segment, and a repeated mount point is refused (gunicorn takes the last one).
OTHERWISE = [
    (("SCRIPT_NAME: /elsewhere",), 400, 500),
    (("SCRIPT_NAME: /%61pp",), 400, 500),
    (("SCRIPT_NAME: //evil.example",), 400, 500),
    (('SCRIPT_NAME: /"><script>',), 400, 500),
    (("SCRIPT_NAME: /ap",), 400, 200),
    (("SCRIPT_NAME: /app", "SCRIPT_NAME: /app"), 400, 200),
]


def compare(ours, theirs):
    for fields in FIELDS:
        assert ask(ours, get(*fields)) == ask(theirs, get(*fields)), fields


def test_the_fields_of_a_local_proxy_count_as_with_gunicorn(pair):
    ours, theirs = pair()
    compare(ours, theirs)
    assert ask(ours, get("X-Forwarded-Proto: https"))[1]["wsgi.url_scheme"] == "https"
    escaped = get("SCRIPT_NAME: /caf%C3%A9", path="/caf%C3%A9/a%20b")
    assert ask(ours, escaped) == ask(theirs, escaped)
    for fields, our_status, their_status in OTHERWISE:
        assert (ask(ours, get(*fields))[0], ask(theirs, get(*fields))[0]) == (our_status, their_status), fields


def test_the_fields_of_a_peer_that_is_not_trusted_count_as_little_as_with_gunicorn(pair):
    ours, theirs = pair("--forwarded-allow-ips", "10.0.0.0/8,192.168.0.1")
    compare(ours, theirs)
    assert ask(ours, get("X-Forwarded-Proto: https"))[1]["wsgi.url_scheme"] == "http"


@pytest.mark.parametrize("action", ["refuse", "dangerous"])
def test_names_with_an_underscore_are_treated_as_by_gunicorn(pair, action):
    ours, theirs = pair("--header-map", action, "--forwarder-headers", "X_REMOTE_USER,SCRIPT_NAME")
    compare(ours, theirs)
    for fields in [("X_Remote_User: me",), ("X-Remote-User: me", "X_REMOTE_USER: you")]:
        assert ask(ours, get(*fields)) == ask(theirs, get(*fields)), fields


def binary(command, kind, content):
    return b"\r\n\r\n\0\r\nQUIT\n" + struct.pack(">BBH", command, kind, len(content)) + content


IPV4 = socket.inet_aton("192.0.2.7") + socket.inet_aton("198.51.100.1") + struct.pack(">HH", 4711, 443)
IPV6 = b"".join(socket.inet_pton(socket.AF_INET6, text) for text in ("2001:db8::7", "::1")) + struct.pack(">HH", 1, 2)
LINE = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n"

# Beginnings of a connection.
HEADERS = [
    b"",
    LINE,
    b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 65536\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 4711\r\n",
    b"PROXY TCP4 ::1 ::2 1 2\r\n",
    b"PROXY TCP5 192.0.2.7 198.51.100.1 1 2\r\n",
    binary(0x21, 0x11, IPV4),
    binary(0x21, 0x11, IPV4 + b"\x04\0\x01\0"),
    binary(0x21, 0x21, IPV6),
]

# What differs on purpose: the protocol has headers without addresses, which leave those of the connection (gunicorn
# refuses the line, and gives None for the others); ports have one form; a malformed binary header is the peer's fault.
HEADERS_OTHERWISE = [
    (b"PROXY UNKNOWN\r\n", 200, 400),
    (b"PROXY UNKNOWN \xff\xfe\r\n", 200, 400),
    (b"PROXY TCP4 192.0.2.7 198.51.100.1 +4711 0443\r\n", 400, 200),
    (binary(0x22, 0x11, IPV4), 400, 500),
    (binary(0x21, 0x11, IPV4[:8]), 400, 500),
]


def test_a_proxy_header_names_the_client_as_with_gunicorn(pair):
    access = ("--access-logfile", "-", "--access-logformat", "%(h)s is the client")
    ours, theirs = pair("--proxy-protocol", "auto", *access)
    for header in HEADERS:
        assert ask(ours, header + get()) == ask(theirs, header + get()), header
        status, environ = ask(ours, header + get("X-Forwarded-Proto: https", "X-Forwarded-For: 203.0.113.1"))
        # With a header that names a client the fields are the client's.
        if status == 200:
            assert environ["wsgi.url_scheme"] == ("http" if "PROXY_ADDR" in environ else "https"), header
    assert ask(ours, LINE + get())[1]["REMOTE_ADDR"] == "192.0.2.7"
    for header, our_status, their_status in HEADERS_OTHERWISE:
        statuses = ask(ours, header + get())[0], ask(theirs, header + get())[0]
        assert statuses == (our_status, their_status), header
    for header in (binary(0x20, 0, b""), binary(0x21, 0, b""), binary(0x20, 0xF0, b""), binary(0x20, 0x45, b"xx")):
        assert ask(ours, header + get())[1]["REMOTE_ADDR"] == "127.0.0.1"


def test_a_client_behind_a_proxy_header_cannot_write_the_fields_of_a_proxy(serve):
    fields = ("X-Forwarded-Proto: https", "X-Forwarded-For: 203.0.113.1", "SCRIPT_NAME: /app")
    for trusted, expected in [
        ((), ("http", "192.0.2.7", "")),
        (("--forwarded-allow-ips", "127.0.0.1,192.0.2.0/24"), ("https", "203.0.113.1", "/app")),
    ]:
        server = serve(APPLICATION, "--proxy-protocol", "auto", "--trusted-hops", "1", *trusted)
        for header in (LINE, binary(0x21, 0x11, IPV4)):
            _, environ = ask(server.port, header + get(*fields))
            assert (environ["wsgi.url_scheme"], environ["REMOTE_ADDR"], environ["SCRIPT_NAME"]) == expected
        server.stop()


def test_a_proxy_header_of_version_2_says_that_the_client_has_used_tls(serve):
    server = serve(APPLICATION, "--proxy-protocol", "v2")
    version = b"\x21\0\x07TLSv1.3"
    for client, scheme in ((1, "https"), (0, "http")):
        value = struct.pack(">BI", client, 0) + version
        header = binary(0x21, 0x11, IPV4 + b"\x20" + struct.pack(">H", len(value)) + value)
        # The second request has no header.
        assert ask(server.port, header + get())[1]["wsgi.url_scheme"] == scheme
        assert ask(server.port, header + get(), get())[1]["wsgi.url_scheme"] == scheme


def test_a_proxy_header_counts_for_all_requests_of_its_connection_and_is_in_the_access_log(serve):
    access = ("--access-logfile", "-", "--access-logformat", "%(h)s is the client of %(U)s")
    server = serve(APPLICATION, "--proxy-protocol", "v1", *access)
    # gunicorn's gthread worker forgets the header after the first request.
    assert ask(server.port, LINE + get(), get(path="/next"))[1]["REMOTE_ADDR"] == "192.0.2.7"
    server.wait_log("192.0.2.7 is the client of /next")
    assert ask(server.port, LINE + get(), LINE + get())[0] == 400


def test_a_connection_with_a_proxy_header_keeps_its_client_over_a_reload(serve):
    server = serve(APPLICATION, "--proxy-protocol", "v2", "--soak", "0", "--keep-alive", "60")
    before = server.worker_pids()
    with (
        socket.create_connection(("127.0.0.1", server.port), PATIENCE) as used,
        socket.create_connection(("127.0.0.1", server.port), PATIENCE) as silent,
    ):
        header = binary(0x21, 0x11, IPV4)
        used.sendall(header + get())
        assert receive(used)[1]["REMOTE_ADDR"] == "192.0.2.7"
        server.signal(signal.SIGHUP)
        server.wait_log(r"Worker \d+ is ready", count=2)
        wait_for(lambda: not set(before) & set(server.worker_pids()), "the old worker's end")
        used.sendall(get(path="/after"))
        _, environ = receive(used)
        assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"], environ["PROXY_PORT"]) == ("192.0.2.7", "4711", "443")
        # Nothing of this one was read by the old worker.
        silent.sendall(header + get())
        assert receive(silent)[1]["REMOTE_ADDR"] == "192.0.2.7"
        # A header that has been read is not expected again.
        used.sendall(header + get())
        assert receive(used)[0] == 400


def test_a_proxy_header_of_another_peer_gets_403_as_with_gunicorn(pair):
    ours, theirs = pair("--proxy-protocol", "auto", "--proxy-allow-from", "10.0.0.0/8")
    for header in (LINE, binary(0x21, 0x11, IPV4), b""):
        assert ask(ours, header + get()) == ask(theirs, header + get()), header
    assert ask(ours, LINE + get())[0] == 403
    with socket.create_connection(("127.0.0.1", ours), PATIENCE) as connection:
        connection.sendall(LINE + get())
        assert connection.makefile("rb").readline() == b"HTTP/1.1 403 Forbidden\r\n"


def test_a_proxy_header_without_the_option_is_refused_with_a_hint(serve):
    server = serve(APPLICATION)
    for header in (LINE, binary(0x21, 0x11, IPV4)):
        assert ask(server.port, header + get())[0] == 400
    server.wait_log("PROXY header, which this server does not accept; see --proxy-protocol", count=2)


def test_the_address_of_a_client_behind_two_proxies_is_counted_on_request(serve, directory):
    fields = ("X-Forwarded-For: 203.0.113.9, 192.0.2.7", "X-Forwarded-For: 198.51.100.2")
    forwarded = ('Forwarded: for=203.0.113.9, for="[2001:db8::7]:80";proto=https', "Forwarded: for=198.51.100.2")
    access = ("--access-logfile", "-", "--access-logformat", "%(h)s is the client")
    server = serve(APPLICATION, "--trusted-hops", "2", *access)
    _, environ = ask(server.port, get(*fields, *forwarded))
    assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == ("192.0.2.7", "0")
    server.wait_log("192.0.2.7 is the client")
    # Too few entries: not all of them are of the proxies.
    assert ask(server.port, get("X-Forwarded-For: 203.0.113.9", *forwarded))[1]["REMOTE_ADDR"] == "127.0.0.1"
    server.stop()
    server = serve(APPLICATION, "--trusted-hops", "2", "--trusted-hops-field", "forwarded")
    _, environ = ask(server.port, get(*fields, *forwarded))
    assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == ("2001:db8::7", "80")
    # A malformed line has an effect only if the entry that counts is in it.
    _, environ = ask(server.port, get("Forwarded: x", *forwarded))
    assert environ["REMOTE_ADDR"] == "2001:db8::7"
    assert ask(server.port, get("Forwarded: x, for=192.0.2.7", "Forwarded: for=198.51.100.2"))[0] == 400
    server.stop()
    server = serve(APPLICATION, "--trusted-hops", "2", env=harness.clean_environment(FORWARDED_ALLOW_IPS="10.0.0.1"))
    assert ask(server.port, get(*fields))[1]["REMOTE_ADDR"] == "127.0.0.1"


def test_a_proxy_on_a_unix_socket_is_trusted(serve, directory):
    server = serve(APPLICATION, "-b", "unix:s", "--forwarded-allow-ips", "", "--proxy-protocol=auto")
    for header, expected in ((LINE, ("192.0.2.7", "http")), (b"PROXY UNKNOWN\r\n", ("", "https")), (b"", ("", "https"))):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(str(directory / "s"))
            connection.sendall(header + get("X-Forwarded-Proto: https"))
            _, environ = receive(connection)
        assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]) == expected, header
    assert ask(server.port, get("X-Forwarded-Proto: https"))[1]["wsgi.url_scheme"] == "http"


def test_the_settings_for_proxies_of_a_gunicorn_conf_py_count(pair, directory):
    (directory / "gunicorn.conf.py").write_text("""
forwarded_allow_ips = "*"
secure_scheme_headers = {"X-SCHEME": "https", "X-TLS": "1"}
forwarder_headers = "SCRIPT_NAME,REMOTE_USER"
header_map = "refuse"
proxy_protocol = True
proxy_allow_ips = "127.0.0.0/8"
""")
    ours, theirs = pair()
    compare(ours, theirs)
    for fields in [("X-Scheme: https",), ("X-Scheme: https", "X-Tls: 0"), ("Remote_User: me",), ("PATH_INFO: /",)]:
        assert ask(ours, get(*fields)) == ask(theirs, get(*fields)), fields
    assert ask(ours, LINE + get("X-Tls: 1")) == ask(theirs, LINE + get("X-Tls: 1"))
    assert ask(ours, get("X-Scheme: https"))[1]["wsgi.url_scheme"] == "https"
    assert ask(ours, get("X-Forwarded-Proto: https"))[1]["wsgi.url_scheme"] == "http"


def test_a_field_with_an_underscore_may_name_the_scheme_as_with_gunicorn(pair, directory):
    (directory / "gunicorn.conf.py").write_text('secure_scheme_headers = {"X_FORWARDED_PROTO": "https"}\n')
    ours, theirs = pair()
    for fields in [("X_Forwarded_Proto: https",), ("X_Forwarded_Proto: http",), ("X-Forwarded-Proto: https",)]:
        assert ask(ours, get(*fields)) == ask(theirs, get(*fields)), fields
    assert ask(ours, get("X_Forwarded_Proto: https"))[1]["wsgi.url_scheme"] == "https"


def test_a_wrong_list_is_one_clear_error(directory):
    for words, texts in [
        (("--forwarded-allow-ips", "192.168.1.1/16"), ("forwarded_allow_ips", "write 192.168.0.0/16")),
        (("--proxy-allow-from", "balancer"), ("proxy_allow_from", "no address, no network")),
        (("--trusted-hops-field", "forwarded"), ("trusted_hops_field", "it needs trusted_hops")),
    ]:
        ended = harness.run(*words, "app:app", cwd=directory)
        assert ended.returncode == 2 and all(text in ended.stderr for text in texts), ended.stderr
        assert len(ended.stderr.strip().splitlines()) <= 2, ended.stderr
