"""WebSocket and other protocols on a connection that the application takes, beside gunicorn's thread worker."""

import base64
import contextlib
import hashlib
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import PATIENCE, TOP, clean_environment, free_port, wait_for

GUNICORN = Path(sys.executable).with_name("gunicorn")

# flask-sock's echo, a view, and a protocol of lines that knows nothing of WebSocket.
APP = """
import os
from flask import Flask, request
from flask_sock import Sock

app = Flask(__name__)
sock = Sock(app)


@app.get("/")
def index():
    return f"{os.getpid()} {'gunicorn.socket' in request.environ}"


@sock.route("/echo")
def echo(ws):
    while True:
        ws.send(ws.receive())


@sock.route("/once")
def once(ws):
    ws.send(ws.receive())


@sock.route("/draining")
def draining(ws):
    ws.receive()
    ws.send(str(bool(request.environ["mcsup.draining"])))


def lines(environ, start_response):
    if environ.get("HTTP_UPGRADE") != "lines":
        return app(environ, start_response)
    connection = environ["gunicorn.socket"]
    connection.sendall(b"HTTP/1.1 101 Switching Protocols\\r\\nConnection: upgrade\\r\\nUpgrade: lines\\r\\n\\r\\n")
    with connection.makefile("rb") as reader:
        for line in reader:
            if line == b"\\n":
                break
            connection.sendall(line.upper())
    raise StopIteration()
"""


class WebSocket:
    """A client of RFC 6455 that sends and receives text frames of up to 125 bytes."""

    def __init__(self, port, path="/echo", early=b"", tls=None):
        self.connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        if tls:
            self.connection = tls.wrap_socket(self.connection)
        key = base64.b64encode(os.urandom(16))
        head = b"GET %s HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n" % path.encode()
        head += b"Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n\r\n" % key
        self.connection.sendall(head + early)
        self.reader = self.connection.makefile("rb")
        self.status = self.reader.readline().rstrip()
        self.fields = {}
        while line := self.reader.readline().rstrip():
            name, _, value = line.partition(b": ")
            self.fields[name.lower()] = value
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        assert self.status.split()[1] == b"101", self.status
        assert self.fields[b"sec-websocket-accept"] == accept

    def send(self, text, opcode=1):
        """Send one masked frame."""
        self.connection.sendall(frame(text, opcode))

    def receive(self):
        """The opcode and the payload of one frame; None at the end of the connection."""
        head = self.reader.read(2)
        if len(head) < 2:
            return None
        return head[0] & 15, self.reader.read(head[1])

    def close(self):
        """Say that it ends, and wait for the answer and the end; return the frames of the server."""
        with contextlib.suppress(OSError):
            self.send(struct.pack("!H", 1000), 8)
        frames = []
        with contextlib.suppress(ConnectionResetError):
            while got := self.receive():
                frames.append(got[0])
        self.connection.close()
        return frames


def frame(payload, opcode=1):
    """A masked frame."""
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + mask + masked


@contextlib.contextmanager
def gunicorn(directory, *arguments):
    """gunicorn's thread worker with the same application; its port."""
    port = free_port()
    command = [GUNICORN, "-k", "gthread", "--threads", "4", "-b", f"127.0.0.1:{port}", *arguments, "app:lines"]
    with (directory / "gunicorn.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=directory, env=clean_environment(), stdout=log, stderr=log)
    try:
        wait_for(lambda: can_connect(port), "gunicorn", patience=20)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def can_connect(port):
    """Whether a server listens on this port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=PATIENCE):
        return True
    return False


def echo_session(port, tls=None):
    """What a client sees of an echo: the head without date and server, the frames, and the end."""
    client = WebSocket(port, tls=tls)
    seen = [client.status, {name: client.fields.get(name) for name in (b"upgrade", b"connection")}]
    for text in (b"one", b"", b"three" * 20):
        client.send(text)
        seen.append(client.receive())
    client.send(b"ping", 9)
    seen.append(client.receive())
    # simple-websocket answers a close in a thread of its own, and often after its handler has returned: then it is too late.
    assert client.close() in ([8], [])
    return seen


def once_session(port, tls=None):
    """What a client sees of a conversation that the application ends."""
    client = WebSocket(port, "/once", tls=tls)
    client.send(b"only")
    return [client.receive(), client.close()]


def theirs(session, port, tls):
    """What a client of gunicorn sees; None where it lost its connection in the middle."""
    try:
        return session(port, tls)
    except OSError:
        return None


def lines_session(port):
    """What a client sees of a protocol of lines."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: lines\r\n\r\n")
        reader = connection.makefile("rb")
        head = [reader.readline() for _ in range(4)]
        connection.sendall(b"a line\nGET / HTTP/1.1\n")
        answers = [reader.readline(), reader.readline()]
        connection.sendall(b"\n")
        return [head, answers, reader.read()]


