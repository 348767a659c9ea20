"""Processes that the application forks: they are no workers, and have nothing of one."""

import contextlib
import http.client
import os
import signal
import socket
import time

import pytest
from harness import PATIENCE, connect, get, is_gone, read_all, wait_for

# How a process has ended. None: it has not, and is killed.
ENDED = """
import os, signal, time
def ended(pid):
    deadline = time.monotonic() + 4
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)

"""

# The path names the process that a request starts; the answer describes it.
FORKING = ENDED + """
import multiprocessing, pty, subprocess, sys
HELD = []
CAUGHT = []
signal.signal(signal.SIGUSR2, lambda number, _: CAUGHT.append(number))

def nothing():
    time.sleep(1000)

def by_fork():
    pid = os.fork()
    if not pid:
        nothing()
    return pid

def by_pty():
    pid, terminal = pty.fork()
    if not pid:
        nothing()
    HELD.append(terminal)
    return pid

def by_multiprocessing(method):
    process = multiprocessing.get_context(method).Process(target=nothing, daemon=True)
    process.start()
    HELD.append(process)
    return process.pid

def by_subprocess():
    process = subprocess.Popen(["sleep", "1000"], close_fds=False)
    HELD.append(process)
    return process.pid

def by_preexec():
    process = subprocess.Popen(["sleep", "1000"], close_fds=False, preexec_fn=int)
    HELD.append(process)
    return process.pid

def by_spawn():
    return os.posix_spawn("/bin/sleep", ["sleep", "1000"], os.environ)

STARTS = {
    "fork": by_fork, "pty": by_pty, "subprocess": by_subprocess, "preexec": by_preexec, "posix_spawn": by_spawn,
    "mp-fork": lambda: by_multiprocessing("fork"),
    "mp-spawn": lambda: by_multiprocessing("spawn"),
    "mp-forkserver": lambda: by_multiprocessing("forkserver"),
}

def seen_in_child(look):
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(writing, look().encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as seen:
        text = seen.read()
    os.waitpid(pid, 0)
    return text

def held():
    links = []
    for name in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink("/proc/self/fd/" + name))
        except OSError:
            pass
    return " ".join(links) + open("/proc/self/maps").read()

def at_once(number):
    # The signal meets the child between the fork and the end of all that mends it: after each time of up to a millisecond.
    ends = []
    for micros in range(0, 1000, 5):
        pid = os.fork()
        if not pid:
            nothing()
        then = time.perf_counter() + micros / 1e6
        while time.perf_counter() < then:
            pass
        os.kill(pid, number)
        ends.append(ended(pid))
    return str(set(ends))

def terminated():
    process = multiprocessing.get_context("fork").Process(target=nothing, daemon=True)
    process.start()
    process.terminate()
    process.join(4)
    return str(process.exitcode)

def pooled():
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return str(sum(pool.map(abs, [-1, -2])))

def app(environ, start_response):
    how, _, what = environ["PATH_INFO"][1:].partition("/")
    body = str(os.getpid())
    if how == "start":
        body += f" {STARTS[what]()}"
    elif how == "handled":
        body = seen_in_child(lambda: open("/proc/self/status").read())
    elif how == "held":
        body = seen_in_child(held)
    elif how == "at-once":
        body = at_once(int(what))
    elif how == "terminated":
        body = terminated()
    elif how == "pool":
        body = pooled()
    elif how == "back":
        pid = os.fork()
        if not pid:
            if what == "exit":
                sys.exit(3)
            if what == "raise":
                raise ValueError("of the child")
            if what == "iterate":
                return iter([b"the child's"])
            start_response("200 OK", [("Content-Length", "11")])
            return [b"the child's"]
        body = str(ended(pid))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body.encode())))])
    return [body.encode()]
"""

THREADS = pytest.mark.parametrize("threads", [1, 4])
MEMORY = pytest.mark.parametrize("options", [[], ["--preload"]], ids=["alone", "preload"])
WAYS = ["fork", "pty", "subprocess", "preexec", "posix_spawn", "mp-fork", "mp-spawn", "mp-forkserver"]


@THREADS
@MEMORY
def test_a_process_of_the_application_ends_when_it_is_terminated(serve, threads, options):
    server = serve(FORKING, "--threads", threads, *options)
    for _ in range(5):
        assert server.get("/terminated") == (200, b"-15")


