"""Forks of the application in views: processes that work and end, connections that end, and no warning of ours.

MCSUP_SOAK=1 asks for 200 of each kind; otherwise there are few.
"""

import http.client
import os
import signal
import sys
import threading
import time

import pytest
from harness import PATIENCE, clean_environment, connect, get, is_gone, read_all, state_of, wait_for

ROUNDS = 200 if os.environ.get("MCSUP_SOAK") == "1" else 15

# Each way starts a process that does what a program may, waits for its end, and tells what it said.
WORKING = """
import concurrent.futures, importlib, logging, multiprocessing, os, pty, subprocess, sys, threading
logging.basicConfig(filename="child.log")
FORK = multiprocessing.get_context("fork")

def work(number=0):
    # Memory, locks, modules, the log, threads.
    pieces = [bytes(1 << 16) for _ in range(64)]
    lock, said = threading.Lock(), []
    with lock:
        for name in ("colorsys", "wave", "csv"):
            sys.modules.pop(name, None)
            importlib.import_module(name)
    logging.warning("work of %s", number)
    thread = threading.Thread(target=lambda: said.append(len(pieces)))
    thread.start()
    thread.join()
    return said[0]

def by_fork():
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(writing, str(work()).encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as said:
        text = said.read()
    return f"{text} {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}"

def by_pty():
    pid, terminal = pty.fork()
    if not pid:
        os.write(1, str(work()).encode())
        os._exit(0)
    text = b""
    try:
        while piece := os.read(terminal, 1024):
            text += piece
    except OSError:
        pass
    os.close(terminal)
    return f"{text.decode()} {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}"

def by_pool():
    with FORK.Pool(2) as pool:
        results = pool.map(work, range(2))
    return f"{results[0]} {results.count(64) - 2}"

def by_process():
    queue = FORK.SimpleQueue()
    process = FORK.Process(target=lambda: queue.put(work()))
    process.start()
    text = queue.get()
    process.join()
    return f"{text} {process.exitcode}"

def by_executor():
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=FORK) as executor:
        results = list(executor.map(work, range(2)))
    return f"{results[0]} {results.count(64) - 2}"

def by_subprocess():
    return subprocess.run(["echo", "64 0"], capture_output=True, text=True, close_fds=False).stdout.strip()

def by_preexec():
    done = subprocess.run(["echo", "64 0"], capture_output=True, text=True, preexec_fn=lambda: work() and None)
    return done.stdout.strip()

WAYS = {name[3:]: way for name, way in list(globals().items()) if name.startswith("by_")}

def app(environ, start_response):
    path = environ["PATH_INFO"][1:]
    body = (WAYS[path]() if path else str(threading.active_count())).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""

PRELOAD = pytest.mark.parametrize("options", [[], ["--preload"]], ids=["alone", "preload"])
THREADS = pytest.mark.parametrize("threads", [1, 4])
WAYS = ["fork", "pty", "pool", "process", "executor", "subprocess", "preexec"]


def below(pid):
    """The living processes below a process."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            state = state_of(int(entry))
            if state and state[1] == pid:
                found += [int(entry), *below(int(entry))]
    return found


@THREADS
@pytest.mark.parametrize("way", WAYS)
def test_processes_in_views_work_and_leave_nothing(serve, way, threads):
    server = serve(WORKING, "--threads", threads)
    [worker] = server.worker_pids()
    kept = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    for _ in range(ROUNDS):
        kept.request("GET", f"/{way}")
        assert kept.getresponse().read() == b"64 0"
        with connect(server.port) as client:
            client.settimeout(30)
            client.sendall(f"GET /{way} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
            assert read_all(client).endswith(b"\r\n\r\n64 0")
    wait_for(lambda: not below(worker), "the end of the application's processes")
    assert server.worker_pids() == [worker]
    assert server.stop() == 0
    assert read_all(kept.sock) == b""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="older Pythons do not count the threads")
