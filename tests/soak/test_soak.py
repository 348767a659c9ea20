"""All kinds of clients at once for a long time: each is answered, once and right, and nothing is left of them."""

import json
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))

from clients import BODY_TIMEOUT, HEADER_TIMEOUT, KEEP_ALIVE, WRITE_TIMEOUT, Crowd  # noqa: E402
from content import KINDS  # noqa: E402
from harness import wait_for  # noqa: E402
from observe import MIB, SECONDS, WHOLE, alarms_in, calls_of, descriptors_of, memory_of, sockets_of  # noqa: E402

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

# How much more of a worker's memory may be in use at the end than after a quarter, by malloc's own books. A leak has no
# luck: in ten minutes a worker answers more than half a million requests, and to lose two bytes of each is too much.
MALLOC_SLACK = MIB
# The same for Python's books: objects and other small blocks.
BLOCKS_SLACK = 2000
# And how much larger the process may be. Its size is made of what is in use and of what the allocator keeps: each
# thread has an arena, and each arena the room of the largest answers that met in it so far. That settles with luck,
# not with time, so that this can only be coarse.
RSS_SLACK = 64 * MIB

OPTIONS = (
    "--threads", "4", "--header-timeout", HEADER_TIMEOUT, "--body-timeout", BODY_TIMEOUT, "--write-timeout",
    WRITE_TIMEOUT, "--keep-alive", KEEP_ALIVE, "--log-level", "info", "--pythonpath", HERE,
)  # fmt: skip


class Seen:
    """A server at rest."""

    def __init__(self, server, workers):
        # The longest that the server itself may keep a connection of which the client is gone: lingering, keep-alive.
        wait_for(lambda: not sockets_of(server.port), "the last connection to be gone", patience=15)
        self.workers = server.worker_pids()
        assert self.workers == workers, f"other workers than at the start; the log:\n{server.log}"
        self.rss = [memory_of(pid) for pid in workers]
        books = {}

        def ask():
            answer = json.loads(server.get("/live")[1])
            books[answer["pid"]] = answer
            return sorted(books) == workers

        last = (None, 0.0)

        def has_settled():
            nonlocal last
            books.clear()
            # New connections go round among the workers.
            wait_for(ask, "each worker to be asked")
            sizes = [round((books[pid]["malloc"] or 0) / (MIB / 16)) for pid in workers]
            if sizes != last[0]:
                last = (sizes, time.monotonic())
            return time.monotonic() - last[1] > 1.5

        # Memory of large bodies is given back after a second without use.
        wait_for(has_settled, "the workers' memory to settle", patience=15)
        wait_for(lambda: not sockets_of(server.port), "those that asked to be gone")
        self.malloc = [books[pid]["malloc"] or 0 for pid in workers]
        self.blocks = [books[pid]["blocks"] for pid in workers]
        self.descriptors = [descriptors_of(pid) for pid in workers]


def judge(counts, calls):
    """Compares, kind by kind, what clients have counted with what the application has; returns what does not add up."""
    wrong = []
    for kind in KINDS:
        asked, answered, given_up = (counts[what, kind] for what in ("asked", "answered", "given up"))
        if asked != answered:
            wrong.append(f"{kind}: {asked} asked, {answered} answered")
        if not answered <= calls[kind] <= answered + given_up:
            wrong.append(f"{kind}: {answered} answered and {given_up} given up, but {calls[kind]} calls")
    # These never were a request.
    wrong += [
        f"{kind}: {calls[kind]} calls for what is no request"
        for kind in ("reset-head", "reset-body", "loris-head", "loris-body", "garbage")
        if calls[kind]
    ]
    return wrong


def test_a_crowd_of_all_kinds_is_answered_once_and_right_and_leaves_nothing_behind(serve, directory, record_property):
    server = serve(None, *OPTIONS, app="application:app", workers=2)
    workers, crowd = server.worker_pids(), Crowd(server.port)
    stages = {}
    # The first stage is a round for each client: whatever is made once is made then.
    for stage, seconds in (("begin", 0), ("quarter", SECONDS / 4), ("end", SECONDS * 3 / 4)):
        crowd.stay(seconds)
        failures = "\n".join(crowd.failures)
        assert not failures, f"clients say:\n{failures}\nthe log:\n{server.log}"
        stages[stage] = Seen(server, workers)
    counts, calls = crowd.counts, calls_of(directory)
    answered = sum(number for (what, _), number in counts.items() if what == "answered")
    given_up = sum(number for (what, _), number in counts.items() if what == "given up")
    record_property("requests answered", f"{answered}, given up {given_up}, calls {sum(calls.values())}")
    record_property("moved", f"{crowd.moved / MIB:.0f} MiB in {crowd.seconds:.0f} s")
    record_property("rate", f"{answered / crowd.seconds:.0f}/s, {crowd.moved / MIB / crowd.seconds:.0f} MiB/s")
    for stage, seen in stages.items():
        rss, malloc = (", ".join(f"{size / MIB:.1f}" for size in sizes) for sizes in (seen.rss, seen.malloc))
        books = f"malloc {malloc} MiB, blocks {seen.blocks}"
        record_property(stage, f"RSS {rss} MiB, {books}, descriptors {seen.descriptors}")
    if WHOLE:
        by_kind = {kind: (counts["answered", kind], counts["given up", kind], calls[kind]) for kind in KINDS}
        record_property("by kind: answered, given up, calls", by_kind)
    assert judge(counts, calls) == []
    assert stages["end"].descriptors == stages["begin"].descriptors
    for what, slack in (("malloc", MALLOC_SLACK), ("blocks", BLOCKS_SLACK), ("rss", RSS_SLACK)):
        for before, after in zip(getattr(stages["quarter"], what), getattr(stages["end"], what)):
            assert after - before < slack, f"{what} grew from {before} to {after}"
    assert alarms_in(server.log) == []
    assert server.stop() == 0
    server.assert_nothing_left()
