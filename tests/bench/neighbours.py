"""Clients that take all they can get, while others are to be served.

Each is the work of one process: it is called with the port and an event that it sets once it has begun, and never
returns. A connection that ends is opened again.
"""

import contextlib
import os
import selectors
import socket
import time

HOST = b" HTTP/1.1\r\nHost: h\r\n"
GIB = 1 << 30


class Neighbour:
    """One connection: `head` first, then `flood` again and again; what comes is dropped.

    `length`: bytes of a message after the head, after which its answer is awaited and the next one sent.
    """

    def __init__(self, head, flood, length=None):
        self.head, self.flood, self.length = head, memoryview(flood), length
        self.stream = None

    def connect(self, port, selector):
        """Begin, or begin again."""
        if self.stream:
            selector.unregister(self.stream)
            self.stream.close()
        self.stream = socket.socket()
        self.stream.setblocking(False)
        self.stream.connect_ex(("127.0.0.1", port))
        self.pending, self.left = memoryview(self.head), self.length
        selector.register(self.stream, selectors.EVENT_READ | selectors.EVENT_WRITE, self)

    def proceed(self, events, room, selector):
        """Receive and send what goes. Raises an OSError when the connection has ended."""
        if events & selectors.EVENT_READ:
            if not self.stream.recv_into(room):
                raise ConnectionResetError
            if self.left == 0:
                self.pending, self.left = memoryview(self.head), self.length
                selector.modify(self.stream, selectors.EVENT_READ | selectors.EVENT_WRITE, self)
        if not events & selectors.EVENT_WRITE:
            return
        if not self.pending and self.left is not None:
            self.pending = self.flood[: self.left]
            self.left -= len(self.pending)
        elif not self.pending:
            self.pending = self.flood
        if self.pending:
            self.pending = self.pending[self.stream.send(self.pending) :]
        if not self.pending and (self.left == 0 or not self.flood):
            selector.modify(self.stream, selectors.EVENT_READ, self)


def run(neighbours, port, begun):
    """All of them, for ever."""
    with contextlib.suppress(OSError):
        # The small clients come first on the processor that they share: the fairness of the server is measured.
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    room = bytearray(1 << 20)
    with selectors.DefaultSelector() as selector:
        for neighbour in neighbours:
            neighbour.connect(port, selector)
        start = time.monotonic()
        while True:
            for key, events in selector.select(0.1):
                try:
                    key.data.proceed(events, room, selector)
                except BlockingIOError:
                    pass
                except OSError:
                    key.data.connect(port, selector)
            if time.monotonic() - start > 0.3:
                begun.set()


def chunk_floods(port, begun, count=20):
    """Bodies of one-byte chunks that never end."""
    head = b"POST /" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    run([Neighbour(head, b"1\r\nx\r\n" * 10_000) for _ in range(count)], port, begun)


def uploads(port, begun, count=4):
    """Bodies of one gibibyte, one after the other."""
    head = b"POST /" + HOST + b"Content-Length: %d\r\n\r\n" % GIB
    run([Neighbour(head, b"x" * (1 << 20), GIB) for _ in range(count)], port, begun)


def downloads(port, begun, count=4):
    """Files of one gibibyte, read as fast as they come. The connection is closed with the answer, and opened again."""
    head = b"GET /file" + HOST + b"Connection: close\r\n\r\n"
    run([Neighbour(head, b"") for _ in range(count)], port, begun)


def pipelines(port, begun, count=4):
    """Requests that are sent ahead without end."""
    run([Neighbour(b"", (b"GET /" + HOST + b"\r\n") * 1000) for _ in range(count)], port, begun)


def heads(port, begun, count=100):
    """Heads that never end, in fields of eight kilobytes."""
    flood = b"".join(b"X-%d: %s\r\n" % (n, b"x" * 8000) for n in range(10))
    run([Neighbour(b"GET /" + HOST, flood) for _ in range(count)], port, begun)


def drips(port, begun, count=200):
    """Heads that come a byte at a time, a thousand bytes a second each, as far as this process can."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    streams = {}
    while True:
        for number in range(count):
            try:
                if number not in streams:
                    streams[number] = socket.create_connection(("127.0.0.1", port), 1)
                    streams[number].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    streams[number].sendall(b"GET /" + HOST + b"X: ")
                streams[number].send(b"x")
            except OSError:
                with contextlib.suppress(KeyError):
                    streams.pop(number).close()
        begun.set()
        time.sleep(0.001)


def comers(port, begun, count=16):
    """Connections of one request each, one after the other."""
    run([Neighbour(b"GET /" + HOST + b"Connection: close\r\n\r\n", b"") for _ in range(count)], port, begun)