@THREADS
def test_a_signal_ends_a_forked_process_from_its_first_moment(serve, threads):
    server = serve(FORKING, "--threads", threads)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP):
        assert server.get(f"/at-once/{number}", timeout=30) == (200, b"{-%d}" % number)
    assert server.get()[0] == 200


@THREADS
@MEMORY
def test_a_forked_process_handles_the_applications_signals_and_no_others(serve, threads, options):
    server = serve(FORKING, "--threads", threads, *options)
    status = dict(line.split(":\t", 1) for line in server.get("/handled")[1].decode().splitlines())
    caught = {number for number in range(1, 32) if int(status["SigCgt"], 16) >> (number - 1) & 1}
    ignored = {number for number in range(1, 32) if int(status["SigIgn"], 16) >> (number - 1) & 1}
    assert int(status["SigBlk"], 16) == 0
    assert signal.SIGUSR2 in caught
    mine = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1}
    assert not mine & (caught | ignored)


@THREADS
@MEMORY
def test_a_forked_process_shares_nothing_of_its_workers(serve, threads, options):
    server = serve(FORKING, "--threads", threads, *options)
    held = server.get("/held")[1].decode()
    assert "/dev/null" in held
    for shared in ("socket:", "eventpoll", "mcsup-scoreboard"):
        assert shared not in held


@THREADS
@pytest.mark.parametrize("how, code", [("answer", b"0"), ("iterate", b"0"), ("exit", b"3"), ("raise", b"1")])
def test_a_forked_process_that_comes_back_from_the_application_ends(serve, threads, how, code):
    server = serve(FORKING, "--threads", threads)
    for _ in range(3):
        with connect(server.port) as client:
            client.sendall(f"GET /back/{how} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
            answer = read_all(client)
        assert answer.count(b"HTTP/1.1") == 1 and answer.endswith(b"\r\n\r\n" + code)
    assert ("ValueError: of the child" in server.log) == (how == "raise")


def test_a_process_that_is_forked_at_the_import_and_comes_back_is_no_worker(serve):
    server = serve("import os\nCHILD = os.fork()\n" + FORKING, workers=2)
    for worker in server.worker_pids():
        assert not is_gone(worker)
    wait_for(lambda: len(server.worker_pids()) == 2, "two workers and no others")
    assert server.get()[0] == 200


@THREADS
def test_a_pool_of_processes_works_in_a_view(serve, threads):
    server = serve(FORKING, "--threads", threads)
    for _ in range(10):
        assert server.get("/pool", timeout=10) == (200, b"3")


@pytest.fixture
def started(serve):
    """Start a process by a request; all of them are ended with the test."""
    pids = []

    def start(connection, how):
        connection.request("GET", f"/start/{how}")
        worker, pid = map(int, connection.getresponse().read().split())
        pids.append(pid)
        return worker, pid

    yield start
    for pid in pids:
        if not is_gone(pid):
            os.kill(pid, signal.SIGKILL)


def http_connection(server):
    return http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)


@THREADS
@pytest.mark.parametrize("how", WAYS)
def test_connections_end_though_a_process_of_the_application_lives(serve, started, threads, how):
    server = serve(FORKING, "--threads", threads, "--keep-alive", "1")
    idle = http_connection(server)
    idle.request("GET", "/")
    idle.getresponse().read()
    starter = http_connection(server)
    _, pid = started(starter, how)
    # One that was there at the fork and ends with its answer, and those that are idle for too long.
    starter.sock.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert read_all(starter.sock).startswith(b"HTTP/1.1 200")
    assert read_all(idle.sock) == b""
    assert not is_gone(pid)


@THREADS
@pytest.mark.parametrize("how", WAYS)
def test_clients_of_a_killed_worker_notice_though_its_process_lives(serve, started, threads, how):
    server = serve(FORKING, "--threads", threads, "--keep-alive", "100")
    idle = http_connection(server)
    idle.request("GET", "/")
    idle.getresponse().read()
    starter = http_connection(server)
    worker, pid = started(starter, how)
    os.kill(worker, signal.SIGKILL)
    for connection in (idle, starter):
        assert read_all(connection.sock) == b""
    # multiprocessing ends its own processes, and the kernel hangs up at those of a terminal that nothing holds any more.
    assert not is_gone(pid) or how.startswith("mp-") or how == "pty"
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    assert get(server.port)[0] == 200
    # The resource tracker of multiprocessing ends after the processes that use it.
    wait_for(lambda: len(server.worker_pids()) == 1, "a new worker and no other process")


