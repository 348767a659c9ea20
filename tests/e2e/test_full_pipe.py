"""A log that is a pipe without a reader: no process waits for it, and the next record that fits counts those lost."""

import contextlib
import fcntl
import os
import pty
import pwd
import re
import shutil
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from harness import HELLO, MCSUP, PATIENCE, SLEEPY, answers, children_of, clean_environment, free_port, get, is_gone, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

LOUD = """
import os
def app(environ, start_response):
    environ["wsgi.errors"].write("a line of the application\\n")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


class Pipe:
    """A stream that is read only when it is asked to be."""

    def __init__(self):
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)

    def fill(self):
        """Until nothing more fits; by a description of our own, so that the flags of theirs are not touched."""
        ours = os.open(f"/proc/self/fd/{self.writing}", os.O_WRONLY | os.O_NONBLOCK)
        for size in (4096, 1):
            try:
                while True:
                    os.write(ours, b"x" * size)
            except BlockingIOError:
                pass
        os.close(ours)

    def read(self):
        """What is in it now."""
        read = b""
        try:
            while piece := os.read(self.reading, 65536):
                read += piece
        except BlockingIOError:
            pass
        return read.decode(errors="replace")

    def identity(self):
        """Its name in /proc."""
        return os.readlink(f"/proc/self/fd/{self.writing}")

    def close(self):
        for fd in (self.reading, self.writing):
            os.close(fd)


class Running:
    """A server whose standard streams are given."""

    def __init__(self, directory, *options, code=LOUD, before=(), **streams):
        (directory / "app.py").write_text(code)
        self.port = free_port()
        command = [*before, MCSUP, "-b", f"127.0.0.1:{self.port}", *options, "app:app"]
        self.process = subprocess.Popen(command, cwd=directory, env=clean_environment(), **streams)

    def __enter__(self):
        wait_for(lambda: answers(self.port), "an answer")
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)

    def respawn(self):
        """Kill the workers, however many there are at this moment, and wait until another one answers."""
        old = children_of(self.process.pid)
        for worker in old:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        wait_for(lambda: (now := children_of(self.process.pid)) and not set(now) & set(old), "another worker", 10)
        wait_for(lambda: answers(self.port), "an answer of it", 10)

    def stop(self):
        self.process.terminate()
        return self.process.wait(10)


@pytest.fixture
def pipe():
    made = Pipe()
    yield made
    made.close()


def waits_by_itself(fd):
    return not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK


def test_a_full_standard_error_stops_nothing_and_its_losses_are_counted(directory, pipe):
    with Running(directory, stderr=pipe.writing) as server:
        pipe.fill()
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGWINCH, signal.SIGTTIN, signal.SIGTTOU):
            server.process.send_signal(number)
        server.respawn()
        for _ in range(100):
            assert get(server.port)[0] == 200
        # A process that shares the pipe still waits for it.
        assert waits_by_itself(pipe.writing)
        pipe.read()
        server.process.send_signal(signal.SIGWINCH)
        said = ""

        def told():
            nonlocal said
            get(server.port)
            said += pipe.read()
            told = re.findall(r"\[(\d+)\] \[ERROR\] This log could not be written: \d+ records of this process are lost", said)
            return str(server.process.pid) in told and len(set(told)) > 1

        wait_for(told, "the losses of the supervisor and of a worker")
        assert "Signal WINCH has no meaning here" in said
        pipe.fill()
        assert server.stop() == 0


@pytest.mark.parametrize("kind", ["pipe", "fifo"])
def test_a_full_access_log_holds_no_request_and_its_losses_are_counted(directory, pipe, kind):
    if kind == "fifo":
        os.mkfifo(directory / "access")
        pipe.close()
        pipe.reading = os.open(directory / "access", os.O_RDONLY | os.O_NONBLOCK)
        pipe.writing = os.open(directory / "access", os.O_WRONLY)
    place = "-" if kind == "pipe" else "access"
    with (directory / "log").open("wb") as log:
        options = ["--access-logfile", place, "--access-logformat", "%(U)s"]
        with Running(directory, *options, stdout=pipe.writing, stderr=log, code=HELLO) as server:
            pipe.read()
            pipe.fill()
            for number in range(100):
                assert get(server.port, f"/lost-{number}", timeout=2)[0] == 200
            said = lambda: (directory / "log").read_text()  # noqa: E731
            assert said().count("lines are lost") == 1, said()
            assert "/lost" not in pipe.read()
            assert get(server.port, "/written")[0] == 200
            # One line more or fewer: the first answer's may come after the pipe was full, the last one's after it was read.
            wait_for(lambda: re.search("is written again; lines lost: (99|100|101)", said()), f"the count; the log:\n{said()}")
            wait_for(lambda: "/written" in pipe.read().splitlines(), "the line")
            pipe.fill()
            assert server.stop() == 0


WITHOUT_RIGHTS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


@pytest.fixture
def strange_pipe():
    """As in a container: the pipe is another user's, and a server without rights may not open it."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("NOT TESTED: needs root and setpriv for a pipe of another user")
    os.seteuid(pwd.getpwnam("nobody").pw_uid)
    made = Pipe()
    os.seteuid(0)
    yield made
    made.close()


def test_a_pipe_that_cannot_be_opened_again_is_not_waited_for_either(directory, strange_pipe):
    pipe = strange_pipe
    with Running(directory, stderr=pipe.writing, before=WITHOUT_RIGHTS) as server:
        stream = pipe.identity()
        opened = [fd for fd in Path(f"/proc/{server.process.pid}/fd").iterdir() if os.readlink(fd) == stream]
        assert len(opened) == 1, "it is not open again"
        pipe.fill()
        server.respawn()
        for _ in range(100):
            assert get(server.port)[0] == 200
        assert waits_by_itself(pipe.writing)
        assert server.stop() == 0


def test_stacks_that_a_full_pipe_has_no_room_for_hold_up_no_worker(directory, strange_pipe):
    options = ["--request-timeout", "1", "-t", "60", "--graceful-timeout", "60"]
    with Running(directory, *options, code=SLEEPY, stderr=strange_pipe.writing, before=WITHOUT_RIGHTS) as server:
        (worker,) = children_of(server.process.pid)
        strange_pipe.fill()
        assert get(server.port, "/?sleep=2.5")[0] == 504
        # The thread of that request comes back to it, so that the worker finishes by itself.
        wait_for(lambda: is_gone(worker), "the end of the worker", 10)
        assert get(server.port)[0] == 200
        assert server.stop() == 0


def test_a_terminal_that_is_stopped_is_not_waited_for(directory):
    ours, theirs = pty.openpty()
    try:
        with Running(directory, stderr=theirs) as server:
            termios.tcflow(theirs, termios.TCOOFF)
            server.respawn()
            for _ in range(100):
                assert get(server.port)[0] == 200
            assert waits_by_itself(theirs)
            assert server.stop() == 0
    finally:
        termios.tcflow(theirs, termios.TCOON)
        os.close(theirs)
        os.close(ours)


def test_a_server_that_cannot_start_ends_without_a_reader_of_its_reason(directory, pipe):
    (directory / "app.py").write_text("raise RuntimeError('no')\n")
    pipe.fill()
    command = [MCSUP, "-b", f"127.0.0.1:{free_port()}", "app:app"]
    process = subprocess.Popen(command, cwd=directory, env=clean_environment(), stderr=pipe.writing)
    try:
        assert process.wait(15) == 4
    finally:
        process.kill()
    assert is_gone(process.pid)
