"""gunicorn as a user runs it, for comparisons."""

import re
import signal
import subprocess
import sys
from pathlib import Path

from harness import PATIENCE, answers, clean_environment, free_port, wait_for

GUNICORN = Path(sys.executable).with_name("gunicorn")


class Gunicorn:
    """A running gunicorn in the foreground, with the gunicorn.conf.py of its directory."""

    def __init__(self, directory, *arguments, **variables):
        self.port, self.directory = free_port(), directory
        command = [str(GUNICORN), "-b", f"127.0.0.1:{self.port}", *arguments]
        with (directory / "gunicorn.log").open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=directory, env=clean_environment(TEST_PORT=str(self.port), **variables), stdout=log, stderr=log
            )
        try:
            # One request: before the first answer none is accepted.
            wait_for(lambda: answers(self.port), "an answer of gunicorn", patience=4 * PATIENCE)
        except AssertionError:
            self.process.kill()
            raise AssertionError(self.log) from None

    @property
    def log(self):
        return (self.directory / "gunicorn.log").read_text(errors="replace")

    def worker(self):
        """The pid of its first worker."""
        return int(re.search(r"Booting worker with pid: (\d+)", self.log).group(1))

    def end(self, number=signal.SIGTERM):
        """Send a signal, and wait for the end."""
        if self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(4 * PATIENCE)
