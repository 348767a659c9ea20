"""What can be seen of a server from outside: memory, descriptors, sockets, calls. And how long a soak is."""

import os
import struct
from pathlib import Path

from content import KINDS

# Without it each test has a short form.
WHOLE = "SOAK_SECONDS" in os.environ
SECONDS = float(os.environ.get("SOAK_SECONDS", "8"))

KIB, MIB = 1 << 10, 1 << 20

_STATES = {"01": "ESTABLISHED", "04": "FIN_WAIT1", "05": "FIN_WAIT2", "08": "CLOSE_WAIT", "09": "LAST_ACK"}


def memory_of(pid, kind="Rss"):
    """Bytes of memory of a process: `Rss`, `Pss`, `Anonymous`."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == kind:
            return int(rest.split()[0]) * KIB
    raise ValueError(kind)


def descriptors_of(pid):
    """How many descriptors a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def sockets_of(port):
    """The states of the server's connections on a port of 127.0.0.1."""
    end, found = f":{port:04X}", []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(end) and fields[3] in _STATES:
            found.append(_STATES[fields[3]])
    return found


def calls_of(directory):
    """What the application has counted, over all workers: calls by kind."""
    totals = dict.fromkeys(KINDS, 0)
    for path in Path(directory).glob("calls-*"):
        for kind, count in zip(KINDS, struct.unpack(f"<{len(KINDS)}Q", path.read_bytes())):
            totals[kind] += count
    return totals


def alarms_in(log):
    """The lines of a log that are a warning or worse, or no line of the log at all; but for those about refused requests."""
    quiet = ("[DEBUG]", "[INFO]", "[WARNING] Refused ")
    return [line for line in log.splitlines() if not any(level in line[:80] for level in quiet)]
