"""Processes that are killed: nothing is orphaned, nothing is lost that was not on the killed process itself."""

import contextlib
import http.client
import os
import signal
import threading
import time

import pytest
from cgroups import Cgroup
from harness import SLEEPY, can_bind, is_gone, wait_for, zombies_of
from lifecycle import Operator


def test_a_killed_supervisor_leaves_no_worker_and_a_free_port(serve, record_property):
    server = serve(workers=2)
    assert server.get()[0] == 200
    workers = server.worker_pids()
    start = time.monotonic()
    server.kill()
    wait_for(lambda: all(is_gone(pid) for pid in workers) and can_bind(server.port), "a free port", patience=1)
    record_property("milliseconds", round((time.monotonic() - start) * 1000, 1))


def test_a_killed_supervisors_worker_finishes_its_request_and_a_new_server_starts_at_once(serve):
    server = serve(SLEEPY, workers=2)
    workers = server.worker_pids()
    answer = []
    client = threading.Thread(target=lambda: answer.append(server.get("/?sleep=2")))
    client.start()
    server.wait_log("sleeping")
    server.kill()
    new = serve(None, port=server.port, workers=2)
    assert new.get()[0] == 200
    assert client.is_alive(), "the request of the old server has ended already"
    client.join(5)
    assert answer and answer[0][0] == 200 and int(answer[0][1]) in workers
    wait_for(lambda: all(is_gone(pid) for pid in workers), "the old workers to go", patience=1)


def test_a_supervisor_killed_while_its_workers_boot_leaves_nothing(serve):
    server = serve("import time\ntime.sleep(60)\n", workers=2, wait=False)
    server.wait_log("Booting worker", 2)
    workers = server.worker_pids()
    server.kill()
    wait_for(lambda: all(is_gone(pid) for pid in workers), "the booting workers to go")
    server.assert_nothing_left()


def test_a_killed_worker_is_replaced_and_the_log_says_that_its_supervisor_did_not_kill_it(serve):
    server = serve()
    (worker,) = server.worker_pids()
    os.kill(worker, signal.SIGKILL)
    server.wait_ready(2)
    status, body = server.get()
    assert (status, int(body.split()[0]) != worker) == (200, True)
    server.wait_log(rf"Worker {worker} \(slot 0\) died, cause unknown: SIGKILL \(not by this supervisor")
    assert server.stop() == 0
    server.assert_nothing_left()


def test_a_worker_that_is_asked_to_end_is_replaced_and_the_log_names_the_sender(serve):
    server = serve()
    (worker,) = server.worker_pids()
    os.kill(worker, signal.SIGTERM)
    server.wait_ready(2)
    server.wait_log(rf"Worker {worker} .*exited with code 0 after SIGTERM from pid {os.getpid()} ")


def test_signals_meant_for_the_group_do_not_end_a_worker(serve):
    server = serve()
    (worker,) = server.worker_pids()
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR2, signal.SIGTTIN, signal.SIGWINCH):
        os.kill(worker, number)
    for _ in range(5):
        assert int(server.get()[1].split()[0]) == worker


def test_a_worker_that_hangs_is_aborted_with_its_stacks_in_the_log_and_replaced(serve):
    # No deadline watches requests, so the worker as a whole gives no sign of life.
    server = serve(SLEEPY, "-t", "1", "--request-timeout", "0")
    (worker,) = server.worker_pids()
    failure = []

    def client():
        try:
            server.get("/?sleep=60", timeout=10)
        except OSError as error:
            failure.append(error)

    thread = threading.Thread(target=client)
    thread.start()
    server.wait_log(rf"WORKER TIMEOUT \(pid: {worker}\)")
    server.wait_log(r"app.py.*line \d+ in app")
    server.wait_log(rf"Worker {worker} .*killed by its supervisor: no sign of life within the timeout of 1.000 s, .* into a request")
    server.wait_ready(2)
    thread.join(5)
    assert failure and server.get()[0] == 200


def test_a_stopped_supervisor_blames_no_worker_when_it_goes_on(serve):
    server = serve(SLEEPY, "-t", "1")
    (worker,) = server.worker_pids()
    server.signal(signal.SIGSTOP)
    time.sleep(3)  # The length of the stop is what is tested.
    server.signal(signal.SIGCONT)
    server.wait_log("The supervisor did not run for")
    assert int(server.get()[1]) == worker
    assert "WORKER TIMEOUT" not in server.log


def test_no_zombie_is_left_by_a_storm_of_kills(serve):
    server = serve(workers=3)
    for _ in range(5):
        for worker in server.worker_pids():
            os.kill(worker, signal.SIGKILL)
        wait_for(lambda: len(server.worker_pids()) == 3, "three workers", patience=40)
    wait_for(lambda: not zombies_of(server.pid), "no zombie")
    assert server.stop() == 0
    server.assert_nothing_left()


# A request to /hog makes a process of its own that needs more memory than there is, /eat does it in the worker.
HUNGRY = """
import os, subprocess, sys
def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/hog":
        hog = subprocess.run([sys.executable, "-c", "b'x' * (1 << 30)"])
        environ["wsgi.errors"].write(f"the hog ended with {hog.returncode}\\n")
    elif path == "/eat":
        b"x" * (1 << 30)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


@pytest.fixture
def bounded():
    """Words that execute a command with little memory."""
    group = Cgroup("memory")
    try:
        limits = ["memory.max", "memory.swap.max"] if group.is_v2 else ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]
        for limit in limits:
            if (group.path / limit).exists():
                group.set(limit, 0 if "swap.max" in limit else 200 << 20)
        yield ["sh", "-c", 'echo $$ > "$0" && exec "$@"', group.path / "cgroup.procs"]
    finally:
        group.remove()


def last_death(server, slot):
    """What the status says about a slot's last worker."""
    with Operator(server.directory / "app.ctl") as operator:
        return operator.status()["slots"][slot]["last_death"]["cause"]


def test_a_worker_that_the_kernel_kills_for_memory_is_known_to_be(serve, bounded):
    server = serve(HUNGRY, "--pid", "app.pid", "--timeout", "0", through=bounded)
    (worker,) = server.worker_pids()
    with contextlib.suppress(OSError, http.client.HTTPException):
        server.get("/eat", timeout=10)
    server.wait_log(rf"Worker {worker} \(slot 0\) was killed by the kernel, which ran out of memory, .* into a request")
    assert "ran out of memory" in last_death(server, 0)
    server.wait_ready(2)
    assert server.stop() == 0
    server.assert_nothing_left()


def test_a_worker_that_is_killed_by_hand_is_not_said_to_have_run_out_of_memory_though_others_did_before(serve, bounded):
    server = serve(HUNGRY, "--pid", "app.pid", "--timeout", "0", through=bounded)
    (worker,) = server.worker_pids()
    assert server.get("/hog", timeout=10)[0] == 200
    server.wait_log("the hog ended with -9")
    time.sleep(3)  # That it is no longer recent is what is tested; nothing else wakes the supervisor meanwhile.
    os.kill(worker, signal.SIGKILL)
    server.wait_log(rf"Worker {worker} \(slot 0\) died, cause unknown: SIGKILL \(not by this supervisor")
    assert last_death(server, 0).startswith("died, cause unknown: SIGKILL")
    assert "ran out of memory" not in server.log
    server.wait_ready(2)
    assert server.stop() == 0
    server.assert_nothing_left()
