"""A pool that is asked to stop says so before it does, and serves every client that it has accepted."""

import select
import signal
import socket
import threading

import pytest
from harness import PATIENCE, SLEEPY, connect, read_all, wait_for

DRAINING = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(bool(environ["mcsup.draining"])).encode()]
"""


def test_a_pool_that_is_about_to_stop_serves_on_and_says_so(serve):
    server = serve(DRAINING, "--drain-delay", 3, "--health-path", "/healthz", workers=2)
    assert server.get("/healthz")[0] == 200
    assert server.get() == (200, b"False")
    server.signal(signal.SIGTERM)
    server.wait_log("Asked to stop: serving on for 3.000 s")
    # The log has it before each worker does.
    wait_for(lambda: server.get("/healthz")[0] == 503, "the health check to say so")
    wait_for(lambda: server.get() == (200, b"True"), "the application to see it")
    assert "Stopping" not in server.log, "all of this was asked before the end began"
    assert server.wait() == 0
    server.wait_log("Stopping: finishing what has arrived")
    server.assert_nothing_left()


def test_health_is_answered_while_the_only_thread_is_in_the_application(serve):
    server = serve(SLEEPY, "--health-path", "/healthz")
    busy = connect(server.port)
    busy.sendall(b"GET /?sleep=2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    server.wait_log("sleeping 2")
    assert server.get("/healthz")[0] == 200
    assert not select.select([busy], [], [], 0)[0], "the request was over before the health check had its answer"
    assert b" 200 OK" in read_all(busy)


HELLO = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]
"""


class Newcomers:
    """Clients each of whose requests has a connection of its own, until none can be had any more."""

    def __init__(self, port, count=8):
        self.port, self.answered, self.broken, self.lock = port, 0, [], threading.Lock()
        self.threads = [threading.Thread(target=self._client, daemon=True) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def wait(self):
        """Wait until no client gets in any more."""
        for thread in self.threads:
            thread.join(2 * PATIENCE)
            assert not thread.is_alive(), "a client that is neither answered nor refused"

    def _client(self):
        while True:
            try:
                client = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
            except OSError:
                return
            with client:
                answer = self._ask(client)
            with self.lock:
                if answer.startswith(b"HTTP/1.1 200 OK\r\n") and answer.endswith(b"\r\n\r\nhello"):
                    self.answered += 1
                else:
                    self.broken.append(answer)

    @staticmethod
    def _ask(client):
        answer = b""
        try:
            client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            while piece := client.recv(65536):
                answer += piece
        except OSError as error:
            return f"{error!r} after {answer!r}".encode()
        return answer


@pytest.mark.parametrize("options", [[], ["--reuse-port"]], ids=["shared", "own listeners"])
def test_a_stop_serves_every_client_whose_connection_was_made(serve, options):
    for _ in range(3):
        server = serve(HELLO, *options, workers=2)
        clients = Newcomers(server.port)
        wait_for(lambda: clients.answered >= 50 or clients.broken, "fifty answers")
        assert server.stop() == 0
        clients.wait()
        assert clients.broken == [], f"{len(clients.broken)} beside {clients.answered} answered; the log:\n{server.log}"
        server.assert_nothing_left()
