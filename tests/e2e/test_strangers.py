"""A pid file or a socket that leads to a stranger: nothing is signalled that is not the server, and none is kept out."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys

import pytest
from harness import HELLO, MCSUP, answers, clean_environment, free_port, get, is_gone, run, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

NEW_NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


@pytest.fixture
def other_namespace():
    """Words before a command that make it a process of another PID namespace."""
    tried = subprocess.run([*NEW_NAMESPACE, "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"NOT TESTED: no PID namespace may be made here: {tried.stderr.strip()}")
    return NEW_NAMESPACE


@pytest.fixture
def victim():
    """A process that is to live."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    lived = process.poll() is None
    process.kill()
    process.wait()
    assert lived, "a stranger was signalled"


def mcsup(before, *arguments, cwd):
    return subprocess.run(
        [*before, MCSUP, *arguments], cwd=cwd, env=clean_environment(), capture_output=True, text=True, timeout=20, check=False
    )


def python(code, *arguments, **options):
    """A process that says a line when it has done what it is to do, and then waits to be ended."""
    code = f"import fcntl, os, sys, time\n{code}\nprint('done', flush=True)\ntime.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, **options)
    assert process.stdout.readline() == b"done\n"
    return process


def end(process):
    process.kill()
    process.communicate()


def test_a_server_is_not_stopped_from_another_pid_namespace(serve, directory, other_namespace):
    server = serve(HELLO, "--pid", "app.pid")
    ended = mcsup(other_namespace, "stop", "-p", "app.pid", cwd=directory)
    assert ended.returncode == 1, ended
    assert "held by a process that cannot be seen from here (of another PID namespace)" in ended.stderr
    ended = mcsup(other_namespace, "stop", "-s", "app.ctl", cwd=directory)
    assert ended.returncode == 1 and "listens a process of another PID namespace" in ended.stderr, ended
    # It does not count as stopped, it can be asked, and a second one does not start beside it.
    ended = mcsup(other_namespace, "status", "-p", "app.pid", cwd=directory)
    assert ended.returncode == 0 and f"serving: pid {server.pid}" in ended.stdout, ended
    ended = mcsup(other_namespace, "-b", f"127.0.0.1:{free_port()}", "-p", "app.pid", "app:app", cwd=directory)
    assert ended.returncode == 1 and "already running" in ended.stderr, ended
    assert server.get()[0] == 200
    assert run("stop", "-p", "app.pid", cwd=directory).returncode == 0
    server.assert_nothing_left()


def test_a_number_of_another_pid_namespace_is_no_process_here(directory, other_namespace):
    (directory / "app.py").write_text(HELLO)
    port = free_port()
    inside = ["sh", "-c", f'"{MCSUP}" -b 127.0.0.1:{port} -p app.pid app:app; true']
    process = subprocess.Popen([*other_namespace, *inside], cwd=directory, env=clean_environment())
    try:
        wait_for(lambda: answers(port), "an answer")
        told = (directory / "app.pid").read_text().strip()
        ended = run("stop", "-p", "app.pid", cwd=directory)
        assert ended.returncode == 1 and f"it names pid {told}, but is held by pid " in ended.stderr, ended
        ended = run("stop", "-s", "app.ctl", cwd=directory)
        assert ended.returncode == 1 and f"says that it is pid {told}, but pid " in ended.stderr, ended
        assert get(port)[0] == 200
    finally:
        process.kill()
        process.wait()
    wait_for(lambda: not answers(port), "its end")


LISTENER = """
import json, socket
if len(sys.argv) > 3:
    os.setgid(65534)
    os.setuid(65534)
listening = socket.socket(socket.AF_UNIX)
listening.bind(sys.argv[1])
listening.listen()
print("done", flush=True)
while True:
    connection, _ = listening.accept()
    for _ in connection.makefile():
        reply = {"version": 1, "outcome": "done", "message": "serving", "status": {"pid": int(sys.argv[2])}}
        connection.sendall(json.dumps(reply).encode() + b"\\n")
"""


@pytest.mark.parametrize("user", ["ours", "another"])
def test_a_pid_that_a_strangers_socket_tells_is_not_signalled(directory, victim, user):
    if user == "another" and os.geteuid() != 0:
        pytest.skip("NOT TESTED: needs root to be another user")
    (directory / "run").mkdir()
    (directory / "run").chmod(0o777)
    path = directory / "run" / "app.ctl"
    stranger = python(LISTENER, path, victim.pid, *(["another"] if user == "another" else []))
    try:
        ended = run("stop", "-s", path, cwd=directory)
        assert ended.returncode == 1, ended
        assert f"says that it is pid {victim.pid}, but pid {stranger.pid} (" in ended.stderr
        assert not is_gone(stranger.pid)
    finally:
        end(stranger)


