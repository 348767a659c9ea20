"""Workers that die again and again: a pool that can serve is never dark, and says when the next worker starts."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from cgroups import Cgroup
from harness import HELLO, PATIENCE, clean_environment, free_port, get, run, wait_for

# A poison request ends its worker as a fault of native code does.
POISONED = """
import os, signal, time
def app(environ, start_response):
    if environ["PATH_INFO"] == "/poison":
        os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(0.005)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]
"""

SECONDS = 20
POISON_EVERY = 0.5


class Innocents:
    """Four clients on new connections, and one that poisons."""

    def __init__(self, port):
        self.port, self.slowest, self.answered, self.lost, self.others, self.poisoned = port, 0.0, 0, [], [], []
        self.lock = threading.Lock()

    def run(self):
        end = time.monotonic() + SECONDS
        threads = [threading.Thread(target=self._client, args=(end,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        due = time.monotonic()
        while due < end:
            time.sleep(max(0.0, due - time.monotonic()))  # The pace of the poison is what is tested.
            self.poisoned.append(time.monotonic())
            try:
                get(self.port, "/poison", timeout=PATIENCE)
            except (OSError, http.client.HTTPException):
                pass
            due += POISON_EVERY
        for thread in threads:
            thread.join()
        return self

    def _client(self, end):
        while time.monotonic() < end:
            start, failure = time.monotonic(), None
            try:
                status, _ = get(self.port, timeout=10)
                if status != 200:
                    self.others.append(f"status {status}")
            except (ConnectionResetError, http.client.RemoteDisconnected, BrokenPipeError) as error:
                failure = error
            except (OSError, http.client.HTTPException) as error:
                self.others.append(repr(error))
            with self.lock:
                self.slowest = max(self.slowest, time.monotonic() - start)
                if failure is None:
                    self.answered += 1
                else:
                    self.lost.append(time.monotonic())


def of_gunicorn(directory):
    """The same of gunicorn's synchronous workers."""
    port = free_port()
    with (directory / "gunicorn.log").open("wb") as log:
        command = [sys.executable, "-m", "gunicorn", "-w", "2", "-b", f"127.0.0.1:{port}", "app:app"]
        process = subprocess.Popen(command, cwd=directory, stdout=log, stderr=log, env=clean_environment())
    try:
        wait_for(lambda: _answers(port), "gunicorn to answer", patience=20)
        return Innocents(port).run()
    finally:
        process.terminate()
        process.wait(20)


