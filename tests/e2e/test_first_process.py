"""The supervisor as the first process of a container: a pid namespace of its own."""

import subprocess

import pytest
from harness import HELLO, MCSUP, children_of, clean_environment, free_port, get, wait_for, zombies_of
from lifecycle import Operator

ORPHANS = HELLO + """
for _ in range(20):
    # The child's child is left to the first process, and ends.
    if os.fork() == 0:
        if os.fork() == 0:
            os.close(0)
        os._exit(0)
    os.wait()
"""


def can_unshare():
    """Whether this user may make pid namespaces."""
    probe = ["unshare", "--pid", "--fork", "--mount-proc", "true"]
    try:
        return subprocess.run(probe, capture_output=True, check=False, timeout=5).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not can_unshare(), reason="a pid namespace needs unshare(1) and the right to it")
def test_the_first_process_of_a_container_upgrades_reloads_reaps_and_stops(directory):
    (directory / "app.py").write_text(ORPHANS)
    port = free_port()
    inside = [str(MCSUP), "-w", "2", "-b", f"127.0.0.1:{port}", "-p", "app.pid", "--soak", "0", "app:app"]
    with (directory / "log").open("wb") as log:
        outside = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", *inside],
            cwd=directory, env=clean_environment(), stdout=log, stderr=log,
        )  # fmt: skip
    try:
        text = lambda: (directory / "log").read_text()  # noqa: E731
        wait_for(lambda: text().count("is ready") >= 2, "two workers")
        (supervisor,) = children_of(outside.pid)
        with Operator(directory / "app.ctl") as operator:
            # Its own pid there, although we ask from outside.
            assert operator.status()["pid"] == 1
            operator.done("upgrade")
            operator.done("reload")
            status = operator.status()
            assert (status["pid"], status["upgrades"], status["generation"]) == (1, 1, 2)
        assert get(port)[0] == 200
        wait_for(lambda: not zombies_of(supervisor), "all orphans to be reaped")
        subprocess.run(["kill", "-TERM", str(supervisor)], check=True)
        assert outside.wait(5) == 0
        assert "Stopped" in text()
    finally:
        outside.kill()
        outside.wait()
