"""Handlers of signals that the application installs in Python."""

import contextlib
import http.client
import os
import signal
import socket
import threading
import time

import pytest
from harness import connect, wait_for

# Handlers note when they ran, by the clock that all processes share.
HANDLING = """
import os, signal, sys, time
def note(number, _):
    with open("handled", "a") as notes:
        notes.write(f"{signal.Signals(number).name} {time.monotonic()}\\n")
def fail(number, _):
    raise {"SIGUSR1": ValueError("of a handler"), "SIGUSR2": SystemExit(3)}[signal.Signals(number).name]
HANDLER = fail if os.path.exists("fails") else note
for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM):
    signal.signal(number, HANDLER)
def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/alarm":
        signal.setitimer(signal.ITIMER_REAL, 0.2)
    elif path == "/sleep":
        time.sleep(1)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""

THREADS = pytest.mark.parametrize("threads", [1, 4])


def handled(directory):
    """What the handlers have noted: names and times."""
    path = directory / "handled"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(name, float(at)) for name, at in map(str.split, lines)]


def wait_handled(directory, count):
    return wait_for(lambda: len(handled(directory)) >= count and handled(directory), f"{count} handlers to run")


@THREADS
def test_a_handler_runs_at_once_in_an_idle_worker(serve, directory, threads):
    server = serve(HANDLING, "--threads", threads)
    server.get()
    [worker] = server.worker_pids()
    delays = []
    for index in range(20):
        number = (signal.SIGUSR1, signal.SIGUSR2)[index % 2]
        begin = time.monotonic()
        os.kill(worker, number)
        name, at = wait_handled(directory, index + 1)[index]
        assert name == number.name
        delays.append(at - begin)
    assert max(delays) < 0.1


def test_a_handler_runs_at_once_while_the_main_thread_is_parked(serve, directory):
    server = serve(HANDLING, "--threads", 4)
    [worker] = server.worker_pids()
    # Slow requests have every follower work, and whichever comes back first lead.
    for index in range(5):
        for _ in range(3):
            server.get("/sleep?short")
        begin = time.monotonic()
        os.kill(worker, signal.SIGUSR1)
        _, at = wait_handled(directory, index + 1)[index]
        assert at - begin < 0.1


@THREADS
def test_an_alarm_that_a_view_sets_comes_though_no_request_follows(serve, directory, threads):
    server = serve(HANDLING, "--threads", threads)
    server.get("/alarm")
    begin = time.monotonic()
    [(name, at)] = wait_handled(directory, 1)
    assert name == "SIGALRM" and at - begin < 0.3


@THREADS
def test_signals_beside_requests_are_all_handled(serve, directory, threads):
    server = serve(HANDLING, "--threads", threads)
    [worker] = server.worker_pids()
    for index in range(100):
        server.get()
        begin = time.monotonic()
        os.kill(worker, signal.SIGUSR1)
        _, at = wait_handled(directory, index + 1)[index]
        assert at - begin < 0.1


@THREADS
def test_a_handler_runs_also_while_the_server_answers_without_python_and_without_a_pause(serve, directory, threads):
    server = serve(HANDLING, "--threads", threads, "--health-path", "/health")
    server.get()
    [worker] = server.worker_pids()
    stopping = threading.Event()

    def ask():
        with contextlib.suppress(OSError), connect(server.port) as client:
            while not stopping.is_set():
                client.sendall(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n" * 8)
                client.recv(65536)

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        for index in range(50):
            os.kill(worker, signal.SIGUSR1)
            wait_handled(directory, index + 1)
    finally:
        stopping.set()
        for client in clients:
            client.join()


@THREADS
def test_an_exception_of_a_handler_is_logged_and_the_worker_goes_on(serve, directory, threads):
    (directory / "fails").touch()
    server = serve(HANDLING, "--threads", threads)
    server.get()
    [worker] = server.worker_pids()
    os.kill(worker, signal.SIGUSR1)
    server.wait_log(r"Error in a signal handler\nTraceback (?:.*\n)*ValueError: of a handler")
    assert server.get()[0] == 200 and server.worker_pids() == [worker]


@THREADS
def test_a_handler_that_exits_ends_the_worker_which_is_replaced(serve, directory, threads):
    (directory / "fails").touch()
    server = serve(HANDLING, "--threads", threads)
    server.get()
    [worker] = server.worker_pids()
    os.kill(worker, signal.SIGUSR2)
    server.wait_log(r"A signal handler of the application has ended the worker: SystemExit: 3")
    server.wait_ready(2)
    assert server.get()[0] == 200 and worker not in server.worker_pids()


@THREADS
def test_an_idle_worker_wakes_no_more_often_for_signals(serve, threads):
    server = serve(HANDLING, "--threads", threads)
    server.get()
    [worker] = server.worker_pids()

    def switches():
        total = 0
        for task in os.listdir(f"/proc/{worker}/task"):
            with open(f"/proc/{worker}/task/{task}/status") as status:
                total += sum(int(line.split()[1]) for line in status if line.startswith("voluntary_ctxt"))
        return total

    time.sleep(1.5)
    before = switches()
    time.sleep(3)
    # A sign of life each half second.
    assert switches() - before <= 12


# Answers that wait for their client, in each way that the application's thread can. Handlers raise where the path says so.
WAITING = """
import os, signal, tempfile, threading, time
PIECE = b"x" * 65536
def note(text):
    with open("noted", "a") as notes:
        notes.write(f"{text} {time.monotonic()}\\n")

