"""A worker that may open few descriptors: the application gets its part of them, and clients are served."""

import contextlib
import http.client
import os
import subprocess
import sys
import threading

import pytest
from harness import MCSUP, PATIENCE, children_of, clean_environment, connect, wait_for

# In each worker.
LIMIT = 256
FEW = ["sh", "-c", f'ulimit -n {LIMIT}; exec "$0" "$@"']

# Has more than half of the descriptors open that are left to it.
OPENING = """
def app(environ, start_response):
    body = environ["wsgi.input"].read()
    for file in [open("/dev/null") for _ in range(40)]:
        file.close()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(len(body)).encode()]
"""

# Keeps far more descriptors than what is left to it.
HOARDING = """
kept = []
def app(environ, start_response):
    if not kept:
        kept.extend(open("/dev/null") for _ in range(200))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]
"""

# Larger than what a worker keeps in memory.
UPLOAD = b"0" * (3 << 20)


def post(port, body):
    """One upload on a connection of its own: status and answer."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        connection.request("POST", "/", body=body)
        response = connection.getresponse()
        return response.status, response.read()


def test_silent_clients_take_neither_the_applications_descriptors_nor_the_place_of_others(serve):
    server = serve(OPENING, through=FEW)
    silent = [connect(server.port) for _ in range(300)]
    for _ in range(20):
        assert server.get() == (200, b"0")
        assert post(server.port, UPLOAD) == (200, str(len(UPLOAD)).encode())
    said = [line for line in server.log.splitlines() if "[WARNING]" in line or "[ERROR]" in line]
    assert len(said) == 1 and f"of {LIMIT} descriptors are open" in said[0], server.log
    for connection in silent:
        connection.close()
    server.wait_log("there is room for connections again", patience=4 * PATIENCE)
    assert server.get() == (200, b"0")
    assert server.log.count("there is room for connections again") == 1


def test_uploads_that_do_not_end_leave_the_application_half_of_its_descriptors(serve):
    server = serve(OPENING.replace("40", "20"), through=FEW)
    head = f"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {len(UPLOAD)}\r\n\r\n".encode()
    begun = 200_000
    uploads = [connect(server.port) for _ in range(150)]
    for connection in uploads:
        connection.sendall(head)
    assert server.get() == (200, b"0")
    for connection in uploads:
        connection.sendall(UPLOAD[:begun])
    for _ in range(5):
        assert server.get() == (200, b"0")
    statuses = []
    for connection in uploads:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(UPLOAD[begun:])
        statuses.append(connection.recv(12).partition(b" ")[2])
        connection.close()
    assert set(statuses) == {b"200", b"503"} and statuses.count(b"200") >= 20, statuses
    assert "Too many open files" not in server.log


def test_some_clients_are_served_also_where_the_application_keeps_nearly_all_descriptors(serve):
    server = serve(HOARDING, "--keep-alive", "60", through=FEW)
    with contextlib.ExitStack() as open_ones:
        clients = [
            open_ones.enter_context(
                contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE))
            )
            for _ in range(10)
        ]
        for client in clients * 3:
            client.request("GET", "/")
            assert client.getresponse().read() == b"ok"
    assert "[WARNING]" not in server.log and "[ERROR]" not in server.log


def test_clients_that_begin_a_request_and_do_not_go_on_keep_no_other_out(serve):
    server = serve(OPENING, through=FEW)
    unfinished = [connect(server.port) for _ in range(300)]
    for connection in unfinished:
        connection.sendall(b"GET / HTTP/1.1\r\n")
    for _ in range(5):
        assert server.get() == (200, b"0")
    for connection in unfinished:
        connection.close()


def test_uploads_that_do_not_go_on_keep_no_other_out(serve):
    server = serve(OPENING, through=FEW)
    length = 1_000_000
    head = f"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n".encode()
    with contextlib.ExitStack() as open_ones:
        going, dripping, *stalled = (open_ones.enter_context(connect(server.port)) for _ in range(302))
        for connection in (going, dripping, *stalled):
            connection.sendall(head + b"00")
        sent, is_over = 2, threading.Event()

        def go_on():
            nonlocal sent
            while not is_over.wait(0.5):
                going.sendall(b"0" * 2000)
                sent += 2000
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    dripping.sendall(b"0")

        sender = threading.Thread(target=go_on)
        sender.start()
        try:
            for _ in range(5):
                assert server.get(timeout=2 * PATIENCE) == (200, b"0")
        finally:
            is_over.set()
            sender.join()
        going.sendall(b"0" * (length - sent))
        assert going.recv(4096).startswith(b"HTTP/1.1 200")
        for connection in (dripping, stalled[0]):
            assert connection.recv(4096).startswith(b"HTTP/1.1 408")


def files_without_name(pid):
    """What a process has open of them."""
    found = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            target = os.readlink(f"/proc/{pid}/fd/{number}")
            found += [target] if target.startswith("/") and target.endswith(" (deleted)") else []
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_a_health_check_with_a_large_body_leaves_no_file_open(serve):
    server = serve(OPENING, "--health-path", "/health", "--keep-alive", "60")
    (worker,) = server.worker_pids()
    before = files_without_name(worker)
    with connect(server.port) as client:
        head = f"GET /health HTTP/1.1\r\nHost: h\r\nContent-Length: {len(UPLOAD)}\r\n\r\n".encode()
        client.sendall(head + UPLOAD)
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
        wait_for(lambda: files_without_name(worker) == before, "the file's end")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_file_of_the_server_takes_the_place_of_a_closed_standard_stream(serve):
    closed = ["sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-']
    server = serve(OPENING, "-p", "app.pid", "--error-logfile", "app.log", through=closed, wait=False)
    log = server.directory / "app.log"
    wait_for(lambda: log.exists() and "is ready after" in log.read_text(), "the worker to be ready")
    for pid in [server.pid, *children_of(server.pid)]:
        assert [os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)] == ["/dev/null"] * 3
    assert server.get() == (200, b"0")
    assert (server.directory / "app.pid").read_text().split() == [str(server.pid)]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("words", [["--help"], ["doctor"], ["service", "systemd", "-b", "127.0.0.1:8000", "app:app"]])
def test_output_that_is_lost_is_an_error(directory, words):
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [MCSUP, *words], cwd=directory, stdout=full, stderr=subprocess.PIPE, env=clean_environment(), check=False
        )
    assert (done.returncode, b"write to standard output: No space left on device" in done.stderr) == (1, True), done
