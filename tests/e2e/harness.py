"""mcsup as a user runs it: the installed command, in a directory of its own, watched from outside.

Every wait is for something that can be observed (a log line, an answer, an exit) and ends after PATIENCE. Processes are
ended by pid, and a server that leaves one behind fails its test.
"""

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

PATIENCE = 5.0
MCSUP = Path(sys.executable).with_name("mcsup")
TOP = Path(__file__).resolve().parents[2]
EXAMPLE = TOP / "examples" / "mission_control"
# Every process that a test starts has this variable, with the test's directory, and so have all that come of it.
MARK = "MCSUP_TEST_DIRECTORY"

HELLO = """
import os
def app(environ, start_response):
    body = f"{os.getpid()} {environ['PATH_INFO']}".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""

SLEEPY = """
import os, time
from urllib.parse import parse_qs
def app(environ, start_response):
    seconds = float(parse_qs(environ["QUERY_STRING"]).get("sleep", ["0"])[0])
    if seconds:
        environ["wsgi.errors"].write(f"sleeping {seconds}\\n")
        time.sleep(seconds)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


def wait_for(condition, what, patience=PATIENCE):
    """Wait until `condition()` is true and return what it returned."""
    deadline = time.monotonic() + patience
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, f"waited too long for {what}: {patience} s"
        time.sleep(0.005)


def free_port():
    """A free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def can_bind(port):
    """Whether a server could start on this port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
        return True


def state_of(pid):
    """The letter of a process's state and its parent; None where it is gone, or waits only to be reaped."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else (fields[0], int(fields[1]))


def is_gone(pid):
    """Whether a process no longer runs."""
    return state_of(pid) is None


def children_of(pid):
    """The pids of the living children of a process."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            state = state_of(int(entry.name))
            if state and state[1] == pid:
                found.append(int(entry.name))
    return sorted(found)


def zombies_of(pid):
    """The pids of the unreaped children of a process."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
            if fields[0] == "Z" and int(fields[1]) == pid:
                found.append(int(entry.name))
    return found


def marked(directory):
    """The living processes that come of a test, with any parent: pid and command."""
    mark, found = f"{MARK}={directory}".encode(), {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (entry / "environ").read_bytes().split(b"\0") and not is_gone(int(entry.name)):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return found


def end_marked(directory):
    """Kill what is left of a test after a last wait for it, and say what that was."""
    with contextlib.suppress(AssertionError):
        wait_for(lambda: not marked(directory), "the test's processes to be gone")
    left = marked(directory)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return left


def get(port, path="/", timeout=PATIENCE, host="127.0.0.1"):
    """One request on a connection of its own: status and body."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def answers(port):
    """Whether a server answers on this port."""
    try:
        return get(port)[0] < 600
    except OSError:
        return False


def clean_environment(**extra):
    """This process's environment without what would steer mcsup or the example."""
    steering = {"PORT", "WEB_CONCURRENCY", "GUNICORN_CMD_ARGS", "MCSUP_CMD_ARGS", "SCRIPT_NAME", "VIRTUAL_ENV"}
    steering |= {"HOST", "WORKERS", "MCSUP", "MC_RUN"}
    environment = {name: value for name, value in os.environ.items() if name not in steering}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    environment.update(extra)
    return environment


def run(*arguments, cwd, timeout=PATIENCE, env=None, **options):
    """Run the command to its end."""
    return subprocess.run(
        [str(MCSUP), *map(str, arguments)],
        cwd=cwd,
        env=env or clean_environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        **options,
    )


