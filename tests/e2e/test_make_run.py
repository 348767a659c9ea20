"""`make run`: the first command of the README."""

import os
import signal
import subprocess

from harness import EXAMPLE, MCSUP, TOP, answers, children_of, clean_environment, free_port, get, wait_for


def test_make_run_serves_the_example_which_the_operators_script_reaches(directory):
    port = free_port()
    # Beside what the contributor runs.
    environment = clean_environment(MC_RUN=str(directory / "run"), MCSUP=str(MCSUP))
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
        environment.pop(name, None)
    make = subprocess.Popen(
        ["make", "run", f"PORT={port}", "VENV=target/run-venv"],
        cwd=TOP,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_for(lambda: make.poll() is not None or answers(port), "an answer", patience=600)
        assert make.poll() is None, make.stdout.read()
        assert get(port, "/api/status")[0] == 200
        assert b"Mission control" in get(port)[1]
        script = EXAMPLE / "mc.sh"
        for word, expected in [("status", f"127.0.0.1:{port}"), ("reload", ""), ("stop", "stopped")]:
            result = subprocess.run([script, word], env=environment, capture_output=True, text=True, timeout=30)
            assert result.returncode == 0 and expected in result.stdout, result.stdout + result.stderr
    finally:
        for child in children_of(make.pid):
            os.kill(child, signal.SIGTERM)
        output = make.communicate(timeout=20)[0]
    assert make.returncode == 0, output
    assert f"http://127.0.0.1:{port}" in output and "mc.sh status" in output
    assert '"GET /api/status HTTP/1.1" 200' in output, "the access log is on"