class Pieces:
    def __init__(self, count):
        self.left = count
    def __iter__(self):
        return self
    def __next__(self):
        if not self.left:
            raise StopIteration
        self.left -= 1
        return PIECE
    def close(self):
        note("closed")

def app(environ, start_response):
    _, way, action, count = environ["PATH_INFO"].split("/")
    count = int(count)
    def handle(number, _):
        note("handled")
        if action == "raise":
            raise TimeoutError("of a handler")
        if action == "write":
            write(b"y")
    signal.signal(signal.SIGALRM, handle)
    write = start_response("200 OK", [])
    write(b"begin")
    note("begun")
    if action != "none":
        signal.setitimer(signal.ITIMER_REAL, 0.3, 0 if action == "raise" else 0.1)
    try:
        if way == "catch":
            caught = 0
            for _ in range(count):
                try:
                    write(PIECE)
                except TimeoutError:
                    caught += 1
            note("caught" if caught == 1 else "missed")
        elif way == "write":
            for _ in range(count):
                write(PIECE)
        elif way == "file":
            file = tempfile.TemporaryFile()
            for _ in range(count):
                file.write(PIECE)
            file.seek(0)
            return environ["wsgi.file_wrapper"](file)
        elif way == "iterate":
            return Pieces(count)
        return []
    finally:
        if way not in ("iterate", "file"):
            signal.setitimer(signal.ITIMER_REAL, 0)
"""


def noted(directory, text):
    path = directory / "noted"
    lines = path.read_text().splitlines() if path.exists() else []
    return [float(line.split()[1]) for line in lines if line.startswith(text + " ")]


def ask(server, path, window=4096):
    """Send a request whose answer finds little room at the client."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    client.settimeout(10)
    client.connect(("127.0.0.1", server.port))
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
    return client


def body_of(client):
    """The body of a chunked answer that is whole."""
    answer = http.client.HTTPResponse(client)
    answer.begin()
    return answer.read()


@pytest.mark.parametrize("way", ["write", "iterate", "file"])
def test_an_exception_of_a_handler_ends_an_answer_that_waits_for_its_client(serve, directory, way):
    server = serve(WAITING)
    with ask(server, f"/{way}/raise/160") as client:
        server.wait_log(rf"Error handling request GET /{way}/raise/160\nTraceback (?:.*\n)*TimeoutError: of a handler")
        [begun], [handled] = noted(directory, "begun"), noted(directory, "handled")
        assert handled - begun < 0.4
        assert bool(noted(directory, "closed")) == (way == "iterate")
        # It does not pass for a whole answer.
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            body_of(client)
    assert server.get("/write/none/1")[0] == 200


@pytest.mark.parametrize("way", ["write", "iterate", "file"])
def test_handlers_run_while_an_answer_waits_for_its_client_which_gets_all_of_it(serve, directory, way):
    server = serve(WAITING)
    with ask(server, f"/{way}/note/160") as client:
        handled = wait_for(lambda: noted(directory, "handled")[4:] and noted(directory, "handled"), "five handlers to run")
        assert handled[4] - handled[0] < 0.6
        body = body_of(client)
    assert body == b"begin" + b"x" * 160 * 65536


def test_a_signal_that_comes_just_before_an_answer_waits_is_handled_soon(serve, directory):
    server = serve(WAITING)
    [worker] = server.worker_pids()
    with ask(server, "/write/none/160"):
        wait_for(lambda: noted(directory, "begun"), "the answer to begin")
        for index in range(50):
            begin = time.monotonic()
            os.kill(worker, signal.SIGALRM)
            at = wait_for(lambda: noted(directory, "handled")[index:], "the handler to run")[0]
            assert at - begin < 0.1


def test_an_application_that_catches_a_handlers_exception_goes_on_with_its_answer(serve, directory):
    server = serve(WAITING)
    with ask(server, "/catch/raise/160") as client:
        wait_for(lambda: noted(directory, "handled"), "the handler to run")
        body = body_of(client)
    assert noted(directory, "caught")
    # The piece whose write was interrupted had been taken.
    assert body == b"begin" + b"x" * 160 * 65536


def test_a_handler_may_write_while_the_answer_waits_for_its_client(serve, directory):
    server = serve(WAITING)
    with ask(server, "/write/write/160") as client:
        wait_for(lambda: noted(directory, "handled"), "the handler to run")
        body = body_of(client)
    assert body.startswith(b"begin") and body.count(b"x") == 160 * 65536 and b"y" in body


def test_signals_do_not_keep_a_client_that_takes_nothing(serve, directory):
    server = serve(WAITING, "--write-timeout", "1")
    with ask(server, "/iterate/note/160"):
        [begun] = wait_for(lambda: noted(directory, "begun"), "the answer to begin")
        [closed] = wait_for(lambda: noted(directory, "closed"), "the answer to end", patience=4)
        assert closed - begun < 3
