"""The clients of the soak: one class a kind of behaviour, each of which knows its right answers.

A client's `round` is the life of one connection, or of a few at once, and leaves none open: between two rounds the
server owes it nothing. Everything that comes is compared with what must come, byte for byte.
"""

import hashlib
import random
import select
import threading
import time
import traceback
from collections import Counter

from content import content
from wire import Wire, Wrong

# Seconds; the server is started with these. Small, so that the deadlines of slow clients come often.
HEADER_TIMEOUT, BODY_TIMEOUT, WRITE_TIMEOUT, KEEP_ALIVE = 2, 2, 3, 2
# How much later than it should a deadline may be noticed, on a machine with more to do than this.
LATE = 5
PATIENCE = 20


class Client:
    """One client. What it has counted is read only after it has come to rest."""

    kind = ""

    def __init__(self, port, seed):
        self.port, self.random = port, random.Random(f"{self.kind} {seed}")
        self.serial = seed * 1_000_000
        # Requests asked in full, answered in full, and asked but given up by this client itself.
        self.counts, self.failures = Counter(), []
        self.sent = self.received = self.rounds = 0

    def go_on(self, over):
        """Rounds until it is over, at least one. A failure is the end for all."""
        while True:
            try:
                self.round()
            except (OSError, Wrong, ValueError) as error:
                frame = traceback.extract_tb(error.__traceback__)[-1]
                self.failures.append(f"{self.kind}, round {self.rounds}: {error!r} (line {frame.lineno})")
                over.set()
            self.rounds += 1
            if over.is_set():
                return

    def round(self):
        raise NotImplementedError

    def connect(self, room=None):
        client = self

        class Counted(Wire):
            def __exit__(self, *_):
                client.sent += self.sent
                client.received += self.received
                super().__exit__()

        return Counted(self.port, room)

    def name(self, kind=None):
        """A name for the next request."""
        self.serial += 1
        return f"{kind or self.kind}/{self.serial}"

    def asked(self, kind=None, count=1):
        self.counts["asked", kind or self.kind] += count

    def gave_up(self, kind=None):
        self.counts["given up", kind or self.kind] += 1

    def take(self, wire, name, pieces, status=200, most=262144, pause=None):
        """One whole answer: `pieces` makes the expected bytes from offset and length."""
        found, fields = wire.head()
        if found != status or fields.get("x-request") != name:
            raise Wrong(f"status {found}, fields {fields} for {name}")
        at = 0
        for piece in wire.body(fields, most):
            if piece != pieces(at, len(piece)):
                raise Wrong(f"other bytes at {at} of {name}: {piece[:100]!r}")
            at += len(piece)
            if pause:
                pause()
        if pieces(at, 1):
            raise Wrong(f"{name} ends at {at}")
        self.counts["answered", name.partition("/")[0]] += 1
        return fields


def exactly(body):
    """Expected: these bytes."""
    return lambda at, length: body[at : at + length]


def made(name, size):
    """Expected: what the application makes for a name."""
    start = int(name.rpartition("/")[2])
    return lambda at, length: content(start + at, min(length, size - at)) if at < size else b""


def hello(name):
    return exactly(f"hello {name}\n".encode())


def echo(body):
    return exactly(f"{len(body)} {hashlib.sha1(body).hexdigest()}".encode())


def get(path, fields="", version="1.1"):
    return f"GET /{path} HTTP/{version}\r\nHost: soak\r\n{fields}\r\n".encode()


def post(path, body):
    return f"POST /{path} HTTP/1.1\r\nHost: soak\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def post_chunked(path, body, draw):
    """With chunks of any size, extensions and all."""
    parts, at = [f"POST /{path} HTTP/1.1\r\nHost: soak\r\nTransfer-Encoding: chunked\r\n\r\n".encode()], 0
    while at < len(body):
        size = draw.choice((1, 100, 4096, 65536, 300_000))
        chunk = body[at : at + size]
        parts.append(b"%x%s\r\n%s\r\n" % (len(chunk), draw.choice((b"", b";a=b")), chunk))
        at += len(chunk)
    return b"".join([*parts, b"0\r\n", draw.choice((b"", b"X-Trailer: t\r\n")), b"\r\n"])


