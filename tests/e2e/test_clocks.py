"""Time that passes without the supervisor, and a wall clock that jumps: no worker is killed for either.

MCSUP_SOAK=1 stops the supervisor for a minute instead of seconds, and moves its wall clock where faketime(1) is installed.
"""

import os
import re
import shutil
import signal
import sys
import time

import pytest
from harness import PATIENCE, SLEEPY, TOP, clean_environment, wait_for
from lifecycle import WHOLE, Operator, alarms_in

LONG, TIMEOUT = (60, 20) if WHOLE else (2.2, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("preload", [False, True])
def test_a_supervisor_that_stood_still_kills_no_worker(serve, directory, preload):
    options = ["--timeout", TIMEOUT, "--request-timeout", "0", "--pid", "app.pid", "--soak", "0"]
    options += ["--boot-timeout", TIMEOUT] + ["--preload"] * preload
    server = serve(SLEEPY, *options, workers=2)
    workers = server.worker_pids()
    server.signal(signal.SIGSTOP)
    begun = time.monotonic()
    # The workers serve on meanwhile, and nothing can be observed but that.
    while time.monotonic() - begun < LONG:
        assert server.get(f"/?sleep={min(0.2, TIMEOUT / 4)}")[0] == 200
    server.signal(signal.SIGCONT)
    # A poll(2) that was stopped goes on for what was left of it.
    server.wait_log("The supervisor did not run for .* s; no worker is blamed for it", patience=TIMEOUT + PATIENCE)
    with Operator(directory / "app.ctl") as operator:
        operator.wait_at_rest()
        # Longer than it would take to judge them again.
        again = time.monotonic()
        while time.monotonic() - again < min(TIMEOUT * 1.2, 3):
            assert server.get("/?sleep=0.1")[0] == 200
        assert server.worker_pids() == workers
        assert alarms_in(server.log, "^sleeping") == []
        operator.done("reload")
    assert server.stop() == 0
    server.assert_nothing_left()


def test_no_decision_is_made_by_a_clock_that_can_be_set():
    """Deadlines, ages and back-offs are on CLOCK_MONOTONIC: the sources know no other clock where they decide."""
    wall = re.compile(r"SystemTime|CLOCK_REALTIME|ClockId::Realtime|UNIX_EPOCH|gettimeofday|libc::time\b|jiff|chrono")
    found = [
        f"{path.relative_to(TOP)}:{number}: {line.strip()}"
        for folder in ("mcsup-core/src", "mcsup-py/src/engine", "mcsup-py/src/net")
        for path in sorted((TOP / folder).rglob("*.rs"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if wall.search(line) and "test" not in path.name and not line.lstrip().startswith("//")
    ]
    # What is shown to people may say when it was.
    shown = ("mcsup-py/src/engine/date.rs",)
    assert [line for line in found if not line.startswith(shown)] == []


@pytest.mark.skipif(not (WHOLE and shutil.which("faketime")), reason="whole form, with faketime(1)")
@pytest.mark.parametrize("days", [-1, 1])
def test_a_wall_clock_that_jumps_by_a_day_changes_nothing(serve, directory, days):
    clock = directory / "clock"
    clock.write_text("+0d\n")
    library = next(path for path in ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib") if
                   os.path.exists(f"{path}/faketime/libfaketime.so.1"))  # fmt: skip
    environment = clean_environment(
        LD_PRELOAD=f"{library}/faketime/libfaketime.so.1", FAKETIME_TIMESTAMP_FILE=str(clock), FAKETIME_NO_CACHE="1",
        FAKETIME_DONT_FAKE_MONOTONIC="1", DONT_FAKE_MONOTONIC="1",
    )  # fmt: skip
    server = serve(SLEEPY, "--pid", "app.pid", "--soak", "1", "--timeout", "5", workers=2, env=environment)
    workers = server.worker_pids()
    with Operator(directory / "app.ctl") as operator:
        # During a soak, a drain and a back-off.
        operator.say("reload")
        wait_for(lambda: server.log.count("is ready") >= 3, "a newcomer")
        clock.write_text(f"{days:+d}d\n")
        assert operator.hear()["outcome"] == "done"
        status = operator.wait_at_rest()
        assert not set(workers) & {worker["pid"] for worker in status["workers"]}
        victim = status["workers"][0]["pid"]
        os.kill(victim, signal.SIGKILL)
        server.wait_log("respawning")
        clock.write_text("+0d\n")
        operator.wait_at_rest()
        # Not a request that sleeps: faketime makes clock_nanosleep(2) fail after a jump.
        assert server.get("/")[0] == 200
    assert alarms_in(server.log, "^sleeping", f"Worker {victim} .* died, cause unknown: SIGKILL") == []
    assert server.stop() == 0
    server.assert_nothing_left()
