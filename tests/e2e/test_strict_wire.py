"""What is not served: how a client sees it, and how the operator reads of it."""

import re
import shutil
import socket
import ssl
import subprocess

import pytest
from harness import HELLO, PATIENCE, connect, read_all, wait_for

REFUSED = re.compile(r"\[WARNING\].* Refused a request from (\S+): (\d+) (.*)")
COUNTED = re.compile(r"\[WARNING\].* Refused (\d+) further requests")

PEERS = """
def app(environ, start_response):
    names = ("REMOTE_ADDR", "REMOTE_PORT", "SERVER_NAME", "SERVER_PORT")
    assert all(type(environ[name]) is str and environ[name] for name in names)
    body = " ".join(environ[name] for name in names).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""


def exchange(port, request):
    """Everything that the server says to these bytes."""
    with connect(port) as client:
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        return read_all(client)


def test_a_refused_request_is_one_safe_line_in_the_log(serve):
    server = serve(HELLO)
    with connect(server.port) as client:
        address = "{}:{}".format(*client.getsockname())
        client.sendall(b'GET /\x1b[31m"\xff HTTP/1.1\r\nHost: h\r\n\r\n' + b"x" * 1000)
        assert read_all(client).startswith(b"HTTP/1.1 400 ")
    server.wait_log(REFUSED)
    ((found, status, reason),) = REFUSED.findall(server.log)
    assert (found, status) == (address, "400")
    assert reason.endswith(r'; it begins with "GET /\x1b[31m\"\xff HTTP/1.1\r\nHost: h\r\n\r\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" ...'), reason
    assert b"\x1b" not in server.log_path.read_bytes()


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "Host"),
        (b"GET /" + b"a" * 9000, 414, "request line is longer"),
        (b"GET / HTTP/1.1\r\nHost: h\r\n" + b"X: y\r\n" * 200, 431, "more header fields"),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9999999999999\r\n\r\n", 413, "larger than allowed"),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc", 400, "breaks off"),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;\r\n", 400, "chunk extension"),
        (b"POST / HTTP/1.1\r\nHost: h\r\nExpect: x\r\nContent-Length: 1\r\n\r\n", 417, "expectation"),
        (b"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n", 501, "CONNECT"),
        (b"GET / HTTP/3.0\r\nHost: h\r\n\r\n", 505, "version"),
    ],
)
def test_every_kind_of_refusal_is_logged(serve, request_, status, words):
    server = serve(HELLO)
    assert exchange(server.port, request_).startswith(b"HTTP/1.1 %d " % status)
    server.wait_log(REFUSED)
    ((_, found, reason),) = REFUSED.findall(server.log)
    assert int(found) == status and words in reason


def test_the_limit_of_a_body_is_in_the_answer_and_once_in_the_log(serve):
    server = serve(HELLO, "--limit-request-body", "1000")
    for _ in range(3):
        answer = exchange(server.port, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert answer.endswith(b"\r\n\r\nrequest body is larger than allowed: at most 1000 bytes\n")
    wait_for(lambda: len(REFUSED.findall(server.log)) == 3, "three refusals", 10)
    assert server.log.count("A request body may have 1000 bytes at most; --limit-request-body ") == 1


def test_a_request_that_is_too_slow_is_logged_and_a_connection_without_one_is_not(serve):
    server = serve(HELLO, "--header-timeout", "1")
    with connect(server.port) as silent, connect(server.port) as slow:
        slow.sendall(b"GET /slow")
        assert read_all(slow).startswith(b"HTTP/1.1 408 ")
        assert read_all(silent) == b""
    with connect(server.port) as gone:
        gone.sendall(b"GET / HTTP/1.1\r\n")
    assert server.get()[0] == 200
    assert server.stop() == 0
    ((_, status, reason),) = REFUSED.findall(server.log)
    assert status == "408" and reason.endswith('"GET /slow"')


def test_a_flood_of_refused_requests_is_counted(serve):
    server = serve(HELLO)
    for _ in range(300):
        assert exchange(server.port, b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 ")

    def logged():
        return len(REFUSED.findall(server.log)) + sum(map(int, COUNTED.findall(server.log)))

    wait_for(lambda: logged() == 300, "each of them to be in the log, in a line or in a count")
    assert COUNTED.search(server.log) and len(REFUSED.findall(server.log)) < 100


def test_a_count_is_logged_before_the_worker_ends(serve):
    server = serve(HELLO)
    for _ in range(20):
        exchange(server.port, b"nonsense\r\n\r\n")
    assert server.stop() == 0
    assert len(REFUSED.findall(server.log)) + sum(map(int, COUNTED.findall(server.log))) == 20


def test_curl_shows_what_is_wrong_with_http2_without_tls(serve):
    if not shutil.which("curl"):
        pytest.skip("curl is missing")
    if "HTTP2" not in subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True).stdout:
        pytest.skip("this curl speaks no HTTP/2")
    server = serve(HELLO)
    command = ["curl", "-sSi", "--max-time", str(PATIENCE), "--http2-prior-knowledge", f"http://127.0.0.1:{server.port}/"]
    for method in [[], ["-I"], ["-d", "x"], ["-d", "x" * 100_000]] * 7:
        result = subprocess.run(command + method, capture_output=True, text=True, check=False)
        assert result.stdout.startswith("HTTP/2 505") and "this server speaks HTTP/1.1" in result.stdout, (method, result)
        # After the answer curl may complain of the part of the body that it has not sent.
        assert result.returncode == 0 or "-d" in method, (method, result)
    server.wait_log("505 HTTP/2 without TLS is not spoken here; it begins with \"PRI ")


def test_a_client_that_speaks_tls_to_a_plain_port_fails_at_once_and_is_named(serve):
    server = serve(HELLO)
    context = ssl.create_default_context()
    with connect(server.port) as client, pytest.raises(ssl.SSLError):
        context.wrap_socket(client, server_hostname="localhost")
    server.wait_log("400 TLS handshake on a plain-text port; it begins with ")


def test_an_application_learns_both_ends_as_text(serve):
    server = serve(PEERS)
    for _ in range(20):
        with connect(server.port) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            address, port = client.getsockname()
            assert read_all(client).endswith(f"\r\n\r\n{address} {port} 127.0.0.1 {server.port}".encode())
