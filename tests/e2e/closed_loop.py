"""Clients that send their next request when they have the answer to the last.

`python closed_loop.py PORT FRESH KEPT SEED [whole|plain|datagrams|jobs [FOLDER]]`: of the whole kind are requests with
bodies to APPLICATION, of the plain kind are GETs to any server, datagrams are answered by an echo, and jobs are files
NAME.job in a folder, whose result is NAME.done.

FRESH of them open a connection for each request, KEPT keep theirs until they receive `Connection: close`. Each answer is
compared with what it must be, byte for byte. Whatever goes wrong is noted with its time (CLOCK_MONOTONIC, which all
processes share) and the client's port, so that it can be laid at the door of a process that was killed, or cannot.

For each line on standard input there is one of JSON on standard output; at the end of input the clients finish what they
are at. A process of their own: they are independent of the process that drives the server.
"""

import hashlib
import json
import random
import select
import socket
import sys
import threading
import time
from pathlib import Path

PATIENCE = 30.0
# How long an answer to a datagram may take.
UNANSWERED = 5.0
# Some bodies stay in one packet, some in the server's memory, some go to its spool.
BODIES = (0, 10, 3_000, 70_000, 300_000)
LARGE_BODY = 2_500_000
ANSWERS = (0, 100, 9_000, 200_000)
FILL = b"0123456789abcdef"

# What they ask. The path is /NUMBER/SIZE/MILLISECONDS; every other answer comes without a length, in pieces.
APPLICATION = """
import hashlib, os, time
FILL = b"0123456789abcdef"
def app(environ, start_response):
    if environ["PATH_INFO"] == "/pid":
        start_response("200 OK", [("Content-Length", str(len(str(os.getpid()))))])
        return [str(os.getpid()).encode()]
    number, size, milliseconds = map(int, environ["PATH_INFO"].strip("/").split("/"))
    body = environ["wsgi.input"].read()
    time.sleep(milliseconds / 1000)
    head = f"{environ['REQUEST_METHOD']} {number} {len(body)} {hashlib.sha1(body).hexdigest()} ".encode()
    fill = FILL * (size // len(FILL))
    headers = [("X-Pid", str(os.getpid()))]
    if number % 2:
        start_response("200 OK", headers)
        return (piece for piece in (head, fill[:100], fill[100:]))
    start_response("200 OK", [*headers, ("Content-Length", str(len(head) + len(fill)))])
    return [head + fill]
"""


class Broken(Exception):
    """A request that was not answered as it must be."""


