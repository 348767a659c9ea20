"""Boots that fail: one reason, one exit code, nothing left; and workers that die young."""

import os
import re
import signal

import pytest

from harness import HELLO, Server, can_bind, children_of, wait_for

RAISES = """
def deep():
    raise RuntimeError("the database is not there")
try:
    deep()
except RuntimeError as error:
    raise ValueError("cannot start") from error
"""


def boot(directory, code, *arguments, workers=1, **options):
    """A server that is expected to end by itself: its exit code and its log."""
    (directory / "app.py").write_text(code)
    server = Server(directory, *arguments, workers=workers, wait=False, **options)
    try:
        return server.wait(20), server
    finally:
        server.clean_up()


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_an_application_that_raises_at_import_ends_the_start_with_4(directory, workers):
    code, server = boot(directory, RAISES, "-p", "app.pid", workers=workers)
    assert code == 4
    assert "failed to boot: importing app failed: ValueError: cannot start\n" in server.log
    assert server.log.count("\nValueError: cannot start\n") == 1
    assert "RuntimeError: the database is not there" in server.log
    assert "direct cause of the following exception" in server.log
    assert server.log.count("Traceback (most recent call last)") == 2, "one for the error, one for its cause"
    assert not (directory / "app.pid").exists()
    assert can_bind(server.port)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_worker_that_dies_at_import_ends_the_start_with_3(directory, workers):
    code, server = boot(directory, "import os\nos._exit(7)\n", "-p", "app.pid", workers=workers)
    assert code == 3
    assert "exited with code 7" in server.log
    assert not (directory / "app.pid").exists()


def test_a_syntax_error_reaches_the_terminal_whole(directory):
    code, server = boot(directory, "def app(:\n")
    assert code == 4
    assert "    def app(:\n" in server.log and "SyntaxError" in server.log and "^" in server.log


def test_a_boot_that_hangs_ends_at_the_boot_timeout(directory):
    code, server = boot(directory, "import time\ntime.sleep(60)\n", "--boot-timeout", "1")
    assert code == 3
    assert "was not ready within the boot timeout of 1.000 s" in server.log
    assert can_bind(server.port)


def test_a_worker_that_dies_right_after_its_boot_is_replaced_when_its_slot_has_rested(serve):
    server = serve(
        "import os, threading\n"
        "threading.Timer(0.02, os._exit, [9]).start()\n"
        "def app(environ, start_response): ...\n",
        wait=False,
    )
    # At once, and then half a second after it was ready, or four times its boot, which is longer on a busy machine.
    delays = [float(delay) for delay in server.wait_log(r"exited with code 9; respawning in ([\d.]+) s", 3, patience=15)]
    boots = [float(boot) for boot in re.findall(r"is ready after ([\d.]+) s", server.log)]
    assert all(delay <= max(0.5, 4 * max(boots)) for delay in delays), (delays, boots)
    assert server.log.count("exited with code 9; respawning\n") == 1
    assert server.stop() == 0
    server.assert_nothing_left()


def test_a_worker_that_cannot_boot_any_more_does_not_end_the_server(serve, directory):
    server = serve(workers=2)
    (directory / "app.py").write_text(RAISES)
    first, second = server.worker_pids()
    os.kill(first, signal.SIGKILL)
    server.wait_log("failed to boot: importing app failed: ValueError: cannot start")
    server.wait_log("respawning in", 1)
    assert int(server.get()[1].split()[0]) == second
    (directory / "app.py").write_text(HELLO)
    server.wait_log(r"Worker \d+ is ready", 3, patience=10)
    wait_for(lambda: len(children_of(server.pid)) == 2, "two workers")