def _answers(port):
    try:
        return get(port)[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def test_poison_every_half_second_makes_no_innocent_client_wait_for_a_second(serve, directory, record_property):
    server = serve(POISONED, workers=2)
    ours, theirs = Innocents(server.port).run(), of_gunicorn(directory)
    for name, innocents in (("mcsup", ours), ("gunicorn_sync", theirs)):
        figures = {"answered": innocents.answered, "lost": len(innocents.lost), "slowest": round(innocents.slowest, 3)}
        record_property(name, figures)
    assert ours.others == []
    assert ours.slowest <= 1.0
    # Only a worker that dies loses requests: those that it held in that moment, one for each client at most.
    kills = len(ours.poisoned)
    assert server.log.count("died of SIGSEGV") >= kills * 0.9
    assert len(ours.lost) <= 4 * kills
    for lost in ours.lost:
        assert any(0 <= lost - poisoned <= 0.5 for poisoned in ours.poisoned), "lost without a death"
    assert server.stop() == 0


# Its workers boot as long as there is no such file.
FRAGILE = """
import os
if os.path.exists("broken"):
    raise RuntimeError("no database")
""" + HELLO


def slots(directory):
    """What `mcsup status` says of each slot."""
    status = run("status", "--json", "-p", "app.pid", cwd=directory)
    return json.loads(status.stdout)["status"]["slots"]


def test_a_slot_that_waits_says_when_and_why_and_is_filled_now_when_asked(serve, directory):
    server = serve(FRAGILE, "-p", "app.pid", workers=2)
    (directory / "broken").touch()
    os.kill(server.worker_pids()[0], signal.SIGKILL)
    server.wait_log("RuntimeError: no database", 3, patience=20)
    waiting = wait_for(lambda: [slot for slot in slots(directory) if slot.get("waits_because")], "a slot that waits")
    assert "boots failed" in waiting[0]["waits_because"]
    slot = waiting[0]["slot"]
    assert f"slot {slot}, in " in run("status", "-p", "app.pid", cwd=directory).stdout
    failed = run("recycle", slot, "-p", "app.pid", cwd=directory)
    assert (failed.returncode, "no database" in failed.stderr) == (3, True)
    (directory / "broken").unlink()
    recycled = run("recycle", slot, "-p", "app.pid", cwd=directory)
    assert (recycled.returncode, recycled.stdout) == (0, f"slot {slot} has a worker\n")
    assert not any(slot.get("waits_because") for slot in slots(directory))
    assert server.stop() == 0


@pytest.fixture
def pids():
    """A control group that bounds the number of processes."""
    group = Cgroup("pids")
    yield group
    group.set("pids.max", "max")
    group.remove()


def test_forks_that_the_system_refuses_are_tried_again_for_the_whole_pool(serve, pids):
    server = serve(workers=2)
    pids.add(server.pid)
    for worker in server.worker_pids():
        pids.add(worker)
    pids.set("pids.max", 1)
    for worker in server.worker_pids():
        os.kill(worker, signal.SIGKILL)
    server.wait_log("could not be forked|cannot fork|Resource temporarily unavailable", 3, patience=20)
    pids.set("pids.max", "max")
    # Two seconds at most after the limit is gone, and no slot has anything to wait for on top.
    server.wait_ready(4)
    assert server.get()[0] == 200
    assert server.stop() == 0


def test_a_pool_whose_workers_all_leave_at_once_has_their_successors_first(serve):
    server = serve(
        "import time\n" + HELLO.replace("body =", "time.sleep(30 if environ['PATH_INFO'] == '/slow' else 0)\n    body ="),
        "--request-timeout", "1", "--graceful-timeout", "3", workers=2,
    )

    def slow():
        try:
            server.get("/slow", timeout=20)
        except OSError:
            pass

    for _ in range(2):
        threads = [threading.Thread(target=slow) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    server.wait_log("leaves when its successor is ready", 4, patience=20)
    server.wait_ready(6)
    assert server.get()[0] == 200
    assert "respawning in" not in server.log.replace("respawning in 0.", "")


def test_a_worker_that_never_boots_does_not_hold_up_a_start_in_the_background_nor_a_reload(directory):
    # The first to boot serves, every other one hangs.
    (directory / "app.py").write_text(
        "import os, time\ntry:\n    os.close(os.open('first', os.O_CREAT | os.O_EXCL))\n"
        "except FileExistsError:\n    time.sleep(600)\n" + HELLO
    )
    port = free_port()
    started = run("-D", "-p", "app.pid", "-w", "2", "-b", f"127.0.0.1:{port}", "app:app", cwd=directory)
    try:
        notes = f"serving with 1 of 2 workers, 1 still to be ready\nlogging to {directory / 'app.log'}\n"
        assert (started.returncode, started.stdout) == (0, notes)
        assert get(port)[0] == 200
        (directory / "app.py").write_text(HELLO)
        reloaded = run("reload", "-p", "app.pid", cwd=directory, timeout=20)
        assert reloaded.returncode == 0, reloaded.stderr
        assert len([slot for slot in slots(directory) if not slot.get("waits_because")]) == 2
    finally:
        assert run("stop", "-p", "app.pid", cwd=directory, timeout=20).returncode == 0


@pytest.fixture
def freezer():
    """A control group whose processes can be frozen."""
    group = Cgroup("freezer", v1=True)
    yield group
    group.freeze(False)
    group.remove()


def test_a_worker_that_cannot_be_killed_keeps_neither_its_slot_empty_nor_the_stop_from_ending(serve, freezer):
    server = serve(HELLO, "-t", "1", "--request-timeout", "0", workers=2)
    frozen = server.worker_pids()[0]
    freezer.add(frozen)
    freezer.freeze(True)
    server.wait_log(rf"Worker {frozen} \(slot \d\) was sent SIGKILL 5.\d+ s ago and is still there", patience=20)
    server.wait_ready(3)
    assert server.get()[0] == 200
    assert server.stop(20) == 10
    server.wait_log("Stopped; processes that SIGKILL did not end are still there: 1")
    freezer.freeze(False)
    server.assert_nothing_left()


def test_a_stop_names_the_worker_that_cannot_be_killed(serve, directory, freezer):
    server = serve(HELLO, "-p", "app.pid", "--graceful-timeout", "1", workers=1)
    (frozen,) = server.worker_pids()
    freezer.add(frozen)
    freezer.freeze(True)
    stopped = run("stop", "-p", "app.pid", "--timeout", "15", cwd=directory, timeout=30)
    assert stopped.returncode == 7
    assert f"pid {frozen}" in stopped.stderr
    assert server.wait() == 10
    freezer.freeze(False)
    server.assert_nothing_left()