@PRELOAD
@pytest.mark.parametrize("way", ["fork", "pty", "pool", "process", "preexec"])
def test_with_one_thread_python_has_nothing_to_warn_of(serve, way, options):
    environment = clean_environment(PYTHONWARNINGS="always::DeprecationWarning")
    server = serve(WORKING, *options, env=environment)
    for _ in range(ROUNDS):
        assert server.get(f"/{way}", timeout=30) == (200, b"64 0")
    assert "DeprecationWarning" not in server.log


def threads_of(pid):
    names = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/comm") as comm:
            names.append(comm.read().strip())
    return sorted(names)


@PRELOAD
def test_threads_of_the_server_are_back_after_a_fork(serve, options):
    server = serve(WORKING, *options)
    assert server.get()[0] == 200
    # The first answer may come before the last of them has its name; a mold has none of them.
    is_whole = lambda pid: {"lifeline", "spare"} < set(threads_of(pid))  # noqa: E731
    [worker] = wait_for(lambda: list(filter(is_whole, server.worker_pids())), "the threads of the server")
    before = threads_of(worker)
    for _ in range(20):
        assert server.get("/fork")[0] == 200
        # The answer may come before the last of them has its name again.
        wait_for(lambda: threads_of(worker) == before, "the threads of before")


FORKING_LONG = """
import os, time
def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/forks":
        # Forks again and again, until a file says that it is enough.
        open("forking", "w").close()
        for _ in range(1000):
            if os.path.exists("enough"):
                break
            pid = os.fork()
            if not pid:
                os._exit(0)
            os.waitpid(pid, 0)
            time.sleep(0.02)
    elif path == "/long":
        if not os.fork():
            os._exit(0)
        open("forked", "w").close()
        time.sleep(1000)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


def test_a_worker_that_forks_notices_its_supervisors_end(serve, directory):
    server = serve(FORKING_LONG, "--graceful-timeout", "1")
    [worker] = server.worker_pids()
    client = connect(server.port)
    client.sendall(b"GET /long HTTP/1.1\r\nHost: h\r\n\r\n")
    wait_for((directory / "forked").exists, "the fork")
    server.kill()
    wait_for(lambda: is_gone(worker), "the worker's end")
    client.close()


def test_an_upload_goes_on_while_a_view_forks(serve, directory):
    server = serve(FORKING_LONG)
    client, forking = connect(server.port), connect(server.port)
    forking.settimeout(30)
    forking.sendall(b"GET /forks HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    wait_for((directory / "forking").exists, "the forks")
    client.settimeout(30)
    client.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 33554432\r\n\r\n")
    # More than both sockets hold: it ends only if the worker receives meanwhile.
    client.sendall(b"x" * 33554432)
    (directory / "enough").touch()
    for connection in (forking, client):
        assert read_all(connection).endswith(b"ok")
        connection.close()


def test_a_request_over_its_time_is_answered_although_it_has_forked(serve):
    server = serve(FORKING_LONG, "--request-timeout", "1")
    with connect(server.port) as client:
        client.sendall(b"GET /long HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 504")
    for worker in server.worker_pids():
        os.kill(worker, signal.SIGKILL)


# Forks one process after another until there is a file `go`, and tells how many.
RESTLESS = """
import os
def app(environ, start_response):
    environ["wsgi.errors"].write("forking\\n")
    count = 0
    while not os.path.exists("go"):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        count += 1
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(count).encode()]
"""


def test_other_clients_are_seen_to_while_a_view_forks_without_a_pause(serve, directory):
    server = serve(RESTLESS, "--health-path", "/health")
    answers = []
    client = threading.Thread(target=lambda: answers.append(get(server.port, timeout=30)), daemon=True)
    client.start()
    server.wait_log("forking")
    try:
        for _ in range(10):
            assert server.get("/health") == (200, b"ok\n")
    finally:
        (directory / "go").touch()
    client.join(30)
    [(status, forks)] = answers
    assert status == 200 and int(forks) < 1000
