"""What a connection costs a worker: idle ones, and downloads that their clients do not take."""

import contextlib
import json
import resource
import socket
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))

from harness import wait_for  # noqa: E402
from observe import KIB, MIB, WHOLE, alarms_in, descriptors_of, memory_of, sockets_of  # noqa: E402

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

# The engine's marks: a streaming application waits while more than this is on its way to one client.
HIGH_WATER = 256 * KIB
CHUNK = 64 * KIB
# Of what is in the process and no connection's: arenas of threads, the table of connections doubling.
SLACK = 4 * MIB
# A thread has been in the application: its stacks, and its part in an arena.
THREAD = 64 * KIB

FOREVER = ("--keep-alive", 600, "--header-timeout", 600, "--write-timeout", 600)

# 100 MB each. The file is a hole: it has the size and takes no room.
DOWNLOADS = """
import threading
SIZE, CHUNK = 100_000_000, bytes(65536)
with open("hole", "wb") as hole:
    hole.truncate(SIZE)
BLOCK = bytes(8_000_000)
lock, made = threading.Lock(), 0

def blocks():
    global made
    for _ in range(SIZE // len(CHUNK)):
        with lock:
            made += 1
        yield CHUNK

def app(environ, start_response):
    what = environ["PATH_INFO"]
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    if what == "/file":
        return environ["wsgi.file_wrapper"](open("hole", "rb"), 65536)
    if what == "/stream":
        return blocks()
    if what == "/block":
        return [BLOCK]
    return [str(made).encode()]
"""


