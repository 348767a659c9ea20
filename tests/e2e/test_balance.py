"""Connections and requests spread over workers and threads, and no request waits while a worker is idle.

MCSUP_SOAK=1 asks for the whole forms, which take minutes; otherwise each test is a short form of itself.
"""

import collections
import contextlib
import http.client
import os
import select
import selectors
import time

import pytest
from harness import HELLO, PATIENCE, SLEEPY, connect, read_all, wait_for

SOAK = os.environ.get("MCSUP_SOAK") == "1"
# No test ends by accident of a keep-alive deadline.
KEPT = ("--keep-alive", "60")
LARGE = 32 << 20

# `/hold` stays inside until the file `open` is there.
HOLDING = f"""
import os, time
def app(environ, start_response):
    received = len(environ["wsgi.input"].read())
    if environ["PATH_INFO"] == "/hold":
        environ["wsgi.errors"].write("one is inside\\n")
        while not os.path.exists("open"):
            time.sleep(0.005)
    body = b"x" * {LARGE} if environ["PATH_INFO"] == "/large" else f"{{os.getpid()}} {{received}}".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""


class Client:
    """A connection that is kept, whose answers may be read later than its requests are sent."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self.connection.connect()

    def ask(self, path="/", body=None):
        """Send a request: a POST where it has a body."""
        self.connection.request("GET" if body is None else "POST", path, body=body)
        return self

    def answer(self):
        """The words of the answer, the first of which is the pid of the worker."""
        response = self.connection.getresponse()
        assert response.status == 200
        return response.read().decode().split()

    def is_answered(self):
        """Whether something has come that was not read."""
        return bool(select.select([self.connection.sock], [], [], 0)[0])


@pytest.fixture
def clients(directory):
    """Open connections that are closed with the test: `clients(server, count)`."""
    with contextlib.ExitStack() as stack:

        def opened(server, count=1):
            made = []
            for _ in range(count):
                made.append(Client(server.port))
                stack.callback(made[-1].connection.close)
            return made

        yield opened
    # For requests that are inside after a failed test.
    (directory / "open").touch()


def hold(server, clients, count=1):
    """Clients that keep this number of threads inside the application."""
    inside = server.log.count("one is inside")
    holders = [client.ask("/hold") for client in clients(server, count)]
    server.wait_log("one is inside", inside + count)
    return holders


def let_go(server, holders):
    """Have those that are inside come back, and be answered."""
    assert not any(holder.is_answered() for holder in holders)
    (server.directory / "open").touch()
    pids = [holder.answer()[0] for holder in holders]
    (server.directory / "open").unlink()
    return pids


def answers_by_worker(port, connections, each):
    """Connections that are opened in a burst and ask again when they have their answer: how many answers by pid.

    Each asks equally often, so that the count shows which worker has the connections, not which gets more processor time.
    """
    request, counts, received = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", collections.Counter(), {}
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
        for _ in range(connections):
            connection = stack.enter_context(connect(port))
            selector.register(connection, selectors.EVENT_READ)
            received[connection] = b""
        to_ask = dict.fromkeys(received, each - 1)
        for connection in received:
            connection.sendall(request)
        while counts.total() < connections * each:
            ready = selector.select(PATIENCE)
            assert ready, "no answer came"
            for connection in (key.fileobj for key, _ in ready):
                piece = connection.recv(65536)
                assert piece, "a connection was closed"
                received[connection] += piece
                head, end, body = received[connection].partition(b"\r\n\r\n")
                # The body of HELLO: a pid, a blank and the path.
                if not (end and body.endswith(b" /")):
                    continue
                assert head.startswith(b"HTTP/1.1 200 ")
                counts[int(body.split()[0])] += 1
                received[connection] = b""
                if to_ask[connection]:
                    to_ask[connection] -= 1
                    connection.sendall(request)
    return counts


def count_all(connection):
    """How many bytes come until the end of a connection."""
    count, piece = 0, bytearray(1 << 20)
    while received := connection.recv_into(piece):
        count += received
    return count


@pytest.mark.parametrize("start", range(10 if SOAK else 2))
def test_a_burst_of_kept_connections_is_shared_evenly_from_the_start(serve, record_property, start):
    server = serve(HELLO, *KEPT, workers=2)
    counts = answers_by_worker(server.port, connections=64, each=3000 if SOAK else 1000)
    shares = sorted(count / counts.total() for count in counts.values())
    record_property("shares", " ".join(f"{share:.1%}" for share in shares))
    assert len(shares) == 2 and 0.4 <= shares[0] <= shares[1] <= 0.6, counts


