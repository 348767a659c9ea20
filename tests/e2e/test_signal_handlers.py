"""Handlers of signals that the application installs in Python."""

import contextlib
import os
import signal
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
