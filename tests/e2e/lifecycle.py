"""What the tests of reloads, recycling, scaling and upgrades have in common: an operator, clients, and a witness.

All of it watches from outside: the control socket, /proc, and what clients are answered.
"""

import contextlib
import ctypes
import json
import os
import re
import select
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

from harness import PATIENCE, state_of, wait_for

WHOLE = os.environ.get("MCSUP_SOAK") == "1"
HERE = Path(__file__).resolve().parent
# pidfd_getfd(2); the same on every architecture.
PIDFD_GETFD = 438


class Operator:
    """An operator at a server's control socket."""

    def __init__(self, path, patience=60.0):
        self.path, self.patience = Path(path), patience
        self.socket = self.file = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self.socket is not None:
            self.file.close()
            self.socket.close()
        self.socket = self.file = None

    def say(self, command, **fields):
        """Send a request."""
        if self.socket is None:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(self.patience)
            self.socket.connect(str(self.path))
            self.file = self.socket.makefile("rb")
        self.socket.sendall(json.dumps({"version": 1, "command": command, **fields}).encode() + b"\n")

    def hear(self):
        """The next reply."""
        line = self.file.readline()
        assert line, "the end of the control connection without a reply"
        return json.loads(line)

    def ask(self, command, **fields):
        """A request and its reply."""
        self.say(command, **fields)
        return self.hear()

    def done(self, command, **fields):
        """A request that must succeed."""
        reply = self.ask(command, **fields)
        assert reply["outcome"] == "done", reply
        return reply

    def status(self):
        """How the server is."""
        return self.done("status")["status"]

    def wait_status(self, condition, what, patience=PATIENCE):
        """Wait until a status is as it should be."""

        def look():
            status = self.status()
            return status if condition(status) else None

        return wait_for(look, what, patience)

    def wait_at_rest(self, patience=20.0):
        """Wait until every slot has one ready worker and nothing is under way."""

        def rests(status):
            slots = sorted(worker["slot"] for worker in status["workers"])
            ready = all(worker["state"] == "ready" for worker in status["workers"])
            return status["phase"] == "serving" and ready and slots == list(range(status["target"]))

        return self.wait_status(rests, "the pool to be at rest", patience)


