"""Everything that happens to workers in a life, at once and again and again, under clients that must not notice.

MCSUP_SOAK=1 asks for the whole form in all its variants; otherwise there are few of each, in two variants.
"""

import os
import random
import re
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from closed_loop import APPLICATION
from harness import children_of, wait_for, zombies_of
from lifecycle import WHOLE, Clients, Operator, Witness, alarms_in, descriptors_of, kill_and_say_what_it_held

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

WORKERS = 3
HOW_OFTEN = (
    {"reload": 20, "scale": 10, "recycle": 200, "upgrade": 10, "kill": 20}
    if WHOLE
    else {"reload": 3, "scale": 3, "recycle": 15, "upgrade": 2, "kill": 3}
)
CLIENTS = 16
VARIANTS = [(own, preload, threads) for own in (False, True) for preload in (False, True) for threads in (1, 4)]
# Each value of each once.
FEW = [(False, True, 4), (True, False, 1)]
# What a worker that is killed on purpose leads to.
EXPECTED = (
    r"died, cause unknown: SIGKILL",
    r"Reload failed, the old generation goes on serving: .* worker \d+ died (before|soon after) it was ready",
    r"Recycling of slot \d+ failed",
    r"Scaling to \d+ workers failed",
)


class Killer(threading.Thread):
    """Kills a worker at random on request, some moments later."""

    def __init__(self, server, control, witness, seed):
        super().__init__(daemon=True)
        self.server, self.operator, self.witness = server, Operator(control), witness
        self.random, self.wanted = random.Random(seed), threading.Semaphore(0)
        self.held, self.aimed, self.killed, self.stopping, self.error = [], 0, 0, False, None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopping = True
        self.wanted.release()
        self.join(10)
        self.operator.close()

    def run(self):
        try:
            while self.wanted.acquire() and not self.stopping:
                time.sleep(self.random.random() * 0.3)
                while not self.kill():
                    time.sleep(0.01)
        except Exception as error:  # noqa: BLE001
            self.error = error

    def kill(self):
        workers = [worker for worker in self.operator.status()["workers"] if worker["pid"]]
        if not workers:
            return False
        worker = self.random.choice(workers)
        self.witness.excuse(worker["slot"], worker["pid"])
        begun = time.monotonic()
        self.aimed += 1
        ports = kill_and_say_what_it_held(worker["pid"], self.server.port)
        if ports is None:
            return False
        self.held.append((begun, time.monotonic(), ports))
        self.killed += 1
        return True


def acts(number):
    """All that is to be done, in an order by chance; a kill comes with whatever is next."""
    chance = random.Random(number)
    order = [what for what, times in HOW_OFTEN.items() for _ in range(times)]
    chance.shuffle(order)
    return chance, order


def live_through(server, operator, witness, killer, number):
    """Do all of it; returns how often each was done and how often it was tried."""
    chance, order = acts(number)
    done, tried = Counter(), Counter()
    while order:
        what = order.pop()
        if what == "kill":
            killer.wanted.release()
            done["kill"] += 1
            continue
        target = operator.status()["target"]
        fields = {
            "scale": lambda: {"workers": chance.choice([n for n in range(1, WORKERS + 3) if n != target])},
            "recycle": lambda: {"slot": chance.randrange(target)},
        }.get(what, dict)()
        calm, aimed = witness.is_content, killer.aimed
        reply = operator.ask(what, **fields)
        if what == "scale":
            witness.let_go(operator.status()["target"])
        tried[what] += 1
        if reply["outcome"] == "done":
            done[what] += 1
            continue
        # A worker that is killed may take what it was part of with it; nothing else may.
        assert not calm or killer.aimed != aimed, f"{what} {fields}: {reply}; the log:\n{server.log[-5000:]}"
        order.insert(chance.randrange(len(order) + 1), what)
        if not calm:
            wait_for(lambda: witness.is_content or witness.error, "the killed worker's successor", 60)
    wait_for(lambda: killer.killed == HOW_OFTEN["kill"] or killer.error, "the last kill")
    return done, tried


def unexplained(failures, held):
    """The failed requests that were not on a worker when it was killed."""

    def is_explained(failure):
        return any(
            failure["port"] in ports and failure["begun"] <= killed and begun <= failure["at"]
            for begun, killed, ports in held
        )

    return [failure for failure in failures if not is_explained(failure)]