class Server:
    """A running `mcsup` in the foreground."""

    def __init__(
        self,
        directory,
        *arguments,
        app="app:app",
        port=None,
        env=None,
        wait=True,
        workers=1,
        bare=False,
        through=(),
        command=(MCSUP,),
    ):
        self.directory = Path(directory)
        self.port = port or free_port()
        self.log_path = self.directory / f"log-{self.port}-{time.monotonic_ns()}"
        # Bare: all that is usual stands in a settings file, over which a command line would win.
        usual = [] if bare else ["-w", str(workers), "-b", f"127.0.0.1:{self.port}"]
        # Through: words of a command that executes the words behind it.
        command = [*map(str, (*through, *command)), *usual, *map(str, arguments), *([] if bare else [app])]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=self.directory, env=env or clean_environment(), stdout=log, stderr=log
            )
        self.pid = self.process.pid
        self.seen = set()
        self.workers = workers
        if wait:
            self.wait_ready(workers)

    @property
    def log(self):
        """Everything logged so far."""
        return self.log_path.read_text(errors="replace")

    def wait_log(self, pattern, count=1, patience=PATIENCE):
        """Wait until a pattern is in the log `count` times; return the matches."""

        def found():
            matches = re.findall(pattern, self.log)
            return matches if len(matches) >= count else None

        try:
            return wait_for(found, f"{pattern!r} in the log", patience)
        except AssertionError as error:
            raise AssertionError(f"{error}; the log:\n{self.log}") from None

    def wait_ready(self, count=1):
        """Wait until `count` workers have said that they are ready."""
        self.wait_log(r"Worker (\d+) is ready", count)
        self.worker_pids()

    def worker_pids(self):
        """The workers that live now."""
        pids = children_of(self.pid)
        self.seen.update(pids)
        return pids

    def get(self, path="/", timeout=PATIENCE):
        """One request."""
        return get(self.port, path, timeout)

    def signal(self, number):
        """Send a signal to the supervisor."""
        self.worker_pids()
        self.process.send_signal(number)

    def wait(self, timeout=PATIENCE):
        """Wait for the supervisor's end and return its exit code."""
        return self.process.wait(timeout)

    def stop(self, timeout=PATIENCE):
        """Stop gracefully and return the exit code."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def kill(self):
        """Kill the supervisor alone."""
        self.signal(signal.SIGKILL)
        self.process.wait(PATIENCE)

    def assert_nothing_left(self):
        """No process of this server runs, and its port is free."""
        for pid in self.seen:
            wait_for(lambda pid=pid: is_gone(pid), f"process {pid} to be gone")
        wait_for(lambda: can_bind(self.port), f"port {self.port} to be free")

    def clean_up(self):
        """End what is still there, by pid."""
        if self.process.poll() is None:
            self.worker_pids()
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(PATIENCE)
        for pid in self.seen:
            if not is_gone(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


class Load:
    """Closed-loop clients in threads: each sends its next request when it has the answer to the last."""

    def __init__(self, port, fresh=4, kept=4, path="/"):
        self.port, self.path = port, path
        self.failures, self.counts, self.slowest = [], [0] * (fresh + kept), 0.0
        self.stopping = threading.Event()
        self.threads = [
            threading.Thread(target=self._client, args=(index, index >= fresh), daemon=True)
            for index in range(fresh + kept)
        ]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        self.wait_more(1)
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join(PATIENCE)

    def wait_more(self, each):
        """Wait until every client has had `each` more answers."""
        before = list(self.counts)
        wait_for(
            lambda: self.failures or all(now >= then + each for now, then in zip(self.counts, before)),
            f"{each} more answers for each client",
            patience=20,
        )

    def _client(self, index, keeps):
        connection = None
        while not self.stopping.is_set():
            start = time.monotonic()
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
                connection.request("GET", self.path, headers={} if keeps else {"Connection": "close"})
                response = connection.getresponse()
                response.read()
                if response.status != 200:
                    self.failures.append(f"status {response.status}")
                if not keeps or response.will_close:
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection = None
            self.counts[index] += 1
            self.slowest = max(self.slowest, time.monotonic() - start)


def connect(port):
    """An open connection."""
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


def read_all(connection):
    """Everything until the end of a connection; a reset is an end too."""
    received = b""
    while True:
        try:
            piece = connection.recv(65536)
        except ConnectionResetError:
            return received
        if not piece:
            return received
        received += piece
