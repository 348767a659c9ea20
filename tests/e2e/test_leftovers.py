"""Processes that the application starts and that outlive their worker: named, and ended where that is wanted."""

import os
import signal
import socket
import sys

import pytest
from harness import MCSUP, children_of, clean_environment, get, is_gone, run, wait_for
from lifecycle import Operator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="leftovers are found in /proc")

# The path says how a process is started; the answer is its number.
STARTING = """
import os, signal, socket, subprocess, sys, time
def is_listener(fd):
    try:
        with socket.socket(fileno=os.dup(fd)) as copy:
            return copy.family == socket.AF_INET and copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError:
        return False
def app(environ, start_response):
    how = environ["PATH_INFO"][1:]
    if how == "run":
        pid = subprocess.Popen(["sleep", "1000"]).pid
    elif how == "shell":
        # Its parent is gone at once.
        pid = int(subprocess.check_output(["sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $!"]))
    elif how == "session":
        pid = subprocess.Popen(["sleep", "1000"], start_new_session=True).pid
    elif how == "fork":
        pid = os.fork()
        if not pid:
            time.sleep(1000)
    elif how == "stubborn":
        code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(1000)"
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        process.stdout.readline()
        pid = process.pid
    elif how == "slow":
        # It takes a moment to tidy up.
        code = (
            "import os, signal, sys, time\\n"
            "def end(*_):\\n time.sleep(0.8)\\n open('tidied', 'w').close()\\n os._exit(0)\\n"
            "signal.signal(signal.SIGTERM, end); print(1, flush=True)\\n"
            "while True: time.sleep(1)"
        )
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        process.stdout.readline()
        pid = process.pid
    elif how == "family":
        process = subprocess.Popen(["sh", "-c", "sleep 1000 & echo $!; wait"], stdout=subprocess.PIPE)
        pid = int(process.stdout.readline())
    elif how == "listener":
        heirs = [socket.socket(fileno=os.dup(fd)) for fd in range(3, 64) if is_listener(fd)]
        pid = subprocess.Popen(["sleep", "1000"], pass_fds=[heir.fileno() for heir in heirs]).pid
    else:
        pid = os.getpid()
    body = f"{os.getpid()} {pid}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


class Started:
    """A server, and the processes that its application was asked to start."""

    def __init__(self, serve, *options, **others):
        self.server = serve(STARTING, "--pid", "app.pid", *options, **others)
        self.pids = []

    def start(self, how):
        """Have a process started; return its worker's number and its own."""
        status, body = self.server.get(f"/{how}")
        assert status == 200
        worker, pid = map(int, body.split())
        self.pids.append(pid)
        return worker, pid

    def end(self):
        """End the processes that are left, as an operator would."""
        for pid in self.pids:
            if not is_gone(pid):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def started(serve):
    made = []

    def start(*options, **others):
        made.append(Started(serve, *options, **others))
        return made[-1]

    yield start
    for each in made:
        each.end()


WAYS = ["run", "shell", "fork", "family"]
PRELOAD = pytest.mark.parametrize("options", [[], ["--preload"]], ids=["alone", "preload"])


@PRELOAD
@pytest.mark.parametrize("how", WAYS)
def test_a_process_that_outlives_its_worker_is_named_in_the_log(started, how, options):
    it = started(*options)
    worker, pid = it.start(how)
    os.kill(worker, signal.SIGKILL)
    command = "mcsup" if how == "fork" else "sleep"
    it.server.wait_log(rf"Left behind by worker {worker}: pid {pid} \(.*{command}.*\), which holds ")
    assert not is_gone(pid)
    assert it.server.log.count(f": pid {pid} ") == 1


def test_a_process_that_has_left_its_group_is_named_without_its_worker(started):
    it = started()
    worker, pid = it.start("session")
    os.kill(worker, signal.SIGKILL)
    it.server.wait_log(rf"Left behind by some worker, whose group it has left: pid {pid} \(sleep\), which holds no socket")


