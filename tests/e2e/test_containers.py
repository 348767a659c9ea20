"""The supervisor in a container: as the first process, without a writable file system, and within a quota."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from cgroups import Cgroup
from harness import HELLO, MCSUP, PATIENCE, children_of, clean_environment, is_gone, marked, wait_for, zombies_of

ORPHANS = 1000

# Leaves a thousand processes to the first one, which all end when the pipe closes.
LEAVING = f"""
import os
def leave():
    holds, waits = os.pipe()
    if os.fork() == 0:
        os.close(waits)
        for _ in range({ORPHANS}):
            if os.fork() == 0:
                os.closerange(0, holds)
                os.closerange(holds + 1, 256)
                os.read(holds, 1)
                os._exit(0)
        os._exit(0)
    os.wait()
    os.close(holds)
    return waits
held = []
def app(environ, start_response):
    if environ["PATH_INFO"] == "/leave":
        held.append(leave())
    elif environ["PATH_INFO"] == "/end" and held:
        os.close(held.pop())
    body = environ["wsgi.input"].read()
    answer = f"{{os.getpid()}} {{len(body)}}".encode()
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]
"""

# In a fresh network namespace the loopback interface is down (SIOCSIFFLAGS, IFF_UP, netdevice(7)).
LOOPBACK = """
import fcntl, os, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH14x", b"lo", 1))
os.execv(sys.argv[1], sys.argv[1:])
"""

# The file system is read-only but for what is named, and there is no /dev/shm.
READ_ONLY = """
set -e
mount --make-rprivate /
umount -l /dev/shm 2>/dev/null || true
if [ -n "$1" ]; then mount -t tmpfs tmpfs "$1"; fi
mount --bind / / && mount -o remount,ro,bind /
for place in $(awk '$2 ~ "^/(tmp|var|dev/shm|run|work|root)(/|$)" && $2 != "'"$1"'" {print $2}' /proc/mounts); do
    mount -o remount,ro,bind "$place" 2>/dev/null || true
