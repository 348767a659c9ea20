"""The clients: wrk, clients that keep a pace, and those that hold a server up.

Each load returns the requests that were answered, those a second, the median and the 99th percentile in milliseconds,
and the errors. wrk asks again when it has its answer, so that its percentiles do not know of the requests that a client
could not send meanwhile; clients that keep a pace count from when a request was due, and take one without an answer for
an error that took as long as they waited.
"""

import contextlib
import heapq
import multiprocessing
import re
import selectors
import socket
import subprocess
import time

NEVER = float("inf")
UNITS = {"us": 0.001, "ms": 1, "s": 1000, "m": 60000}


def wrk(port, seconds, connections, headers=(), script=None):
    """As fast as the answers come."""
    words = [word for header in headers for word in ("-H", header)]
    words += ["-s", script] if script else []
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--latency", *map(str, words)]
    text = subprocess.run([*command, f"http://127.0.0.1:{port}/"], capture_output=True, text=True, check=True).stdout
    requests = int(re.search(r"(\d+) requests in", text)[1])

    def latency(percent):
        number, unit = re.search(rf"{percent}%\s+([\d.]+)(us|ms|s|m)\b", text).groups()
        return float(number) * UNITS[unit] if requests else NEVER

    errors = sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", text)))
    errors += sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", text)))
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", text)[1])
    return {"requests": requests, "rps": rate, "p50": latency(50), "p99": latency(99), "errors": errors}


class Client:
    """One that asks for six bytes at its own pace, on one connection or on a new one each time."""

    def __init__(self, port, selector, due, keep):
        self.port, self.selector, self.due = port, selector, due
        self.request = b"GET / HTTP/1.1\r\nHost: h\r\n" + (b"" if keep else b"Connection: close\r\n") + b"\r\n"
        self.stream, self.busy, self.answer = None, False, b""

    def ask(self):
        """Send, or connect first."""
        self.busy, self.answer = True, b""
        if self.stream:
            self.stream.send(self.request)
        else:
            self.stream = socket.socket()
            self.stream.setblocking(False)
            self.stream.connect_ex(("127.0.0.1", self.port))
            self.selector.register(self.stream, selectors.EVENT_WRITE, self)

    def proceed(self, events):
        """Send when connected, receive: whether the answer is whole. Raises an OSError when there will be none."""
        if events & selectors.EVENT_WRITE:
            self.stream.send(self.request)
            self.selector.modify(self.stream, selectors.EVENT_READ, self)
            return False
        piece = self.stream.recv(65536)
        self.answer += piece
        if self.answer.endswith(b"\r\n\r\nhello\n"):
            if not piece or b"connection: close" in self.answer.lower() or b"Connection: close" in self.request:
                self.leave()
            self.busy = False
            return True
        if not piece:
            raise ConnectionResetError
        return False

    def leave(self):
        """Close the connection."""
        if self.stream:
            with contextlib.suppress(KeyError):
                self.selector.unregister(self.stream)
            self.stream.close()
        self.stream, self.busy = None, False


def paced(port, seconds, clients=8, each=50, keep=True, new=0):
    """Clients that each ask `each` times a second, and if they must wait catch up afterwards.

    `new`: this number of them asks on new connections all the same.
    """
    took, errors = [], 0
    with selectors.DefaultSelector() as selector:
        start = time.monotonic()
        end = start + seconds
        everyone = [Client(port, selector, start + n / clients / each, keep and n >= new) for n in range(clients)]
        waiting = [(client.due, n) for n, client in enumerate(everyone)]
        heapq.heapify(waiting)
        while (waiting or any(client.busy for client in everyone)) and time.monotonic() < end + 2:
            now = time.monotonic()
            while waiting and waiting[0][0] <= now:
                client = everyone[heapq.heappop(waiting)[1]]
                with contextlib.suppress(OSError):  # The next receive tells.
                    client.ask()
            pause = max(waiting[0][0] - now, 0) if waiting else 0.1
            for key, events in selector.select(min(pause, 0.1)):
                client = key.data
                try:
                    if not client.busy:  # The server has closed a connection that it kept.
                        client.leave()
                        continue
                    if not client.proceed(events):
                        continue
                    took.append((time.monotonic() - client.due) * 1000)
                except OSError:
                    errors += 1
                    client.leave()
                client.due += 1 / each
                if client.due < end:
                    heapq.heappush(waiting, (client.due, everyone.index(client)))
        answered, gave_up = len(took), time.monotonic()
        # Those without an answer have waited for so long at least.
        for client in everyone:
            while client.due < end:
                took.append((gave_up - client.due) * 1000)
                client.due += 1 / each
            client.leave()
    took.sort()
    return {
        "requests": answered,
        "rps": answered / seconds,
        "p50": took[len(took) // 2],
        "p99": took[len(took) * 99 // 100],
        "worst": took[-1],
        "errors": errors + len(took) - answered,
    }


@contextlib.contextmanager
def beside(work, port):
    """A process that works meanwhile, and has begun to."""
    context = multiprocessing.get_context("fork")
    begun = context.Event()
    process = context.Process(target=work, args=(port, begun), daemon=True)
    process.start()
    try:
        begun.wait(5)
        yield
    finally:
        process.terminate()
        process.join()


def ask_for_a_slow_view(port, begun):
    """One request after another, each for a second's work, each on a connection of its own."""
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as stream:
            stream.sendall(b"GET /slow HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            begun.set()
            while stream.recv(65536):
                pass


def read_slowly(port, begun, count=100):
    """Clients that each take a kibibyte of their mebibyte every tenth of a second.

    They have begun when all have some of it, or after a second.
    """
    streams = []
    for _ in range(count):
        stream = socket.socket()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stream.setblocking(False)
        stream.connect_ex(("127.0.0.1", port))
        streams.append(stream)
    asked, served, since = set(), set(), time.monotonic()
    while True:
        for stream in streams:
            with contextlib.suppress(OSError):
                if stream not in asked:
                    stream.send(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n")
                    asked.add(stream)
                elif stream.recv(1024):
                    served.add(stream)
        if len(served) == count or time.monotonic() - since > 1:
            begun.set()
        time.sleep(0.1)


@contextlib.contextmanager
def idle(port, count=100):
    """Clients that have had one answer and stay. Yields a function: how many of them still may."""
    streams = []
    try:
        for _ in range(count):
            streams.append(socket.create_connection(("127.0.0.1", port), 1))
            streams[-1].sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        deadline = time.monotonic() + 2
        answered = []
        for stream in streams:
            stream.settimeout(max(deadline - time.monotonic(), 0.01))
            with contextlib.suppress(OSError):
                answer = stream.recv(4096)
                if b"connection: close" in answer.lower():
                    stream.close()
                elif answer:
                    answered.append(stream)
        yield lambda: sum(map(is_open, answered))
    finally:
        for stream in streams:
            stream.close()


def is_open(stream):
    """Whether the server has not closed a connection. Takes what has come."""
    stream.setblocking(False)
    try:
        while stream.recv(4096):
            pass
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False