def test_what_a_leftover_holds_is_named(started):
    it = started()
    worker, pid = it.start("listener")
    os.kill(worker, signal.SIGKILL)
    address = f"127.0.0.1:{it.server.port}"
    it.server.wait_log(rf"pid {pid} \(sleep\), which holds the listening socket {address}")


def test_stop_fails_where_a_process_of_the_application_holds_the_port(started, directory):
    it = started()
    _, pid = it.start("listener")
    ended = run("stop", "-p", "app.pid", cwd=directory, timeout=30)
    address = f"127.0.0.1:{it.server.port}"
    assert ended.returncode == 7
    assert f"still there: port {address}; 1 process outside of the pool" in ended.stderr
    assert f"pid {pid} (sleep 1000), which listens at {address}" in ended.stderr


def test_processes_of_a_worker_that_lives_are_left_alone(started):
    it = started("--end-children", workers=2)
    by_worker = {}

    def both_have_started():
        worker, pid = it.start("shell")
        by_worker.setdefault(worker, pid)
        return len(by_worker) == 2

    wait_for(both_have_started, "both workers to start a process")
    # Both have been adopted, since their parents are gone.
    (dead, ended), (living, stays) = by_worker.items()
    os.kill(dead, signal.SIGKILL)
    it.server.wait_log(rf"Left behind by worker {dead}: pid {ended} ")
    wait_for(lambda: is_gone(ended), "the end of the leftover")
    assert not is_gone(stays) and f"worker {living}: pid" not in it.server.log


@PRELOAD
@pytest.mark.parametrize("how", WAYS)
def test_children_end_with_their_worker_where_that_is_wanted(started, how, options):
    it = started("--end-children", *options)
    worker, pid = it.start(how)
    os.kill(worker, signal.SIGKILL)
    it.server.wait_log(rf"Left behind by worker {worker}: pid {pid} \(.*; it is ended")
    wait_for(lambda: is_gone(pid), "the end of the leftover")
    it.server.wait_ready(2)
    assert it.server.get()[0] == 200


def test_a_child_that_does_not_hear_is_killed_with_its_worker(started):
    it = started("--end-children")
    worker, pid = it.start("stubborn")
    os.kill(worker, signal.SIGKILL)
    it.server.wait_log(rf"Process {pid} did not end within 2s: killed")
    wait_for(lambda: is_gone(pid), "the end of the leftover")


def test_children_end_with_a_worker_that_retires(started):
    it = started("--end-children", "--max-requests", "1")
    worker, pid = it.start("run")
    it.server.wait_log(rf"Left behind by worker {worker}: pid {pid} ")
    wait_for(lambda: is_gone(pid), "the end of the leftover")


@pytest.mark.parametrize("how", [*WAYS, "session", "stubborn"])
def test_a_pool_that_ends_its_children_leaves_none(started, how):
    it = started("--end-children", workers=2)
    _, pid = it.start(how)
    assert it.server.stop() == 0
    assert is_gone(pid)
    assert "still running" not in it.server.log


def test_a_child_that_ends_at_once_does_not_hurry_the_others(started, directory):
    it = started("--end-children", workers=2)
    slow, brief = it.start("slow")[1], it.start("run")[1]
    assert it.server.stop() == 0
    assert is_gone(slow) and is_gone(brief)
    assert (directory / "tidied").exists()
    assert "did not end within" not in it.server.log


@pytest.mark.parametrize("by", [["-p", "app.pid"], ["-s", "app.ctl"]], ids=["pid file", "socket"])
def test_stop_says_what_is_left_and_that_it_is_not_the_pools(started, directory, by):
    it = started(workers=2)
    pids = sorted(it.start(how)[1] for how in ("run", "session"))
    ended = run("stop", *by, cwd=directory, timeout=30)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(f"stopped (pid {it.server.pid}); 2 processes outside of the pool are still running: ")
    assert all(f"pid {pid} (sleep 1000)" in ended.stdout for pid in pids)
    assert it.server.wait() == 0
    it.server.wait_log("Not of the pool: 2 processes that the application started are still running")
    assert not any(is_gone(pid) for pid in pids)


