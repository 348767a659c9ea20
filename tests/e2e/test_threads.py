"""More threads than one in a worker, and none but the main one where one was asked for."""

import signal
import threading
import time

from harness import SLEEPY, Load

SHOWING = """
import threading, json
local = threading.local()
def app(environ, start_response):
    local.count = getattr(local, "count", 0) + 1
    body = json.dumps({
        "main": threading.current_thread() is threading.main_thread(),
        "multithread": environ["wsgi.multithread"],
        "count": local.count,
    }).encode()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [body]
"""


def at_once(server, paths):
    """Ask for all paths at once; returns the answers and the seconds that all took."""
    answers = [None] * len(paths)

    def ask(index):
        answers[index] = server.get(paths[index], timeout=20)

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(paths))]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers, time.monotonic() - start


def test_one_thread_is_the_main_thread(serve):
    server = serve(SHOWING)
    for expected in range(1, 6):
        assert server.get()[1] == b'{"main": true, "multithread": false, "count": %d}' % expected


def test_threads_keep_their_own_data(serve):
    server = serve(SHOWING, "--threads", "4")
    bodies = [server.get()[1] for _ in range(20)]
    assert all(b'"multithread": true' in body for body in bodies)
    # A quick application stays on one thread, which is the same for Python each time.
    assert any(b'"count": 5' in body for body in bodies)


def test_requests_that_sleep_do_so_side_by_side(serve):
    server = serve(SLEEPY, "--threads", "4")
    answers, took = at_once(server, ["/?sleep=1"] * 4)
    assert [status for status, _ in answers] == [200] * 4
    assert took < 3, f"four seconds of sleep on four threads took {took:.1f} s"


def test_a_long_request_of_many_threads_is_no_hanging_worker(serve):
    server = serve(SLEEPY, "--threads", "2", "-t", "2")
    answers, _ = at_once(server, ["/?sleep=3.5", "/?sleep=3.5"])
    assert [status for status, _ in answers] == [200, 200]
    assert "WORKER TIMEOUT" not in server.log


def test_reloads_with_threads_lose_no_request(serve):
    server = serve(SLEEPY, "--threads", "4", workers=2)
    with Load(server.port, path="/?sleep=0.01") as load:
        for generation in (2, 3):
            server.signal(signal.SIGHUP)
            server.wait_log(f"Reload done: generation {generation}", patience=20)
            load.wait_more(10)
    assert load.failures == []
    assert server.stop() == 0
    server.assert_nothing_left()