class Kept(Client):
    kind = "kept"

    def round(self):
        with self.connect() as wire:
            for _ in range(self.random.randint(1, 200)):
                name = self.name()
                wire.send(get(f"hello/{name}"))
                self.asked()
                self.take(wire, name, hello(name))
                wire.expect_silence()


class Pipelined(Client):
    """Many requests in one piece, or in pieces cut anywhere; the answers come in their order."""

    kind = "pipelined"

    def round(self):
        with self.connect() as wire:
            for _ in range(self.random.randint(1, 10)):
                data, due = b"", []
                for _ in range(self.random.randint(2, 32)):
                    name = self.name()
                    if self.random.random() < 0.7:
                        data += get(f"hello/{name}")
                        due.append((name, hello(name)))
                    else:
                        body = content(self.serial, self.random.randint(0, 300))
                        data += post(f"echo/{name}", body)
                        due.append((name, echo(body)))
                cut = self.random.randint(0, len(data))
                wire.send(data[:cut])
                wire.send(data[cut:])
                self.asked(count=len(due))
                for name, expected in due:
                    self.take(wire, name, expected)
                wire.expect_silence()


class Uploads(Client):
    """Bodies, by length and in chunks, that come back."""

    most = 0

    def size(self):
        raise NotImplementedError

    def round(self):
        with self.connect() as wire:
            for _ in range(self.random.randint(1, self.most)):
                name, body = self.name(), content(self.serial, self.size())
                if self.random.random() < 0.5:
                    wire.send(post(f"echo/{name}", body))
                else:
                    wire.send(post_chunked(f"echo/{name}", body, self.random))
                self.asked()
                self.take(wire, name, echo(body))


class Small(Uploads):
    """Tiny bodies."""

    kind, most = "small", 50

    def size(self):
        return self.random.choice((0, 1, 17, 1000))


class Huge(Uploads):
    """Bodies of megabytes, most of which the server must spool."""

    kind, most = "huge", 3

    def size(self):
        return self.random.randint(1 << 20, 8 << 20)


class Streamed(Client):
    """Generators, of chunks small and large."""

    kind = "streamed"

    def round(self):
        with self.connect() as wire:
            for _ in range(self.random.randint(1, 10)):
                name = self.name()
                chunk = self.random.choice((10, 1000, 20_000, 400_000))
                size = self.random.randint(0, min(200 * chunk, 2 << 20))
                wire.send(get(f"stream/{name}/{size}/{chunk}"))
                self.asked()
                fields = self.take(wire, name, made(name, size))
                if size and fields.get("transfer-encoding") != "chunked":
                    raise Wrong(f"a stream framed by {fields}")


class Slow(Client):
    """Takes its time over a large answer, with little room: the server has to keep the rest."""

    what, chunk = "", ""

    def round(self):
        with self.connect(room=32768) as wire:
            name, size = self.name(), self.random.randint(1 << 20, 6 << 20)
            wire.send(get(f"{self.what}/{name}/{size}{self.chunk}"))
            self.asked()
            # Slow is what it is; nothing is waited for.
            self.take(wire, name, made(name, size), most=65536, pause=lambda: time.sleep(0.005))


class SlowLarge(Slow):
    kind, what = "slow-large", "large"


class SlowFile(Slow):
    kind, what = "slow-file", "file"


class SlowStreamed(Slow):
    kind, what, chunk = "slow-streamed", "stream", "/100000"


class Close(Client):
    """One request, after which the server shall close."""

    kind = "close"

    def round(self):
        for _ in range(self.random.randint(1, 20)):
            with self.connect() as wire:
                name = self.name()
                wire.send(get(f"hello/{name}", "Connection: close\r\n"))
                self.asked()
                if self.take(wire, name, hello(name)).get("connection") != "close":
                    raise Wrong("an end that is not announced")
                wire.expect_end()


class OneZero(Client):
    """HTTP/1.0: no chunks, and the end of the connection is the end of a stream."""

    kind = "one-zero"

    def round(self):
        for _ in range(self.random.randint(1, 10)):
            with self.connect() as wire:
                name, size = self.name(), self.random.choice((0, 1, 1000, 300_000))
                wire.send(get(f"stream/{name}/{size}/50000", version="1.0"))
                self.asked()
                if "transfer-encoding" in self.take(wire, name, made(name, size)):
                    raise Wrong("chunks for HTTP/1.0")
                wire.expect_end()