class Clients:
    """Closed-loop clients in a process of their own."""

    def __init__(self, port, fresh=16, kept=16, seed=1, kind=("whole",)):
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "closed_loop.py"), *map(str, (port, fresh, kept, seed, *kind))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.last, self.pictures = None, []

    def __enter__(self):
        self.wait_more(1)
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.finish()

    def look(self):
        """What has happened so far."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.last = json.loads(self.process.stdout.readline())
        self.pictures.append(self.last)
        return self.last

    @property
    def slowest(self):
        """How long the slowest request took of those that have ended since the first look."""
        return max(picture["slowest"][0] for picture in self.pictures[1:])

    def wait_more(self, each, patience=30.0):
        """Wait until every client has had `each` more answers, or one has failed."""
        first = self.look()

        def more():
            now = self.look()
            if len(now["failures"]) > len(first["failures"]):
                return True
            return all(new >= old + each for new, old in zip(now["answered"], first["answered"]))

        try:
            wait_for(more, f"{each} more answers for each client", patience)
        except AssertionError as error:
            lag = {
                index: self.last["busy"][index]
                for index, (new, old) in enumerate(zip(self.last["answered"], first["answered"]))
                if new < old + each
            }
            raise AssertionError(f"{error}; those that lag behind: {lag}") from None

    def finish(self):
        """Let them finish what they are at, and say what has happened."""
        self.process.stdin.close()
        try:
            self.last = json.loads(self.process.stdout.readline())
            self.pictures.append(self.last)
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
        return self.last


class Witness(threading.Thread):
    """Looks again and again whether each slot that has had a ready worker still has one.

    A slot of which a worker was killed is excused until a ready one is seen there.
    """

    def __init__(self, path, every=0.01):
        super().__init__(daemon=True)
        self.operator, self.every = Operator(path), every
        self.stopping, self.lock = threading.Event(), threading.Lock()
        self.held, self.excused, self.complaints = set(), {}, []
        self.looks, self.error = 0, None

    def __enter__(self):
        self.start()
        wait_for(lambda: self.looks or self.error, "a first look")
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.join(PATIENCE)
        self.operator.close()

    def excuse(self, slot, pid):
        """A worker of this slot is about to be killed."""
        with self.lock:
            self.excused.setdefault(slot, set()).add(pid)

    def let_go(self, slots):
        """The pool has only this number of slots now; by the next look it may have more again."""
        with self.lock:
            self.held = {slot for slot in self.held if slot < slots}

    @property
    def is_content(self):
        """Whether no worker is missing."""
        with self.lock:
            return not self.excused

    def run(self):
        try:
            while not self.stopping.wait(self.every):
                with self.lock:
                    self.judge(self.operator.status())
        except Exception as error:  # noqa: BLE001
            self.error = error

    def judge(self, status):
        ready = {}
        for worker in status["workers"]:
            if worker["state"] in ("ready", "recycling"):
                ready.setdefault(worker["slot"], set()).add(worker["pid"])
        for slot in range(status["target"]):
            # One that was killed may still be counted until it is reaped.
            if ready.get(slot, set()) - self.excused.get(slot, set()):
                self.held.add(slot)
                if not any(state_of(pid) for pid in self.excused.get(slot, ())):
                    self.excused.pop(slot, None)
            elif slot in self.held and slot not in self.excused:
                self.complaints.append((time.monotonic(), slot, status))
        self.held = {slot for slot in self.held if slot < status["target"]}
        self.excused = {slot: pids for slot, pids in self.excused.items() if slot < status["target"]}
        self.looks += 1


def kill_and_say_what_it_held(pid, port):
    """`kill -9` and wait for its end; the ports of the clients whose connections the process had. None: it was gone.

    It is stopped first, for as long as it takes to look: only then is what it holds what it is killed with.
    """
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    try:
        signal.pidfd_send_signal(handle, signal.SIGSTOP)
        with contextlib.suppress(AssertionError):
            wait_for(lambda: (state_of(pid) or "T")[0] in "Tt", "the worker to stand still")
        return connections_of(pid, handle, port)
    except ProcessLookupError:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        # Until the last of its threads is dead clients may still send to it.
        select.select([handle], [], [], PATIENCE)
        os.close(handle)


def connections_of(pid, handle, port):
    """The ports of the clients whose connections to `port` a process holds."""
    found = set()
    # With the lock of Python held: of a process that stands still there is no time to lose.
    system_call = ctypes.PyDLL(None).syscall
    for number in os.listdir(f"/proc/{pid}/fd"):
        copy = system_call(PIDFD_GETFD, handle, int(number), 0)
        if copy >= 0 and stat.S_ISSOCK(os.fstat(copy).st_mode):
            with contextlib.suppress(OSError), socket.socket(fileno=copy) as connection:
                if connection.family == socket.AF_INET and connection.getsockname()[1] == port:
                    found.add(connection.getpeername()[1])
        elif copy >= 0:
            os.close(copy)
    return found


def descriptors_of(pid):
    """What a process has open, by kind: a path, or `socket`, `pipe` and the like."""
    kinds = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            kind = re.sub(r"[:\[(].*", "", os.readlink(entry))
            kinds[kind] = kinds.get(kind, 0) + 1
    return kinds


def alarms_in(log, *expected):
    """The lines of a log that are errors or no lines of a log at all, but for those that match a pattern."""
    quiet = ("[DEBUG]", "[INFO]", "[WARNING]")
    lines = [line for line in log.splitlines() if not any(level in line[:64] for level in quiet)]
    return [line for line in lines if not any(re.search(pattern, line) for pattern in expected)]
