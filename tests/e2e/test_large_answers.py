"""The memory of a large answer is free again when the client has it, or has left."""

import re
from pathlib import Path

import pytest

from harness import connect, wait_for

SIZE = 200 << 20

LARGE = f"""
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "{SIZE}")])
    return [b"x" * {SIZE}]
"""


def resident(pid):
    """The bytes of memory that a process has."""
    return 1024 * int(re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text()).group(1))


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("share", [1.0, 0.5], ids=["all-of-it", "half-of-it"])
def test_a_large_answer_is_freed_without_another_request(serve, threads, share):
    server = serve(LARGE, "--threads", str(threads), "--keep-alive", "60")
    (worker,) = server.worker_pids()
    before = resident(worker)
    connection = connect(server.port)
    connection.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    received = len(connection.recv(1))
    wait_for(lambda: resident(worker) > before + SIZE * 9 // 10, "the answer to be made")
    while received < SIZE * share:
        received += len(connection.recv(1 << 20))
    if share < 1:
        connection.close()
    wait_for(lambda: resident(worker) < before + SIZE // 4, "the answer to be freed")
