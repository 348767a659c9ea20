"""The socket of a connection whose client asks for another protocol, in the environ of its request."""

import os
import socket
import threading
import weakref
from collections.abc import Callable

# A forked process must not keep the connection open that this process ends.
_unused: weakref.WeakSet["SwitchingSocket"] = weakref.WeakSet()


def _close_unused() -> None:
    for unused in _unused:
        unused._end_unused()


os.register_at_fork(after_in_child=_close_unused)


class SwitchingSocket(socket.socket):
    """A socket whose first use takes the connection from the server, which sends nothing on it from then on."""

    def __init__(self, descriptor: int, take: Callable[[], bytes] | None, received: bytearray | None = None) -> None:
        super().__init__(fileno=descriptor)
        self._take_connection = take
        self._taking = threading.Lock()
        # The server may have received a part of the other protocol behind the request. Duplicates share it.
        self._received = bytearray() if received is None else received
        if take is not None:
            _unused.add(self)

    def _use(self) -> None:
        if self._take_connection is None:
            return
        with self._taking:
            if self._take_connection is not None:
                self._received += self._take_connection()
                # The server's own descriptor has made the socket non-blocking.
                super().settimeout(super().gettimeout())
                self._take_connection = None
                _unused.discard(self)

    def _end_unused(self) -> None:
        """Close the socket behind a request that did not use it, or in a forked process."""
        if self._take_connection is not None:
            super(socket.socket, self).close()

    def _from_received(self, size: int, flags: int) -> bytes:
        piece = bytes(self._received[:size])
        if not flags & socket.MSG_PEEK:
            del self._received[:size]
        return piece

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        self._use()
        return self._from_received(bufsize, flags) if self._received else super().recv(bufsize, flags)

    def recv_into(self, buffer, nbytes: int = 0, flags: int = 0) -> int:
        self._use()
        if not self._received:
            return super().recv_into(buffer, nbytes, flags)
        with memoryview(buffer) as view, view.cast("B") as room:
            piece = self._from_received(nbytes or len(room), flags)
            room[: len(piece)] = piece
        return len(piece)

    def recvfrom(self, bufsize: int, flags: int = 0):
        return self.recv(bufsize, flags), None

    def recvfrom_into(self, buffer, nbytes: int = 0, flags: int = 0):
        return self.recv_into(buffer, nbytes, flags), None

    def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0):
        return self.recv(bufsize, flags), [], 0, None

    def recvmsg_into(self, buffers, ancbufsize: int = 0, flags: int = 0):
        count = 0
        for buffer in buffers:
            # Only the first one waits.
            if count and not self._received:
                break
            count += self.recv_into(buffer, 0, flags)
        return count, [], 0, None

    def dup(self) -> "SwitchingSocket":
        self._use()
        copy = SwitchingSocket(os.dup(self.fileno()), None, self._received)
        copy.settimeout(self.gettimeout())
        return copy

    def __repr__(self) -> str:
        # The one of socket.socket asks for the descriptor.
        return f"<{type(self).__name__} {'unused' if self._take_connection else 'in use'}>"

    def __del__(self) -> None:
        # Nothing is wrong with an application that leaves the close to the server: no ResourceWarning.
        super(socket.socket, self).close()


def _taking(name: str):
    plain = getattr(socket.socket, name)

    def method(self, *args, **kwargs):
        self._use()
        return plain(self, *args, **kwargs)

    method.__name__ = name
    return method


for _name in ("send", "sendall", "sendto", "sendmsg", "sendfile", "shutdown", "fileno", "detach", "close"):
    setattr(SwitchingSocket, _name, _taking(_name))
for _name in ("settimeout", "setblocking", "makefile"):
    setattr(SwitchingSocket, _name, _taking(_name))