def test_stop_with_nothing_left_says_nothing_of_it(started, directory):
    it = started(workers=2)
    assert it.server.get()[0] == 200
    ended = run("stop", "-p", "app.pid", cwd=directory, timeout=30)
    assert (ended.returncode, ended.stdout.strip()) == (0, f"stopped (pid {it.server.pid})")
    assert "Left behind" not in it.server.log and "still running" not in it.server.log


def test_an_operator_at_the_control_socket_learns_which_processes_are_left(started, directory):
    it = started()
    _, pid = it.start("run")
    with Operator(directory / "app.ctl") as operator:
        answer = operator.ask("stop", quick=False)
    assert answer["outcome"] == "done"
    assert f"1 process that the application started is still running: pid {pid} (sleep)" in answer["message"]
    assert it.server.wait() == 0


@pytest.fixture
def sidecar(serve, directory):
    """A server that was started by a shell with a process beside it, and the number of that one."""
    through = ["sh", "-c", 'setsid sleep 1000 & echo $! > beside; exec "$0" "$@"']
    server = serve(STARTING, "--end-children", "-p", "app.pid", through=through)
    beside = int((directory / "beside").read_text())
    yield server, beside
    if not is_gone(beside):
        os.kill(beside, signal.SIGKILL)
    wait_for(lambda: is_gone(beside), "its end")


def test_what_ran_beside_the_server_before_it_is_not_the_applications(sidecar):
    server, beside = sidecar
    os.kill(int(server.get()[1].split()[0]), signal.SIGKILL)
    server.wait_ready(2)
    assert server.stop() == 0
    assert not is_gone(beside) and f"pid {beside}" not in server.log


def test_what_ran_beside_the_server_before_it_outlives_an_upgrade(sidecar, directory):
    server, beside = sidecar
    for _ in range(2):
        with Operator(directory / "app.ctl") as operator:
            assert operator.ask("upgrade")["outcome"] == "done"
    stopped = run("stop", "-p", "app.pid", cwd=directory, timeout=30)
    assert f"1 process outside of the pool is still running: pid {beside} (sleep 1000)" in stopped.stdout
    assert server.wait() == 0
    assert not is_gone(beside) and f"pid {beside}" not in server.log


def test_leftovers_are_known_to_the_image_that_an_upgrade_brings(started, directory):
    it = started("--end-children")
    worker, pid = it.start("run")
    with Operator(directory / "app.ctl") as operator:
        assert operator.ask("upgrade")["outcome"] == "done"
    os.kill(worker, signal.SIGKILL)
    it.server.wait_log(rf"Left behind by worker {worker}: pid {pid} ")
    wait_for(lambda: is_gone(pid), "the end of the leftover")


def test_a_leftover_is_reaped(started):
    it = started()
    worker, pid = it.start("run")
    os.kill(worker, signal.SIGKILL)
    it.server.wait_log(rf"Left behind by worker {worker}: pid {pid} ")
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"), "it to be reaped")


def test_at_a_terminal_workers_stay_in_the_foreground(directory):
    (directory / "app.py").write_text(STARTING)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server, terminal = os.forkpty()
    if not server:
        os.chdir(directory)
        os.execve(MCSUP, [str(MCSUP), "-b", f"127.0.0.1:{port}", "app:app"], clean_environment())

    def answers():
        try:
            return get(port)[1]
        except OSError:
            return None

    worker = int(wait_for(answers, "an answer").split()[0])
    try:
        assert os.getpgid(worker) == os.getpgid(server) == os.tcgetpgrp(terminal)
        pid = int(get(port, "/run")[1].split()[1])
        os.kill(worker, signal.SIGKILL)
        output = b""
        while b"Left behind" not in output:
            output += os.read(terminal, 65536)
        assert f"Left behind by worker {worker}: pid {pid} ".encode() in output
        os.kill(pid, signal.SIGKILL)
        # Ctrl-C.
        os.write(terminal, b"\x03")
        assert os.waitstatus_to_exitcode(os.waitpid(server, 0)[1]) == 0
    finally:
        for left in [server, *children_of(server)]:
            if not is_gone(left):
                os.kill(left, signal.SIGKILL)
        os.close(terminal)
