"""Every request of gunicorn's corpus, over a socket, in several chunkings."""

import base64
import errno
import json
import socket
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

import corpus  # noqa: E402
import differences  # noqa: E402
from harness import Server, read_all  # noqa: E402

ECHO = """
import base64, json
def app(environ, start_response):
    seen = {key: value for key, value in environ.items() if isinstance(value, str)}
    body = json.dumps([seen, base64.b64encode(environ["wsgi.input"].read()).decode()]).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
"""

OPTIONS = {
    "forwarded_allow_ips": "--forwarded-allow-ips",
    "header_map": "--header-map",
    "limit_request_line": "--limit-request-line",
    "limit_request_fields": "--limit-request-fields",
    "limit_request_field_size": "--limit-request-field-size",
    "proxy_protocol": "--proxy-protocol",
}

VALID, INVALID = corpus.cases("valid"), corpus.cases("invalid")


@pytest.fixture(scope="module")
def server_for(tmp_path_factory):
    """A server for each set of settings."""
    servers = {}

    def find(settings):
        arguments = tuple(f"{OPTIONS[name]}={value}" for name, value in settings.items())
        if arguments not in servers:
            directory = tmp_path_factory.mktemp("corpus")
            (directory / "app.py").write_text(ECHO)
            servers[arguments] = Server(directory, "--keep-alive", "5", *arguments)
        return servers[arguments]

    yield find
    for server in servers.values():
        server.clean_up()


def pieces(data, chunking):
    """The bytes as they are sent."""
    if chunking == "whole":
        return [data]
    if chunking == "bytes":
        return [data[at : at + 1] for at in range(len(data))]
    if chunking == "lines":
        return [line + b"\n" for line in data.split(b"\n")[:-1]] + [data.rsplit(b"\n", 1)[-1]]
    return [data[: len(data) // 2], data[len(data) // 2 :]]


def answers(server, data, chunking):
    """What the server answers to these bytes, and whatever it has answered when it ends the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for piece in pieces(data, chunking):
                if piece:
                    connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
        except OSError as error:
            # A refusal came before the rest was sent; shutdown(2) says ENOTCONN where the reset has come as well.
            if error.errno not in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN):
                raise
        return parsed(read_all(connection))


def parsed(received):
    """Statuses and bodies of the responses in a stream of bytes."""
    found = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        fields = {name.lower(): value for name, _, value in (line.partition(b": ") for line in lines[1:])}
        length = int(fields.get(b"content-length", b"0"))
        status = int(lines[0].split()[1])
        if status >= 200:
            found.append((status, rest[:length]))
        received = rest[length:] if status >= 200 else rest
    return found


def foreign(case):
    """Why a case is not about us, if it is not."""
    names = [name for name in case.settings if name in differences.SETTINGS_WITHOUT_COUNTERPART]
    return "; ".join(differences.SETTINGS_WITHOUT_COUNTERPART[name] for name in names)


def lacks_host(request):
    """Whether RFC 9112 3.2 has us refuse a request that gunicorn takes."""
    return request["version"] == (1, 1) and not any(name == "HOST" for name, _ in request["headers"])


def with_hosts(case):
    """The case's bytes with a Host in each request that lacks one, where that is its only fault."""
    data, at = case.data, 0
    for request in case.requests:
        line = f"{request['method']} {request['uri']} HTTP/1.1\r\n".encode("latin-1")
        start = data.find(line, at)
        if start >= 0 and lacks_host(request):
            end = start + len(line)
            data = data[:end] + b"Host: added\r\n" + data[end:]
            at = end
    return data


def expected_environ(request, settings):
    """What the application should see of the header fields."""
    environ = {}
    for name, value in request["headers"]:
        if ("_" in name and settings.get("header_map") != "dangerous") or name == "TRANSFER-ENCODING":
            continue
        key = name.replace("-", "_")
        key = key if name in ("CONTENT-TYPE", "CONTENT-LENGTH") else f"HTTP_{key}"
        between = "; " if name == "COOKIE" else ","
        environ[key] = environ[key] + between + value if key in environ else value
    return environ


@pytest.mark.parametrize("chunking", ["whole", "halves", "lines", "bytes"])
@pytest.mark.parametrize("case", VALID, ids=lambda case: case.name)
def test_a_valid_request_is_understood(server_for, case, chunking):
    if foreign(case):
        pytest.skip(foreign(case))
    server = server_for(case.settings)
    strict = any(lacks_host(request) for request in case.requests)
    if strict:
        statuses = [status for status, _ in answers(server, case.data, chunking)]
        assert 400 <= statuses[-1] < 600, "RFC 9112 3.2: a request without Host is refused"
    found = answers(server, with_hosts(case), chunking)
    if case.name in differences.STRICTER:
        status, paragraph = differences.STRICTER[case.name]
        assert [status for status, _ in found] == [status], paragraph
        return
    assert [status for status, _ in found] == [200] * len(case.requests)
    for request, (_, body) in zip(case.requests, found):
        environ, received = json.loads(body)
        assert environ["REQUEST_METHOD"] == request["method"]
        assert environ["RAW_URI"] == request["uri"]
        assert environ["SERVER_PROTOCOL"] == "HTTP/{}.{}".format(*request["version"])
        assert base64.b64decode(received) == (request["body"] or b"")
        for key, value in expected_environ(request, case.settings).items():
            assert environ[key] == value, key


@pytest.mark.parametrize("chunking", ["whole", "halves", "lines", "bytes"])
@pytest.mark.parametrize("case", INVALID, ids=lambda case: case.name)
def test_an_invalid_request_is_refused(server_for, case, chunking):
    if foreign(case):
        pytest.skip(foreign(case))
    found = answers(server_for(case.settings), case.data, chunking)
    last = found[-1][0] if found else None
    if case.name in differences.OTHERWISE:
        status, paragraph = differences.OTHERWISE[case.name]
        assert last == status, paragraph
    else:
        assert last in differences.STATUSES[case.refusal], case.refusal


def test_every_named_difference_is_one():
    """A name that is in no corpus, or in the wrong list, would hide a fault."""
    assert set(differences.STRICTER) <= {case.name for case in VALID}
    assert set(differences.OTHERWISE) <= {case.name for case in INVALID}