@pytest.fixture
def many_descriptors():
    """As many descriptors as may be had, for this process and the servers that it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def clients():
    """A list of connections, closed in the end."""
    opened = []
    yield opened
    for client in opened:
        client.close()


def connect(server, number, room=None):
    """A connection from one of several addresses, so that the ports of none run out."""
    client = socket.socket()
    if room:
        # Before connecting: the window that is announced depends on it.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    client.settimeout(20)
    with contextlib.suppress(AttributeError):
        # The port is chosen when it is known where to: a port may then serve several connections.
        client.setsockopt(socket.IPPROTO_IP, socket.IP_BIND_ADDRESS_NO_PORT, 1)
    client.bind((f"127.0.0.{2 + number % 8}", 0))
    client.connect(("127.0.0.1", server.port))
    return client


def ask(client, path="/"):
    """Ask, and take no more than the beginning of the answer."""
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    received = b""
    while b"\r\n\r\n" not in received:
        piece = client.recv(256)
        assert piece, f"the end after {received!r}"
        received += piece
    assert received.startswith(b"HTTP/1.1 200 "), received
    return received


def settled(measure, what, quiet=0.5, patience=30):
    """What is measured, once it has not changed for a while."""
    deadline, value, since = time.monotonic() + patience, measure(), time.monotonic()
    while time.monotonic() - since < quiet:
        assert time.monotonic() < deadline, f"waited too long for {what} to settle: {patience} s"
        time.sleep(0.02)
        now = measure()
        if now != value:
            value, since = now, time.monotonic()
    return value


def test_an_idle_connection_costs_a_worker_little(serve, many_descriptors, clients, record_property):
    wanted = 10_000 if WHOLE else 500
    count = min(wanted, many_descriptors - 200)
    server = serve(None, *FOREVER, "--pythonpath", HERE, app="application:app")
    [worker] = server.worker_pids()

    def books():
        return json.loads(server.get("/live")[1])["malloc"] or 0

    for _ in range(200):
        server.get("/hello/kept/1")
    in_use = books()
    wait_for(lambda: not sockets_of(server.port), "the first clients to be gone")
    descriptors, kinds = descriptors_of(worker), ("Rss", "Pss")
    before = {kind: memory_of(worker, kind) for kind in kinds}
    # A second wave finds the memory of the first in other pieces, and touches pages that the first has not.
    waves = []
    for _ in range(2):
        for number in range(count):
            clients.append(connect(server, number))
            ask(clients[-1], "/hello/kept/1")
        assert descriptors_of(worker) == descriptors + count
        grown = {kind: memory_of(worker, kind) - before[kind] for kind in kinds}
        waves.append({**grown, "malloc": books() - in_use})
        # They are idle, not forgotten.
        for client in clients[:: max(1, count // 100)]:
            ask(client, "/hello/kept/1")
        while clients:
            clients.pop().close()
        wait_for(lambda: descriptors_of(worker) == descriptors, "the clients to be gone", patience=20)
    stays = {"RSS": memory_of(worker) - before["Rss"], "malloc": books() - in_use}
    for number, wave in enumerate(waves):
        each = {kind: round(growth / count) for kind, growth in wave.items()}
        record_property(f"wave {number}, bytes for each", each)
    record_property("stays, MiB", {kind: round(growth / MIB, 1) for kind, growth in stays.items()})
    # Nothing of them is in use any more but their deadlines, which are kept until they come.
    assert stays["malloc"] < 2 * count * 64 + MIB / 4
    assert alarms_in(server.log) == []
    assert count == wanted, f"no more than {many_descriptors} descriptors here"
    # In the short form a doubling of the table counts for much, in the whole for little.
    most = max(wave["Rss"] for wave in waves) / count
    assert most < (2 * KIB if WHOLE else 4 * KIB), f"an idle connection keeps its buffers: {most:.0f} bytes each"


def stall(serve, clients, path, count, threads, record_property, size):
    """Downloads that no client reads; returns by how much the worker has grown."""
    server = serve(DOWNLOADS, *FOREVER, "--threads", threads)
    [worker] = server.worker_pids()
    # Once in full, for whatever is made once.
    for _ in range(20):
        server.get("/made")
    first = connect(server, 0)
    clients.append(first)
    take(first, path, 200_000)
    before, descriptors = memory_of(worker), descriptors_of(worker)
    for number in range(1, count + 1):
        clients.append(connect(server, number, room=4096))
        ask(clients[-1], path)
    grown = settled(lambda: memory_of(worker), "the worker's memory") - before
    each = f"{grown / count / KIB:.1f} KiB each"
    record_property("MiB for all", f"{grown / MIB:.1f} for {count} clients of {size / 1e6:.0f} MB, {each}")
    # All leave but one of the stalled, which goes on as if nothing had been. Not before the others have left: what they
    # leave in the kernel's buffers is more than it grants to all of TCP, so that it then drops what is sent.
    while len(clients) > 1:
        clients.pop(0).close()
    wait_for(lambda: descriptors_of(worker) <= descriptors, "the clients to be gone", patience=20)
    take(clients[0], None, 3_000_000)
    clients.pop().close()
    record_property("MiB that stay", round((memory_of(worker) - before) / MIB, 1))
    assert server.get("/made")[0] == 200
    assert server.worker_pids() == [worker]
    assert alarms_in(server.log) == []
    return grown


def take(client, path, count):
    """Takes a number of bytes of a body that is all zeros but for its framing."""
    received = ask(client, path).partition(b"\r\n\r\n")[2] if path else b""
    zeros = received.count(0)
    while zeros < count:
        piece = client.recv(65536)
        assert piece, "the end"
        zeros += piece.count(0)


def test_files_that_no_client_reads_cost_no_memory(serve, many_descriptors, clients, record_property):
    count = 1000 if WHOLE else 30
    grown = stall(serve, clients, "/file", count, 2, record_property, 100_000_000)
    # The kernel reads the file as the client takes it: nothing of it is in the worker, and no thread is kept.
    # What there is are the buffers of the connection itself.
    assert grown < count * 16 * KIB + SLACK


def test_streams_that_no_client_reads_are_kept_to_the_high_water_mark(serve, many_descriptors, clients, record_property):
    # A stream keeps its thread: as many threads as clients, and one for the others.
    count = 200 if WHOLE else 30
    grown = stall(serve, clients, "/stream", count, count + 2, record_property, 100_000_000)
    # It may go over the mark by the one chunk that it is asked for below it.
    assert grown < count * (HIGH_WATER + CHUNK + THREAD) + SLACK


def test_a_block_that_no_client_reads_is_kept_once(serve, many_descriptors, clients, record_property):
    # All of them are sent the same bytes object, which the application keeps anyway.
    count = 30
    grown = stall(serve, clients, "/block", count, 2, record_property, 8_000_000)
    assert grown < count * HIGH_WATER + SLACK, f"{grown / MIB:.0f} MiB for {count} of 8 MB"