class HalfClosed(Client):
    """Ends its own side behind its requests. It has asked, and is answered."""

    kind = "half-closed"

    def round(self):
        with self.connect() as wire:
            form = self.random.choice(("get", "several", "post", "chunked", "large", "stream"))
            name = self.name()
            body, size = content(self.serial, self.random.choice((0, 10, 200_000))), 2 << 20
            due = [(name, echo(body))]
            if form == "get":
                data, due = get(f"hello/{name}"), [(name, hello(name))]
            elif form == "several":
                names = [self.name() for _ in range(self.random.randint(2, 20))]
                data = b"".join(get(f"hello/{name}") for name in names)
                due = [(name, hello(name)) for name in names]
            elif form == "post":
                data = post(f"echo/{name}", body)
            elif form == "chunked":
                data = post_chunked(f"echo/{name}", body, self.random)
            elif form == "large":
                data, due = get(f"large/{name}/{size}"), [(name, made(name, size))]
            else:
                data, due = get(f"stream/{name}/{size}/30000"), [(name, made(name, size))]
            wire.send(data)
            wire.end()
            self.asked(count=len(due))
            for name, expected in due:
                self.take(wire, name, expected)
            wire.expect_end()


class Late(Client):
    """A head, and then a body, in pieces over a while, but always with progress."""

    kind = "late"

    def round(self):
        with self.connect() as wire:
            name, body = self.name(), content(self.serial, 1000)
            data = post(f"echo/{name}", body)
            for at in range(0, len(data), 250):
                wire.send(data[at : at + 250])
                # All of the head is in the first piece. Slow is what it is; nothing is waited for.
                time.sleep(0.2)
            self.asked()
            self.take(wire, name, echo(body))


class Reset(Client):
    """Resets the connection wherever it is: in a head, in a body, in an answer, or before there is any."""

    kind = "reset-answer"

    def round(self):
        for _ in range(self.random.randint(1, 10)):
            with self.connect() as wire:
                where = self.random.choice(("head", "body", "answer", "answer", "answer"))
                getattr(self, where)(wire)
                wire.reset()

    def head(self, wire):
        data = get(f"hello/{self.name('reset-head')}")
        wire.send(data[: self.random.randint(0, len(data) - 1)])
        self.gave_up("reset-head")

    def body(self, wire):
        body = content(0, self.random.choice((2, 1000, 500_000)))
        data = post(f"echo/{self.name('reset-body')}", body)
        wire.send(data[: -self.random.randint(1, len(body))])
        self.gave_up("reset-body")

    def answer(self, wire):
        what = self.random.choice(("hello/{}", "large/{}/3000000", "file/{}/3000000", "stream/{}/3000000/50000"))
        wire.send(get(what.format(self.name())))
        self.gave_up()
        left = self.random.choice((0, 1, 100, 70_000, 1_000_000))
        if left and not what.startswith("hello"):
            for _ in wire.pieces(left):
                pass


class Stalled(Client):
    """Takes the head of a large answer and nothing more; the server must cut it off, and does so by a reset."""

    kind = "stalled"

    def round(self):
        with self.connect(room=4096) as wire:
            what = self.random.choice(("large", "file"))
            begun = time.monotonic()
            wire.send(get(f"{what}/{self.name()}/8000000"))
            self.gave_up()
            status, _ = wire.head()
            if status != 200:
                raise Wrong(f"status {status}")
            poll = select.poll()
            # poll(2) always reports a reset; readable bytes are not requested.
            poll.register(wire.socket, 0)
            if not poll.poll(1000 * (WRITE_TIMEOUT + LATE)):
                raise Wrong("a client that takes nothing is not cut off")
            if time.monotonic() - begun < WRITE_TIMEOUT - 0.1:
                raise Wrong(f"cut off after {time.monotonic() - begun:.2f} s")