def test_the_text_of_a_pid_file_is_not_trusted(directory, victim):
    (directory / "app.pid").write_text(f"{victim.pid}\n")
    ended = run("stop", "-p", "app.pid", cwd=directory)
    assert (ended.returncode, ended.stdout) == (0, "not running\n")
    # Nor if another process holds the lock.
    holder = python("file = open('app.pid', 'r+')\nfcntl.lockf(file, fcntl.LOCK_EX)", cwd=directory)
    try:
        ended = run("stop", "-p", "app.pid", cwd=directory)
        assert ended.returncode == 1, ended
        assert f"it names pid {victim.pid}, but is held by pid {holder.pid} " in ended.stderr
        assert not is_gone(holder.pid)
    finally:
        end(holder)


@pytest.mark.parametrize("error", ["unreadable", "a link"])
def test_a_pid_file_that_cannot_be_read_is_no_server_that_does_not_run(directory, error):
    if error == "a link":
        (directory / "app.pid").symlink_to("elsewhere.pid")
    else:
        (directory / "app.pid").mkdir()
    for command in (["stop"], ["reload"], ["status"]):
        ended = run(*command, "-p", "app.pid", cwd=directory)
        assert ended.returncode == 1 and "cannot read the pid file" in ended.stderr, (command, ended)


@pytest.mark.parametrize("lock", ["fcntl.flock(file, fcntl.LOCK_SH)", "fcntl.flock(file, fcntl.LOCK_EX)", "fcntl.lockf(file, fcntl.LOCK_SH)"])
def test_a_reader_of_a_stale_pid_file_keeps_no_start_out(serve, directory, lock):
    (directory / "app.pid").write_text("1\n")
    (directory / "app.pid").chmod(0o644)
    reader = python(f"file = open('app.pid')\n{lock}", cwd=directory)
    try:
        server = serve(HELLO, "--pid", "app.pid")
        assert (directory / "app.pid").read_text() == f"{server.pid}\n"
        assert (directory / "app.pid").stat().st_mode & 0o777 == 0o644
        # The one that runs is named, whatever other process has a lock.
        again = python(f"file = open('app.pid')\ntry:\n  {lock}\nexcept OSError: pass".replace(")\nex", "|fcntl.LOCK_NB)\nex"), cwd=directory)
        try:
            ended = run("-b", f"127.0.0.1:{free_port()}", "--pid", "app.pid", "app:app", cwd=directory)
            assert ended.returncode == 1 and f"app.pid is held by pid {server.pid} (" in ended.stderr, ended
        finally:
            end(again)
        assert run("stop", "-p", "app.pid", cwd=directory).returncode == 0
        assert not (directory / "app.pid").exists()
        server.assert_nothing_left()
    finally:
        end(reader)


def test_a_reader_of_a_pid_file_that_cannot_be_replaced_is_named(directory):
    mounting = ["unshare", "--mount", "--propagation", "private"]
    if shutil.which("unshare") is None or subprocess.run([*mounting, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("NOT TESTED: needs a mount namespace for a pid file that cannot be removed")
    (directory / "app.py").write_text(HELLO)
    (directory / "app.pid").write_text("1\n")
    reader = python("file = open('app.pid')\nfcntl.lockf(file, fcntl.LOCK_SH)", cwd=directory)
    try:
        start = f"mount --bind app.pid app.pid && exec {MCSUP} -b 127.0.0.1:{free_port()} --pid app.pid app:app"
        ended = subprocess.run([*mounting, "sh", "-c", start], cwd=directory, env=clean_environment(), capture_output=True, text=True, timeout=20, check=False)
        assert ended.returncode == 1, ended
        assert f"app.pid: pid {reader.pid} (" in ended.stderr and "has a read lock on it" in ended.stderr, ended
        assert "end that process, or choose another pid file" in ended.stderr
        assert not (directory / "app.pid.replacing").exists()
    finally:
        end(reader)


def test_a_lock_on_the_folder_keeps_no_control_socket_out(serve, directory):
    holder = python("fcntl.flock(os.open('.', os.O_RDONLY), fcntl.LOCK_EX)", cwd=directory)
    try:
        server = serve(HELLO, "--pid", "app.pid")
        assert run("status", "-p", "app.pid", cwd=directory).returncode == 0
        assert "Control socket at" in server.log
        assert server.stop() == 0
    finally:
        end(holder)


def test_the_lock_is_kept_over_an_upgrade_and_workers_do_not_have_it(serve, directory):
    server = serve(HELLO, "--pid", "app.pid")
    server.signal(signal.SIGUSR2)
    server.wait_log("Upgraded", patience=15)
    ended = run("-b", f"127.0.0.1:{free_port()}", "--pid", "app.pid", "app:app", cwd=directory)
    assert ended.returncode == 1 and f"is held by pid {server.pid} (" in ended.stderr, ended
    wait_for(lambda: len(server.worker_pids()) == 1, "one worker")
    (worker,) = server.worker_pids()
    os.kill(worker, signal.SIGSTOP)
    server.kill()
    try:
        # The worker lives, and the server does not run.
        ended = run("stop", "-p", "app.pid", cwd=directory)
        assert (ended.returncode, ended.stdout) == (0, "not running\n")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
        wait_for(lambda: is_gone(worker), "its end")
