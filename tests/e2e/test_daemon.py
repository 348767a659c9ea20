"""In the background: the command returns when the pool is ready, or fails with its reason."""

import os
import re
import signal
import time

import pytest

from harness import HELLO, SLEEPY, can_bind, children_of, connect, free_port, get, is_gone, marked, read_all, run, wait_for


@pytest.fixture
def daemon(directory):
    """Start daemons that are stopped with the test."""
    started = []

    def start(code=HELLO, *arguments):
        (directory / "app.py").write_text(code)
        port = free_port()
        result = run("-D", "-p", "app.pid", "-b", f"127.0.0.1:{port}", *arguments, "app:app", cwd=directory, timeout=20)
        started.append(port)
        return result, port

    yield start
    run("stop", "-p", "app.pid", "--timeout", "5", cwd=directory, timeout=20)
    if (directory / "app.pid").exists():
        os.kill(int((directory / "app.pid").read_text()), signal.SIGKILL)
    assert all(can_bind(port) for port in started)


def pid_of(directory):
    """The supervisor."""
    return int((directory / "app.pid").read_text())


def test_it_returns_when_the_first_worker_is_ready_and_says_how_many_are_missing(daemon, directory):
    start = time.monotonic()
    result, port = daemon("import time\ntime.sleep(0.5)\n" + HELLO, "-w", "2", "--error-logfile", "error.log")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout in ("", "serving with 1 of 2 workers, 1 still to be ready\n")
    assert time.monotonic() - start >= 0.5
    assert get(port)[0] == 200
    wait_for(lambda: (directory / "error.log").read_text().count("is ready after") == 2, "the second worker")
    pid = pid_of(directory)
    assert len(children_of(pid)) == 2
    # No terminal, a session of its own, and not its leader: none can become its terminal.
    assert os.getsid(pid) not in (os.getsid(0), pid)
    assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0,)} == {"/dev/null"}


def test_without_a_log_file_it_logs_beside_its_pid_file_and_says_so(daemon, directory):
    result, port = daemon("print('loaded', flush=True)\n" + HELLO)
    assert (result.returncode, result.stdout) == (0, f"logging to {directory / 'app.log'}\n")
    assert get(port)[0] == 200
    log = (directory / "app.log").read_text()
    assert "Starting mcsup" in log and "loaded\n" in log


def test_without_a_pid_file_it_says_that_it_keeps_no_log(directory):
    (directory / "app.py").write_text(HELLO)
    result = run("-D", "-b", f"127.0.0.1:{free_port()}", "app:app", cwd=directory, timeout=20)
    for pid in marked(directory):
        os.kill(pid, signal.SIGTERM)
    assert (result.returncode, result.stdout) == (0, "keeping no log: --error-logfile names a file for it\n")


def test_the_folders_of_its_files_are_made(directory):
    (directory / "app.py").write_text(HELLO)
    files = ("-p", "run/app.pid", "--access-logfile", "logs/access.log")
    assert run("-D", "-b", f"127.0.0.1:{free_port()}", *files, "app:app", cwd=directory, timeout=20).returncode == 0
    try:
        assert sorted(path.name for path in (directory / "run").iterdir()) == ["app.ctl", "app.log", "app.pid"]
        assert (directory / "logs" / "access.log").exists()
    finally:
        assert run("stop", "-p", "run/app.pid", cwd=directory, timeout=20).returncode == 0


def test_a_start_that_fails_says_why_and_leaves_nothing(daemon, directory):
    result, _ = daemon("raise RuntimeError('no database')\n", "-w", "2", "--error-logfile", "error.log")
    assert result.returncode == 4
    assert result.stderr.startswith("mcsup: importing app failed: RuntimeError: no database\n")
    assert result.stderr.count("Traceback (most recent call last)") == 1
    assert not (directory / "app.pid").exists()


def test_a_port_in_use_is_reported_at_the_terminal(daemon, directory):
    result, port = daemon()
    assert result.returncode == 0
    second = run("-D", "-b", f"127.0.0.1:{port}", "app:app", cwd=directory, timeout=20)
    assert second.returncode == 1
    assert second.stderr.startswith("mcsup: cannot listen on") and f"pid {pid_of(directory)} " in second.stderr
    assert second.stderr.count("\n") == 1


def test_status_and_stop_follow_its_life(daemon, directory):
    assert run("status", "-p", "app.pid", cwd=directory).returncode == 6
    result, port = daemon(HELLO, "-w", "2")
    assert result.returncode == 0
    status = run("status", "-p", "app.pid", cwd=directory)
    pid = pid_of(directory)
    workers = children_of(pid)
    assert status.returncode == 0
    assert f"pid {pid} " in status.stdout and f"127.0.0.1:{port}" in status.stdout
    assert all(re.search(rf"\b{worker}\b", status.stdout) for worker in workers)
    stopped = run("stop", "-p", "app.pid", cwd=directory, timeout=20)
    assert (stopped.returncode, stopped.stdout) == (0, f"stopped (pid {pid})\n")
    # At once, not soon: that is what it waited for.
    assert all(is_gone(process) for process in [pid, *workers]) and can_bind(port)
    assert run("status", "-p", "app.pid", cwd=directory).returncode == 6
    again = run("stop", "-p", "app.pid", cwd=directory)
    assert (again.returncode, again.stdout) == (0, "not running\n")


def test_a_stop_that_takes_too_long_says_what_is_left(daemon, directory):
    result, port = daemon(SLEEPY, "--error-logfile", "error.log")
    assert result.returncode == 0
    client = connect(port)
    client.sendall(b"GET /?sleep=3 HTTP/1.1\r\nHost: h\r\n\r\n")
    pid = pid_of(directory)
    wait_for(lambda: "sleeping" in (directory / "error.log").read_text(), "the request to arrive")
    stopped = run("stop", "-p", "app.pid", "--timeout", "0.2", cwd=directory)
    assert stopped.returncode == 7
    assert stopped.stderr.startswith("mcsup: still there: ") and f"pid {pid} " in stopped.stderr
    assert b" 200 OK" in read_all(client)
    wait_for(lambda: is_gone(pid), "the end")


def test_a_pid_that_belongs_to_another_process_now_is_left_alone(directory):
    (directory / "app.pid").write_text(f"{os.getpid()}\n")
    assert run("status", "-p", "app.pid", cwd=directory).returncode == 6
    stopped = run("stop", "-p", "app.pid", cwd=directory)
    assert (stopped.returncode, stopped.stdout) == (0, "not running\n")
