"""A server in the background of a terminal that stops whatever writes to it (`stty tostop`)."""

import contextlib
import os
import pty
import signal
import sys
import termios
import threading

import pytest
from harness import MCSUP, answers, children_of, clean_environment, free_port, get, is_gone, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

TALKATIVE = """
import errno, os, sys
def app(environ, start_response):
    if environ["PATH_INFO"] == "/read":
        try:
            said = os.read(0, 1)
        except OSError as error:
            said = errno.errorcode[error.errno].encode()
    else:
        print("printed by the application", file=sys.stderr, flush=True)
        environ["wsgi.errors"].write("logged by the application\\n")
        said = b"written"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [said]
"""

# The terminal's foreground; its child is a job of the background.
LEADER = """
import os, subprocess, sys
job = subprocess.Popen(sys.argv[1:], preexec_fn=lambda: os.setpgid(0, 0))
print(f"<job {job.pid}>", flush=True)
sys.exit(job.wait())
"""


class Job:
    """A server in the background of a terminal of its own, which is read all the time."""

    def __init__(self, directory, *options):
        (directory / "app.py").write_text(TALKATIVE)
        self.port = free_port()
        self.output = b""
        command = [MCSUP, "-b", f"127.0.0.1:{self.port}", *options, "app:app"]
        self.leader, self.terminal = pty.fork()
        if self.leader == 0:
            os.chdir(directory)
            os.execve(sys.executable, [sys.executable, "-c", LEADER, *map(str, command)], clean_environment())
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        wait_for(lambda: b">" in self.output, "the job")
        self.pid = int(self.output.partition(b"<job ")[2].partition(b">")[0])
        wait_for(lambda: answers(self.port), f"an answer; the terminal has {self.output.decode()}")

    def _read(self):
        with contextlib.suppress(OSError):
            while piece := os.read(self.terminal, 4096):
                self.output += piece

    def stop_writers(self):
        mode = termios.tcgetattr(self.terminal)
        mode[3] |= termios.TOSTOP
        termios.tcsetattr(self.terminal, termios.TCSANOW, mode)

    def waits_for(self, text, count=1):
        wait_for(lambda: self.output.decode().count(text) >= count, f"{text!r}; the terminal has {self.output.decode()}")

    def close(self):
        # The workers are in the group too. One that spins does not hear that its supervisor is gone.
        for end, pid in ((os.killpg, self.pid), (os.kill, self.leader)):
            with contextlib.suppress(ProcessLookupError):
                end(pid, signal.SIGKILL)
        os.waitpid(self.leader, 0)
        os.close(self.terminal)


@pytest.fixture
def job(directory):
    made = Job(directory, "-w", "2")
    yield made
    made.close()


def test_a_background_server_writes_its_log_to_a_terminal_that_stops_writers(job):
    job.stop_writers()
    os.kill(job.pid, signal.SIGUSR1)
    job.waits_for("Handling signal: USR1")
    os.kill(job.pid, signal.SIGHUP)
    job.waits_for("Reload done")
    # The terminal's own signals are no orders.
    assert "TTOU" not in job.output.decode()
    os.kill(job.pid, signal.SIGTERM)
    wait_for(lambda: is_gone(job.pid), "the end")


def test_the_application_of_a_background_server_prints_to_a_terminal_that_stops_writers(job):
    job.stop_writers()
    before = job.output.decode().count("printed")
    for _ in range(6):
        assert get(job.port)[1] == b"written"
    job.waits_for("printed by the application", before + 6)
    job.waits_for("logged by the application", before + 6)
    assert "TTOU" not in job.output.decode()
    # An order is one all the same.
    os.kill(job.pid, signal.SIGTTOU)
    job.waits_for("Handling signal: TTOU")
    wait_for(lambda: len(children_of(job.pid)) == 1, "one worker fewer")


def test_an_application_in_the_background_that_reads_the_terminal_gets_an_error(job):
    assert get(job.port, "/read")[1] == b"EIO"
    assert "TTIN" not in job.output.decode()
