"""Requests that take longer than they may: the client gets 504, the log says where, the worker is replaced."""

import http.client
import os
import re
import signal
import threading

from harness import SLEEPY, wait_for

# The interpreter is held by one C call, for longer than any test.
HELD = """
import os, re
def app(environ, start_response):
    if environ["PATH_INFO"] == "/held":
        re.match("(a+)+$", "a" * 60 + "b")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


class Asking(threading.Thread):
    """A request on its way; `answer` is what came of it."""

    def __init__(self, server, path):
        super().__init__(daemon=True)
        self.server, self.path, self.answer = server, path, None
        self.start()

    def run(self):
        try:
            self.answer = self.server.get(self.path, timeout=30)
        except OSError as error:
            self.answer = error

    def wait(self):
        self.join(30)
        return self.answer


def test_a_request_over_its_time_gets_504_its_stack_is_logged_and_the_worker_replaced(serve):
    server = serve(SLEEPY, "-t", "1", "--graceful-timeout", "2")
    (worker,) = server.worker_pids()
    asking = Asking(server, "/?sleep=60&secret=1")
    assert asking.wait() == (504, b"the application did not answer in time\n")
    server.wait_log(r"GET /\?sleep=60&secret=1 from 127.0.0.1:\d+ has taken 1\.\d s, over the request timeout; its client was told")
    server.wait_log(r"app.py.*line \d+ in app")
    # The next one is there before this one has gone, and serves.
    server.wait_ready(2)
    assert int(server.get()[1]) != worker
    # A worker that does not move is killed when its time to finish is over, and counts against no slot.
    server.wait_log(f"Worker {worker} .*was killed by its supervisor: not finished within the graceful timeout")
    assert "WORKER TIMEOUT" not in server.log
    assert server.stop() == 0
    server.assert_nothing_left()


def test_a_worker_whose_interpreter_is_held_is_replaced_all_the_same(serve):
    server = serve(HELD, "-t", "1", "--graceful-timeout", "1")
    (worker,) = server.worker_pids()
    assert Asking(server, "/held").wait()[0] == 504
    server.wait_log(r"in match")
    server.wait_ready(2)
    assert int(server.get()[1]) != worker
    server.wait_log(f"Worker {worker} .*was killed by its supervisor")


def test_the_other_requests_of_the_worker_are_finished_first(serve):
    server = serve(SLEEPY, "--threads", "4", "--request-timeout", "2", "--graceful-timeout", "20")
    (worker,) = server.worker_pids()
    late = Asking(server, "/?sleep=3.5")
    server.wait_log("sleeping 3.5")
    wait_for(lambda: late.answer is not None, "the deadline", patience=10)
    # Begun before the deadline of the first, ended after it.
    assert late.answer[0] == 504
    server.wait_ready(2)
    assert {int(server.get()[1]) for _ in range(5)}.isdisjoint({worker})
    server.wait_log(f"Worker {worker} has finished", patience=10)
    assert "killed" not in server.log


def test_what_waits_behind_a_stuck_worker_is_served_by_its_successor(serve):
    server = serve(SLEEPY, "-t", "1", "--graceful-timeout", "2", "--keep-alive", "30")
    (worker,) = server.worker_pids()
    kept = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    kept.request("GET", "/")
    assert int(kept.getresponse().read()) == worker
    stuck = Asking(server, "/?sleep=60")
    server.wait_log("sleeping 60")
    kept.request("GET", "/")
    answer = kept.getresponse()
    assert (answer.status, int(answer.read()) != worker) == (200, True)
    assert stuck.wait()[0] == 504


def test_without_a_request_timeout_a_long_request_ends_when_it_ends(serve):
    server = serve(SLEEPY, "--threads", "2", "-t", "2")
    assert server.get("/?sleep=3.5", timeout=20)[0] == 200
    assert not re.search("504|TIMEOUT", server.log)


BOOTS_SLOWLY = """
import time
def reads_its_model():
    print("reading", flush=True)
    time.sleep(60)
reads_its_model()
"""


def test_the_signal_urg_shows_the_stacks_of_a_worker_in_the_log(serve):
    server = serve(SLEEPY, "--threads", "2")
    (worker,) = server.worker_pids()
    asking = Asking(server, "/?sleep=4")
    server.wait_log("sleeping 4")
    os.kill(worker, signal.SIGURG)
    server.wait_log(r"Stacks, which SIGURG asks for:\n(?:.*\n)*?.*app\.py.*line \d+ in app")
    assert asking.wait()[0] == 200
    # It goes on, and shows them once.
    assert server.log.count("Stacks, which") == 1
    assert server.worker_pids() == [worker]


def test_the_signal_urg_shows_where_a_worker_is_that_boots(serve):
    server = serve(BOOTS_SLOWLY, "--boot-timeout", "60", wait=False)
    server.wait_log("reading")
    (worker,) = server.worker_pids()
    os.kill(worker, signal.SIGURG)
    server.wait_log(r"app\.py.*line \d+ in reads_its_model")
