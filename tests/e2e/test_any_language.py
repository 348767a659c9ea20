"""One life for workers of each language: reloads under load, scaling, recycling, a broken version, kills, the end.

No client notices anything, but the ones whose connection a killed process held. No process outlives the supervisor.
"""

import os
import re
import signal
import sys

import pytest
from harness import answers, can_bind, children_of, is_gone, marked, wait_for
from languages import LANGUAGES
from lifecycle import Clients, Operator, kill_and_say_what_it_held

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

RELOADS = 3


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda language: language.name)
def test_workers_of_any_language_live_one_life(language, serve, directory):
    language.require()
    language.write(directory)
    server = serve(None, bare=True, wait=False, **language.start(directory))
    try:
        wait_for(lambda: (directory / "pool.ctl").exists(), "the control socket", patience=30)
        with Operator(directory / "pool.ctl") as operator:
            operator.wait_at_rest(30)
            with Clients(server.port, language.fresh, language.kept, kind=language.kind(directory)) as clients:
                changes(language, directory, operator, clients)
                held = kill_one(language, directory, operator, server.port)
                operator.wait_at_rest(30)
                clients.wait_more(2)
                seen = clients.finish()
            lost = [failure for failure in seen["failures"] if failure["port"] not in held]
            assert lost == [], f"{lost}; the log:\n{server.log[-4000:]}"
            assert len(seen["failures"]) <= len(held), seen["failures"]
        the_end_of_the_supervisor(server, directory)
    finally:
        server.seen.update(marked(directory))


def changes(language, directory, operator, clients):
    """All that an operator does to a pool; the clients go on."""
    for _ in range(RELOADS):
        before = operator.status()["generation"]
        operator.done("reload")
        assert operator.wait_at_rest(30)["generation"] > before
        clients.wait_more(1)
    for workers in (4, 2):
        operator.done("scale", workers=workers)
        assert len(operator.wait_at_rest(30)["workers"]) == workers
        clients.wait_more(1)
    for slot in (0, 1):
        old = {worker["pid"] for worker in operator.status()["workers"]}
        operator.done("recycle", slot=slot)
        assert {worker["pid"] for worker in operator.wait_at_rest(30)["workers"]} != old
        clients.wait_more(1)
    generation = operator.status()["generation"]
    language.break_it(directory)
    failed = operator.ask("reload")
    assert failed["outcome"] == "failed", failed
    assert re.search(language.reason, f"{failed['message']} {failed.get('detail')}"), failed
    assert operator.wait_at_rest(30)["generation"] == generation
    language.write(directory)
    operator.done("reload")
    clients.wait_more(1)


def kill_one(language, directory, operator, port):
    """`kill -9` of a process that serves: the ports of the clients that it held."""
    worker = operator.wait_at_rest(30)["workers"][0]["pid"]
    serving = (children_of(worker) or [worker])[0] if language.has_program else worker
    held = kill_and_say_what_it_held(serving, port) or set()
    # A job that it was at is queued again, as an operator does.
    for job in directory.glob(f"*.{serving}"):
        job.rename(job.with_suffix(".job"))
    wait_for(lambda: all(entry["pid"] != worker for entry in operator.status()["workers"]), "the worker to be replaced")
    return held


def the_end_of_the_supervisor(server, directory):
    """`kill -9` of the supervisor: it leaves no process, not even one that a worker has started, and a free port."""
    processes = [pid for pid in marked(directory) if pid != server.pid]
    assert processes
    os.kill(server.pid, signal.SIGKILL)
    server.process.wait()
    for pid in processes:
        wait_for(lambda pid=pid: is_gone(pid), f"process {pid} to be gone")
    assert not answers(server.port)
    wait_for(lambda: can_bind(server.port), "the port to be free")
