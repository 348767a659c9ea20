"""HUP is a transaction."""

import http.client
import signal

from harness import HELLO, SLEEPY, Load, children_of, connect, wait_for

NEW = HELLO.replace("os.getpid()} ", "os.getpid()} new ")
BROKEN = "raise RuntimeError('broken deploy')\n"


def test_a_broken_reload_and_a_good_one_lose_no_request(serve, directory):
    server = serve(workers=2)
    with Load(server.port) as load:
        (directory / "app.py").write_text(BROKEN)
        server.signal(signal.SIGHUP)
        server.wait_log("Reload failed, the old generation goes on serving: generation 2: importing app failed: RuntimeError: broken deploy")
        load.wait_more(20)
        (directory / "app.py").write_text(NEW)
        server.signal(signal.SIGHUP)
        server.wait_log("Reload done: generation 3 serves")
        load.wait_more(20)
        server.wait_log("has finished", 2)
        load.wait_more(20)
    assert load.failures == []
    assert b"new" in server.get()[1]
    assert "RuntimeError: broken deploy" in server.log and 'File "' in server.log
    assert server.stop() == 0
    server.assert_nothing_left()


def test_reloads_in_a_row_lose_no_request(serve):
    server = serve(workers=2)
    with Load(server.port) as load:
        for generation in range(2, 6):
            server.signal(signal.SIGHUP)
            server.wait_log(rf"Reload done: generation {generation} serves", patience=20)
            load.wait_more(5)
    assert load.failures == []


def test_the_old_generation_serves_until_the_new_one_is_ready(serve, directory):
    server = serve()
    (directory / "app.py").write_text("import time\ntime.sleep(1)\n" + NEW)
    with Load(server.port, fresh=2, kept=2) as load:
        server.signal(signal.SIGHUP)
        server.wait_log("Reload done")
        load.wait_more(5)
    assert load.failures == []
    assert load.slowest < 1, f"a request waited {load.slowest:.2f} s for the import"


def test_a_reload_that_hangs_or_dies_is_given_up(serve, directory):
    server = serve(HELLO, "--boot-timeout", "1")
    (old,) = server.worker_pids()
    for code, reason in [
        ("import time\ntime.sleep(60)\n", "not ready within the boot timeout"),
        ("import os\nos._exit(5)\n", r"worker \d+ died before it was ready"),
    ]:
        (directory / "app.py").write_text(code)
        server.signal(signal.SIGHUP)
        server.wait_log(rf"Reload failed, .*{reason}")
        assert int(server.get()[1].split()[0]) == old
    wait_for(lambda: children_of(server.pid) == [old], "the old worker alone")


def test_a_request_in_flight_is_finished_by_the_old_worker_and_its_connection_goes_on_with_the_new(serve):
    server = serve(SLEEPY, "--soak", "0")
    (old,) = server.worker_pids()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.request("GET", "/?sleep=1.5")
    server.signal(signal.SIGHUP)
    server.wait_log("Reload done")
    new = server.get()[1]
    response = connection.getresponse()
    assert (response.status, int(response.read()), int(new) != old) == (200, old, True)
    assert response.getheader("Connection") is None
    connection.request("GET", "/")
    assert connection.getresponse().read() == new


def test_no_client_notices_a_reload_whatever_it_was_doing(serve):
    server = serve(SLEEPY, "--keep-alive", "60", workers=2)
    idle, silent = [connect(server.port) for _ in range(40)], [connect(server.port) for _ in range(5)]
    request = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"

    def ask(clients):
        for client in clients:
            client.sendall(request)
        answers = [client.recv(65536) for client in clients]
        assert all(b" 200 OK" in answer and b"Connection" not in answer for answer in answers), answers
        return {int(answer.split()[-1]) for answer in answers}

    old = ask(idle)
    for generation in range(2, 5):
        server.signal(signal.SIGHUP)
        server.wait_log(rf"Reload done: generation {generation} serves", patience=20)
        server.wait_log("has finished", 2 * (generation - 1))
        new = ask(idle)
        assert not old & new
        old = new
    ask(silent)