def test_connections_that_are_opened_one_after_another_are_spread_evenly(serve, clients, record_property):
    def spread():
        server = serve(HELLO, *KEPT, workers=4)
        opened, first = [], collections.Counter()
        for _ in range(40):
            opened += clients(server)
            first[opened[-1].ask().answer()[0]] += 1
        return sorted(first.values())

    # Another program may keep a worker from the processor, and so from its share: the best of three counts.
    spreads = [spread()]
    while not is_even(spreads[-1]) and len(spreads) < 3:
        spreads.append(spread())
    record_property("connections", spreads)
    assert is_even(spreads[-1]), spreads


def is_even(counts):
    """Whether four workers have about the same number of forty connections."""
    return len(counts) == 4 and 8 <= min(counts) <= max(counts) <= 12


@pytest.mark.parametrize("open_first", [False, True])
def test_two_long_requests_are_never_given_to_one_worker_while_another_is_idle(serve, clients, open_first):
    server = serve(SLEEPY, *KEPT, workers=2)
    path = "/?sleep=0.5" if SOAK else "/?sleep=0.2"
    for _ in range(50 if SOAK else 10):
        if open_first:
            asked = [client.ask(path) for client in clients(server, 2)]
        else:
            asked = [clients(server)[0].ask(path) for _ in range(2)]
        pids = [client.answer()[0] for client in asked]
        assert pids[0] != pids[1], "one worker did both"
        for client in asked:
            client.connection.close()


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("body", [None, b"a body"])
def test_kept_connections_of_a_worker_in_a_slow_view_are_answered_by_the_other(serve, clients, at_once, body):
    server = serve(HOLDING, *KEPT, workers=2)
    others = clients(server, 16)
    for _ in range(10 if SOAK else 3):
        # The last round has left all of them with one worker.
        wait_for(lambda: len({client.ask().answer()[0] for client in others}) == 2, "each worker to have some")
        holders = hold(server, clients)
        if at_once:
            asked = [client.ask("/", body) for client in others]
            answers = [client.answer() for client in asked]
        else:
            answers = [client.ask("/", body).answer() for client in others]
        answers += [client.ask("/", body).answer() for client in clients(server, 3)]
        (slow,) = let_go(server, holders)
        pids = {pid for pid, _ in answers}
        assert len(pids) == 1 and slow not in pids
        assert {int(length) for _, length in answers} == {len(body or b"")}


def test_the_last_free_thread_of_all_workers_answers_again_and_again(serve, clients):
    server = serve(HOLDING, "--threads", "2", *KEPT, workers=2)
    (kept,) = clients(server)
    kept.ask().answer()
    holders = hold(server, clients, 3)
    for _ in range(20):
        kept.ask("/health").answer()
        for fresh in clients(server):
            fresh.ask("/health").answer()
            fresh.connection.close()
        assert not any(holder.is_answered() for holder in holders)
    let_go(server, holders)


def test_slow_clients_move_on_while_every_thread_is_in_a_slow_view(serve, clients):
    server = serve(HOLDING, "--threads", "4", "--header-timeout", "1", *KEPT)
    upload, download, half = connect(server.port), connect(server.port), connect(server.port)
    download.sendall(b"GET /large HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    received = len(download.recv(1000))
    upload.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % LARGE)
    half.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert half.recv(65536).startswith(b"HTTP/1.1 200 ")
    holders = hold(server, clients, 4)
    # A deadline that begins now comes.
    half.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nX-Half")
    assert read_all(half).startswith(b"HTTP/1.1 408 ")
    # More than the kernel keeps is taken of an upload, and comes of a download.
    upload.sendall(b"x" * LARGE)
    received += count_all(download)
    assert received > LARGE
    # A client that comes now waits for a thread.
    (late,) = clients(server)
    late.ask()
    assert not late.is_answered() and not select.select([upload], [], [], 0)[0]
    let_go(server, holders)
    assert read_all(upload).endswith(b" %d" % LARGE)
    late.answer()
    for connection in (upload, download, half):
        connection.close()
