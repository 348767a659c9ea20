"""`make run`: the first command of the README."""

import os
import signal
import subprocess

from harness import TOP, answers, children_of, clean_environment, free_port, get, wait_for


def test_make_run_serves_the_example_and_ends_when_asked():
    port = free_port()
    # An environment beside the contributor's own.
    environment = clean_environment()
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
    finally:
        for child in children_of(make.pid):
            os.kill(child, signal.SIGTERM)
        output = make.communicate(timeout=20)[0]
    assert make.returncode == 0, output
