"""An import that takes long slows no client down: old workers answer during a reload."""

import signal
import subprocess

import pytest
from closed_loop import APPLICATION
from harness import TOP, answers, clean_environment, free_port, wait_for
from lifecycle import WHOLE, Clients, Operator

IMPORT = 3.0
SLOW = "import os, time\nif os.path.exists('slow'):\n    time.sleep(%s)\n" % IMPORT + APPLICATION
GUNICORN = TOP / "target" / "bench-venv" / "bin" / "gunicorn"


@pytest.mark.parametrize("preload", [False, True] if WHOLE else [False])
def test_a_slow_import_slows_no_request_down(serve, directory, record_property, preload):
    server = serve(SLOW, "--pid", "app.pid", "--soak", "0", "--surge", "all", *["--preload"] * preload, workers=2)
    with Operator(directory / "app.ctl") as operator, Clients(server.port, 4, 4) as clients:
        (directory / "slow").write_text("")
        clients.look()
        operator.done("reload")
        operator.wait_at_rest()
        clients.wait_more(2)
        seen = clients.finish()
    slowest = clients.slowest
    record_property("slowest request", f"{slowest:.3f} s during a reload with an import of {IMPORT} s")
    assert seen["failures"] == []
    assert slowest < IMPORT / 2
    assert server.stop() == 0


@pytest.mark.skipif(not (WHOLE and GUNICORN.exists()), reason="a comparison: whole form, with gunicorn in target/bench-venv")
@pytest.mark.parametrize("preload", [False, True])
def test_what_gunicorn_makes_of_it_for_comparison(directory, record_property, preload):
    (directory / "app.py").write_text(SLOW)
    port = free_port()
    command = [GUNICORN, "-w", "2", "--threads", "4", "-b", f"127.0.0.1:{port}", *["--preload"] * preload, "app:app"]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=directory, env=clean_environment(), stdout=log, stderr=log)
    try:
        wait_for(lambda: answers(port), "gunicorn")
        with Clients(port, 4, 4) as clients:
            (directory / "slow").write_text("")
            process.send_signal(signal.SIGHUP)
            wait_for(lambda: clients.look() and "Hang up" in (directory / "log").read_text(), "the reload to begin")
            wait_for(
                lambda: (directory / "log").read_text().count("Booting worker") >= 4, "the new workers", IMPORT + 10
            )
            # All of them import before the first of them serves.
            clients.wait_more(2, IMPORT + 10)
            seen = clients.finish()
        slowest = clients.slowest
        record_property("slowest request", f"{slowest:.3f} s, failed {len(seen['failures'])} (gunicorn)")
    finally:
        process.terminate()
        process.wait(40)