class Loop(threading.Thread):
    """One client."""

    def __init__(self, crowd, index, keeps, seed):
        super().__init__(daemon=True)
        self.crowd, self.index, self.keeps = crowd, index, keeps
        self.random = random.Random(f"{seed}/{index}")
        self.socket, self.left = None, b""
        self.port = self.pid = None
        self.nth = self.answered = self.lost_idle = 0
        self.slowest = (0.0, 0.0)
        # To find the reason of a hang: since when, on which port, with which worker, at what.
        self.doing = None

    def run(self):
        while not self.crowd.stopping.is_set():
            begun = time.monotonic()
            try:
                self.ask()
            except (OSError, ValueError, Broken) as error:
                self.crowd.fail(self, begun, error)
                self.close()
            self.slowest = max(self.slowest, (time.monotonic() - begun, begun))
            # Sometimes without a pause, sometimes idle for a while.
            if self.random.random() < 0.7:
                time.sleep(self.random.random() * 0.01)
        self.close()

    def close(self):
        if self.socket is not None:
            self.socket.close()
        self.socket, self.left, self.pid, self.nth = None, b"", None, 0

    def connect(self):
        if self.socket is not None and self.is_lost():
            # Nothing was sent on it since the last answer: no request is lost.
            self.lost_idle += 1
            self.close()
        if self.socket is None:
            self.port = None
            self.socket = socket.create_connection(("127.0.0.1", self.crowd.port), timeout=PATIENCE)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.port = self.socket.getsockname()[1]

    def is_lost(self):
        """Whether the server has closed between two requests."""
        if not select.select([self.socket], [], [], 0)[0]:
            return False
        try:
            return self.socket.recv(1, socket.MSG_PEEK) == b""
        except OSError:
            return True

    def ask(self):
        number = self.random.randrange(1 << 30)
        size = self.random.choice(ANSWERS) // len(FILL) * len(FILL)
        wait = self.random.choice((5, 30)) if self.random.random() < 0.05 else 0
        body, method = b"", "GET"
        if self.random.random() < 0.4:
            large = self.random.random() < 0.02
            body = self.crowd.noise[: LARGE_BODY if large else self.random.choice(BODIES)]
            method = "POST"
        head = f"{method} /{number}/{size}/{wait} HTTP/1.1\r\nHost: x\r\n"
        if method == "POST":
            head += f"Content-Length: {len(body)}\r\n"
        if not self.keeps:
            head += "Connection: close\r\n"
        self.connect()
        self.nth += 1
        self.doing = (time.monotonic(), self.port, self.pid, head.splitlines()[0], len(body))
        self.socket.sendall(head.encode() + b"\r\n" + body)
        answer, closes = self.answer()
        digest = self.crowd.digest(len(body))
        expected = f"{method} {number} {len(body)} {digest} ".encode()
        if answer[: len(expected)] != expected or answer[len(expected) :] != FILL * (size // len(FILL)):
            raise Broken(f"another answer than it must be: {answer[:120]!r}, {len(answer)} bytes")
        self.answered += 1
        self.doing = None
        if closes or not self.keeps:
            if not closes:
                raise Broken("the answer to Connection: close keeps the connection open")
            if self.left or self.socket.recv(1):
                raise Broken("more than the answer")
            self.close()

    def answer(self):
        """The body of the next answer, and whether the connection ends with it."""
        head = self.until(b"\r\n\r\n").decode("latin-1")
        status, *lines = head.split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if not status.startswith("HTTP/1.1 200 "):
            raise Broken(f"{status} {fields}")
        self.pid = fields.get("x-pid")
        closes = fields.get("connection", "").lower() == "close"
        if fields.get("transfer-encoding", "").lower() == "chunked":
            pieces = []
            while size := int(self.until(b"\r\n"), 16):
                pieces.append(self.exactly(size))
                self.exactly(2)
            self.exactly(2)
            return b"".join(pieces), closes
        return self.exactly(int(fields["content-length"])), closes

    def more(self):
        piece = self.socket.recv(262144)
        if not piece:
            raise Broken(f"the end of the connection where an answer was due, after {self.left[:80]!r}")
        self.left += piece

    def until(self, end):
        while end not in self.left:
            self.more()
        line, _, self.left = self.left.partition(end)
        return line

    def exactly(self, count):
        while len(self.left) < count:
            self.more()
        piece, self.left = self.left[:count], self.left[count:]
        return piece


class Plain(Loop):
    """One client of any HTTP server: the answer is a 200 with its whole body."""

    def ask(self):
        close = "" if self.keeps else "Connection: close\r\n"
        self.connect()
        self.nth += 1
        self.doing = (time.monotonic(), self.port, self.pid)
        self.socket.sendall(f"GET / HTTP/1.1\r\nHost: x\r\n{close}\r\n".encode())
        _, closes = self.answer()
        self.answered += 1
        self.doing = None
        if closes or not self.keeps:
            self.close()


class Datagrams(Loop):
    """One client of an echo of datagrams."""

    def ask(self):
        if self.socket is None:
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.socket.settimeout(UNANSWERED)
            self.socket.connect(("127.0.0.1", self.crowd.port))
            self.port = self.socket.getsockname()[1]
        self.nth += 1
        sent = f"{self.index} {self.nth}".encode()
        self.doing = (time.monotonic(), self.port, self.nth)
        self.socket.send(sent)
        while (answer := self.socket.recv(65536)) != sent:
            # An answer to an earlier one, which was noted as unanswered when its time was over.
            if int(answer.split()[1]) >= self.nth:
                raise Broken(f"another answer than {sent!r}: {answer!r}")
        self.answered += 1
        self.doing = None


class Jobs(Loop):
    """One client of workers that take files from a folder."""

    def ask(self):
        self.nth += 1
        name = self.crowd.folder / f"{self.index}-{self.nth}"
        self.doing = (time.monotonic(), None, name.name)
        name.with_suffix(".new").write_text(f"job {name.name}")
        name.with_suffix(".new").rename(name.with_suffix(".job"))
        done, deadline = name.with_suffix(".done"), time.monotonic() + PATIENCE
        while not done.exists():
            if time.monotonic() > deadline:
                raise Broken(f"no result of {name.name}")
            time.sleep(0.01)
        if done.read_text() != f"JOB {name.name}":
            raise Broken(f"another result of {name.name}: {done.read_text()!r}")
        self.answered += 1
        self.doing = None


KINDS = {"whole": Loop, "plain": Plain, "datagrams": Datagrams, "jobs": Jobs}


class Crowd:
    """All of them."""

    def __init__(self, port, fresh, kept, seed, kind="whole", folder="."):
        self.folder = Path(folder)
        self.port, self.stopping, self.failures = port, threading.Event(), []
        self.noise = random.Random(seed).randbytes(LARGE_BODY)
        self.digests, self.lock = {}, threading.Lock()
        self.loops = [KINDS[kind](self, index, index >= fresh, seed) for index in range(fresh + kept)]

    def digest(self, length):
        if length not in self.digests:
            self.digests[length] = hashlib.sha1(self.noise[:length]).hexdigest()
        return self.digests[length]

    def fail(self, loop, begun, error):
        with self.lock:
            self.failures.append(
                {
                    "begun": begun, "at": time.monotonic(), "port": loop.port, "pid": loop.pid, "nth": loop.nth,
                    "client": loop.index, "keeps": loop.keeps, "error": f"{type(error).__name__}: {error}",
                }
            )  # fmt: skip

    def picture(self):
        """What has happened so far; the slowest request is that since the last picture."""
        slowest = max(loop.slowest for loop in self.loops)
        for loop in self.loops:
            loop.slowest = (0.0, 0.0)
        return {
            "answered": [loop.answered for loop in self.loops],
            "busy": [loop.doing for loop in self.loops],
            "lost_idle": sum(loop.lost_idle for loop in self.loops),
            "slowest": slowest,
            "failures": list(self.failures),
        }


def main():
    crowd = Crowd(*map(int, sys.argv[1:5]), *sys.argv[5:])
    for loop in crowd.loops:
        loop.start()
    for _ in sys.stdin:
        print(json.dumps(crowd.picture()), flush=True)
    crowd.stopping.set()
    for loop in crowd.loops:
        loop.join(PATIENCE)
    picture = crowd.picture()
    picture["hung"] = sum(loop.is_alive() for loop in crowd.loops)
    print(json.dumps(picture), flush=True)


if __name__ == "__main__":
    main()
