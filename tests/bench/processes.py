"""Processes: start a server, count its processor time, end it."""

import contextlib
import http.client
import os
import resource
import signal
import socket
import subprocess
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def running(command, folder, processors=None):
    """A server, on its processors if it has some of its own, that is gone afterwards, its workers too."""
    server = subprocess.Popen(
        ["taskset", "-c", processors, *command] if processors else command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield server
    finally:
        pids = tree(server.pid)
        server.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(3)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        server.wait()


def tree(pid):
    """A process and all that come of it."""
    children = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, pending = [], [pid]
    while pending:
        found.append(pending.pop())
        pending += children.get(found[-1], [])
    return found


def is_alive(pid):
    """Whether a process still runs; one that waits to be reaped does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def memory(pid):
    """MiB of a process and all that come of it; what several share is counted once."""
    total = 0
    for member in tree(pid):
        with contextlib.suppress(OSError):
            rows = Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()
            total += sum(int(row.split()[1]) for row in rows if row.startswith("Pss:"))
    return total / 1024


def used_by(pid):
    """Seconds of processor time of a process, all that come of it, and those of them that are gone."""
    total = 0
    for member in tree(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15]))
    return total / TICKS


def used_by_us():
    """Seconds of processor time of this process and of the clients that it has waited for."""
    usages = [resource.getrusage(group) for group in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def used_by_all():
    """Seconds of processor time that all processes of this machine have used."""
    user, nice, system, _, _, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / TICKS


def free_port():
    """A free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(port, path="/"):
    """One request on a connection of its own: what is answered."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise RuntimeError(f"it answers {response.status}")
        return body
    finally:
        connection.close()


def wait_until_it_answers(server, port, pause=0.01):
    """Wait for a server's first answer."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"it ended with {server.returncode}")
        try:
            return ask(port)
        except (OSError, http.client.HTTPException):
            time.sleep(pause)
    raise RuntimeError("it does not answer")


def wait_until_at_rest(pid, looks=20, pause=0.01):
    """Wait until a process and all that come of it have used no processor time for `looks` looks in a row."""
    used, quiet, deadline = used_by(pid), 0, time.monotonic() + 15
    while quiet < looks and time.monotonic() < deadline:
        time.sleep(pause)
        before, used = used, used_by(pid)
        quiet = quiet + 1 if used == before else 0


def warm_up(port, seconds=0.2):
    """A few requests, so that what is done once is done."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ask(port)
