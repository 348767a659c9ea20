"""The settings as hooks read them: `server.cfg` and `worker.cfg`."""

import os
from typing import Any, Dict, List, Tuple, Union


# Those that configurations read, for names that neither mcsup nor the configuration has.
DEFAULTS: Dict[str, Any] = {
    "accesslog": None,
    "backlog": 2048,
    "bind": ["127.0.0.1:8000"],
    "certfile": None,
    "chdir": os.getcwd(),
    "daemon": False,
    "errorlog": "-",
    "graceful_timeout": 30,
    "keepalive": 2,
    "keyfile": None,
    "loglevel": "info",
    "max_requests": 0,
    "max_requests_jitter": 0,
    "pidfile": None,
    "preload_app": False,
    "proc_name": "mcsup",
    "pythonpath": None,
    "raw_env": [],
    "reload": False,
    "reuse_port": False,
    "statsd_host": None,
    "threads": 1,
    "timeout": 30,
    "umask": 0,
    "worker_class": "sync",
    "worker_connections": 1000,
    "worker_tmp_dir": None,
    "workers": 1,
}


class Setting:
    """One value of `cfg.settings`."""

    def __init__(self, name: str, value: Any) -> None:
        self.name = name
        self.value = value

    def get(self) -> Any:
        """The value."""
        return self.value


class Cfg:
    """The settings by gunicorn's names.

    `values` are those that mcsup has from all sources. A name that it does not have comes from `namespace`, the variables
    of the configuration file.
    """

    def __init__(self, values: Dict[str, Any], namespace: Dict[str, Any]) -> None:
        self._values = dict(values)
        self._namespace = namespace

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_"):
            for source in (self._values, self._namespace, DEFAULTS):
                if name in source:
                    return source[name]
        raise AttributeError(f"cfg has no setting {name!r}")

    def set(self, name: str, value: Any) -> None:
        """Changes a value for those that read it here; mcsup does not read it again."""
        self._values[name] = value

    @property
    def settings(self) -> Dict[str, Setting]:
        """All settings by name."""
        names = sorted(DEFAULTS.keys() | self._values.keys())
        return {name: Setting(name, getattr(self, name)) for name in names}

    @property
    def address(self) -> List[Union[str, Tuple[str, int]]]:
        """The addresses to listen on: a host and a port, or the path of a Unix socket."""
        binds = self.bind
        return [_address(bind) for bind in ([binds] if isinstance(binds, str) else binds)]

    @property
    def env(self) -> Dict[str, str]:
        """The variables of `raw_env`."""
        return dict(pair.split("=", 1) for pair in self.raw_env)

    @property
    def uid(self) -> int:
        """The user of this process."""
        return os.geteuid()

    @property
    def gid(self) -> int:
        """The group of this process."""
        return os.getegid()

    @property
    def worker_class_str(self) -> str:
        """The name of the worker class that has the same threads."""
        return "gthread" if self.threads > 1 else "sync"

    @property
    def is_ssl(self) -> bool:
        """Whether the server speaks TLS."""
        return bool(self.certfile or self.keyfile)


def _address(bind: str) -> Union[str, Tuple[str, int]]:
    if bind.startswith("unix:"):
        return bind[len("unix:") :]
    host, _, port = bind.rpartition(":")
    if not port.isdigit():
        return bind
    return (host.strip("[]"), int(port))
