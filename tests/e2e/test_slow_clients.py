"""Slow and silent clients delay no other client, and go at their deadline."""

import time

from harness import HELLO, connect, read_all


def test_a_hundred_slow_and_silent_clients_delay_no_other_client(serve):
    server = serve(HELLO, "--header-timeout", "2", "--body-timeout", "2", workers=1)
    start = time.monotonic()
    half = [connect(server.port) for _ in range(50)]
    for client in half:
        client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nX-Slow: ")
    silent = [connect(server.port) for _ in range(50)]
    uploads = [connect(server.port) for _ in range(5)]
    for client in uploads:
        client.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nabc")
    for _ in range(20):
        asked = time.monotonic()
        assert server.get()[0] == 200
        assert time.monotonic() - asked < 1
    assert time.monotonic() - start < 2, "the slow clients' deadline came before the others were served"
    for client in half + uploads:
        assert read_all(client).startswith(b"HTTP/1.1 408 ")
    for client in silent:
        assert read_all(client) == b""
    assert server.get()[0] == 200


def test_an_idle_connection_ends_after_the_keep_alive_time(serve):
    server = serve(HELLO, "--keep-alive", "1")
    client = connect(server.port)
    client.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert client.recv(65536)
    assert read_all(client) == b""
