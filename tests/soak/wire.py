"""The client's side of a connection: bytes out, lines, heads and bodies in."""

import select
import socket
import struct

PATIENCE = 20


class Wrong(Exception):
    """An answer is not what it must be."""


class Wire:
    """A connection, and what is left of its bytes."""

    def __init__(self, port, room=None):
        self.socket = socket.socket()
        if room:
            # Before connecting: the window that is announced depends on it.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.left, self.sent, self.received = b"", 0, 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)
        self.sent += len(data)

    def end(self):
        """Say that no more will be sent."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self):
        """Close so that the server gets a reset, whatever is on its way."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def receive(self, most=262144):
        """A piece; empty at the end."""
        piece = self.socket.recv(most)
        self.received += len(piece)
        return piece

    def line(self):
        while b"\r\n" not in self.left:
            piece = self.receive(65536)
            if not piece:
                raise Wrong(f"the end after {self.left[:200]!r}, where a line was due")
            self.left += piece
        line, _, self.left = self.left.partition(b"\r\n")
        return line

    def pieces(self, count, most=262144):
        """The next `count` bytes, as they come."""
        while count:
            piece, self.left = self.left[:count], self.left[count:]
            piece = piece or self.receive(min(most, count))
            if not piece:
                raise Wrong(f"the end with {count} bytes due")
            count -= len(piece)
            yield piece

    def head(self):
        """Status and fields."""
        status = self.line()
        if not status.startswith(b"HTTP/1.1 "):
            raise Wrong(f"no status line: {status[:200]!r}")
        fields = {}
        while line := self.line():
            name, _, value = line.partition(b": ")
            fields[name.lower().decode()] = value.decode()
        return int(status[9:12]), fields

    def body(self, fields, most=262144):
        """The pieces of a body, by whichever framing the head announced."""
        if "content-length" in fields:
            yield from self.pieces(int(fields["content-length"]), most)
        elif fields.get("transfer-encoding") == "chunked":
            while size := int(self.line(), 16):
                yield from self.pieces(size, most)
                self.expect(b"")
            self.expect(b"")
        else:
            while piece := self.left or self.receive(most):
                self.left = b""
                yield piece

    def expect(self, line):
        found = self.line()
        if found != line:
            raise Wrong(f"{found[:200]!r} where {line!r} was due")

    def expect_end(self):
        """Nothing more comes, and the connection ends in order."""
        extra = self.left or self.receive()
        if extra:
            raise Wrong(f"more than was asked for: {extra[:200]!r}")

    def expect_silence(self):
        """No byte is here that no request asked for."""
        if self.left or select.select([self.socket], [], [], 0)[0]:
            raise Wrong(f"unasked for: {self.left[:200] or self.receive()[:200]!r}")