def as_text(kinds):
    return str(sorted(kinds.items()))


def at_rest(server, operator):
    """The open descriptors without connections: the supervisor's, and each worker's."""
    operator.wait_at_rest()
    status = operator.wait_status(
        lambda status: not any(worker["connections"] for worker in status["workers"]), "the last connection to go", 10
    )
    pids = [worker["pid"] for worker in status["workers"]]
    # A worker is ready before its engine has opened its poller.
    wait_for(lambda: len({as_text(descriptors_of(pid)) for pid in pids}) == 1, "the same descriptors in each worker")
    return descriptors_of(server.pid), [descriptors_of(pid) for pid in pids]


@pytest.mark.parametrize("own_listeners, preload, threads", VARIANTS if WHOLE else FEW)
def test_clients_notice_nothing_of_a_storm_but_what_was_on_a_killed_worker(
    serve, directory, record_property, own_listeners, preload, threads
):
    assert Path("/proc/sys/net/ipv4/tcp_migrate_req").read_text().strip() == "0", "a kernel that helps proves nothing"
    options = ["--threads", threads, "--pid", "app.pid", "--keep-alive", "20", "--soak", "0.2"]
    options += ["--reuse-port"] * own_listeners + ["--preload"] * preload
    server = serve(APPLICATION, *options, workers=WORKERS)
    control = directory / "app.ctl"
    number = random.randrange(1 << 30)
    print(f"number {number}")
    with Operator(control) as operator:
        assert server.get("/pid")[0] == 200
        supervisor, workers = at_rest(server, operator)
        started = time.monotonic()
        with (
            Clients(server.port, CLIENTS, CLIENTS, number) as clients,
            Witness(control) as witness,
            Killer(server, control, witness, number) as killer,
        ):
            done, tried = live_through(server, operator, witness, killer, number)
            wait_for(lambda: witness.is_content or witness.error, "all workers to be back", 60)
            operator.wait_at_rest()
            clients.wait_more(3)
            took, seen = time.monotonic() - started, clients.finish()
        assert (witness.error, killer.error) == (None, None), f"{witness.error!r}, {killer.error!r}; the log:\n{server.log[-5000:]}"
        failures, held = seen["failures"], sum(len(ports) for _, _, ports in killer.held)
        record_property("requests", f"{sum(seen['answered'])} answered in {took:.1f} s")
        record_property("failed", f"{len(failures)}, of {held} connections on {killer.killed} killed workers")
        record_property("closed between two requests", seen["lost_idle"])
        record_property("slowest", f"{clients.slowest:.3f} s")
        record_property("done of tried", {what: f"{done[what]}/{tried[what]}" for what in tried})
        record_property("longest stop before a kill", f"{max((killed - begun for begun, killed, _ in killer.held)):.3f} s")
        record_property("looks at the capacity", witness.looks)
        assert seen["hung"] == 0
        lost = unexplained(failures, killer.held)
        assert not lost, f"{len(lost)} of {len(failures)}: {lost[:5]}; killed: {killer.held}; the log:\n{server.log[-5000:]}"
        assert len(failures) <= held
        assert not witness.complaints, f"{len(witness.complaints)} looks: {witness.complaints[:2]}; the log:\n{server.log[-5000:]}"
        operator.done("scale", workers=WORKERS)
        # What the operator was answered is what the server, through all its images, has counted and logged.
        status = operator.status()
        counted = {"reload": status["reloads"], "upgrade": status["upgrades"], "kill": killer.killed}
        assert counted == {what: HOW_OFTEN[what] for what in counted}
        now_supervisor, now_workers = at_rest(server, operator)
    assert zombies_of(server.pid) == []
    assert now_supervisor == supervisor
    assert sorted(map(as_text, now_workers)) == sorted(map(as_text, workers))
    assert alarms_in(server.log, *EXPECTED) == []
    assert not re.search(r"panick|Traceback", server.log)
    assert len(children_of(server.pid)) == WORKERS + preload
    assert server.stop() == 0
    server.assert_nothing_left()
    assert not os.path.exists(control)
