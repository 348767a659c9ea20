"""The objects that hooks get: `server` and `worker`, with the attributes of gunicorn's that configurations use."""

import os
import socket
import tempfile
import time
from typing import Any, Callable, Dict, List, Optional, Tuple


class Listener:
    """A socket that the worker accepts from. Its descriptor belongs to mcsup, which closes it."""

    def __init__(self, descriptor: int, url: str) -> None:
        self._descriptor = descriptor
        self._url = url

    def __str__(self) -> str:
        return self._url

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def __getattr__(self, name: str) -> Any:
        """The attributes of `socket.socket`, of a copy that is open for the time of a call."""
        if name.startswith("_") or name in ("close", "detach", "shutdown", "accept"):
            raise AttributeError(f"a listener has no attribute {name!r}")
        value = self._on_a_copy(lambda copy: getattr(copy, name))
        if not callable(value):
            return value
        return lambda *args: self._on_a_copy(lambda copy: getattr(copy, name)(*args))

    def _on_a_copy(self, act: Callable[[socket.socket], Any]) -> Any:
        with socket.socket(fileno=os.dup(self._descriptor)) as copy:
            return act(copy)


class Heartbeat:
    """The value of `worker.tmp`."""

    def __init__(self, beat: Callable[[], None]) -> None:
        self._beat = beat
        self._last = time.monotonic()
        self._file: Optional[Any] = None

    def notify(self) -> None:
        """Shows a sign of life."""
        self._last = time.monotonic()
        self._beat()

    def last_update(self) -> float:
        """The time of the last call of `notify`, of `time.monotonic()`."""
        return self._last

    def fileno(self) -> int:
        """The descriptor of a file without a name. mcsup has no use for it."""
        if self._file is None:
            self._file = tempfile.TemporaryFile()
        return int(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()


class App:
    """The value of `worker.app`."""

    def __init__(self, cfg: Any, name: str) -> None:
        self.cfg = cfg
        self.app_uri = name
        self.callable: Any = None

    def wsgi(self) -> Any:
        """The application; None before it is loaded."""
        return self.callable


class Server:
    """The arbiter as a worker sees it."""

    def __init__(self, cfg: Any, log: Any, sockets: List[Listener], app: App, age: int) -> None:
        self.cfg = cfg
        self.log = log
        self.app = app
        self.pid = os.getppid()
        self.master_pid = 0
        self.reexec_pid = 0
        self.worker_age = age
        self.num_workers = cfg.workers
        self.timeout = cfg.timeout
        self.proc_name = cfg.proc_name
        self.address = cfg.address
        self.pidfile: Optional[str] = cfg.pidfile
        self.LISTENERS = sockets
        # The other workers are not known here.
        self.WORKERS: Dict[int, "Worker"] = {}

    def __str__(self) -> str:
        return f"<Arbiter {self.pid}>"


class Worker:
    """This worker."""

    def __init__(
        self,
        age: int,
        sockets: List[Listener],
        app: App,
        cfg: Any,
        log: Any,
        acts: Tuple[Callable[[], None], Callable[[], None]],
    ) -> None:
        leave, beat = acts
        self._leave = leave
        self._alive = True
        self.age = age
        self.pid = os.getpid()
        self.ppid = os.getppid()
        self.sockets = sockets
        self.app = app
        self.wsgi: Any = None
        self.cfg = cfg
        self.log = log
        self.timeout = cfg.timeout / 2
        self.worker_connections: int = cfg.worker_connections
        self.booted = False
        self.aborted = False
        self.reloader = None
        self.nr = 0
        self.max_requests = cfg.max_requests or (1 << 63) - 1
        self.tmp = Heartbeat(beat)

    def __str__(self) -> str:
        return f"<Worker {self.pid}>"

    @property
    def alive(self) -> bool:
        """Whether the worker serves on. False asks for another worker in its place."""
        return self._alive

    @alive.setter
    def alive(self, value: bool) -> None:
        if self._alive and not value:
            self._leave()
        self._alive = bool(value)

    def is_parent_alive(self) -> bool:
        """Whether the supervisor is the parent of this process."""
        return os.getppid() == self.ppid

    def notify(self) -> None:
        """Shows a sign of life."""
        self.tmp.notify()

    def stop(self, aborted: bool = False) -> None:
        """Notes the end, which has been decided."""
        self._alive = False
        self.aborted = aborted

    def load(self, application: Any) -> None:
        """Notes the application, which hooks may wrap."""
        self.app.callable = application
        self.wsgi = application

    def loaded(self) -> Any:
        """The application as the hooks have left it."""
        self.booted = True
        wrapped = self.wsgi if self.wsgi is not None else self.app.callable
        if not callable(wrapped):
            raise TypeError(f"a hook has set worker.wsgi to a {type(wrapped).__name__}, which cannot be called")
        return wrapped
