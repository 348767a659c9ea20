"""A service manager of a test's own: it passes sockets, stores sockets, and records the messages that it gets."""

import array
import os
import select
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

from harness import MCSUP, PATIENCE, clean_environment, is_gone, wait_for

# A program that systemd executes has LISTEN_PID of its own process: a shell sets it for the one it executes.
AS_SYSTEMD = 'LISTEN_PID=$$ WATCHDOG_PID=$$ exec "$0" "$@"'


class ServiceManager:
    """It receives the messages of servers at a socket in `directory`."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.path = self.directory / "notify"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.messages = []
        self.senders = set()
        self.store = []
        self.servers = []
        # The kernel keeps ten messages for a receiver that is busy.
        self.lock, self.is_over = threading.Lock(), threading.Event()
        self.receiver = threading.Thread(target=self._receive, daemon=True)
        self.receiver.start()

    def _receive(self):
        while not self.is_over.is_set():
            select.select([self.socket], [], [], 0.1)
            self.receive()

    def environment(self, **extra):
        """The environment of a service, without sockets."""
        return clean_environment(NOTIFY_SOCKET=str(self.path), **extra)

    def start(self, *arguments, sockets=(), env=None, command=(MCSUP,)):
        """Start a service with the sockets (pairs of name and socket), and the stored ones behind them."""
        passed = [*sockets, *self.store]
        environment = self.environment(**(env or {}))
        if passed:
            environment["LISTEN_FDS"] = str(len(passed))
            environment["LISTEN_FDNAMES"] = ":".join(name for name, _ in passed)

        def arrange():
            # First above all numbers in use, so that no copy closes another one.
            high = [os.dup2(each.fileno(), 200 + index) for index, (_, each) in enumerate(passed)]
            for index, fd in enumerate(high):
                os.dup2(fd, 3 + index)

        server = Service(self, [*map(str, command), *map(str, arguments)], environment, arrange, len(passed))
        self.servers.append(server)
        return server

    def receive(self):
        """Receive all messages that have arrived."""
        with self.lock:
            self._receive_all()

    def _receive_all(self):
        while select.select([self.socket], [], [], 0)[0]:
            text, ancillary, _, _ = self.socket.recvmsg(65536, socket.CMSG_SPACE(4) + socket.CMSG_SPACE(12))
            fields = dict(line.split("=", 1) for line in text.decode().splitlines())
            for level, kind, data in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    self._keep(fields["FDNAME"], socket.socket(fileno=array.array("i", data)[0]))
                elif kind == socket.SCM_CREDENTIALS:
                    self.senders.add(array.array("i", data)[0])
            if "FDSTOREREMOVE" in fields:
                for name, each in self.store:
                    if name == fields["FDNAME"]:
                        each.close()
                self.store = [(name, each) for name, each in self.store if name != fields["FDNAME"]]
            fields["at"] = time.monotonic()
            self.messages.append(fields)

    def _keep(self, name, stored):
        """Store a socket, unless it is there: systemd compares what descriptors refer to."""
        inode = os.fstat(stored.fileno()).st_ino
        if any(os.fstat(other.fileno()).st_ino == inode for _, other in self.store):
            stored.close()
        else:
            self.store.append((name, stored))

    def wait(self, condition, what, since=0, patience=PATIENCE):
        """Wait for a message for which `condition` holds; return its number."""

        def found():
            self.receive()
            return [number for number, fields in enumerate(self.messages) if number >= since and condition(fields)]

        try:
            return wait_for(found, what, patience)[0]
        except AssertionError as error:
            log = "".join(server.log for server in self.servers)
            raise AssertionError(f"{error}; received: {self.messages}; the log:\n{log}") from None

    def wait_field(self, name, value="1", since=0, patience=PATIENCE):
        """Wait for a message with a field."""
        return self.wait(lambda fields: fields.get(name) == value, f"{name}={value}", since, patience)

    def wait_status(self, part, since=0, patience=PATIENCE):
        """Wait for a status with a text in it."""
        return self.wait(lambda fields: part in fields.get("STATUS", ""), f"a status with {part!r}", since, patience)

    def states(self, since=0):
        """The changes of state from message number `since` on."""
        self.receive()
        names = ("READY", "RELOADING", "STOPPING")
        return [name for fields in self.messages[since:] for name in names if fields.get(name) == "1"]

    def close(self):
        """End what is left."""
        self.is_over.set()
        self.receiver.join(PATIENCE)
        for server in self.servers:
            server.end()
        for _, each in self.store:
            each.close()
        self.socket.close()


class Service:
    """A started service."""

    def __init__(self, manager, words, environment, arrange, count):
        self.log_path = manager.directory / f"log-{time.monotonic_ns()}"
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                ["sh", "-c", AS_SYSTEMD, *words], cwd=manager.directory, env=environment, stdout=log, stderr=log,
                preexec_fn=arrange, pass_fds=range(3, 3 + count),
            )  # fmt: skip
        self.pid = self.process.pid

    @property
    def log(self):
        """All that it has logged."""
        return self.log_path.read_text(errors="replace")

    def signal(self, number):
        """Send it a signal."""
        self.process.send_signal(number)

    def wait(self, timeout=PATIENCE):
        """Wait for its end; return its exit code."""
        return self.process.wait(timeout)

    def stop(self):
        """Stop it as systemd does; return its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def end(self):
        """Kill it if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)
        wait_for(lambda: is_gone(self.pid), "its end")