def test_a_response_that_forks_and_closes_ends(serve, started):
    server = serve(FORKING)
    with connect(server.port) as client:
        client.sendall(b"GET /start/fork HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        answer = read_all(client)
    pid = int(answer.split()[-1])
    assert not is_gone(pid)
    os.kill(pid, signal.SIGKILL)


@THREADS
def test_a_stop_ends_daemonic_processes_at_once(serve, started, threads):
    server = serve(FORKING, "--threads", threads, "--graceful-timeout", "30")
    _, pid = started(http_connection(server), "mp-fork")
    begin = time.monotonic()
    assert server.stop(timeout=20) == 0
    assert time.monotonic() - begin < 10
    assert is_gone(pid)


def sockets_of(pid):
    names = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    return [name for name in names if name.startswith("socket:")]


def test_connections_that_come_and_go_during_forks_are_in_no_child(serve, started):
    server = serve(FORKING, "--threads", "4")
    starter = http_connection(server)
    pids = []
    for _ in range(30):
        clients = [connect(server.port) for _ in range(5)]
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        pids.append(started(starter, "fork")[1])
        for client in clients:
            assert read_all(client).startswith(b"HTTP/1.1 200")
            client.close()
    # A process that has not run yet still has what it releases first.
    wait_for(lambda: not any(sockets_of(pid) for pid in pids), "the processes to have no socket")
    assert get(server.port)[0] == 200


def test_an_upload_is_not_held_by_a_process_that_was_forked_meanwhile(serve, started):
    server = serve(FORKING, "--threads", "2")
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 4\r\n\r\nab")
        started(http_connection(server), "fork")
        client.sendall(b"cd")
        assert read_all(client).startswith(b"HTTP/1.1 200")


# Notes how a forked process has ended, and whether a process has run the exit functions.
NOTING = ENDED + """
import atexit, sys
atexit.register(lambda: open(f"exit-{os.getpid()}", "w").close())
def note_end(pid):
    code = ended(pid)
    with open("ended.new", "w") as file:
        file.write(f"{code}")
    os.rename("ended.new", "ended")
"""

FORKING_HANDLERS = NOTING + """
def fork(number, _):
    pid = os.fork()
    if not pid:
        if number == signal.SIGUSR2:
            sys.exit(3)
        if number == signal.SIGALRM:
            raise ValueError("of the child")
        return
    note_end(pid)
for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM):
    signal.signal(number, fork)
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


@THREADS
@pytest.mark.parametrize("number, code", [(signal.SIGUSR1, 0), (signal.SIGUSR2, 3), (signal.SIGALRM, 1)])
def test_a_process_that_a_signal_handler_forks_and_that_comes_back_ends(serve, directory, threads, number, code):
    server = serve(FORKING_HANDLERS, "--threads", threads)
    server.get()
    [worker] = server.worker_pids()
    os.kill(worker, number)
    wait_for((directory / "ended").exists, "the forked process to end")
    assert (directory / "ended").read_text() == str(code)
    assert not list(directory.glob("exit-*"))
    assert ("ValueError: of the child" in server.log) == (number == signal.SIGALRM)
    assert "signal handler" not in server.log
    assert server.get() == (200, b"ok") and server.worker_pids() == [worker]


FORKING_CLOSE = NOTING + """
class Answer:
    def __init__(self, how):
        self.how = how
    def __iter__(self):
        return iter([b"ok"])
    def close(self):
        pid = os.fork()
        if pid:
            note_end(pid)
        elif self.how == "exit":
            sys.exit(3)
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return Answer(environ["PATH_INFO"][1:])
"""


@THREADS
@pytest.mark.parametrize("how, code", [("return", 0), ("exit", 3)])
def test_a_process_that_is_forked_at_the_close_of_an_answer_and_comes_back_ends(serve, directory, threads, how, code):
    server = serve(FORKING_CLOSE, "--threads", threads)
    assert server.get(f"/{how}") == (200, b"ok")
    wait_for((directory / "ended").exists, "the forked process to end")
    assert (directory / "ended").read_text() == str(code)
    assert not list(directory.glob("exit-*"))
    assert "ERROR" not in server.log
