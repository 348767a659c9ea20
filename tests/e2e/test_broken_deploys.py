"""Deploys that cannot work: a reload of one fails and says why, clients notice nothing, and the next good one works.

MCSUP_SOAK=1 asks for twenty rounds of all of them; otherwise there are two.
"""

import re
import socket
import sys
import time

import pytest
from closed_loop import APPLICATION
from harness import free_port, run, wait_for
from lifecycle import WHOLE, Clients, Operator, descriptors_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

ROUNDS = 20 if WHOLE else 2
CLIENTS = 16
RAISES = "raise RuntimeError('no database')\n"
HANGS = "import time\ntime.sleep(3600)\n"
# It is ready, and some moments later it is no more.
DIES = APPLICATION + "import threading\nthreading.Timer(0.2, os._exit, (7,)).start()\n"
# It is ready, and answers no request for longer than a request may take.
SLOW = APPLICATION.replace('    number, size', '    time.sleep(20)\n    number, size')
# 504: the request was with the application. 503: it waited, and all threads of its worker were in such requests.
TOO_LATE = "HTTP/1.1 50[34] "
GOOD = """
bind = ["127.0.0.1:{port}"]
workers = 2
threads = 4
soak = 0.8
boot_timeout = 3
request_timeout = 0.4
graceful_timeout = 2
keep_alive = 20
pid = "app.pid"
app = "app:app"
"""


def reload(directory, *arguments, **options):
    """`mcsup reload`, as an operator says it."""
    return run("reload", "-p", "app.pid", *arguments, cwd=directory, timeout=60, **options)


class Deploys:
    """A server, the file of its application and that of its settings."""

    def __init__(self, serve, directory):
        self.directory, self.port = directory, free_port()
        (directory / "app.py").write_text(APPLICATION)
        self.good()
        self.server = serve(None, "-c", "mcsup.toml", port=self.port, workers=2, bare=True)
        self.busy = socket.socket()
        self.busy.bind(("127.0.0.1", 0))
        self.busy.listen()

    def good(self, extra=""):
        (self.directory / "mcsup.toml").write_text(extra + GOOD.format(port=self.port))
        (self.directory / "app.py").write_text(APPLICATION)

    def kinds(self):
        """What can be wrong, and what is said about it: the application, the settings, the message, the detail."""
        toml = GOOD.format(port=self.port)
        taken = f"127.0.0.1:{self.busy.getsockname()[1]}"
        bind = f'bind = ["127.0.0.1:{self.port}"]'
        return {
            "raises at import": (RAISES, toml, "importing app failed: RuntimeError: no database", "Traceback"),
            "hangs at import": (HANGS, toml, "not ready within the boot timeout of 3s", None),
            "dies after it was ready": (DIES, toml, "died soon after it was ready: exit code 7", None),
            "answers too late": (SLOW, toml, "left before the new generation was complete: .*timeout", None),
            "no TOML": (APPLICATION, toml + "workers = = 3\n", r"mcsup.toml:12: ", None),
            "an unknown key": (APPLICATION, toml + "wrokers = 3\n", "unknown key 'wrokers'; is 'workers' meant?", None),
            "a value that cannot be": (APPLICATION, toml.replace("threads = 4", "threads = -1"), "threads", None),
            "a port that is taken": (
                APPLICATION, toml.replace(bind, f'{bind[:-1]}, "{taken}"]'), f"{taken}.*[Aa]ddress already in use", None
            ),
        }  # fmt: skip


def lost_with_one(failures, begun, ended):
    """What was lost with the one process that died meanwhile: of each client the request that it was at, and no other."""
    meanwhile = [failure for failure in failures if begun <= failure["at"] <= ended]
    lost = [failure for failure in meanwhile if not re.search(TOO_LATE, failure["error"])]
    assert len({failure["client"] for failure in lost}) == len(lost), lost
    # Their connections ended; no client was refused, kept waiting or answered badly.
    ends = "Broken: the end of the connection|ConnectionResetError|BrokenPipeError"
    assert all(re.match(ends, failure["error"]) for failure in lost), lost
    return lost


def test_a_broken_deploy_fails_with_its_reason_and_the_next_good_one_works(serve, directory, record_property):
    deploys = Deploys(serve, directory)
    server, times = deploys.server, []
    with Operator(directory / "app.ctl") as operator, Clients(server.port, CLIENTS // 2, CLIENTS // 2) as clients:
        operator.wait_at_rest()
        before = descriptors_of(server.pid)
        for round_ in range(ROUNDS):
            for kind, (code, settings, message, detail) in deploys.kinds().items():
                (directory / "app.py").write_text(code)
                (directory / "mcsup.toml").write_text(settings)
                begun = time.monotonic()
                ended = reload(directory)
                times.append((kind, begun, time.monotonic()))
                said = f"{kind}: {ended}; the log:\n{server.log[-3000:]}"
                assert ended.returncode == 3, said
                assert re.search(message, ended.stderr), said
                assert detail is None or detail in ended.stderr, said
                assert ended.stdout == "", said
            deploys.good()
            generation = operator.status()["generation"]
            ended = reload(directory)
            assert ended.returncode == 0, f"{ended}; the log:\n{server.log[-3000:]}"
            assert operator.wait_at_rest()["generation"] > generation
            clients.wait_more(2)
        seen = clients.finish()
        wait_for(lambda: descriptors_of(server.pid) == before, "the supervisor's descriptors to be what they were")
    record_property("answered", f"{sum(seen['answered'])}, slowest {clients.slowest:.3f} s")
    noticed = {}
    for failure in seen["failures"]:
        kind = next((kind for kind, begun, ended in times if begun <= failure["at"] <= ended), "between two reloads")
        # No other version has a request timeout that passes; its answers may come when the reload has failed already.
        kind = "answers too late" if re.search(TOO_LATE, failure["error"]) else kind
        noticed.setdefault(kind, []).append(failure["error"])
    record_property("failed", {kind: len(errors) for kind, errors in noticed.items()})
    # Two versions begin well and have taken requests when they fail. What they were at is lost where the process ends
    # by itself, and otherwise answered by mcsup; no other client notices anything.
    deaths = [(begun, ended) for kind, begun, ended in times if kind == "dies after it was ready"]
    lost = noticed.pop("dies after it was ready", [])
    assert sum(len(lost_with_one(seen["failures"], *death)) for death in deaths) == len(lost)
    assert len(re.findall(r"Worker \d+ \(slot \d+\) exited with code 7", server.log)) == ROUNDS
    late = noticed.pop("answers too late", [])
    assert any("504" in error for error in late), late
    assert all(re.search(TOO_LATE, error) for error in late), late
    assert noticed == {}, f"the log:\n{server.log[-3000:]}"
    assert server.stop(20) == 0
    server.assert_nothing_left()
