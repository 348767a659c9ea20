"""The binary, which embeds a Python: it serves from the environment that VIRTUAL_ENV names."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import EXAMPLE, TOP, clean_environment, free_port, get, wait_for

BINARY = Path(os.environ.get("CARGO_TARGET_DIR", TOP / "target")) / "debug" / "mcsup"

pytestmark = pytest.mark.skipif(not BINARY.exists(), reason="`make test` builds it; this run is of something else")


def test_it_serves_from_the_virtual_environment(directory):
    port = free_port()
    command = [BINARY, "-w", "2", "-b", f"127.0.0.1:{port}", "--chdir", EXAMPLE, "server:app"]
    log = directory / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=clean_environment(VIRTUAL_ENV=sys.prefix), stderr=file, cwd=directory)
    try:
        wait_for(lambda: log.read_text().count("is ready after") == 2 or process.poll(), "two workers", 15)
        status, body = get(port, "/api/status")
        assert (status, b'"ok"' in body) == (200, True), log.read_text()
    finally:
        process.terminate()
        assert process.wait(5) == 0


def test_a_check_that_goes_well_says_so(directory):
    (directory / "app.py").write_text("app = print\n")
    command = [BINARY, "check", "app:app"]
    result = subprocess.run(
        command, env=clean_environment(), cwd=directory, capture_output=True, text=True, timeout=20, check=False
    )
    assert (result.returncode, result.stdout) == (0, "app:app can be served\n"), result.stderr


def test_an_environment_of_another_python_is_refused_by_name(directory):
    (directory / "app.py").write_text("app = print\n")
    (directory / "pyvenv.cfg").write_text("home = /nowhere\nversion = 2.7.18\n")
    result = subprocess.run(
        [BINARY, "-b", f"127.0.0.1:{free_port()}", "app:app"],
        env=clean_environment(VIRTUAL_ENV=str(directory)),
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert result.returncode == 3
    assert "is of Python 2.7.18, but this mcsup embeds Python 3." in result.stderr