done
if touch ./writable 2>/dev/null; then echo "NOT READ-ONLY"; exit 9; fi
cd . && shift && exec "$@"
"""


def can(*words):
    """Whether this user may make such namespaces."""
    with contextlib.suppress(FileNotFoundError):
        return subprocess.run(["unshare", *words, "true"], capture_output=True, check=False, timeout=5).returncode == 0
    return False


needs_namespaces = pytest.mark.skipif(
    not can("--pid", "--net", "--mount", "--fork", "--mount-proc"),
    reason="NOT TESTED: namespaces need unshare(1) and the right to it",
)


class Container:
    """A supervisor in namespaces of its own, which answers at a Unix socket."""

    def __init__(self, directory, *words, app=HELLO, env=None):
        (directory / "app.py").write_text(app)
        self.log_path = directory / "log"
        with self.log_path.open("wb") as log:
            self.outside = subprocess.Popen(
                ["unshare", *map(str, words)], cwd=directory, env=clean_environment(**(env or {})), stdout=log, stderr=log,
            )  # fmt: skip
        self.path = directory / "app.sock"

    @property
    def log(self):
        """All that was logged."""
        return self.log_path.read_text(errors="replace")

    def wait_log(self, text, count=1):
        """Wait for a text in the log."""
        try:
            wait_for(lambda: self.log.count(text) >= count, f"{text!r} in the log", 10)
        except AssertionError as error:
            raise AssertionError(f"{error}; the log:\n{self.log}") from None

    def supervisor(self):
        """Its pid, outside of the namespace."""
        (pid,) = wait_for(lambda: children_of(self.outside.pid), "the first process")
        return pid

    def request(self, path="/", body=None, timeout=20):
        """The status and body of an answer."""
        connection = http.client.HTTPConnection("app")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(timeout)
        connection.sock.connect(str(self.path))
        with contextlib.closing(connection):
            connection.request("POST" if body else "GET", path, body, {"Connection": "close"})
            response = connection.getresponse()
            return response.status, response.read()

    def end(self):
        """Kill what is left."""
        if self.outside.poll() is None:
            self.outside.kill()
        self.outside.wait(PATIENCE)


@pytest.fixture
def container(directory):
    made = []

    def start(*words, **options):
        made.append(Container(directory, *words, **options))
        return made[-1]

    yield start
    for each in made:
        each.end()


@needs_namespaces
def test_the_first_process_reaps_a_thousand_orphans_stops_in_time_and_leaves_nothing(container, directory):
    served = [MCSUP, "-w", "2", "-b", "127.0.0.1:8000", "-b", "unix:app.sock", "app:app"]
    alone = ["--pid", "--net", "--fork", "--mount-proc", "--kill-child", sys.executable, "-c", LOOPBACK]
    it = container(*alone, *served, app=LEAVING)
    it.wait_log("is ready", 2)
    supervisor = it.supervisor()
    # The port is that of the namespace: it is free outside.
    get = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8000/', timeout=5).status)"
    inside = subprocess.run(
        ["nsenter", "--target", str(supervisor), "--net", sys.executable, "-c", get],
        capture_output=True, text=True, check=True, timeout=10,
    )  # fmt: skip
    assert inside.stdout.strip() == "200"
    with socket.socket() as outside:
        outside.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        outside.bind(("127.0.0.1", 8000))
    for _ in range(2):
        # One worker holds the pipe: its clients end the processes too.
        status, body = it.request("/leave")
        worker = body.split()[0]
        wait_for(lambda: len(children_of(supervisor)) == ORPHANS + 2, "the orphans to be adopted", 20)
        wait_for(lambda: it.request("/end")[1].split()[0] == worker, "the worker to close the pipe", 20)
        wait_for(lambda: len(children_of(supervisor)) == 2, "the orphans to end", 20)
        wait_for(lambda: not zombies_of(supervisor), "the orphans to be reaped", 20)
    # They are no deaths of workers, and the pool has served meanwhile.
    assert it.log.count("is ready") == 2 and "respawning" not in it.log
    asked = time.monotonic()
    os.kill(supervisor, signal.SIGTERM)
    assert it.outside.wait(PATIENCE) == 0
    assert time.monotonic() - asked < PATIENCE
    assert "Stopped" in it.log
    assert is_gone(supervisor) and marked(directory) == {} and not it.path.exists()


@needs_namespaces
@pytest.mark.parametrize("has_tmp", [False, True], ids=["nothing writable", "a folder for temporary files"])
def test_it_serves_from_a_read_only_file_system_without_shared_memory(container, directory, has_tmp):
    # The only writable places are the folders of the socket and, if there is one, of temporary files.
    temporary = directory / "temporary"
    temporary.mkdir()
    environment = {"TMPDIR": str(temporary)} if has_tmp else {}
    served = [MCSUP, "-w", "2", "--preload", "-b", "127.0.0.1:8000", "app:app"]
    alone = ["--pid", "--net", "--mount", "--fork", "--mount-proc", "--kill-child", "sh", "-c", READ_ONLY, "sh"]
    it = container(*alone, temporary if has_tmp else "", sys.executable, "-c", LOOPBACK, *served, app=LEAVING, env=environment)
    it.wait_log("is ready", 3)
    supervisor = it.supervisor()
    send = (
        "import http.client, sys\n"
        "for size in map(int, sys.argv[1:]):\n"
        "    connection = http.client.HTTPConnection('127.0.0.1', 8000, timeout=10)\n"
        "    connection.request('POST', '/', b'x' * size)\n"
        "    response = connection.getresponse()\n"
        "    print(response.status, response.read().split()[-1].decode() if response.status == 200 else '')\n"
    )
    sizes = ["100", "1000000", "5000000"]
    inside = subprocess.run(
        ["nsenter", "--target", str(supervisor), "--net", sys.executable, "-c", send, *sizes],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert inside.stdout.split("\n")[:2] == ["200 100", "200 1000000"], (inside, it.log)
    # A larger body goes to a file.
    assert (inside.stdout.split("\n")[2] == "200 5000000") == has_tmp, (inside, it.log)
    os.kill(supervisor, signal.SIGHUP)
    it.wait_log("Reload done")
    os.kill(supervisor, signal.SIGUSR2)
    it.wait_log("Upgraded")
    os.kill(supervisor, signal.SIGTERM)
    assert it.outside.wait(PATIENCE) == 0
    assert "Stopped" in it.log


@pytest.mark.parametrize("named", [["-w", "auto"], []], ids=["option", "variable"])
def test_auto_starts_as_many_workers_as_the_quota_of_the_cgroup_has_processors(serve, directory, named):
    group = Cgroup("cpu")
    try:
        if group.is_v2:
            group.set("cpu.max", "150000 100000")
        else:
            group.set("cpu.cfs_period_us", 100000)
            group.set("cpu.cfs_quota_us", 150000)
        (directory / "app.py").write_text(HELLO)
        enter = ["sh", "-c", f'echo $$ > {group.path}/cgroup.procs; exec "$0" "$@"']
        environment = clean_environment(**({} if named else {"WEB_CONCURRENCY": "auto"}))
        server = serve(
            HELLO, *named, "-b", "127.0.0.1:0", "--soak", "0", "app:app", bare=True, through=enter, env=environment,
            wait=False,
        )  # fmt: skip
        processors = len(os.sched_getaffinity(0))
        server.wait_log(r"Worker (\d+) is ready", min(2, processors))
        assert len(server.worker_pids()) == min(2, processors)
        # A reload follows a changed quota.
        group.set("cpu.max" if group.is_v2 else "cpu.cfs_quota_us", "100000 100000" if group.is_v2 else 100000)
        server.signal(signal.SIGHUP)
        server.wait_log("Reload done", patience=20)
        wait_for(lambda: len(server.worker_pids()) == 1, "one worker")
        assert server.stop() == 0
    finally:
        group.remove()
