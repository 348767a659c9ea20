"""Workers that are replaced before anything is wrong with them: their successors are ready first, and the log says why."""

import re

from harness import HELLO, Load, run
from lifecycle import Operator, Witness

GROWING = """
import os
HELD = []
def app(environ, start_response):
    if environ["PATH_INFO"] == "/grow":
        # Written to, so that it is resident.
        HELD.append(b"x" * (200 << 20))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


def recycled(server, count, reason, patience=20):
    """Wait until `count` workers have been replaced and have finished; return pid, slot and reason of each from the log."""
    server.wait_log(r"Slot \d+ has a new worker", count, patience)
    found = re.findall(rf"Recycling worker (\d+) \(slot (\d+)\): ({reason}); booting its successor", server.log)
    assert len(found) >= count, server.log
    for pid, slot, _ in found[:count]:
        server.wait_log(rf"Worker {pid} has finished", patience=patience)
        assert_capacity_first(server.log, pid, slot)
    return found[:count]


def assert_capacity_first(log, pid, slot):
    """The successor was ready before the old worker was asked to finish, and that was before it ended."""
    story = log[log.index(f"Recycling worker {pid} (slot {slot})") :]
    successor = re.search(rf"Booting worker with pid: (\d+) \(slot {slot},", story).group(1)
    places = [
        story.index(line)
        for line in (
            f"Worker {successor} is ready", f"Slot {slot} has a new worker", f"Worker {pid} has finished",
        )
    ]  # fmt: skip
    assert places == sorted(places), story


def test_a_worker_that_has_served_enough_is_replaced_and_with_jitter_each_has_another_number(serve, directory):
    server = serve(HELLO, "--max-requests", 30, "--max-requests-jitter", 400, "-p", "app.pid", workers=3)
    with Load(server.port) as load, Witness(directory / "app.ctl") as witness:
        found = recycled(server, 4, r"it has served \d+ requests")
        load.wait_more(5)
    assert load.failures == []
    assert witness.error is None and not witness.complaints, witness.complaints[:2]
    served = [int(reason.split()[3]) for _, _, reason in found]
    assert min(served) >= 30 and len(set(served)) > 1, served
    assert server.stop() == 0
    server.assert_nothing_left()


def test_a_worker_that_has_lived_long_enough_is_replaced(serve, directory):
    server = serve(HELLO, "--max-lifetime", 1, "--max-lifetime-jitter", 0.5, "-p", "app.pid", workers=2)
    first = set(map(str, server.worker_pids()))
    with Load(server.port, fresh=2, kept=2) as load, Witness(directory / "app.ctl") as witness:
        found = recycled(server, 2, r"it has lived for \d+ s")
        load.wait_more(5)
    assert {pid for pid, _, _ in found} == first
    assert load.failures == []
    assert witness.error is None and not witness.complaints, witness.complaints[:2]
    assert server.stop() == 0
    server.assert_nothing_left()


def test_a_worker_that_uses_too_much_memory_is_replaced_and_no_other(serve, directory):
    limits = ["--max-rss", "150M", "--max-rss-jitter", "4M"]
    server = serve(GROWING, *limits, "-p", "app.pid", workers=2)
    with Witness(directory / "app.ctl") as witness:
        grown = server.get("/grow")[1].decode()
        ((pid, _, reason),) = recycled(server, 1, r"it uses \d+ MiB of memory, more than \d+")
    assert pid == grown
    used, limit = map(int, re.findall(r"\d+", reason))
    assert 150 <= limit <= 154 and used > limit
    assert witness.error is None and not witness.complaints, witness.complaints[:2]
    assert server.log.count("Recycling worker") == 1
    assert server.stop() == 0
    server.assert_nothing_left()


def workers_of(operator):
    """The pid in each slot."""
    return {worker["slot"]: worker["pid"] for worker in operator.wait_at_rest()["workers"]}


def test_an_operator_replaces_one_worker_and_no_other(serve, directory):
    server = serve(HELLO, "-p", "app.pid", workers=2)
    with Operator(directory / "app.ctl") as operator, Load(server.port, fresh=2, kept=2) as load:
        before = workers_of(operator)
        ended = run("recycle", 1, "-p", "app.pid", cwd=directory)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "slot 1 has a new worker\n", "")
        ((pid, slot, _),) = recycled(server, 1, "somebody asked for it")
        after = workers_of(operator)
        load.wait_more(5)
    assert (int(pid), slot) == (before[1], "1")
    assert after[0] == before[0] and after[1] != before[1]
    assert load.failures == []


def test_a_slot_that_does_not_exist_is_refused(serve, directory):
    server = serve(HELLO, "-p", "app.pid", workers=2)
    ended = run("recycle", 9, "-p", "app.pid", cwd=directory)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "there is no slot 9: they are 0 to 1" in ended.stderr
    assert "Recycling" not in server.log


def test_a_worker_whose_successor_cannot_boot_goes_on(serve, directory):
    server = serve(HELLO, "-p", "app.pid")
    (old,) = server.worker_pids()
    (directory / "app.py").write_text("raise RuntimeError('no database')\n")
    ended = run("recycle", 0, "-p", "app.pid", cwd=directory)
    assert (ended.returncode, ended.stdout) == (3, "")
    assert "RuntimeError: no database" in ended.stderr and "Traceback" in ended.stderr
    server.wait_log("Recycling of slot 0 failed, its worker goes on")
    assert int(server.get()[1].split()[0]) == old
