"""`mcsup exec`: programs of other languages, driven as a user drives them."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from harness import MCSUP, PATIENCE, TOP, Load, children_of, free_port, is_gone, run, wait_for

NODE = TOP / "examples" / "node" / "server.js"
SHELL = TOP / "examples" / "shell" / "worker.sh"
# An HTTP server of the standard library on the inherited listener.
PYTHON = """
import http.server, os, signal, socket, subprocess, sys

VERSION = "old"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/descendant":
            script = "setsid sh -c 'trap : TERM; echo $$; exec sleep 600' & exit 0"
            started = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True)
            body = started.stdout.readline()
        elif self.path == "/say":
            print("a word", flush=True)
            body = "said"
        else:
            body = f"{os.getpid()} {VERSION} {os.environ.get('MCSUP_SLOT')}"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


class Server(http.server.HTTPServer):
    def server_bind(self):
        self.socket.close()
        self.socket = socket.socket(fileno=3)

    def server_activate(self):
        pass

    def get_request(self):
        connection, address = super().get_request()
        connection.setblocking(True)
        return connection, address


server = Server(("127.0.0.1", 0), Handler)
server.timeout = 0.02
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
os.write(int(os.environ["MCSUP_READY_FD"]), b"ready\\n")
while not stop:
    server.handle_request()
"""


UDP = """
import os, select, signal, socket

stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
listener = socket.socket(fileno=int(os.environ["EINHORN_FD_0"]))
os.write(int(os.environ["MCSUP_READY_FD"]), b"ready\\n")
while not stop:
    if select.select([listener], [], [], 0.05)[0]:
        try:
            datagram, client = listener.recvfrom(1000)
        except BlockingIOError:
            continue
        listener.sendto(datagram.upper(), client)