@pytest.fixture
def pool(serve):
    """A pool of one worker with four threads."""

    def start(*arguments, threads=4):
        return serve(APP, "--threads", threads, "--access-logfile", "access.log", *arguments, app="app:lines")

    return start


def test_flask_sock_and_other_protocols_are_served_as_by_gunicorn(pool, directory):
    server = pool()
    with gunicorn(directory) as port:
        for session in (echo_session, once_session, lines_session):
            assert session(server.port) == session(port), session.__name__
    assert "Traceback" not in server.log
    assert server.get("/")[1].endswith(b"False"), "a plain request has no socket"


def test_websocket_by_tls_is_served_as_by_gunicorn(pool, directory):
    certificates = TOP / "tests" / "engine" / "certificates"
    arguments = ["--certfile", str(certificates / "first.pem"), "--keyfile", str(certificates / "first.key")]
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    server = pool(*arguments)
    with gunicorn(directory, *arguments) as port:
        for session in (echo_session, once_session):
            ours = session(server.port, tls)
            # Two threads use gunicorn's SSLSocket at the same time, and on a busy machine it loses a connection.
            assert any(theirs(session, port, tls) == ours for _ in range(5)), (session.__name__, ours)
    client = WebSocket(server.port, early=frame(b"early"), tls=tls)
    assert client.receive() == (1, b"early")
    for count in range(20):
        client.send(b"%d" % count)
        assert client.receive() == (1, b"%d" % count)
    server.signal(signal.SIGTERM)
    client.close()
    assert server.wait() == 0
    assert "Traceback" not in server.log


def test_a_head_by_start_response_comes_before_the_first_byte_of_the_other_protocol(serve):
    application = """
def app(environ, start_response):
    start_response("101 Switching Protocols", [("Upgrade", "lines")])
    environ["gunicorn.socket"].sendall(b"hello")
    return []
"""
    certificates = TOP / "tests" / "engine" / "certificates"
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    for options in ([], ["--certfile", certificates / "first.pem", "--keyfile", certificates / "first.key"]):
        server = serve(application, "--access-logfile", "-", "--access-logformat", "%(s)s is the status", *options)
        with contextlib.closing(socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)) as connection:
            if options:
                connection = tls.wrap_socket(connection)
            connection.sendall(
                b"GET / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nConnection: upgrade\r\nUpgrade: lines\r\n\r\n"
            )
            received = connection.makefile("rb").read()
        assert received.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Switching Protocols\r\n"), received
        assert b"\r\nUpgrade: lines\r\n" in received and received.endswith(b"\r\n\r\nhello"), received
        server.wait_log("101 is the status")
        server.stop()


def test_frames_that_came_with_the_request_are_not_lost(pool):
    server = pool()
    client = WebSocket(server.port, early=frame(b"early"))
    assert client.receive() == (1, b"early")
    client.send(b"later")
    assert client.receive() == (1, b"later")
    client.close()


def test_the_access_log_has_one_line_at_the_end_of_the_conversation(pool, directory):
    server = pool()
    log = directory / "access.log"
    client = WebSocket(server.port)
    client.send(b"x")
    client.receive()
    server.get("/")
    wait_for(lambda: '"GET / HTTP/1.1" 200' in log.read_text(), "the line of the view")
    assert "/echo" not in log.read_text()
    client.close()
    wait_for(lambda: '"GET /echo HTTP/1.1" 101' in log.read_text(), "the line of the conversation")


def test_neither_the_request_timeout_nor_the_workers_timeout_ends_a_conversation(pool):
    server = pool("--timeout", "1", "--request-timeout", "0", threads=1)
    limited = pool("--request-timeout", "1")
    clients = [WebSocket(port) for port in (server.port, limited.port)]
    # A conversation that is silent for longer than both.
    time.sleep(2.5)
    for client in clients:
        client.send(b"still")
        assert client.receive() == (1, b"still")
        client.close()
    assert "over the request timeout" not in limited.log and "ABRT" not in server.log


def test_a_reload_lets_a_conversation_end_and_a_stop_ends_it_at_the_graceful_timeout(pool):
    server = pool("--graceful-timeout", "3")
    (old,) = server.worker_pids()
    client = WebSocket(server.port, "/draining")
    server.signal(signal.SIGHUP)
    server.wait_log("Reload done")
    wait_for(lambda: int(server.get("/")[1].split()[0]) != old, "an answer of the new generation")
    client.send(b"?")
    assert client.receive() == (1, b"True")
    client.close()
    silent = WebSocket(server.port)
    server.signal(signal.SIGTERM)
    assert silent.receive() is None
    assert server.wait(10) == 0
