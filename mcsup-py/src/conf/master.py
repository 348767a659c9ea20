"""The hooks of gunicorn's master, in a process of their own beside the supervisor."""

import sys
from typing import Any, Callable, Dict, List, Optional, Tuple

# The hooks, each with the number of its arguments.
ARITIES: Dict[str, int] = {
    "on_starting": 1,
    "when_ready": 1,
    "on_reload": 1,
    "pre_fork": 2,
    "child_exit": 2,
    "nworkers_changed": 3,
    "pre_exec": 1,
    "on_exit": 1,
}


class Listener:
    """An address at which the pool listens. The socket itself is in the supervisor."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        return self.name

    def getsockname(self) -> Any:
        """The host and the port, or the path of a Unix socket."""
        if self.name.startswith("unix:"):
            return self.name[len("unix:") :]
        host, _, port = self.name.rpartition("://")[2].rpartition(":")
        return (host.strip("[]"), int(port)) if port.isdigit() else self.name


class Worker:
    """A worker of the pool, as far as the supervisor knows it."""

    def __init__(self, server: "Server", pid: int, age: int) -> None:
        self.pid = pid
        self.age = age
        self.ppid = server.pid
        self.cfg = server.cfg
        self.log = server.log
        self.app = server.app
        self.sockets = server.LISTENERS
        self.timeout = server.timeout / 2
        self.alive = True
        self.booted = False
        self.aborted = False
        self.nr = 0

    def __str__(self) -> str:
        return f"<Worker {self.pid}>"


class App:
    """The value of `server.app`."""

    def __init__(self, cfg: Any, name: str) -> None:
        self.cfg = cfg
        self.app_uri = name


class Server:
    """The object `server` of the hooks: the pool, with the attributes of gunicorn's arbiter that files use."""

    def __init__(self, cfg: Any, log: Any, facts: Dict[str, Any]) -> None:
        self.setup(cfg, log, App(cfg, facts["app"]))
        self.pid: int = facts["pid"]
        self.num_workers: int = facts["workers"]
        self.worker_age: int = facts["age"]
        self.master_pid = 0
        self.reexec_pid = 0
        self.LISTENERS = [Listener(name) for name in facts["listeners"]]
        self.WORKERS: Dict[int, Worker] = {}
        for pid, age in facts["living"]:
            self.WORKERS[pid] = Worker(self, pid, age)

    def setup(self, cfg: Any, log: Any, app: App) -> None:
        """Takes the settings, at the start and at a reload."""
        self.cfg = cfg
        self.log = log
        self.app = app
        self.timeout: int = cfg.timeout
        self.proc_name: str = cfg.proc_name
        self.address: List[Any] = cfg.address
        self.pidfile: Optional[str] = cfg.pidfile

    def __str__(self) -> str:
        return f"<Arbiter {self.pid}>"


class Master:
    """Calls the hooks at the events of the pool."""

    def __init__(self, namespace: Dict[str, Any], cfg: Any, log: Any, facts: Dict[str, Any]) -> None:
        self.hooks = hooks_of(namespace)
        self.server = Server(cfg, log, facts)
        # Those before the last reload.
        self.earlier: Optional[Tuple[Dict[str, Callable[..., Any]], Any, Any, App]] = None

    def keep(self) -> None:
        """Notes the hooks and settings before a reload, for its failure."""
        self.earlier = (self.hooks, self.server.cfg, self.server.log, self.server.app)

    def reload(self, namespace: Dict[str, Any], cfg: Any, log: Any, app: str) -> None:
        """Goes on with the hooks of another execution. The object `server` stays, with what hooks have stored in it."""
        self.hooks = hooks_of(namespace)
        self.server.setup(cfg, log, App(cfg, app))

    def restore(self) -> None:
        """Goes back to the hooks before the last reload."""
        if self.earlier is not None:
            self.hooks, cfg, log, app = self.earlier
            self.server.setup(cfg, log, app)
            self.earlier = None

    def call(self, name: str, *arguments: Any) -> None:
        """Calls the hook, if it is defined. No exception of it ends this process."""
        hook = self.hooks.get(name)
        if hook is None:
            return
        before = logging_state()
        try:
            hook(*arguments)
        except BaseException:
            self.server.log.exception("Exception in the hook %s", name)
        self.warn_of_loggers(name, before)

    def warn_of_loggers(self, name: str, before: Dict[str, Any]) -> None:
        """Warns of loggers that workers have as they were `before`. gunicorn's workers are forks of the hooks' process."""
        for logger, state in logging_state().items():
            if state != before[logger]:
                sys.modules["mcsup_logging"].warn(
                    f"The hook {name} changes the logger {logger} of its own process only: a change at the top of the "
                    "configuration, or in post_fork, reaches the records of the workers too"
                )

    def handle(self, name: str, event: Dict[str, Any]) -> None:
        """Notes the event `name`, and calls its hook."""
        server = self.server
        if name in ("born", "adopted"):
            server.worker_age = event["age"]
            worker = Worker(server, event["pid"], event["age"])
            if name == "born":
                self.call("pre_fork", server, worker)
            server.WORKERS[worker.pid] = worker
        elif name == "restore":
            self.restore()
        elif name == "ended":
            worker = server.WORKERS.pop(event["pid"], None) or Worker(server, event["pid"], event["age"])
            self.call("child_exit", server, worker)
        elif name == "workers":
            old, server.num_workers = event["old"], event["new"]
            self.call("nworkers_changed", server, server.num_workers, old)
        elif name == "listening":
            server.LISTENERS[:] = [Listener(address) for address in event["addresses"]]
        else:
            self.call(name, server)


def hooks_of(namespace: Dict[str, Any]) -> Dict[str, Callable[..., Any]]:
    """The hooks among the variables of a configuration."""
    defined = {name: namespace[name] for name in ARITIES if namespace.get(name) is not None}
    return {name: imported(hook) if isinstance(hook, str) else hook for name, hook in defined.items()}


def logging_state() -> Dict[str, Any]:
    """The state of gunicorn's loggers."""
    found: Dict[str, Any] = sys.modules["mcsup_logging"].states()
    return found


def imported(name: str) -> Callable[..., Any]:
    """The function with a dotted name."""
    import importlib

    module, _, attribute = name.rpartition(".")
    found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return found
