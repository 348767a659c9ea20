"""A graceful stop answers every request that has arrived, and waits for no silent client."""

import os
import signal
import time

from harness import SLEEPY, connect, is_gone, read_all

REQUEST = b"GET /?sleep=0.1 HTTP/1.1\r\nHost: h\r\n\r\n"


def test_ten_clients_of_one_worker_get_ten_answers(serve):
    server = serve(SLEEPY)
    clients = [connect(server.port) for _ in range(10)]
    for client in clients:
        client.sendall(REQUEST)
    server.signal(signal.SIGTERM)
    answers = [read_all(client) for client in clients]
    assert [answer.split(b"\r\n")[0] for answer in answers] == [b"HTTP/1.1 200 OK"] * 10
    assert server.wait() == 0
    server.assert_nothing_left()


def test_clients_that_had_connected_but_not_yet_asked_get_their_answers_too(serve):
    server = serve(SLEEPY)
    first = connect(server.port)
    first.sendall(b"GET /?sleep=0.5 HTTP/1.1\r\nHost: h\r\n\r\n")
    others = [connect(server.port) for _ in range(5)]
    server.signal(signal.SIGTERM)
    server.wait_log("Stopping")
    for client in others:
        client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert all(b" 200 OK" in read_all(client) for client in [first, *others])
    assert server.wait() == 0


def test_an_idle_keep_alive_client_does_not_delay_the_stop(serve):
    server = serve(SLEEPY, "--keep-alive", "60")
    client = connect(server.port)
    client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert b" 200 OK" in client.recv(65536)
    start = time.monotonic()
    assert server.stop() == 0
    took = time.monotonic() - start
    assert took < 2, f"the stop took {took:.2f} s"
    assert read_all(client) == b""
    server.assert_nothing_left()


def test_a_stop_waits_for_no_deadline_of_kept_clients_that_have_nothing_to_ask(serve):
    server = serve(SLEEPY, "--keep-alive", "60", "--graceful-timeout", "60", workers=2)
    clients = [connect(server.port) for _ in range(20)]
    for client in clients:
        client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert b" 200 OK" in client.recv(65536)
    assert server.stop() == 0
    assert all(read_all(client) == b"" for client in clients)
    assert server.log.count("has finished") == 2, server.log
    assert "graceful timeout" not in server.log and "was killed" not in server.log
    server.assert_nothing_left()


def test_no_client_can_connect_once_the_stop_has_begun(serve):
    server = serve(SLEEPY)
    client = connect(server.port)
    client.sendall(b"GET /?sleep=1 HTTP/1.1\r\nHost: h\r\n\r\n")
    server.signal(signal.SIGTERM)
    answer = read_all(client)
    assert b"Connection: close" in answer
    assert server.wait() == 0


FORKING = """
import os, time
CHILD = os.fork()
if CHILD == 0:
    time.sleep(20)
    os._exit(0)
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(CHILD).encode()]
"""


def test_a_process_that_the_application_forked_does_not_hold_the_port(serve):
    server = serve(FORKING)
    child = int(server.get()[1])
    try:
        assert server.stop() == 0
        assert not is_gone(child), "the application's own process is its own business"
        server.assert_nothing_left()
    finally:
        os.kill(child, signal.SIGKILL)


EXECUTOR = """
import atexit, concurrent.futures, pathlib, time
executor = concurrent.futures.ThreadPoolExecutor()
atexit.register(lambda: pathlib.Path("exit-function").write_text("ran"))
def work():
    time.sleep(0.5)
    pathlib.Path("work").write_text("done")
def app(environ, start_response):
    executor.submit(work)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"submitted"]
"""


def test_work_that_was_handed_to_an_executor_is_finished_and_exit_functions_run(serve, directory):
    server = serve(EXECUTOR)
    assert server.get()[1] == b"submitted"
    assert server.stop() == 0
    assert (directory / "work").read_text() == "done"
    assert (directory / "exit-function").read_text() == "ran"


ENDLESS = """
def app(environ, start_response):
    def blocks():
        while True:
            yield b"more"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return blocks()
"""


def test_a_head_request_for_an_endless_stream_ends(serve):
    server = serve(ENDLESS)
    client = connect(server.port)
    client.sendall(b"HEAD / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert read_all(client).startswith(b"HTTP/1.1 200 OK")
    assert server.stop() == 0
