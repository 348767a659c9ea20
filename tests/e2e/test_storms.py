"""Many signals at once, and signals at the worst moment: bounded, answered, nothing left."""

import os
import signal
import time

from harness import HELLO, SLEEPY, Load, children_of, connect, read_all

SLOW_BOOT = "import time\ntime.sleep(2)\n" + HELLO


def test_a_storm_of_hangups_is_a_few_reloads_and_loses_no_request(serve):
    server = serve(workers=2)
    with Load(server.port, fresh=2, kept=2) as load:
        start = time.monotonic()
        for _ in range(500):
            os.kill(server.pid, signal.SIGHUP)
            time.sleep(0.002)
        took = time.monotonic() - start
        load.wait_more(5)
        # At most one reload a second is begun while one runs; a finished one may be followed at once.
        assert len(children_of(server.pid)) <= 2 * 5
    assert load.failures == []
    server.wait_log("Reload done")
    begun, done = server.log.count("Reloading: booting"), server.log.count("Reload done")
    # Each but the first follows one that is done, or gives up one that is booting; the latter once a second.
    assert 1 <= begun <= 1 + done + took + 1, f"{begun} begun, {done} done in {took:.1f} s"
    assert server.stop(20) == 0
    server.assert_nothing_left()


def test_a_storm_of_stops_ends_it(serve):
    server = serve(SLEEPY, workers=2)
    for _ in range(200):
        try:
            os.kill(server.pid, signal.SIGTERM)
        except ProcessLookupError:
            break
    assert server.wait() == 0
    server.assert_nothing_left()


def test_a_stop_in_the_middle_of_a_reload_wins(serve, directory):
    server = serve(workers=2)
    (directory / "app.py").write_text(SLOW_BOOT)
    server.signal(signal.SIGHUP)
    server.wait_log("Booting worker", 4)
    start = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - start < 1.9, "it waited for the new generation to boot"
    server.assert_nothing_left()


def test_a_stop_in_the_middle_of_the_start_wins(serve):
    server = serve(SLOW_BOOT, workers=2, wait=False)
    server.wait_log("Booting worker", 2)
    assert server.stop() == 0
    server.assert_nothing_left()


def busy(server, seconds):
    """A client in the middle of a long request."""
    client = connect(server.port)
    client.sendall(f"GET /?sleep={seconds} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    server.wait_log("sleeping")
    return client


def test_a_second_stop_is_quick(serve):
    server = serve(SLEEPY, "--graceful-timeout", "60")
    client = busy(server, 30)
    server.signal(signal.SIGTERM)
    server.wait_log("Stopping: finishing")
    time.sleep(0.3)  # Sooner it would be the same stop.
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    server.wait_log("Asked to stop again")
    client.close()
    server.assert_nothing_left()


def test_two_stops_in_a_moment_are_one_and_break_off_no_request(serve):
    for _ in range(8):
        server = serve(SLEEPY)
        client = busy(server, 0.5)
        # As GNU timeout does it, and a service manager: the process, and then its group.
        os.kill(server.pid, signal.SIGTERM)
        time.sleep(0.002)  # The time between them is what is tested.
        os.kill(server.pid, signal.SIGTERM)
        assert b"200 OK" in read_all(client)
        assert server.wait() == 0
        assert "Asked to stop again" not in server.log
        client.close()


def test_a_quick_stop_waits_for_no_request(serve):
    for number in (signal.SIGINT, signal.SIGQUIT):
        server = serve(SLEEPY)
        client = busy(server, 30)
        server.signal(number)
        assert server.wait() == 0
        client.close()
        server.assert_nothing_left()


def test_a_request_that_outlasts_the_graceful_timeout_is_cut_and_admitted(serve):
    server = serve(SLEEPY, "--graceful-timeout", "1")
    client = busy(server, 30)
    server.signal(signal.SIGTERM)
    assert server.wait() == 5
    server.wait_log("is killed: not finished within the graceful timeout of 1.000 s")
    server.wait_log("workers killed before they had finished: 1")
    client.close()
    server.assert_nothing_left()


def test_a_reload_during_the_start_waits_for_it(serve):
    server = serve("import time\ntime.sleep(0.5)\n" + HELLO, wait=False)
    server.wait_log("Booting worker")
    server.signal(signal.SIGHUP)
    server.wait_log("Reload done: generation 2")
    assert server.get()[0] == 200