"""


def python(directory, code=PYTHON):
    """The words of the Python program."""
    (directory / "server.py").write_text(code)
    return [sys.executable, "server.py"]


def node(directory):
    """The words of the example in Node.js, from a copy that a test may change."""
    if not shutil.which("node"):
        pytest.skip("there is no node")
    shutil.copy(NODE, directory / "server.js")
    return ["node", "server.js"]


LANGUAGES = pytest.mark.parametrize("language", [node, python])


@pytest.fixture
def execute(serve, directory):
    """Start `mcsup exec` with options and the words of a program."""

    def start(words, *options, **more):
        return serve(None, "-p", "app.pid", *options, "--", *words[:-1], app=words[-1], command=(MCSUP, "exec"), **more)

    return start


def operate(directory, *words):
    """A command for the server, which ends well."""
    ended = run(*words, "-p", "app.pid", cwd=directory, timeout=30)
    assert ended.returncode == 0, ended
    return ended.stdout


def programs(server):
    """The programs of all workers."""
    return [program for worker in server.worker_pids() for program in children_of(worker)]


@LANGUAGES
def test_no_request_is_lost_over_a_programs_whole_life(execute, directory, language):
    server = execute(language(directory), workers=2)
    # A client of a connection that is kept meets the close of an idle one: the same as with any server.
    with Load(server.port, fresh=4, kept=2 if language is node else 0) as load:
        for words in (["reload"], ["scale", "3"], ["recycle", "0"], ["scale", "2"], ["upgrade"], ["reload"]):
            operate(directory, *words)
            load.wait_more(5)
        server.wait_log("has finished", 6)
    assert load.failures == []
    status = json.loads(operate(directory, "status", "--json"))["status"]
    assert [worker["state"] for worker in status["workers"]] == ["ready", "ready"]
    seen = programs(server)
    assert len(seen) == 2
    assert server.stop() == 0
    assert all(is_gone(pid) for pid in seen)
    server.assert_nothing_left()


@LANGUAGES
def test_a_broken_version_changes_nothing(execute, directory, language):
    words = language(directory)
    server = execute(words, workers=2)
    with Load(server.port, kept=0) as load:
        source = directory / words[-1]
        good = source.read_text()
        source.write_text("this is no program in any language\n")
        ended = run("reload", "-p", "app.pid", cwd=directory, timeout=30)
        assert ended.returncode == 3, ended
        assert "exited with code 1 before it was ready" in ended.stdout + ended.stderr
        load.wait_more(5)
        source.write_text(good.replace('"old"', '"new"'))
        operate(directory, "reload")
        load.wait_more(5)
    assert load.failures == []
    assert "SyntaxError" in server.log
    if language is python:
        assert b" new " in server.get()[1]


@LANGUAGES
def test_killed_processes_leave_none_behind(execute, directory, language):
    server = execute(language(directory), workers=2)
    first, second = server.worker_pids()
    (program,) = children_of(first)
    os.kill(program, signal.SIGKILL)
    server.wait_log("the program was ended by signal 9")
    server.wait_ready(3)
    (program,) = children_of(second)
    os.kill(second, signal.SIGKILL)
    wait_for(lambda: is_gone(program), "the program of a killed worker to be gone")
    server.wait_ready(4)
    seen = programs(server)
    server.kill()
    for pid in seen:
        wait_for(lambda pid=pid: is_gone(pid), "the programs of a killed supervisor to be gone")
    server.assert_nothing_left()


def test_descendants_of_a_program_end_with_its_worker(execute, directory):
    server = execute(python(directory))

    def descendant():
        return int(server.get("/descendant")[1])

    (worker,) = server.worker_pids()
    pid = descendant()
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: is_gone(pid), "the descendant of a killed worker to be gone")
    server.wait_ready(2)
    pid = descendant()
    operate(directory, "reload")
    wait_for(lambda: is_gone(pid), "the descendant of a retired worker to be gone")
    pid = descendant()
    assert server.stop() == 0
    assert is_gone(pid)


def test_the_output_of_a_program_is_in_the_log_that_is_reopened(execute, directory):
    server = execute(python(directory), "--error-logfile", "app.log", wait=False)
    log = directory / "app.log"
    wait_for(lambda: log.exists() and "is ready after" in log.read_text(), "the worker")
    (worker,) = server.worker_pids()
    assert server.get("/say")[1] == b"said"
    line = f"[{worker}] [INFO] stdout: a word"
    wait_for(lambda: line in log.read_text(), "the line")
    log.rename(directory / "old.log")
    operate(directory, "reopen-logs")

    def arrives():
        server.get("/say")
        return log.exists() and line in log.read_text()

    wait_for(arrives, "the line in the new file")


def test_a_program_is_ready_by_a_probe_that_only_itself_can_answer(execute, directory):
    silent = PYTHON.replace('os.write(int(os.environ["MCSUP_READY_FD"]), b"ready\\n")', "")
    assert silent != PYTHON
    server = execute(python(directory, silent), "--ready", "http:/health", "--soak", "0")
    # The old worker answers on the same port: that does not count.
    (directory / "server.py").write_text("import time; time.sleep(600)\n")
    ended = run("reload", "-p", "app.pid", "--timeout", "1", cwd=directory, timeout=20)
    assert ended.returncode == 9, ended
    assert server.log.count("is ready after") == 1
    assert server.stop(timeout=10) == 0


def test_memory_of_a_program_counts_as_its_workers(execute, directory):
    large = "ballast = bytearray(200_000_000)\nballast[::4096] = b'x' * len(ballast[::4096])\n" + PYTHON
    execute(python(directory, large))
    (worker,) = json.loads(operate(directory, "status", "--json"))["status"]["workers"]
    assert worker["rss_bytes"] > 200_000_000, worker


def test_jobs_of_a_shell_worker_are_each_done_once(serve, directory):
    jobs = directory / "jobs"
    jobs.mkdir()
    words = ["-w", "2", "-p", "app.pid", "--no-listener", "--", "sh", SHELL, jobs]
    server = serve(None, *words, bare=True, command=(MCSUP, "exec"), workers=2)
    for number in range(60):
        (jobs / f"{number}.part").write_text(f"job {number}\n")
        (jobs / f"{number}.part").rename(jobs / f"{number}.job")
        if number % 20 == 10:
            operate(directory, "reload")
    wait_for(lambda: len(list(jobs.glob("*.done"))) == 60, "all jobs to be done", 20)
    # A worker removes its claim after that, and finishes before it ends.
    assert server.stop() == 0
    assert sorted(path.read_text() for path in jobs.iterdir()) == sorted(f"JOB {number}\n" for number in range(60))


def test_no_datagram_is_left_unanswered_over_reloads(serve, directory):
    (directory / "server.py").write_text(UDP)
    port = free_port()
    words = ["-w", "2", "-p", "app.pid", "-b", f"udp://127.0.0.1:{port}", "--", sys.executable, "server.py"]
    serve(None, *words, bare=True, command=(MCSUP, "exec"), workers=2)
    reload = subprocess.Popen([MCSUP, "reload", "-p", "app.pid"], cwd=directory, stdout=subprocess.DEVNULL)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE)
        client.connect(("127.0.0.1", port))
        number = 0
        while reload.poll() is None or number < 100:
            client.send(b"datagram %d" % number)
            assert client.recv(100) == b"DATAGRAM %d" % number
            number += 1
    assert reload.returncode == 0


@pytest.mark.parametrize(
    ("words", "reason", "code"),
    [
        ([], "required arguments were not provided", 2),
        (["--threads", "2", "true"], "--threads has no meaning for a program", 2),
        (["--ready", "soon", "true"], "--ready soon: expected report, tcp, http:PATH or timer:SECS", 2),
        (["--watchdog", "--timeout", "0", "true"], "--watchdog needs a --timeout", 2),
        (["--no-listener", "true"], "--no-listener, and an address from the command line", 2),
        (["--blocking", "--reuse-port", "true"], "the supervisor accepts", 2),
        (["no-such-program"], "start no-such-program: execute it: No such file or directory", 4),
        (["sh", "-c", "echo no database >&2; exit 5"], "exited with code 5 before it was ready", 3),
    ],
)
def test_a_start_that_fails_says_why(directory, words, reason, code):
    ended = run("exec", "-b", "127.0.0.1:0", *words, cwd=directory, timeout=PATIENCE)
    assert (ended.returncode, reason in ended.stderr) == (code, True), ended


def test_a_daemon_of_a_program_answers_when_it_is_ready(directory):
    words = ["exec", "-D", "-p", "app.pid", "-b", "127.0.0.1:0", "--", *python(directory)]
    assert run(*words, cwd=directory, timeout=20).returncode == 0
    pid = int((directory / "app.pid").read_text())
    try:
        assert operate(directory, "status").startswith(f"serving: pid {pid} ")
    finally:
        operate(directory, "stop")
    assert is_gone(pid)


def test_the_binary_executes_programs_too(directory):
    binary = Path(os.environ.get("CARGO_TARGET_DIR", TOP / "target")) / "debug" / "mcsup"
    if not binary.exists():
        pytest.skip("`make test` builds it; this run is of something else")
    words = [binary, "exec", "-b", "127.0.0.1:0", "-p", "app.pid", "--", *python(directory)]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(words, cwd=directory, stderr=log)
    try:
        wait_for(lambda: "is ready after" in (directory / "log").read_text(), "the worker")
    finally:
        process.terminate()
        assert process.wait(PATIENCE) == 0