class Loris(Client):
    """Connections that keep the server waiting, several at once; each must be ended at its deadline, not before."""

    kind = "loris-head"

    def round(self):
        # Before all that starts a clock of the server: an accept, a last byte.
        begun = time.monotonic()
        silent, dripping, upload, idle = (self.connect() for _ in range(4))
        with silent, dripping, upload, idle:
            name = self.name("loris-idle")
            idle.send(get(f"hello/{name}"))
            self.asked("loris-idle")
            self.take(idle, name, hello(name))
            dripping.send(get(f"hello/{self.name()}")[:-2] + b"X-Drip: ")
            self.gave_up()
            upload.send(post(f"echo/{self.name('loris-body')}", b"x" * 100)[:-50])
            self.gave_up("loris-body")
            self.drip(dripping)
            for wire, limit, status in (
                (silent, HEADER_TIMEOUT, None),
                (dripping, HEADER_TIMEOUT, 408),
                (upload, BODY_TIMEOUT, 408),
                (idle, KEEP_ALIVE, None),
            ):
                if status:
                    found, fields = wire.head()
                    if found != status:
                        raise Wrong(f"status {found} at a deadline")
                    b"".join(wire.body(fields))
                wire.expect_end()
                took = time.monotonic() - begun
                if not limit - 0.1 < took < limit + LATE:
                    raise Wrong(f"a deadline of {limit} s came after {took:.2f} s")

    @staticmethod
    def drip(wire):
        """A byte every now and then, until the server has had enough."""
        until = time.monotonic() + HEADER_TIMEOUT + LATE
        while not select.select([wire.socket], [], [], 0.1)[0] and time.monotonic() < until:
            wire.send(b"x")


class Garbage(Client):
    """What is no request is refused, alone or behind a good one, and the connection ends."""

    kind = "garbage"
    forms = (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 2000 + b"\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x10\r\n\r\n",
    )

    def round(self):
        for _ in range(self.random.randint(1, 10)):
            with self.connect() as wire:
                if self.random.random() < 0.3:
                    name = self.name("before-garbage")
                    wire.send(get(f"hello/{name}") + self.random.choice(self.forms))
                    self.asked("before-garbage")
                    self.take(wire, name, hello(name))
                elif self.random.random() < 0.5:
                    wire.send(self.random.choice(self.forms))
                else:
                    # No method begins with this byte, whatever follows.
                    wire.send(b"\xff" + self.random.randbytes(self.random.randint(1, 3000)) + b"\r\n\r\n")
                self.gave_up()
                status, fields = wire.head()
                if status not in (400, 414, 431, 505) or fields.get("connection") != "close":
                    raise Wrong(f"garbage is answered by {status}, {fields}")
                b"".join(wire.body(fields))
                wire.expect_end()


# How many of each. Those that only wait cost little; streams for slow readers keep a thread of the server each.
CROWD = (
    (Kept, 3), (Pipelined, 2), (Small, 2), (Huge, 2), (Streamed, 2), (SlowLarge, 2), (SlowFile, 1), (SlowStreamed, 2),
    (Close, 2), (OneZero, 1), (HalfClosed, 2), (Late, 2), (Reset, 2), (Stalled, 1), (Loris, 2), (Garbage, 2),
)  # fmt: skip


class Crowd:
    """All of them. It comes and goes as often as it is asked to, and counts on."""

    def __init__(self, port):
        kinds = [kind for kind, count in CROWD for _ in range(count)]
        self.clients = [kind(port, seed) for seed, kind in enumerate(kinds)]
        self.seconds = 0.0

    def stay(self, seconds):
        """Each client begins round after round for so long, and ends its last one."""
        over, begun = threading.Event(), time.monotonic()
        threads = [threading.Thread(target=client.go_on, args=(over,), daemon=True) for client in self.clients]
        for thread in threads:
            thread.start()
        over.wait(seconds)
        over.set()
        for thread in threads:
            thread.join(4 * PATIENCE)
            assert not thread.is_alive(), "a client has not come back"
        self.seconds += time.monotonic() - begun

    @property
    def failures(self):
        return [failure for client in self.clients for failure in client.failures]

    @property
    def counts(self):
        """By what came of it, and kind."""
        return sum((client.counts for client in self.clients), Counter())

    @property
    def moved(self):
        """Bytes, both ways."""
        return sum(client.sent + client.received for client in self.clients)
